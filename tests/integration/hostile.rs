//! Guests that loop, hoard, trap, lie and flood: whatever they do, the router stays, its memory stays bounded, the
//! neighbour goes on, and each message is kept with the cause.

mod files;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use quipu_client::{Client, Message, OutgoingMessage, PublisherOptions, Subscribe};
use quipu_tests::{HOSTILE_WASM, PATIENCE, TestServer, output_of, soon};
use serde_json::Value;
use tempfile::TempDir;

use crate::QUIPU;

/// One hostile guest at work, and what is to become of each message that it gets.
struct Row {
    /// Of its file, or of its act.
    name: &'static str,
    source: Source,
    ends: Ends,
}

enum Source {
    /// `tests/hostile/NAME.wat`.
    Text,
    /// `tests/guests/hostile`, in Rust, doing this.
    Act(&'static str),
    /// Made here.
    Made(fn() -> Vec<u8>),
}

enum Ends {
    /// As a dead letter with this fault, and these words in its reason.
    Dead(&'static str, &'static str),
    /// Rejected, with these words in the reason.
    Rejected(&'static str),
    /// Forwarded, after so many others were sent.
    Forwarded { emitted: u64 },
    /// Dropped.
    Dropped,
    /// Nowhere: the route waits for room in its own queue.
    Held,
}

use Ends::{Dead, Dropped, Forwarded, Held, Rejected};

const fn text(name: &'static str, ends: Ends) -> Row {
    Row { name, source: Source::Text, ends }
}

const fn act(name: &'static str, ends: Ends) -> Row {
    Row { name, source: Source::Act(name), ends }
}

const ABI: &str = "what was handed over breaks its type";

/// Those that take too much: time, memory, stack, calls, room.
const GREEDY: [Row; 27] = [
    act("loop", Dead("deadline", "plugin ran over 50 ms")),
    text("loop-realloc", Dead("deadline", "ran over 50 ms")),
    text("loop-bulk", Dead("deadline", "ran over 50 ms")),
    text("loop-calls-host", Dead("deadline", "ran over 50 ms")),
    act("allocate", Dead("memory", "memory limit of 64 MiB reached")),
    text("memory-grow", Dead("memory", "memory limit of 64 MiB reached")),
    text("memory-two", Dead("memory", "memory limit of 64 MiB reached")),
    text("table-grow", Dead("memory", "limit of 20000 table elements reached")),
    text("tables-grow", Dead("memory", "limit of 20000 table elements reached")),
    // Its own stack is at the start of its memory, and ends before that of the machine does.
    act("recursion", Dead("memory-out-of-bounds", "out of bounds memory access")),
    text("recursion", Dead("stack-overflow", "call stack exhausted")),
    Row {
        name: "resources",
        source: Source::Made(files::resources),
        ends: Dead("memory", "limit of 10000 handles of resources reached"),
    },
    text("recursion-mutual", Dead("stack-overflow", "call stack exhausted")),
    text("recursion-frames", Dead("stack-overflow", "call stack exhausted")),
    text("calls", Dead("calls", "more than 100000 calls of the router for one message")),
    text("log-flood", Dead("calls", "more than 100000 calls of the router for one message")),
    act("output", Dead("output", "too much was handed over in one call")),
    text("output-sum", Dead("output", "output limit of 4 MiB reached")),
    text("output-verdict", Dead("output", "output limit of 4 MiB reached")),
    text("list-aliased", Dead("output", "too much was handed over in one call")),
    act("emit", Rejected("no queue or route takes `flood`")),
    text("emit-flood", Forwarded { emitted: 1_024 }),
    text("emit-large", Forwarded { emitted: 3 }),
    text("emit-self", Rejected("more than 16 hops: emit-self emit-self")),
    text("emit-self-flood", Held),
    text("route-self", Rejected("more than 16 hops: route-self route-self")),
    text("retry-ever", Rejected("")),
];

/// Those that break, or break the contract's rules.
const WRONG: [Row; 43] = [
    text("trap-unreachable", Dead("unreachable", "plugin trapped")),
    text("trap-division", Dead("division-by-zero", "integer divide by zero")),
    text("trap-overflow", Dead("integer-overflow", "integer overflow")),
    text("trap-conversion", Dead("float-to-integer", "invalid conversion to integer")),
    text("trap-memory", Dead("memory-out-of-bounds", "out of bounds memory access")),
    text("trap-table", Dead("table-out-of-bounds", "out of bounds table access")),
    text("trap-null", Dead("call-to-null", "uninitialized element")),
    text("trap-signature", Dead("call-signature", "indirect call type mismatch")),
    act("panic", Dead("fault", "said by the guest")),
    act("trap", Dead("unreachable", "plugin trapped")),
    text("fault-long", Dead("fault", "bbbbbbbbbbbbbbbb")),
    text("fault-again", Dead("fault", "over and over")),
    text("text-invalid", Dead("abi", "invalid utf-8")),
    text("text-surrogate", Dead("abi", "invalid utf-8")),
    text("text-outside", Dead("abi", "out of bounds of memory")),
    text("list-2gib", Dead("abi", "out of bounds of memory")),
    text("list-4gib", Dead("abi", "out of bounds of memory")),
    text("verdict-unknown", Dead("abi", "unexpected discriminant: 9")),
    text("verdict-outside", Dead("abi", "pointer out of bounds of memory")),
    text("verdict-misaligned", Dead("abi", "pointer not aligned")),
    text("realloc-outside", Dead("abi", ABI)),
    text("realloc-calls", Dead("trap", "cannot leave component instance")),
    text("realloc-traps", Dead("unreachable", "plugin trapped")),
    text("route-nowhere", Dead("invalid-verdict", "verdict `route` to 0 subjects")),
    text("route-many", Dead("invalid-verdict", "verdict `route` to 65 subjects")),
    text("route-internal", Dead("invalid-verdict", "`$sys.health`, which is the router's own")),
    text("route-pattern", Dead("invalid-verdict", "a token is made of letters")),
    act("route", Dead("invalid-verdict", "verdict `route`: subject")),
    text("retry-huge", Dead("invalid-verdict", "it must be below 2^53")),
    text("header-router", Dead("misuse", "names that begin with `quipu-` are the router's own")),
    act("header", Dead("misuse", "names that begin with `quipu-` are the router's own")),
    text("header-id", Dead("misuse", "the id of the message in hand stays")),
    text("header-lines", Dead("misuse", "invalid value of header \"kind\": control character")),
    text("header-name", Dead("misuse", "invalid header name")),
    text("header-many", Dead("misuse", "a message has at most 64 headers")),
    text("priority", Dead("misuse", "0 to 9 are allowed")),
    text("key-long", Dead("misuse", "a key of 600 bytes; at most 512 are allowed")),
    text("payload-large", Dead("misuse", "a payload of 9000000 bytes; at most 8388608 are allowed")),
    text("reason-long", Rejected("aaaaaaaaaaaaaaaa")),
    act("reason", Dropped),
    text("reason-lines", Rejected("no")),
    act("error", Rejected("the guest's error")),
    act("calls", Dead("calls", "more than 100000 calls")),
];

/// Messages for each row.
const MESSAGES: usize = 3;

/// The most memory that a router with all of these guests may ever have had.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

#[tokio::test]
async fn guests_that_take_too_much_harm_nobody() {
    survive(&GREEDY).await;
}

#[tokio::test]
async fn guests_that_break_harm_nobody() {
    survive(&WRONG).await;
}

/// Each guest in a route of its own, all of them in one router, beside a neighbour.
async fn survive(rows: &[Row]) {
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(rows, directory.path());
    let mut server = TestServer::start_in(QUIPU, &config, directory).await;
    let client = server.client().await;
    publish(&client, rows).await;
    let letters = neighbour_until_dead(&client, rows).await;
    let counts: BTreeMap<_, _> = letters.iter().map(|(route, letters)| (route.clone(), letters.len())).collect();
    assert_eq!(counts, rows.iter().filter(|row| row.dies()).map(|row| (row.route(), MESSAGES)).collect());
    for row in rows {
        check_letters(row, letters.get(&row.route()).map_or(&[][..], Vec::as_slice));
    }
    all_counted(&server, rows).await;
    client.close().await;
    assert!(server.is_running());
    let most = server.memory_bytes_max();
    assert!(most < MEMORY_BYTES_MAX, "the router had {} MiB", most >> 20);
    assert_eq!(server.terminate().await, Some(0), "and it ends as it should");
}

/// Asks for the routes until each has counted its messages as it should: a count may come after the letter.
async fn all_counted(server: &TestServer, rows: &[Row]) {
    let mut wrong = Vec::new();
    let counted = tokio::time::timeout(PATIENCE, async {
        loop {
            let routes: Value = server.json(&["route", "list"]).await;
            let routes = routes["routes"].as_array().expect("routes");
            let is_right =
                |route: &&Value| rows.iter().all(|row| route["name"] != row.route().as_str() || row.is_counted(route));
            wrong = routes.iter().filter(|route| !is_right(route)).cloned().collect();
            if wrong.is_empty() {
                return;
            }
        }
    });
    assert!(counted.await.is_ok(), "{wrong:?}");
}

impl Row {
    /// Of its route, and of its plugin.
    fn route(&self) -> String {
        match self.source {
            Source::Text | Source::Made(_) => self.name.to_owned(),
            Source::Act(act) => format!("rust-{act}"),
        }
    }

