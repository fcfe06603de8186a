//! Users and rights without a socket.

use std::net::Ipv4Addr;

use quipu_protocol::code::Code;
use quipu_protocol::{Subject, proto};

use super::*;
use crate::config::UserConfig;

const SHOP: &str = "quipu_shop";

/// A router with these users, and tokens that are `quipu_` and the user's name.
fn access(users: &str) -> Arc<Access> {
    let directory = tempfile::tempdir().expect("a directory");
    let listen = (Ipv4Addr::LOCALHOST, 0).into();
    let access = Access::development(listen, &directory.path().join("dev.pem")).expect("a certificate");
    put(&access, users);
    access
}

/// Puts other users in force.
fn put(access: &Access, users: &str) {
    let clients = Arc::new(ClientCertificates::none());
    access.users.send_replace(Arc::new(Users::new(&parse(users), clients)));
}

fn parse(users: &str) -> Vec<UserConfig> {
    let text: String = users
        .lines()
        .map(|line| match line.strip_prefix("[user.").and_then(|line| line.strip_suffix(']')) {
            Some("anonymous") | None => format!("{line}\n"),
            Some(name) => {
                format!("{line}\ntoken = \"blake3:{}\"\n", blake3::hash(format!("quipu_{name}").as_bytes()).to_hex())
            }
        })
        .collect();
    Config::parse(&text, "quipu.toml", Path::new("")).expect("a configuration").users
}

fn client(access: &Arc<Access>, token: &str) -> Arc<Client> {
    Arc::new(access.admit(token, Vec::new()).expect("let in"))
}

fn subject(text: &str) -> Subject {
    Subject::new(text).expect("a subject")
}

/// The text of a refusal that was `Forbidden`.
#[track_caller]
fn forbidden<T>(result: Result<T, proto::Error>) -> String {
    let error = result.err().expect("refused");
    assert_eq!((error.code, error.retryable), (Code::Forbidden as u32, false));
    error.text
}

#[test]
fn without_users_everyone_may_do_everything() {
    let access = access("");
    for token in ["", "whatever"] {
        let client = client(&access, token);
        client.publishing().expect("allowed").check(&subject("a.b")).expect("allowed");
        client.consuming("q").expect("allowed");
        client.check_call("store.compact", b"").expect("allowed");
        assert_eq!(client.user(), None);
    }
    assert_eq!(access.listing()["refusals"], 0);
}

#[test]
fn who_shows_nothing_or_the_wrong_thing_is_nobody() {
    let access = access("[user.shop]\n[user.old]\nrevoked = true");
    let refused = |token: &str| forbidden(access.admit(token, Vec::new()));
    assert_eq!(refused(""), "this router asks who its clients are: a token is needed");
    assert_eq!(refused("quipu_shoq"), "no user has this token");
    assert_eq!(refused("quipu_old"), "user \"old\" is revoked");
    assert_eq!(refused(&"x".repeat(1_025)), "a token of 1025 bytes; 1024 are the most");
    assert_eq!(client(&access, SHOP).user().as_deref(), Some("shop"));
    assert_eq!(
        access.listing(),
        json!({
            "users": 2,
            "refusals": 4,
            "refusals_by_reason": { "no_credential": 1, "revoked": 1, "token": 2 },
        })
    );
}

#[test]
fn a_wrong_token_is_not_taken_for_none() {
    let access = access("[user.anonymous]\npublish = [\">\"]");
    assert_eq!(client(&access, "").user().as_deref(), Some("anonymous"));
    assert_eq!(forbidden(access.admit("wrong", Vec::new())), "no user has this token");
}

#[test]
fn rights_are_by_verb_and_pattern() {
    let access = access("[user.shop]\npublish = [\"orders.>\", \"log\"]\nconsume = [\"orders\", \"region.*\"]");
    let client = client(&access, SHOP);
    let mut publishing = client.publishing().expect("allowed");
    for allowed in ["orders.eu", "orders.eu.new", "log", "orders.eu"] {
        publishing.check(&subject(allowed)).expect("allowed");
    }
    for refused in ["orders", "logs", "region.us"] {
        let text = forbidden(publishing.check(&subject(refused)));
        assert_eq!(text, format!("user \"shop\" may not publish to `{refused}`: needs `publish`"));
    }
    for allowed in ["orders", "region.us"] {
        client.consuming(allowed).expect("allowed");
    }
    for refused in ["log", "region", "region.us.east", "a b"] {
        let text = forbidden(client.consuming(refused));
        assert_eq!(text, format!("user \"shop\" may not consume from queue `{refused}`: needs `consume`"));
    }
    let text = forbidden(client.check_call("queue.list", b""));
    assert_eq!(text, "user \"shop\" may not call `queue.list`: needs `read`");
    let text = forbidden(client.check_call("no.such\nmethod", b""));
    assert_eq!(text, "user \"shop\" may not call `no.such\\nmethod`: needs `admin`");
}

#[test]
fn who_publishes_nowhere_opens_no_publisher() {
    let access = access("[user.shop]\nread = true");
    assert_eq!(forbidden(client(&access, SHOP).publishing()), "user \"shop\" may not publish: needs `publish`");
}

