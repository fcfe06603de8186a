//! Sessions of an author who writes Rust, as they go from nothing to a plugin that serves.

use std::process::Stdio;

use expect_test::expect;
use quipu_client::{OutgoingMessage, PublisherOptions, Subscribe};
use quipu_tests::{TestServer, quipu, soon};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{check, masked};
use crate::QUIPU;
use crate::author::Author;

const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/author");

#[tokio::test]
async fn a_first_filter_passes_its_tests_and_a_change_fails_them() {
    let author = Author::with("first-filter").await;
    check(
        &author.done(&["plugin", "test", "first-filter"]).await,
        &expect![[r#"
        build   first-filter N.N.N  rust  DIGEST  N KiB  needs nothing  N µs
          ok    forwards N.N                                                     forward  N µs
          ok    drops N.N                                                        drop "small"  N µs
          ok    rejects a message without properties.mag                         reject "properties.mag: absen…  N µs
        N passed, N failed           limits as in production: N µs, N MiB
    "#]],
    );
    author.edit("first-filter/src/lib.rs", "magnitude >=", "magnitude <");
    let failed = author.said(&["plugin", "test", "first-filter"]).await;
    assert_eq!(failed.code, Some(1), "{}{}", failed.stdout, failed.stderr);
    check(
        &failed.stdout,
        &expect![[r#"
        build   first-filter N.N.N  rust  DIGEST  N KiB  needs nothing  N µs
          FAIL  forwards N.N                                                     first-filter/tests/first.toml:N
                verdict   - forward                                              + drop "small"
                input     {"id":"akN","properties":{"mag":N.N,"place":"N km SE of Nanwalek, Alaska"}}
                again     quipu plugin run first-filter/.quipu/first-filter.wasm --capsule first-filter/.quipu/failed/forwards-N.N --trace
          FAIL  drops N.N                                                        first-filter/tests/first.toml:N
                verdict   - drop                                                 + forward
                reason    - "small" in it                                        + ""
                input     {"id":"ncN","properties":{"mag":N.N,"place":"N km W of Cobb, California"}}
                again     quipu plugin run first-filter/.quipu/first-filter.wasm --capsule first-filter/.quipu/failed/drops-N.N --trace
          ok    rejects a message without properties.mag                         reject "properties.mag: absen…  N µs
        N passed, N failed           limits as in production: N µs, N MiB
    "#]],
    );
    // What does not compile is the compiler's to say, and the file of before is still there.
    author.edit("first-filter/src/lib.rs", "magnitude <", "magnitude <>");
    let broken = author.said(&["plugin", "test", "first-filter"]).await;
    assert_eq!(broken.code, Some(1));
    assert!(broken.stderr.contains("--> src/lib.rs:"), "{}", broken.stderr);
    assert!(author.path("first-filter/.quipu/first-filter.wasm").exists());
}

#[tokio::test]
async fn a_fault_shows_the_place_and_the_functions() {
    let author = Author::with("faulty-filter").await;
    author.edit(
        "faulty-filter/src/lib.rs",
        "message.json_at(\"properties.mag\")?",
        "message.json_at(\"properties.mag\").unwrap()",
    );
    let mut command = quipu(QUIPU, &author.path("faulty-filter"));
    command.env("CARGO_TARGET_DIR", TARGET).args(["plugin", "run", "."]);
    command.stdin(std::fs::File::open(author.path("faulty-filter/sample.ndjson")).expect("the sample"));
    let output = command.output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    check(
        &String::from_utf8_lossy(&output.stdout),
        &expect![[r#"
        {"id":"akN","verdict":"forward","ns":N}
        {"id":"ncN","verdict":"drop","reason":"small","ns":N}
        {"id":"usN","verdict":"forward","ns":N}
        {"id":"ciN","verdict":"fault","fingerprint":"DIGEST","kind":"fault","reason":"called `Result::unwrap()` on an `Err` value: Absent { path: \"properties.mag\", problem: \"\\\"properties\\\" has no \\\"mag\\\"\" }","ns":N}
    "#]],
    );
    let error = masked(&String::from_utf8_lossy(&output.stderr));
    assert!(error.contains("fault     panic at src/lib.rs:N:N: called `Result::unwrap()`"), "{error}");
    assert!(error.contains("again     quipu plugin run .quipu/faulty-filter.wasm --capsule .quipu/failed/"), "{error}");
}

#[tokio::test]
async fn a_saved_change_is_built_tested_and_deployed_and_a_broken_one_is_not() {
    let author = Author::with("swapped-filter").await;
    let config = "[queue.q]\n[queue.out]\n[[route]]\nname = \"r\"\nfrom = \"q\"\n\
                  plugins = [{ name = \"swapped-filter\", config = { at_least = 4.5 } }]\nto = [\"out\"]\n";
    let server = TestServer::start(QUIPU, config).await;
    let mut command = quipu(QUIPU, server.directory());
    command.env("QUIPU_SERVER", server.address()).env("CARGO_TARGET_DIR", TARGET);
    command.args(["plugin", "dev"]).arg(author.path("swapped-filter")).args(["--route", "r"]);
    let mut dev = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(dev.stdout.take().expect("piped")).lines();
    let mut until = async |part: &str| loop {
        // A first build compiles the SDK.
        let line = tokio::time::timeout(std::time::Duration::from_mins(10), said.next_line()).await;
        let line = line.expect("in time").expect("text").expect("a line");
        if line.contains(part) {
            return line;
        }
    };
    let first = until("serving   ").await;
    assert!(first.contains("(probed)"), "{first}");
    until("watching  ").await;

    let client = server.client().await;
    let mut out = client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber");
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let publish = async |id: &str| {
        let message = OutgoingMessage::new("q", "{\"properties\":{\"mag\":4.6}}").id(id);
        publisher.publish(message).await.expect("published").await.expect("stored");
    };
    publish("before").await;
    let delivery = soon("a delivery", out.next()).await.expect("open").expect("a delivery");
    assert_eq!(delivery.message.headers.first("quipu-parent"), Some("before"));
    delivery.ack().await.expect("settled");

    // What fails its tests is not deployed.
    author.edit("swapped-filter/src/lib.rs", "magnitude >=", "magnitude <");
    until("changed   src/lib.rs").await;
    until("2 failed").await;
    until("watching  ").await;
    publish("still").await;
    let delivery = soon("a delivery", out.next()).await.expect("open").expect("a delivery");
    assert_eq!(delivery.message.headers.first("quipu-parent"), Some("still"));
    delivery.ack().await.expect("settled");

    author.edit("swapped-filter/src/lib.rs", "magnitude <", "magnitude >=");
    author.edit("swapped-filter/src/lib.rs", "forward()", "{ message.set_header(\"by\", \"two\"); forward() }");
    let swap = until("swap      ").await;
    assert!(swap.contains(" → "), "{swap}");
    until("watching  ").await;
    publish("after").await;
    let delivery = soon("a delivery", out.next()).await.expect("open").expect("a delivery");
    let header = |name| delivery.message.headers.first(name);
    assert_eq!((header("quipu-parent"), header("by")), (Some("after"), Some("two")));
    delivery.ack().await.expect("settled");
    let pid = dev.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::INT).expect("sent");
    assert_eq!(soon("the end", dev.wait()).await.expect("waited").code(), Some(0), "Ctrl-C ends it");
}