    /// Whether the route has done with all of its messages what it is to do with them.
    fn is_counted(&self, route: &Value) -> bool {
        let counts = |what: &str, count: u64| route[what] == count;
        let messages = MESSAGES as u64;
        match self.ends {
            Dead(..) => {
                let faults = route["plugins"][0]["faults"].as_u64();
                counts("dead_lettered", messages) && counts("retried", messages) && faults == Some(2 * messages)
            }
            Rejected(_) => counts("dead_lettered", messages),
            Forwarded { emitted } => counts("forwarded", messages) && counts("outputs", messages * (emitted + 1)),
            Dropped => counts("dropped", messages) && counts("outputs", 0),
            // It has tried, and will for ever.
            Held => route["waiting_for"] == format!("bad-{}", self.route()),
        }
    }

    fn dies(&self) -> bool {
        matches!(self.ends, Dead(..) | Rejected(_))
    }
}

fn config(rows: &[Row], directory: &Path) -> String {
    let mut config =
        String::from("journal_segment = \"64MiB\"\n[queue.good]\n[queue.out]\n[queue.spill]\n[queue.graveyard]\n");
    for row in rows {
        let (route, file) = match row.source {
            Source::Text => (row.route(), files::from_text(row.name, directory)),
            Source::Act(_) => (row.route(), PathBuf::from(HOSTILE_WASM)),
            Source::Made(bytes) => (row.route(), files::write(row.name, directory, &bytes())),
        };
        // Whoever is to run into another limit has the time for it, on a slow machine too.
        let deadline = if row.name.starts_with("loop") { "50ms" } else { "20s" };
        let output = if row.name == "payload-large" { "16MiB" } else { "4MiB" };
        let room = if matches!(row.ends, Held) { "max_messages = 100" } else { "" };
        write!(
            config,
            r#"
[plugin.{route}]
file = {file:?}
deadline = "{deadline}"
output = "{output}"
[queue.bad-{route}]
{room}
[[route]]
name = "{route}"
from = "bad-{route}"
plugins = [{{ name = "{route}", config = {{ act = "{}" }} }}]
to = ["spill"]
on_error = {{ attempts = 2, backoff = ["1ms"], then = "graveyard" }}
"#,
            row.name
        )
        .expect("text");
    }
    config + NEIGHBOUR
}

const NEIGHBOUR: &str = r#"
[[route]]
name = "neighbour"
from = "good"
plugins = [{ name = "filter-json", config = { field = "n", at_least = 0 } }]
to = ["out"]
"#;

async fn publish(client: &Client, rows: &[Row]) {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    for row in rows {
        for n in 0..MESSAGES {
            let message =
                OutgoingMessage::new(&format!("bad-{}", row.route()), "{}").id(&format!("{}-{n}", row.route()));
            drop(publisher.publish(message.header("kind", "test")).await.expect("published"));
        }
    }
    publisher.close().await.expect("stored");
}

/// Sends one message after the other through the neighbour until all that is to die is dead; the letters by route.
async fn neighbour_until_dead(client: &Client, rows: &[Row]) -> BTreeMap<String, Vec<Message>> {
    let awaited = rows.iter().filter(|row| row.dies()).count() * MESSAGES;
    let all_dead = Cell::new(false);
    let funeral = async {
        let mut graveyard = client.subscribe(Subscribe::new("graveyard", "test")).await.expect("a subscriber");
        let mut letters: BTreeMap<String, Vec<Message>> = BTreeMap::new();
        for n in 0..awaited {
            let letter = soon(&format!("letter {n} of {awaited}"), graveyard.next()).await;
            let letter = letter.expect("open").expect("a letter");
            let route = letter.message.headers.first("quipu-dead-route").unwrap_or_default().to_owned();
            letters.entry(route).or_default().push(letter.message.clone());
            letter.ack().await.expect("settled");
        }
        all_dead.set(true);
        letters
    };
    let (letters, ()) = tokio::join!(funeral, neighbour(client, &all_dead));
    letters
}

/// One message after the other, each forwarded before the next is sent.
async fn neighbour(client: &Client, is_enough: &Cell<bool>) {
    const ROUND_TRIPS_MIN: usize = 20;
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let mut out = client.subscribe(Subscribe::new("out", "test")).await.expect("a subscriber");
    let mut trips = 0;
    while trips < ROUND_TRIPS_MIN || !is_enough.get() {
        let payload = format!("{{\"n\":{trips}}}");
        let message = OutgoingMessage::new("good", payload.clone());
        publisher.publish(message).await.expect("published").await.expect("stored");
        let delivery = soon("the neighbour's output", out.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, payload);
        delivery.ack().await.expect("settled");
        trips += 1;
    }
}

fn check_letters(row: &Row, letters: &[Message]) {
    let route = row.route();
    let (fault, reason) = match row.ends {
        Dead(fault, reason) => (fault, reason),
        Rejected(reason) => ("", reason),
        Forwarded { .. } | Dropped | Held => return assert!(letters.is_empty(), "{route}: {letters:?}"),
    };
    assert_eq!(letters.len(), MESSAGES, "{route}");
    for letter in letters {
        let said = |name: &str| letter.headers.first(name).unwrap_or_default();
        assert_eq!(said("quipu-dead-fault"), fault, "{route}: {letter:?}");
        assert!(said("quipu-dead-reason").contains(reason), "{route}: {letter:?}");
        assert_eq!(said("kind"), "test", "{route}: the message is as it was");
        let plugin = said("quipu-dead-plugin");
        let is_named = plugin.starts_with(&format!("{route}@")) && plugin.len() == route.len() + 9;
        // Those are given up by the router, which blames no plugin.
        assert!(is_named || ["emit-self", "route-self", "emit"].contains(&row.name), "{route}: {plugin}");
        let is_plain = |value: &str| value.len() <= 4 << 10 && !value.contains(char::is_control);
        assert!(letter.headers.iter().all(|(_, value)| is_plain(value)), "{route}: {letter:?}");
        assert_eq!(letter.headers.first("quipu-root").is_some(), letter.hops > 0, "{route}: nothing is forged");
    }
    if row.name == "panic" {
        let trace = letters[0].headers.first("quipu-dead-trace").unwrap_or_default();
        assert!(trace.contains("src/lib.rs:"), "{trace}");
    }
    if row.name == "trap-unreachable" {
        let trace = letters[0].headers.first("quipu-dead-trace").unwrap_or_default();
        assert!(trace.contains("process"), "{trace}");
    }
}

/// Does this with a neighbour that goes on beside it.
async fn beside_a_neighbour<T>(client: &Client, work: impl Future<Output = T>) -> T {
    let is_done = Cell::new(false);
    let work = async {
        let result = work.await;
        is_done.set(true);
        result
    };
    tokio::join!(work, neighbour(client, &is_done)).0
}

fn check_memory(server: &TestServer) {
    let most = server.memory_bytes_max();
    assert!(most < MEMORY_BYTES_MAX, "the router had {} MiB", most >> 20);
}

/// It keeps 1 MiB of each message: after some 60 of them there is no more, it traps, and goes on with nothing kept.
#[tokio::test]
async fn a_slow_leak_loses_no_message() {
    const COUNT: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let server = one_route("memory-leak", 2, directory).await;
    let client = server.client().await;
    publish_to(&client, COUNT).await;
    beside_a_neighbour(&client, async {
        let mut made = client.subscribe(Subscribe::new("made", "test")).await.expect("a subscriber");
        let mut came = BTreeSet::new();
        for _ in 0..COUNT {
            let delivery = soon("an output", made.next()).await.expect("open").expect("a delivery");
            assert!(came.insert(delivery.message.payload.clone()), "twice");
            delivery.ack().await.expect("settled");
        }
    })
    .await;
    let shown: Value = server.json(&["route", "show", "r"]).await;
    let faults = shown["uses"][0]["faults"].as_u64().expect("a count");
    assert!((4..=6).contains(&faults), "{shown}");
    assert_eq!(shown["route"]["dead_lettered"], 0);
    check_memory(&server);
}

#[tokio::test]
async fn a_guest_that_traps_on_each_message_costs_each_message_and_nothing_else() {
    const COUNT: usize = 300;
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = one_route("trap-unreachable", 1, directory).await;
    let client = server.client().await;
    publish_to(&client, COUNT).await;
    beside_a_neighbour(&client, async {
        let mut graveyard = client.subscribe(Subscribe::new("graveyard", "test")).await.expect("a subscriber");
        for n in 0..COUNT {
            let letter = soon("a letter", graveyard.next()).await.expect("open").expect("a letter");
            let message = &letter.message;
            assert_eq!(message.payload, n.to_string(), "in order");
            assert_eq!(message.headers.first("quipu-dead-fault"), Some("unreachable"), "{message:?}");
            letter.ack().await.expect("settled");
        }
    })
    .await;
    assert!(server.is_running());
    check_memory(&server);
}

/// A router with a route from `in` through this guest to `made`, and a neighbour.
async fn one_route(name: &str, attempts: usize, directory: TempDir) -> TestServer {
    let file = files::from_text(name, directory.path());
    let config = format!(
        "[queue.in]\n[queue.made]\n[queue.good]\n[queue.out]\n[queue.graveyard]\n[plugin.p]\nfile = {file:?}\n\
         deadline = \"20s\"\n\
         [[route]]\nname = \"r\"\nfrom = \"in\"\nplugins = [{{ name = \"p\" }}]\nto = [\"made\"]\n\
         on_error = {{ attempts = {attempts}, backoff = [\"1ms\"], then = \"graveyard\" }}\nbroken_after = 1000\n\
         {NEIGHBOUR}"
    );
    TestServer::start_in(QUIPU, &config, directory).await
}

async fn publish_to(client: &Client, count: usize) {
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    for n in 0..count {
        drop(publisher.publish(OutgoingMessage::new("in", n.to_string())).await.expect("published"));
    }
    publisher.close().await.expect("stored");
}

/// A file that does not become a plugin, and what the router says of it.
struct Refused {
    name: &'static str,
    file: File,
    says: &'static str,
}

enum File {
    /// `tests/hostile/NAME.wat`.
    Text,
    /// `tests/guests/hostile`, in Rust, doing this.
    Act,
    Made(fn() -> Vec<u8>),
    /// Longer than any.
    Endless,
}

const fn refused(name: &'static str, says: &'static str) -> Refused {
    Refused { name, file: File::Text, says }
}

const fn made(name: &'static str, file: fn() -> Vec<u8>, says: &'static str) -> Refused {
    Refused { name, file: File::Made(file), says }
}

const NO_HANDLER: &str = "does not export `quipu:plugin/handler@0.1.0";

const REFUSED: [Refused; 42] = [
    refused("start-loop", "plugin ran over 1000 ms"),
    refused("start-trap", "plugin trapped: wasm `unreachable`"),
    refused("start-memory", "memory limit of 64 MiB reached"),
    refused("configure-loop", "plugin ran over 1000 ms"),
    refused("configure-trap", "plugin trapped: wasm `unreachable`"),
    refused("configure-reads", "no message in hand"),
    refused("configure-emits", "no message in hand"),
    refused("configure-floods", "more than 100000 calls of the router"),
    refused("configure-garbage", "invalid utf-8"),
    Refused { name: "configure-loop", file: File::Act, says: "plugin ran over 1000 ms" },
    Refused { name: "configure-error", file: File::Act, says: "refuses its configuration: act: refused, as asked" },
    Refused { name: "configure-panic", file: File::Act, says: "said by the guest in configure" },
    refused("memory-initial", "memory limit of 64 MiB reached"),
    refused("memory-many", "linear memories; a plugin has at most 8"),
    refused("memory-shared", "threads must be enabled"),
    refused("memory-64", "memory64 must be enabled"),
    refused("table-initial", "has 10000000 elements in one table; a plugin has at most 20000"),
    refused("table-many", "has 60 tables; a plugin has at most 32"),
    refused("data-outside", "out of bounds memory access"),
    refused("elements-outside", "out of bounds table access"),
    made("empty", Vec::new, "is not WebAssembly: it is empty"),
    made("script", || b"#!/bin/sh\nrm -rf /\n".to_vec(), "is not WebAssembly: it begins with \"#!/bin/s\""),
    made("cut-module", || cut(std::fs::read(HOSTILE_WASM).expect("the guest")), "is damaged"),
    made("cut-component", || cut(files::doubling(5)), "is damaged"),
    Refused { name: "endless", file: File::Endless, says: "has more than 67108864 bytes, which is the most" },
    made("nothing", || files::wat("(component)"), NO_HANDLER),
    made("command", || files::wat("(module (func (export \"_start\")))"), NO_HANDLER),
    made("browser", || files::wat("(module (import \"env\" \"abort\" (func)))"), "imports `env::abort`"),
    made(
        "server",
        || files::wat("(component (import \"wasi:http/types@0.2.0\" (instance)))"),
        "imports `wasi:http/types@0.2.0`, which the router does not offer",
    ),
    made("nested", || files::nested(1_000), "components inside of each other; a plugin has at most"),
    made(
        "nested-types",
        || files::nested_types(5_000_000),
        "types of components inside of others; a plugin has at most",
    ),
    made("doubling", || files::doubling(40), "instances of components and modules; a plugin has at most 256"),
    made("doubling-types", || files::doubling_types(60), "is damaged"),
    made("long-function", || files::long_function(2 << 20), "bytes in one function; a plugin has at most 1048576"),
    made("many-functions", || files::many_functions(1_000_000), "1000000 functions; a plugin has at most 200000"),
    made("many-locals", || files::many_locals(1_000), "local variables; a plugin has at most 10000000"),
    made("deep-blocks", || files::deep_function(300_000), "blocks inside of each other in one function"),
    made("wide-jump", || files::component_of(&files::wide_jump(1_000_000)), "has 1000000 targets"),
    // Within every limit, and compiled to the end.
    made("some-blocks", || files::component_of(&files::deep_function(4_000)), NO_HANDLER),
    made("some-targets", || files::component_of(&files::wide_jump(60_000)), NO_HANDLER),
    made("some-locals", || files::component_of(&files::many_locals(20)), NO_HANDLER),
    made("some-functions", || files::component_of(&files::many_functions(5_000)), NO_HANDLER),
];

fn cut(mut whole: Vec<u8>) -> Vec<u8> {
    whole.truncate(whole.len() * 2 / 3);
    whole
}

impl Refused {
    fn file(&self, directory: &Path) -> PathBuf {
        match self.file {
            File::Text => files::from_text(self.name, directory),
            File::Act => PathBuf::from(HOSTILE_WASM),
            File::Made(bytes) => files::write(self.name, directory, &bytes()),
            File::Endless => files::endless(directory),
        }
    }
}

/// A file that crashed the router would end `check` by a signal, without a word of what is wrong.
#[tokio::test]
async fn files_that_are_no_plugins_are_refused_by_what_is_wrong_with_them() {
    for row in &REFUSED {
        let Refused { name, says, .. } = row;
        let directory = tempfile::tempdir().expect("a directory");
        let file = row.file(directory.path());
        let config = format!(
            "[queue.in]\n[queue.out]\n[plugin.p]\nfile = {file:?}\ndeadline = \"1s\"\n\
             [[route]]\nname = \"r\"\nfrom = \"in\"\nplugins = [{{ name = \"p\", config = {{ act = {name:?} }} }}]\nto = [\"out\"]\n"
        );
        std::fs::write(directory.path().join("quipu.toml"), config).expect("written");
        let (code, _, said) = output_of(QUIPU, directory.path(), &["check"]).await;
        assert!(code.is_some_and(|code| code > 0), "{name}: {code:?}: {said}");
        assert!(said.contains(says), "{name}: {said}");
        assert!(said.len() < 4 << 10, "{name}: {} bytes", said.len());
    }
}

/// The same files for a router at work: it takes none of them in, names what is wrong, and serves what it served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_plugins_are_not_deployed_and_what_serves_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let forwards = files::write("forwards", directory.path(), &files::wat(FORWARDS));
    let mut config = format!(
        "[queue.in]\n[queue.made]\n[queue.good]\n[queue.out]\n[plugin.p]\nfile = {forwards:?}\ndeadline = \"1s\"\n{NEIGHBOUR}"
    );
    let acts = || REFUSED.iter().filter(|row| matches!(row.file, File::Act)).map(|row| row.name);
    for act in acts().chain(["r"]) {
        // Only the last reads what is published.
        let from = if act == "r" { "in".to_owned() } else { format!("in-{act}") };
        if act != "r" {
            writeln!(config, "[queue.{from}]").expect("a text");
        }
        write!(
            config,
            "[[route]]\nname = {act:?}\nfrom = {from:?}\nto = [\"made\"]\n\
             plugins = [{{ name = \"p\", config = {{ act = {act:?} }} }}]\n"
        )
        .expect("a text");
    }
    let server = TestServer::start_in(QUIPU, &config, directory).await;
    let served = server.cli(&["route", "list", "--json"]).await;
    let client = server.client().await;
    let none_is_deployed = async {
        for (n, row) in REFUSED.iter().enumerate() {
            is_not_deployed(&server, row, &n.to_string()).await;
        }
    };
    beside_a_neighbour(&client, none_is_deployed).await;
    assert_eq!(plugins_of(&server.cli(&["route", "list", "--json"]).await), plugins_of(&served));
    check_memory(&server);
    publish_to(&client, 3).await;
    let mut subscriber = client.subscribe(Subscribe::new("made", "s")).await.expect("a subscriber");
    for n in 0..3 {
        let delivery = soon("a delivery", subscriber.next()).await.expect("open").expect("a delivery");
        assert_eq!(delivery.message.payload, n.to_string());
    }
}

async fn is_not_deployed(server: &TestServer, row: &Refused, tag: &str) {
    let Refused { name, says, .. } = row;
    let file = row.file(server.directory());
    let push = ["plugin", "push", file.to_str().expect("text"), "--name", "p", "--tag", tag];
    let mut output = server.cli_output(&push).await;
    if output.status.success() {
        let route = if matches!(row.file, File::Act) { name } else { "r" };
        output = server.cli_output(&["plugin", "deploy", &format!("p@{tag}"), "--route", route]).await;
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{name}: {said}");
    // By its size alone a file is refused before it is sent.
    let says = if *name == "empty" { "a plugin has 1 to 67108864" } else { says };
    assert!(said.contains(says), "{name}: {said}");
}

/// The least that a plugin can be.
const FORWARDS: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
  (func (export "quipu:plugin/handler@0.1.0#configure") (result i32) (i32.const 0))
  (func (export "quipu:plugin/handler@0.1.0#process") (result i32) (i32.const 0)))"#;

/// Which files the routes serve.
fn plugins_of(listing: &str) -> Vec<Value> {
    let listing: Value = serde_json::from_str(listing).expect("JSON");
    let routes = listing["routes"].as_array().expect("routes");
    routes.iter().map(|route| route["plugins"][0]["digest"].clone()).collect()
}

/// What is in the folder is tried, and what is tried is there.
#[test]
fn every_guest_of_the_folder_has_its_row() {
    let at_work = GREEDY.iter().chain(&WRONG).filter(|row| matches!(row.source, Source::Text)).map(|row| row.name);
    let refused = REFUSED.iter().filter(|row| matches!(row.file, File::Text)).map(|row| row.name);
    let rows: BTreeSet<String> = at_work.chain(refused).chain(["memory-leak"]).map(Into::into).collect();
    assert_eq!(rows, files::names().into_iter().collect());
}