#[test]
fn who_consumes_may_reply_and_publish_nothing_else() {
    let access = access("[user.shop]\nconsume = [\"prices\"]");
    let mut publishing = client(&access, SHOP).publishing().expect("allowed");
    publishing.check(&subject("$inbox.0af3")).expect("allowed");
    let text = forbidden(publishing.check(&subject("prices")));
    assert_eq!(text, "user \"shop\" may not publish to `prices`: needs `publish`");
}

#[test]
fn who_reads_some_queues_sees_those_alone() {
    let access = access("[user.shop]\nread = [\"orders\", \"region.*\"]");
    let client = client(&access, SHOP);
    client.check_call("queue.show", br#"{"queue":"region.us"}"#).expect("allowed");
    client.check_call("ledger", br#"{"queue":"orders"}"#).expect("allowed");
    let text = forbidden(client.check_call("ledger", br#"{"queue":"secret"}"#));
    assert_eq!(text, "user \"shop\" may not look at queue `secret`: needs `read`");
    for (method, arguments) in [("queue.show", "{}"), ("queue.show", "no JSON"), ("status", ""), ("route.list", "")] {
        let text = forbidden(client.check_call(method, arguments.as_bytes()));
        assert_eq!(text, format!("user \"shop\" may not call `{method}`: needs `read`"));
    }
    client.check_call("queue.list", b"").expect("allowed, in part");
    let all = json!({ "queues": [{ "name": "orders" }, { "name": "secret" }, { "name": "region.us" }] });
    assert_eq!(client.visible("queue.list", all), json!({ "queues": [{ "name": "orders" }, { "name": "region.us" }] }));
    let all = json!({ "subscriptions": [{ "queue": "secret", "name": "a" }, { "queue": "orders", "name": "a" }] });
    assert_eq!(client.visible("ledger", all), json!({ "subscriptions": [{ "queue": "orders", "name": "a" }] }));
}

#[test]
fn who_consumes_from_a_queue_may_look_into_it() {
    let access = access("[user.shop]\nconsume = [\"orders\"]\n[user.eye]\nread = true");
    let (shop, eye) = (client(&access, SHOP), client(&access, "quipu_eye"));
    shop.check_call("queue.peek", br#"{"queue":"orders"}"#).expect("allowed");
    let text = forbidden(shop.check_call("queue.peek", br#"{"queue":"secret"}"#));
    assert_eq!(text, "user \"shop\" may not look into queue `secret`: needs `consume`");
    // Who reads sees counts, and no messages.
    let text = forbidden(eye.check_call("queue.peek", br#"{"queue":"orders"}"#));
    assert_eq!(text, "user \"eye\" may not look into queue `orders`: needs `consume`");
    let text = forbidden(shop.check_call("queue.peek", b"{}"));
    assert_eq!(text, "user \"shop\" may not call `queue.peek`: needs `consume`");
}

#[test]
fn an_admin_reads_everything_and_publishes_nothing() {
    let access = access("[user.root]\nadmin = true\n[user.eye]\nread = true");
    let (root, eye) = (client(&access, "quipu_root"), client(&access, "quipu_eye"));
    for method in methods() {
        root.check_call(method, b"{}").expect("allowed");
    }
    forbidden(root.publishing());
    forbidden(root.consuming("q"));
    for read in ["queue.list", "queue.show", "ledger", "route.list", "plugin.list", "status"] {
        eye.check_call(read, b"{}").expect("allowed");
    }
    for change in ["queue.redrive", "store.backup", "store.compact", "of.a.later.version"] {
        let text = forbidden(eye.check_call(change, b"{}"));
        assert_eq!(text, format!("user \"eye\" may not call `{change}`: needs `admin`"));
    }
    let list = json!({ "queues": [{ "name": "a" }] });
    assert_eq!(eye.visible("queue.list", list.clone()), list);
}

#[tokio::test]
async fn other_users_are_in_force_at_once() {
    let access = access("[user.shop]\npublish = [\"a\"]\nconsume = [\"q\", \"r\"]");
    let client = client(&access, SHOP);
    let mut publishing = client.publishing().expect("allowed");
    publishing.check(&subject("a")).expect("allowed");
    let (mut q, mut r) = (client.consuming("q").expect("allowed"), client.consuming("r").expect("allowed"));
    put(&access, "[user.shop]\npublish = [\"b\"]\nconsume = [\"r\"]");
    publishing.check(&subject("b")).expect("allowed");
    forbidden(publishing.check(&subject("a")));
    assert_eq!(forbidden::<()>(Err(q.lost().await)), "user \"shop\" may not consume from queue `q`: needs `consume`");
    // The session and its other stream stay as they are, until its user is gone.
    let still = tokio::time::timeout(Duration::from_millis(1), async { tokio::join!(client.lost(), r.lost()) }).await;
    assert!(still.is_err());
    put(&access, "[user.shop]\nrevoked = true");
    assert_eq!(client.lost().await.text, "user \"shop\" is revoked");
    assert_eq!(r.lost().await.text, "user \"shop\" is revoked");
    assert_eq!(forbidden(publishing.check(&subject("b"))), "user \"shop\" is revoked");
}
