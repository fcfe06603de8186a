//! The configuration as its writers meet it: text in, problems out.

use expect_test::{Expect, expect};
use quipu_queue::OnFull;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "quipu.toml", Path::new("/etc/quipu")).map_err(|e| e.to_string())
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Refused with this one line, after the file's name.
fn check(text: &str, expected: &str) {
    assert_eq!(parse(text).expect_err("refused"), format!("quipu.toml:{expected}"));
}

/// Refused with several lines.
fn check_all(text: &str, expected: &Expect) {
    expected.assert_eq(&parse(text).expect_err("refused"));
}

/// A route from `q`, which is there as is `out`, with more keys.
fn with_route(keys: &str) -> String {
    format!("[queue.q]\n[queue.out]\n[[route]]\nname = \"r\"\nfrom = \"q\"\n{keys}")
}

const QUAKES: &str = r#"
[listen]
quic = "127.0.0.1:4433"
[store]
path = "data"

[queue.quakes]
subjects = ["quakes.raw"]
[queue.alerts]
max_attempts = 5
dead_letter = "alerts-dead"
[queue."region.us"]
subjects = ["region.ak"]
[queue.other]
subjects = ["region.other", "set-aside"]

[[route]]
name = "regions"
from = "quakes"
start = "first"
when = 'headers["type"] == "earthquake"'
else = ["set-aside"]
plugins = [
  { name = "filter-json", config = { field = "properties.mag", at_least = 2.5 } },
  { name = "redact-json", config = { fields = ["properties.detail", "properties.url"] } },
  { name = "route-by-field", config = { field = "properties.net", table = { ak = "region.ak", us = "region.us" }, otherwise = "region.other" } },
]
to = ["region.other", "region.{header.net}"]
on_error = { attempts = 5, backoff = ["100ms", "1s", "10s"], then = "quakes-dead" }

[[route]]
name = "alerts"
from = "quakes"
start = "new"
plugins = [{ name = "filter-json", config = { field = "properties.mag", at_least = 4.5 } }]
to = ["alerts"]
"#;

const MUCH_WRONG: &str = r#"[listen]
quic = "localhost"
grace = "11s"
[store]
journal_segments = 17
journal_segment = "2GiB"
[plugins]
workers = 0
[plugin."a.b"]
deadline = "0ms"
memory = "1KiB"
output = "65MiB"
[queue.q]
subjects = ["a.>.b", "fine", "a b"]
max_attempts = 1001
backoff = ["1s", "2days"]
dead_letter = "q"
[queue."$own"]
[queue."a..b"]
[[route]]
name = "a route"
from = "queue"
[[route]]
name = "r"
from = "q"
when = " "
to = ["a b", "x.{id}", "x.{key}"]
on_error = { attempts = 0, then = "q" }
[[route]]
name = "r"
on = "quakes.>"
else = ["x"]
plugins = [{ name = "" }]
[[route]]
name = "s"
to = ["x"]
"#;

