//! Sessions of an author who writes Rust, as they go from nothing to a plugin that serves.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use expect_test::expect;
use quipu_client::{OutgoingMessage, PublisherOptions, Subscribe};
use quipu_tests::{TestServer, quipu, soon};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::check;
use crate::QUIPU;
use crate::author::Author;
use crate::languages::Language;
use crate::plugins::wasm;

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
    // What the build gave has the project's configuration, wherever one stands.
    let file = "first-filter/.quipu/first-filter.wasm";
    author.done(&["plugin", "run", file]).await;
    std::fs::copy(author.path(file), author.path("other.wasm")).expect("copied");
    let error = author.refused(1, &["plugin", "run", "other.wasm"]).await;
    assert!(error.ends_with("its configuration: -c KEY=VALUE, --config FILE\n"), "{error}");
    let error = author.refused(1, &["plugin", "run", file, "-c", "at_least=big"]).await;
    assert!(error.ends_with("-c KEY=VALUE, --config FILE, [config] of plugin.toml\n"), "{error}");
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
    check(
        &String::from_utf8_lossy(&output.stderr),
        &expect![[r#"
            fault     panic at src/lib.rs:N:N: called `Result::unwrap()` on an `Err` value: Absent { path: "properties.mag", problem: "\"properties\" has no \"mag\"" }
                      N runtime frames: --trace  (lines need build --debug)
                      a route tries it again; a message that lacks a field is rejected where it is read by path: json_at, jsonAt
            message   ciN  test  N bytes      plugin faulty-filter@DIGEST   config NeN   used N.N of N µs, N.N of N MiB
            again     quipu plugin run .quipu/faulty-filter.wasm --capsule .quipu/failed/ciN
        "#]],
    );
}

/// A folder whose programs answer with their version when they are asked, and can do nothing else.
fn programs(directory: &Path, names: &[(&str, &str)]) -> PathBuf {
    let folder = directory.join("programs");
    std::fs::create_dir_all(&folder).expect("made");
    for (name, says) in names {
        let file = folder.join(name);
        std::fs::write(&file, format!("#!/bin/sh\necho {says}\n")).expect("written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("set");
    }
    folder
}

#[tokio::test]
async fn what_a_new_project_lacks_is_told_with_where_it_goes() {
    let author = Author::new();
    let path = programs(&author.path(""), &[("python3", "Python 3.12.3"), ("node", "v22.1.0"), ("npm", "10.2.3")]);
    let new = async |name: &str, language: &str| {
        let said = author.run(&["plugin", "new", name, "--lang", language], &[("PATH", &path)]).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        said.stdout
    };
    let said = new("quakes-py", "python").await + &new("quakes-js", "js").await + &new("quakes", "rust").await;
    expect![[r#"
        Created quakes-py: app.py  plugin.toml  tests/first.toml  sample.ndjson
        Missing componentize-py (PyPI). Next: quipu plugin doctor --install     goes into quakes-py/.quipu, nowhere else
        Created quakes-js: plugin.js  plugin.toml  tests/first.toml  sample.ndjson
        Missing esbuild (npm), componentize-qjs (npm). Next: quipu plugin doctor --install     goes into quakes-js/.quipu, nowhere else
        Created quakes: src/lib.rs  plugin.toml  tests/first.toml  sample.ndjson
        Missing cargo (system), wasm32-unknown-unknown (rustup). Next: quipu plugin doctor     says where each is had from
    "#]].assert_eq(&said);
}

#[tokio::test]
async fn what_one_registry_does_not_give_keeps_no_other() {
    let author = Author::new();
    let path = programs(&author.path(""), &[("node", "v22.1.0"), ("npm", "10.2.3")]);
    // As that of Debian without its package python3-venv, which says why on standard output.
    let python =
        "#!/bin/sh\n[ \"$1\" = --version ] && echo Python 3.12.3 && exit\necho ensurepip is not available\nexit 1\n";
    std::fs::write(path.join("python3"), python).expect("written");
    std::fs::set_permissions(path.join("python3"), Permissions::from_mode(0o755)).expect("set");
    let said = author.run(&["plugin", "doctor", "--install"], &[("PATH", &path)]).await;
    assert_eq!(said.code, Some(1));
    for part in [
        "needs rustup, which gets the standard library for wasm32-unknown-unknown; get it: https://rustup.rs",
        "ensurepip is not available\n",
        "python3 -m venv",
        "failed; its own words are above",
        // It says that all is well. What npm keeps goes nowhere else either.
        "/.quipu/tools/npm-cache --save-exact",
        "went well, but there is still no",
    ] {
        assert!(said.stderr.contains(part), "{part:?} is missing: {}", said.stderr);
    }
    assert!(said.stdout.starts_with("TOOL ") && said.stdout.contains("componentize-py"), "{}", said.stdout);
}

#[tokio::test]
async fn a_key_error_of_python_shows_the_line() {
    let Some(language) = Language::at_hand("python").await else { return };
    language.good(&["plugin", "new", "quakes-py", "--lang", "python"], "").await;
    language.give_time("quakes-py", "10s");
    let source = "from quipu import plugin, forward, drop\n\n@plugin\ndef process(message, config):\n    \
                  magnitude = message.json[\"properties\"][\"mag\"]\n    \
                  return forward() if magnitude >= config[\"at_least\"] else drop(\"small\")\n";
    std::fs::write(language.path("quakes-py/app.py"), source).expect("written");
    let sample = std::fs::read_to_string(language.path("quakes-py/sample.ndjson")).expect("a sample");
    let (code, lines, said) = language.said(&["plugin", "run", "quakes-py"], &sample).await;
    assert_eq!(code, Some(1), "{lines}{said}");
    check(
        &lines,
        &expect![[r#"
        {"id":"akN","verdict":"forward","ns":N}
        {"id":"ncN","verdict":"drop","reason":"small","ns":N}
        {"id":"usN","verdict":"forward","ns":N}
        {"id":"ciN","verdict":"fault","fingerprint":"DIGEST","kind":"fault","reason":"KeyError: 'mag' (app.py:N in process)","ns":N}
    "#]],
    );
    check(
        &said,
        &expect![[r#"
        fault     KeyError: 'mag' (app.py:N in process)
                  File "app.py", line N, in process
                      magnitude = message.json["properties"]["mag"]
                  a route tries it again; a message that lacks a field is rejected where it is read by path: json_at, jsonAt
        message   ciN  test  N bytes      plugin quakes-py@DIGEST   config NeN   used N.N of N µs, N.N of N MiB
        again     quipu plugin run quakes-py/.quipu/quakes-py.wasm --capsule quakes-py/.quipu/failed/ciN
    "#]],
    );
}

#[tokio::test]
async fn an_exception_of_javascript_shows_the_line() {
    let Some(language) = Language::at_hand("js").await else { return };
    language.good(&["plugin", "new", "quakes-js", "--lang", "js"], "").await;
    language.give_time("quakes-js", "10s");
    let source = "import { forward, drop } from \"quipu\";\n\nexport function process(message, config) {\n  \
                  const { mag } = message.json.place.properties;\n  \
                  return mag >= config.at_least ? forward() : drop(\"small\");\n}\n";
    std::fs::write(language.path("quakes-js/plugin.js"), source).expect("written");
    let (code, lines, said) = language.said(&["plugin", "run", "quakes-js"], "{\"id\":\"ak0247\"}\n").await;
    assert_eq!(code, Some(1), "{lines}{said}");
    check(
        &lines,
        &expect![[r#"
        {"id":"akN","verdict":"fault","fingerprint":"DIGEST","kind":"fault","reason":"TypeError: cannot read property 'properties' of undefined (plugin.js:N:N)","ns":N}
    "#]],
    );
    check(
        &said,
        &expect![[r#"
        fault     TypeError: cannot read property 'properties' of undefined (plugin.js:N:N)
                  at process (plugin.js:N:N)
                      | const { mag } = message.json.place.properties;
                  a route tries it again; a message that lacks a field is rejected where it is read by path: json_at, jsonAt
        message   akN  test  N bytes      plugin quakes-js@DIGEST   config NeN   used N.N of N µs, N.N of N MiB
        again     quipu plugin run quakes-js/.quipu/quakes-js.wasm --capsule quakes-js/.quipu/failed/akN
    "#]],
    );
}

#[tokio::test]
async fn a_version_takes_the_place_of_another_and_goes_back() {
    let config = "[queue.q]\n[queue.out]\n[[route]]\nname = \"alert\"\nfrom = \"q\"\n\
                  plugins = [{ name = \"big-quakes\" }]\nto = [\"out\"]\n";
    let server = TestServer::start(QUIPU, config).await;
    let file = |text: &str| {
        let file = server.directory().join(text);
        std::fs::write(&file, wasm(text, "(i32.const 0)")).expect("written");
        file.display().to_string()
    };
    let (old, new) = (file("old"), file("new"));
    server.cli(&["plugin", "push", &old, "--name", "big-quakes", "--tag", "1.4.2"]).await;
    let pushed = server.cli(&["plugin", "push", &new, "--name", "big-quakes", "--tag", "1.5.0"]).await;
    check(
        &pushed,
        &expect![[r#"
        pushed big-quakes@N.N.N (DIGEST), N cases
        next: quipu plugin deploy big-quakes@N.N.N --route ROUTE
    "#]],
    );
    let deployed = server.cli(&["plugin", "deploy", "big-quakes@1.4.2", "--route", "alert"]).await
        + &server.cli(&["plugin", "deploy", "big-quakes@1.5.0", "--route", "alert"]).await
        + &server.cli(&["plugin", "rollback", "big-quakes", "--route", "alert"]).await;
    check(
        &deployed,
        &expect![[r#"
        compile   kept    configure ok    self-test no cases
        swap      N.N.N → N.N.N at q offset N        drained N in flight in N µs
        check     in N = delivered N + dropped N + dead N + pending N           lost N, twice N
        serving   DIGEST (probed)            undo: quipu plugin rollback big-quakes --route alert
        compile   kept    configure ok    self-test no cases
        swap      N.N.N → N.N.N at q offset N        drained N in flight in N µs
        check     in N = delivered N + dropped N + dead N + pending N           lost N, twice N
        serving   DIGEST (probed)            undo: quipu plugin rollback big-quakes --route alert
        compile   kept    configure ok    self-test no cases
        swap      N.N.N → N.N.N at q offset N        drained N in flight in N µs
        check     in N = delivered N + dropped N + dead N + pending N           lost N, twice N
        serving   DIGEST (probed)            undo: quipu plugin rollback big-quakes --route alert
    "#]],
    );
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