#[test]
fn takes_the_example() {
    let config = good(QUAKES);
    assert_eq!(config.listen.quic, ([127, 0, 0, 1], 4433).into());
    assert_eq!(config.store.path, Path::new("/etc/quipu/data"));
    let queues: Vec<String> =
        config.queues.iter().map(|q| format!("{} {:?} {:?}", q.name, q.subjects, q.dead_letter)).collect();
    expect![[r#"
        alerts [] Some("alerts-dead")
        other ["region.other", "set-aside"] Some("other-dead")
        quakes ["quakes.raw"] Some("quakes-dead")
        region.us ["region.ak"] Some("region.us-dead")"#]]
    .assert_eq(&queues.join("\n"));
    let [regions, alerts] = &config.routes[..] else { panic!("two routes") };
    assert_eq!(
        (regions.name.as_str(), regions.queue().map(Subject::as_str), regions.start),
        ("regions", Some("quakes"), Start::First)
    );
    assert_eq!(regions.when.as_deref(), Some("headers[\"type\"] == \"earthquake\""));
    assert_eq!(
        format!("{:?} else {:?}", regions.to, regions.otherwise),
        r#"["region.other", "region.{header.net}"] else ["set-aside"]"#
    );
    let json: Vec<String> = regions.plugins.iter().map(|plugin| format!("{} {}", plugin.name, plugin.config)).collect();
    expect![[r#"
        filter-json {"at_least":2.5,"field":"properties.mag"}
        redact-json {"fields":["properties.detail","properties.url"]}
        route-by-field {"field":"properties.net","otherwise":"region.other","table":{"ak":"region.ak","us":"region.us"}}"#]]
    .assert_eq(&json.join("\n"));
    assert_eq!(regions.on_error.then, Subject::new("quakes-dead").ok());
    assert_eq!((alerts.start, alerts.on_error.attempts_max, &alerts.on_error.then), (Start::New, 5, &None));
}

#[test]
fn nothing_said_is_enough() {
    let config = good("");
    assert_eq!(config.listen, ListenConfig { quic: ([127, 0, 0, 1], 4433).into(), grace: Duration::from_secs(8) });
    let store = StoreConfig {
        path: "/etc/quipu/data".into(),
        journal_segments: 4,
        journal_segment_bytes: 32 << 20,
        memory_bytes: 64 << 20,
        disk_reserve_bytes: 64 << 20,
    };
    assert_eq!((config.store, config.limits), (store, LimitsConfig::default()));
    assert_eq!((config.tls, config.plugins.dir), (None, None));
    assert!(config.plugins.workers >= 2);
}

#[test]
fn takes_limits_in_units() {
    let config = good(
        r#"
        [listen]
        quic = "[::]:0"
        grace = "1s 500ms"
        [tls]
        certificate = "tls/chain.pem"
        key = "/secret/key.pem"
        client_ca = "clients.pem"
        [user.anonymous]
        publish = ["quakes.>"]
        [store]
        journal_segments = 2
        journal_segment = "1MiB"
        memory = 1000
        [plugins]
        dir = "plugins"
        workers = 3
        [plugin.filter-json]
        deadline = "1ms"
        [plugin.mine]
        file = "mine.wasm"
        deadline = "1min"
        memory = "4GiB"
        output = "512KiB"
        "#,
    );
    assert_eq!(config.listen.grace, Duration::from_millis(1_500));
    let tls = TlsFiles {
        certificate: "/etc/quipu/tls/chain.pem".into(),
        key: "/secret/key.pem".into(),
        client_ca: Some("/etc/quipu/clients.pem".into()),
    };
    assert_eq!(config.tls, Some(tls));
    let store = (config.store.journal_segments, config.store.journal_segment_bytes, config.store.memory_bytes);
    assert_eq!(store, (2, 1 << 20, 1_000));
    assert_eq!((config.plugins.dir, config.plugins.workers), (Some("/etc/quipu/plugins".into()), 3));
    let stock = PluginConfig { deadline: Duration::from_millis(1), ..PluginConfig::default() };
    assert_eq!(config.plugin["filter-json"], stock);
    let mine = PluginConfig {
        file: Some("/etc/quipu/mine.wasm".into()),
        deadline: Duration::from_secs(60),
        memory_bytes: 4 << 30,
        output_bytes: 512 << 10,
        ..PluginConfig::default()
    };
    assert_eq!(config.plugin["mine"], mine);
}

#[test]
fn queues_of_dead_letters_end_there() {
    let config = good(
        r#"
        [queue.a]
        dead_letter = "shared"
        [queue.a-dead]          # of nobody: `a` says otherwise
        [queue.shared]
        [queue.b]
        [queue.b-dead]
        max_attempts = 7
        [queue.b-dead-dead]
        [queue.c]
        max_attempts = 0
        backoff = []
        [[route]]
        name = "r"
        from = "a"
        to = ["b"]
        on_error = { then = "c" }
        "#,
    );
    let queues: Vec<String> =
        config.queues.iter().map(|q| format!("{} {} {:?}", q.name, q.attempts_max, q.dead_letter)).collect();
    expect![[r#"
        a 5 Some("shared")
        a-dead 5 Some("a-dead-dead")
        b 5 Some("b-dead")
        b-dead 7 None
        b-dead-dead 5 Some("b-dead-dead-dead")
        c 0 None
        shared 0 None"#]]
    .assert_eq(&queues.join("\n"));
    let backoff = |name: &str| config.queues.iter().find(|q| q.name.as_str() == name).map(|q| q.backoff.len());
    assert_eq!((backoff("a"), backoff("c")), (Some(3), Some(0)));
}

#[test]
fn queues_promise_keep_and_hold_what_they_say() {
    let config = good(
        r#"
        [store]
        disk_reserve = "1MiB"
        [limits]
        sessions = 16
        publishers = 8
        consumers = 4
        requests = 2
        connection_window = "1MiB"
        message = "256KiB"
        ingest = "16MiB"
        [queue.a]
        durability = "buffered"
        retention = "log"
        retention_age = "7days"
        retention_bytes = "1GiB"
        retention_messages = 1000
        [queue.b]
        durability = "memory"
        max_messages = 10
        max_bytes = "1MiB"
        on_full = "drop-oldest"
        max_in_flight = 1000000
        ack_deadline = "0s"
        [queue.c]
        "#,
    );
    assert_eq!(config.store.disk_reserve_bytes, 1 << 20);
    let limits = LimitsConfig {
        sessions: 16,
        publishers: 8,
        consumers: 4,
        requests: 2,
        connection_window_bytes: 1 << 20,
        message_bytes: 256 << 10,
        ingest_bytes: 16 << 20,
    };
    assert_eq!(config.limits, limits);
    let [a, b, c] = &config.queues[..] else { panic!("three queues") };
    let log = Retention::Log { age_ms: Some(604_800_000), bytes: Some(1 << 30), messages: Some(1_000) };
    assert_eq!((a.durability, a.retention), (Durability::Buffered, log));
    let limits = QueueLimits { messages: Some(10), bytes: Some(1 << 20), on_full: OnFull::DropOldest };
    assert_eq!((b.durability, b.limits), (Durability::Memory, limits));
    assert_eq!((b.in_flight_max, b.ack_deadline), (1_000_000, Duration::ZERO));
    assert_eq!((c.durability, c.retention, c.limits), (Durability::Synced, Retention::Work, QueueLimits::default()));
    assert_eq!((c.in_flight_max, c.ack_deadline), (10_000, Duration::from_secs(30)));
}

#[test]
fn nothing_is_bound_to_inboxes() {
    check_all(
        "[queue.q]\nsubjects = [\"$inbox.>\"]\n[[route]]\nname = \"r\"\non = \"$inbox.*\"\nto = [\"q\"]",
        &expect![[r#"
            quipu.toml:2:13: queue.q.subjects[0]: `$inbox.>`: replies go to who asked alone, and no queue and no route takes them
            quipu.toml:5:6: route[0].on[0]: `$inbox.*`: replies go to who asked alone, and no queue and no route takes them"#]],
    );
}

#[test]
fn queues_and_limits_say_what_they_cannot_be() {
    check_all(
        "[limits]\nsessions = 0\nmessage = \"9MiB\"\nconnection_window = \"1KiB\"\ningest = \"1MiB\"\n\
         [queue.q]\nretention_age = \"1day\"\nretention_messages = 5\nmax_messages = 0\nmax_in_flight = 1000001\n\
         ack_deadline = \"13h\"\n[queue.l]\nretention = \"log\"\nretention_age = \"1ms\"\nmax_bytes = 0",
        &expect![[r#"
            quipu.toml:2:12: limits.sessions: expected 1 to 65536, found 0
            quipu.toml:3:11: limits.message: expected 64KiB to 8MiB, found 9MiB
            quipu.toml:4:21: limits.connection_window: expected 256KiB to 64MiB, found 1KiB
            quipu.toml:5:10: limits.ingest: expected 16MiB to 1024GiB, found 1MiB
            quipu.toml:7:17: queue.q.retention_age: `retention_age` is for logs: add `retention = "log"`
            quipu.toml:8:22: queue.q.retention_messages: `retention_messages` is for logs: add `retention = "log"`
            quipu.toml:9:16: queue.q.max_messages: expected 1 to 1000000000000, found 0
            quipu.toml:10:17: queue.q.max_in_flight: expected 1 to 1000000, found 1000001
            quipu.toml:11:16: queue.q.ack_deadline: expected 0s to 12h, found 13h
            quipu.toml:14:17: queue.l.retention_age: expected 1s to 10years, found 1ms
            quipu.toml:15:13: queue.l.max_bytes: expected 1 bytes to 1048576GiB, found 0 bytes"#]],
    );
    check(
        "[queue.q]\ndurability = \"fast\"",
        r#"2:14: queue.q.durability: expected "memory", "buffered" or "synced", found "fast""#,
    );
    check(
        "[queue.q]\non_full = \"wait\"",
        r#"2:11: queue.q.on_full: expected "reject", "drop-oldest" or "block", found "wait""#,
    );
    check(&with_route("to = [\"out\"]\nparallel = 65"), "7:12: route[0].parallel: expected 1 to 64, found 65");
    check(&with_route("order = \"all\""), r#"6:9: route[0].order: expected "key" or "none", found "all""#);
    check("[queue.q]\nretention = \"all\"", r#"2:13: queue.q.retention: expected "work" or "log", found "all""#);
}

#[test]
fn wrong_types_say_what_was_expected() {
    check("[listen]\nquic = 4433", "2:8: listen.quic: expected a string, found 4433");
    check("[listen]\n  grace = 8", r#"2:11: listen.grace: expected a duration such as "50ms", found 8"#);
    check(
        "[listen]\ngrace = \"8 parsecs\"",
        r#"2:9: listen.grace: expected a duration such as "50ms", found "8 parsecs""#,
    );
    check("listen = [\"127.0.0.1:1\"]", "1:10: listen: expected a table, found an array");
    check(
        "[store]\nmemory = \"64MB\"",
        r#"2:10: store.memory: sizes are in binary units: write MiB instead of MB, as in "64MiB""#,
    );
    check(
        "[store]\nmemory = -1",
        r#"2:10: store.memory: expected a size such as "64MiB", or a number of bytes, found -1"#,
    );
    check(
        "[store]\nmemory = 1.5",
        r#"2:10: store.memory: expected a size such as "64MiB", or a number of bytes, found 1.5"#,
    );
    check(
        "[store]\njournal_segments = \"four\"",
        r#"2:20: store.journal_segments: expected a whole number, found "four""#,
    );
    check("[store]\npath = 1", "2:8: store.path: expected a path, found 1");
    check("[queue.q]\nmax_attempts = -1", "2:16: queue.q.max_attempts: expected a whole number, found -1");
    check(
        "[queue.\"a.b\"]\nbackoff = [\"1s\", 10]",
        r#"2:18: queue."a.b".backoff[1]: expected a duration such as "50ms", found 10"#,
    );
    check("queue = [1]", "1:9: queue: expected a table, found an array");
    check("[route]\nname = \"r\"", "1:1: route: expected an array, found a table; write [[route]]");
    check(&with_route("to = \"out\""), r#"6:6: route[0].to: expected an array, found "out""#);
    check(
        &with_route("plugins = [\"filter-json\"]"),
        r#"6:12: route[0].plugins[0]: expected a table, found "filter-json""#,
    );
    check(
        &with_route("plugins = [{ name = \"a\" }, { name = 50 }]"),
        "6:37: route[0].plugins[1].name: expected a string, found 50",
    );
    check(
        &with_route("plugins = [{ name = \"a\", config = \"x\" }]"),
        r#"6:35: route[0].plugins[0].config: expected a table, found "x""#,
    );
    check(&with_route("start = \"last\""), r#"6:9: route[0].start: expected "first" or "new", found "last""#);
}

#[test]
fn unknown_keys_name_the_nearest() {
    check("[lisen]", "1:2: lisen: unknown key; did you mean `listen`?");
    check("[queue.orders]\nsubject = [\"a\"]", "2:1: queue.orders.subject: unknown key; did you mean `subjects`?");
    check(
        "[queue.orders]\nlifetime = \"1s\"",
        "2:1: queue.orders.lifetime: unknown key; the keys here are `subjects`, `max_attempts`, `backoff`, \
         `dead_letter`, `durability`, `retention`, `retention_age`, `retention_bytes`, `retention_messages`, \
         `max_messages`, `max_bytes`, `on_full`, `max_in_flight`, `ack_deadline`",
    );
    check(
        "[queue.region.us]\nsubjects = [\"a\"]",
        r#"1:15: queue.region.us: a queue's name with dots is quoted, as in [queue."region.us"]"#,
    );
    check("[plugin.p]\ndeadlin = \"1s\"", "2:1: plugin.p.deadlin: unknown key; did you mean `deadline`?");
    check(
        &with_route("plugins = [{ name = \"a\" }, { name = \"b\", deadline = \"50ms\" }]"),
        "6:42: route[0].plugins[1].deadline: `deadline` is the same in every route: set it in [plugin.NAME]",
    );
    check(
        &with_route("on_error = { retries = 3 }"),
        "6:14: route[0].on_error.retries: unknown key; the keys here are `attempts`, `backoff`, `then`",
    );
    check(
        &with_route("unless = [\"a\"]"),
        "6:1: route[0].unless: unknown key; the keys here are `name`, `from`, `on`, `start`, `when`, `else`, `plugins`, `to`, `parallel`, `order`, `on_error`, `on_broken`, `broken_after`",
    );
    check("[tls]\nkey = \"k\"", "1:1: tls: the key `certificate` is missing");
    check("[[route]]\nfrom = \"q\"", "1:1: route[0]: the key `name` is missing");
}

#[test]
fn broken_toml_says_where() {
    check("[listen\nquic = 1", "1:8: unclosed table, expected `]`");
    check("[listen]\nquic = \"a", r#"2:10: invalid basic string, expected `"`"#);
    check("[queue.q]\n[queue.q]", "2:8: duplicate key");
    check("[listen]\ngrace = 50ms", "2:9: string values must be quoted, expected literal string");
}

#[test]
fn everything_wrong_is_said_at_once() {
    check_all(
        MUCH_WRONG,
        &expect![[r#"
            quipu.toml:2:8: listen.quic: expected an address such as "127.0.0.1:4433", found "localhost"
            quipu.toml:3:9: listen.grace: expected 0s to 10s, found 11s
            quipu.toml:5:20: store.journal_segments: expected 2 to 16, found 17
            quipu.toml:6:19: store.journal_segment: expected 1MiB to 1GiB, found 2GiB
            quipu.toml:8:11: plugins.workers: expected 2 to 256, found 0
            quipu.toml:9:1: plugin."a.b": expected a name of 1 to 128 letters, digits, `-` and `_`, found "a.b"
            quipu.toml:10:12: plugin."a.b".deadline: expected 1ms to 1m, found 0s
            quipu.toml:11:10: plugin."a.b".memory: expected 1MiB to 4GiB, found 1KiB
            quipu.toml:12:10: plugin."a.b".output: expected 0 bytes to 64MiB, found 65MiB
            quipu.toml:14:13: queue.q.subjects[0]: subject "a.>.b" has '>' in it; a token is made of letters, digits, `-` and `_`
            quipu.toml:14:30: queue.q.subjects[2]: subject "a b" has ' ' in it; a token is made of letters, digits, `-` and `_`
            quipu.toml:15:16: queue.q.max_attempts: expected 0 to 1000, found 1001
            quipu.toml:16:18: queue.q.backoff[1]: expected 0s to 1day, found 2days
            quipu.toml:17:15: queue.q.dead_letter: a queue cannot be its own dead-letter queue
            quipu.toml:18:1: queue."$own": queue `$own`: names that begin with `$` are the router's own
            quipu.toml:19:1: queue."a..b": subject "a..b" has an empty token; join tokens with single dots, as in `orders.eu`
            quipu.toml:20:1: route[0].to: a route without plugins needs the subjects that messages go to
            quipu.toml:21:8: route[0].name: expected a name of 1 to 128 letters, digits, `-` and `_`, found "a route"
            quipu.toml:22:8: route[0].from: there is no queue `queue`; add [queue."queue"]
            quipu.toml:26:8: route[1].when: expected a CEL expression, found nothing
            quipu.toml:27:7: route[1].to[0]: subject "a b" has ' ' in it; a token is made of letters, digits, `-` and `_`
            quipu.toml:27:14: route[1].to[1]: `x.{id}`: unknown placeholder {id}; there are {subject.1}, {header.NAME}, {key} and {reply_to}
            quipu.toml:28:25: route[1].on_error.attempts: expected 1 to 100, found 0
            quipu.toml:28:35: route[1].on_error.then: failed messages cannot go back to the queue they come from
            quipu.toml:30:8: route[2].name: `r` is the name of route[1] already
            quipu.toml:32:9: route[2].else: `else` is for what `when` refuses: there is no `when`
            quipu.toml:33:21: route[2].plugins[0].name: expected a name of 1 to 128 letters, digits, `-` and `_`, found ""
            quipu.toml:34:1: route[3].from: the key `from` is missing: the queue that messages come from; or `on`, to run inline"#]],
    );
    check(
        "[store]\njournal_segment = 1048577",
        "2:19: store.journal_segment: expected a multiple of 4KiB, found 1048577 bytes",
    );
}

#[test]
fn lists_have_ends() {
    let texts = |n: usize, text: &str| vec![text; n].join(", ");
    check(
        &with_route(&format!("to = [\n{}\n]", texts(65, "\"out\""))),
        "7:449: route[0].to: 65 subjects; at most 64 are allowed",
    );
    check(
        &with_route(&format!("to = [\"out\"]\nplugins = [{}]", texts(65, "{ name = \"p\" }"))),
        "7:1036: route[0].plugins: 65 plugins; at most 64 are allowed",
    );
    check(
        &format!("[queue.q]\nsubjects = [{}]", texts(257, "\"a\"")),
        "2:1293: queue.q.subjects: 257 subjects; at most 256 are allowed",
    );
    check(
        &format!("[queue.q]\nbackoff = [{}]", texts(17, "\"1s\"")),
        "2:11: queue.q.backoff: 17 delays; at most 16 are allowed",
    );
    check(
        &with_route(&format!("to = [\"out\"]\nwhen = \"{}\"", "x".repeat(4_097))),
        "7:8: route[0].when: the expression has 4097 bytes; at most 4096 are allowed",
    );
    check(
        &(0..4_097).map(|n| format!("[queue.q{n}]\n")).collect::<String>(),
        "1:1: queue: 4097 queues; at most 4096 are allowed",
    );
    let long = "x".repeat(251);
    check(
        &format!("[queue.{long}]"),
        "1:1: queue.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: the name is too long for a `-dead` queue of its own; set `dead_letter`",
    );
    good(&format!("[queue.{long}]\ndead_letter = \"dead\""));
}

#[test]
fn outputs_need_a_taker() {
    check_all(
        &with_route("to = [\"region.us\", \"out\", \"region.{key}\"]\nwhen = \"true\"\nelse = [\"aside\"]"),
        &expect![[r#"
            quipu.toml:6:7: route[0].to[0]: no queue takes `region.us`; add [queue."region.us"] or a pattern
            quipu.toml:8:9: route[0].else[0]: no queue takes `aside`; add [queue."aside"] or a pattern"#]],
    );
    good(
        "[queue.q]\n[queue.out]\nsubjects = [\"region.*\"]\n[[route]]\nname = \"r\"\nfrom = \"q\"\nto = [\"region.us\"]",
    );
    check(&with_route(""), "3:1: route[0].to: a route without plugins needs the subjects that messages go to");
    good(&with_route("plugins = [{ name = \"p\" }]"));
}

#[test]
fn routes_come_from_a_queue_of_the_file() {
    let from = |name: &str| format!("[queue.quakes]\n[[route]]\nname = \"r\"\nfrom = \"{name}\"\nto = [\"quakes\"]\n");
    check(&from("quake"), "4:8: route[0].from: there is no queue `quake`; did you mean `quakes`?");
    check(&from("a.b"), "4:8: route[0].from: there is no queue `a.b`; add [queue.\"a.b\"]");
}

#[test]
fn failed_messages_need_a_place() {
    let text = "[queue.q]\n[queue.q-dead]\n[[route]]\nname = \"again\"\nfrom = \"q-dead\"\nto = [\"q\"]\n";
    check(
        text,
        "3:1: route[0].on_error: queue `q-dead` has no dead-letter queue: say where failed messages go, as `then`",
    );
    good(&format!("{text}on_error = {{ then = \"lost\" }}"));
}

#[test]
fn cycles_are_refused() {
    let route =
        |name: &str, from: &str, to: &str| format!("[[route]]\nname = \"{name}\"\nfrom = \"{from}\"\nto = [{to}]\n");
    let queues = "[queue.a]\n[queue.b]\nsubjects = [\"to.b\"]\n[queue.c]\nsubjects = [\"to.*\"]\n";
    let with = |routes: &[String]| format!("{queues}{}", routes.concat());
    check(
        &with(&[route("self", "a", "\"a\"")]),
        "9:7: route[0].to[0]: messages would go round for ever: queue a → route self → queue a",
    );
    let (there, back) = (route("there", "a", "\"b\""), route("back", "b", "\"c\", \"a\""));
    check(
        &with(&[there.clone(), back.clone()]),
        "13:12: route[1].to[1]: messages would go round for ever: queue a → route there → queue b → route back → queue a",
    );
    check(
        &with(&[route("x", "c", "\"a\""), route("y", "a", "\"to.b\"")]),
        "9:7: route[0].to[0]: messages would go round for ever: queue a → route y → queue c → route x → queue a",
    );
    // Two ways to one place are no cycle, nor is what depends on the message.
    good(&with(&[there, route("also", "a", "\"to.b\""), route("on", "b", "\"c\", \"{subject.1}\"")]));
    // A long chain needs no deep stack.
    let chain: String = (0..4_000)
        .map(|n| format!("[queue.q{n}]\n[[route]]\nname = \"r{n}\"\nfrom = \"q{n}\"\nto = [\"q{}\"]\n", n + 1))
        .collect();
    good(&format!("{chain}[queue.q4000]"));
}

#[test]
fn files_and_variables_are_put_in() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("schema.json"), "{\"ü\": 1}\n").expect("written");
    std::fs::write(dir.path().join("latin1"), b"\xfc").expect("written");
    std::fs::write(dir.path().join("large"), vec![b'x'; CONFIG_FILE_BYTES_MAX + 1]).expect("written");
    std::fs::write(dir.path().join("largest"), vec![b'x'; CONFIG_FILE_BYTES_MAX]).expect("written");
    let parse = |config: &str| {
        let text = with_route(&format!("plugins = [{{ name = \"p\", config = {config} }}]"));
        let name = dir.path().display().to_string();
        let problems = |e: ConfigError| e.to_string().replace(&name, "DIR");
        let config = Config::parse(&text, "quipu.toml", dir.path()).map_err(problems);
        config.map(|config| config.routes[0].plugins[0].clone())
    };
    // Cargo sets this one for every test.
    let plugin = parse(
        r#"{ schemas = [{ file = "schema.json" }, 1], secret.token = { env = "CARGO_PKG_NAME" }, plain = { file = "schema.json", and = true }, none = { file = 1 }, at = 2026-01-02T03:04:05Z }"#,
    );
    let plugin = plugin.expect("a plugin");
    expect![[r#"{"at":"2026-01-02T03:04:05Z","none":{"file":1},"plain":{"and":true,"file":"schema.json"},"schemas":["{\"ü\": 1}\n",1],"secret":{"token":"quipu"}}"#]].assert_eq(&plugin.config.to_string());
    assert!(!format!("{plugin:?}").contains("schema"), "secrets stay out of logs");
    assert_eq!(parse(r#"{ file = "schema.json" }"#).map(|plugin| plugin.config), Ok("{\"ü\": 1}\n".into()));
    assert!(parse(r#"{ a = { file = "largest" } }"#).is_ok());
    let wrong = |config: &str, expected: &Expect| expected.assert_eq(&parse(config).expect_err("refused"));
    wrong(
        r#"{ "a.b" = [{ file = "absent" }], b = { file = "latin1" }, c = { file = "large" }, d = inf }"#,
        &expect![[r#"
            quipu.toml:6:35: route[0].plugins[0].config."a.b"[0]: cannot read DIR/absent: No such file or directory (os error 2)
            quipu.toml:6:35: route[0].plugins[0].config.b: cannot read DIR/latin1: it is not UTF-8
            quipu.toml:6:35: route[0].plugins[0].config.c: cannot read DIR/large: it has more than 1 MiB
            quipu.toml:6:35: route[0].plugins[0].config.d: inf cannot be passed to a plugin: JSON has no such number"#]],
    );
    wrong(
        r#"{ a = { env = "QUIPU_TEST_IS_NOT_SET" }, b = { env = "" }, c = { env = "A=B" } }"#,
        &expect![[r#"
        quipu.toml:6:35: route[0].plugins[0].config.a: the environment variable QUIPU_TEST_IS_NOT_SET is not set
        quipu.toml:6:35: route[0].plugins[0].config.b: "" cannot name an environment variable
        quipu.toml:6:35: route[0].plugins[0].config.c: "A=B" cannot name an environment variable"#]],
    );
}

#[test]
fn load_names_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("mine.toml");
    let text = |e: ConfigError| e.to_string().replace(&dir.path().display().to_string(), "DIR");
    let absent = Config::load(&path).map_err(text).expect_err("absent");
    assert_eq!(absent, "cannot read DIR/mine.toml: No such file or directory (os error 2)");
    std::fs::write(&path, "[stor]\n").expect("written");
    let wrong = Config::load(&path).map_err(text).expect_err("wrong");
    assert_eq!(wrong, "DIR/mine.toml:1:2: stor: unknown key; did you mean `store`?");
    std::fs::write(&path, "[store]\npath = \"x\"\n").expect("written");
    assert_eq!(Config::load(&path).map(|config| config.store.path).map_err(text), Ok(dir.path().join("x")));
}

#[test]
fn inline_routes_run_on_subjects_and_have_one_attempt() {
    let config = good(
        r#"
[queue.q]
[[route]]
name = "one"
on = "a.>"
when = "attempt == 1"
else = ["q"]
to = ["q"]
[[route]]
name = "more"
on = ["b", "c.*"]
plugins = [{ name = "filter-json" }]
parallel = 2
"#,
    );
    let [one, more] = &config.routes[..] else { panic!("{:?}", config.routes) };
    let patterns = |route: &RouteConfig| match &route.source {
        Source::Inline(on) => on.iter().map(|on| on.as_str().to_owned()).collect::<Vec<_>>(),
        Source::Queue(name) => panic!("queue {name}"),
    };
    assert_eq!((patterns(one), patterns(more)), (vec!["a.>".to_owned()], vec!["b".to_owned(), "c.*".to_owned()]));
    assert_eq!((one.otherwise.len(), one.to.len(), one.parallel, more.plugins.len(), more.parallel), (1, 1, 1, 1, 2));
    check_all(
        r#"
[queue.q]
[[route]]
name = "r"
from = "q"
on = "a"
to = ["q.x"]
[[route]]
name = "s"
on = ["a.>.b"]
start = "new"
order = "none"
to = ["nowhere"]
on_error = { attempts = 2 }
[[route]]
name = "t"
on = []
to = ["q"]
"#,
        &expect![[r#"
            quipu.toml:6:6: route[0].on: a route has either `from`, a queue, or `on`, subjects on whose messages it runs inline
            quipu.toml:9:8: route[1].on_error: `on_error` is for routes with `from`: an inline route has one attempt, and tells the publisher of it
            quipu.toml:9:8: route[1].order: `order` is for routes with `from`: an inline route reads no queue
            quipu.toml:9:8: route[1].start: `start` is for routes with `from`: an inline route reads no queue
            quipu.toml:10:6: route[1].on[0]: subject "a.>.b" has '>' in it; a token is made of letters, digits, `-` and `_`
            quipu.toml:13:7: route[1].to[0]: no queue takes `nowhere`; add [queue."nowhere"] or a pattern
            quipu.toml:17:6: route[2].on: expected a subject pattern or more, found none"#]],
    );
}
