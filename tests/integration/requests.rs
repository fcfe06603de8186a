//! Requests and replies: who gets what, who is told what, and nothing that lasts.

use std::process::Stdio;
use std::time::{Duration, Instant};

use quipu_client::{
    Asked, Client, Code, OutgoingMessage, PublisherOptions, Receipt, Replied, Replies, RequestError, Responder,
    Subscribe,
};
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::proto;
use quipu_tests::{PATIENCE, RawClient, TestServer, quipu, soon};
use serde_json::{Value, json};

use crate::QUIPU;

const CONFIG: &str = "[queue.prices]\nsubjects = [\"prices.>\"]\n";
/// So short that waiting for its end is no wait.
const MOMENT: Duration = Duration::from_millis(100);

fn ask(text: &'static str) -> OutgoingMessage {
    OutgoingMessage::new("prices.get", text)
}

async fn responder(client: &Client, subscription: &str) -> Responder {
    client.respond(Subscribe::new("prices", subscription)).await.expect("a responder")
}

async fn asked(responder: &mut Responder) -> Asked {
    soon("a request", responder.next()).await.expect("open").expect("a request")
}

/// The request is stored, and its replies are to come.
async fn open(client: &Client, text: &'static str, replies: u32) -> Replies {
    client.request_many(ask(text), PATIENCE, replies).await.expect("taken")
}

async fn next(replies: &mut Replies) -> String {
    let reply = soon("a reply", replies.next()).await.expect("open").expect("a reply");
    String::from_utf8_lossy(&reply.payload).into_owned()
}

async fn queue(client: &Client, name: &str) -> Value {
    client.call("queue.show", json!({ "queue": name })).await.expect("an answer")["queue"].clone()
}

#[tokio::test]
async fn a_request_gets_its_reply_and_nothing_of_that_is_stored() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let (client, desk) = (server.client().await, server.client().await);
    let mut responder = responder(&desk, "desk").await;
    let answering = async {
        let asked = asked(&mut responder).await;
        assert_eq!(asked.message().payload, "loom");
        let inbox = asked.message().reply_to.clone().expect("where to");
        assert!(inbox.is_inbox(), "{inbox}");
        (asked.reply("12").await.expect("replied"), inbox)
    };
    let (reply, (replied, inbox)) = tokio::join!(client.request(ask("loom"), PATIENCE), answering);
    let reply = reply.expect("a reply");
    assert_eq!((replied, &reply.payload[..], &reply.subject), (Replied::Sent, &b"12"[..], &inbox));
    let listed = client.call("queue.list", json!({})).await.expect("an answer");
    let names: Vec<_> = listed["queues"].as_array().expect("a list").iter().map(|q| q["name"].clone()).collect();
    assert_eq!(names, ["prices"], "no queue is made for replies");
    let prices = queue(&client, "prices").await;
    assert_eq!(
        (&prices["next_offset"], &prices["messages"]),
        (&1.into(), &0.into()),
        "the request was, and is settled"
    );
}

#[tokio::test]
async fn what_nothing_takes_fails_at_once() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let begun = Instant::now();
    let refused = client.request(OutgoingMessage::new("nowhere", "x"), PATIENCE).await.expect_err("refused");
    assert_eq!(refused.code(), Some(Code::NoQueue));
    assert_eq!(refused.to_string(), "the router refuses the request: no queue or route takes `nowhere` (code 33)");
    assert!(begun.elapsed() < PATIENCE / 2);
    let twice = || ask("x").id("once");
    client.request(twice(), MOMENT).await.expect_err("nobody replies");
    let known = client.request(twice(), PATIENCE).await.expect_err("refused");
    assert_eq!(known.to_string(), "a message with this id was published before: its replies go where it said then");
    let own = client.request(ask("x").reply_to("elsewhere"), PATIENCE).await.expect_err("refused");
    assert!(own.to_string().contains("a request's reply_to is the router's: leave it empty"), "{own}");
    let bounds = client.request(ask("x"), Duration::ZERO).await.expect_err("refused");
    assert_eq!(bounds.to_string(), "a request waits 1 ms to 1 h for 1 to 1024 replies");
}

#[tokio::test]
async fn a_timeout_says_how_long_and_where_the_request_is_and_a_late_reply_is_refused() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let late = client.request(ask("loom"), MOMENT).await.expect_err("nobody replies");
    assert_eq!(late.code(), Some(Code::NoReply));
    assert_eq!(
        late.to_string(),
        "no reply within 0.1 s; the request is stored in `prices` at offset 0 and may still be worked on"
    );
    let mut responder = responder(&client, "desk").await;
    let asked = asked(&mut responder).await;
    let inbox = asked.message().reply_to.clone().expect("where to");
    assert_eq!(asked.reply("12").await.expect("settled"), Replied::TooLate);
    let publisher = client.publisher(PublisherOptions::default()).await.expect("a publisher");
    let receipt = publisher.publish(OutgoingMessage::new(inbox.as_str(), "13")).await.expect("sent");
    let refused = soon("a receipt", receipt).await.expect_err("refused");
    assert_eq!(refused.code(), Some(Code::NoInbox));
    let told = format!("no inbox `{inbox}`: who asked has what it asked for, gave up, or is gone (code 43)");
    assert!(refused.to_string().ends_with(&told), "{refused}");
}

#[tokio::test]
async fn several_responders_and_several_replies_of_one() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let (mut one, mut other) = (responder(&client, "one").await, responder(&client, "other").await);
    let mut replies = open(&client, "yarn", 3).await;
    assert!(matches!(&replies.receipt, Receipt::Stored(at) if at[0].queue == "prices"), "{replies:?}");
    let mut first = asked(&mut one).await;
    assert_eq!(first.send("1").await.expect("sent"), Replied::Sent);
    assert_eq!(first.send("2").await.expect("sent"), Replied::Sent);
    first.done().await.expect("settled");
    asked(&mut other).await.reply("3").await.expect("replied");
    let got = [next(&mut replies).await, next(&mut replies).await, next(&mut replies).await];
    assert_eq!(got, ["1", "2", "3"]);
    assert!(soon("the end", replies.next()).await.is_none());

    let mut replies = client.request_many(ask("yarn"), Duration::from_secs(2), 3).await.expect("taken");
    asked(&mut one).await.reply("1").await.expect("replied");
    asked(&mut other).await.fail("no\nyarn").await.expect("replied");
    assert_eq!(next(&mut replies).await, "1");
    let failed = soon("a reply", replies.next()).await.expect("open").expect("a reply");
    assert_eq!(failed.headers.first("error"), Some("no yarn"));
    let missing = soon("the end", replies.next()).await.expect("open").expect_err("one is missing");
    assert!(missing.to_string().starts_with("2 of 3 replies within 2 s; the request is stored in "), "{missing}");
    assert!(replies.next().await.is_none());
}

#[tokio::test]
async fn a_reply_that_says_it_failed_is_an_error() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let mut responder = responder(&client, "desk").await;
    let answering = async { asked(&mut responder).await.fail("no such item").await.expect("replied") };
    let (reply, replied) = tokio::join!(client.request(ask("tusk"), PATIENCE), answering);
    assert_eq!(replied, Replied::Sent);
    assert!(matches!(&reply, Err(RequestError::Failed(why)) if why == "no such item"), "{reply:?}");
}

#[tokio::test]
async fn a_responder_that_dies_leaves_its_request_to_another_and_one_reply_comes() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    // Before the request is settled by the other, or there is nothing left for it.
    let mut other = responder(&client, "other").await;
    let mut replies = open(&client, "loom", 2).await;
    let dying = server.client().await;
    let mut first = responder(&dying, "desk").await;
    let mut begun = asked(&mut first).await;
    // Dead between its reply and the settlement of the request.
    assert_eq!(begun.send("12").await.expect("sent"), Replied::Sent);
    drop((begun, first, dying));
    let mut second = responder(&client, "desk").await;
    let again = asked(&mut second).await;
    assert_eq!(again.message().payload, "loom");
    assert_eq!(again.reply("12").await.expect("replied"), Replied::Again);
    asked(&mut other).await.reply("13").await.expect("replied");
    assert_eq!([next(&mut replies).await, next(&mut replies).await], ["12", "13"]);
}

#[tokio::test]
async fn who_asks_and_goes_away_is_not_replied_to() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let mut responder = responder(&client, "desk").await;
    drop(open(&client, "given up", 1).await);
    assert_eq!(asked(&mut responder).await.reply("1").await.expect("settled"), Replied::TooLate);
    let leaving = server.client().await;
    let mut replies = open(&leaving, "left", 1).await;
    let asked = asked(&mut responder).await;
    soon("closing", leaving.close()).await;
    let closed = replies.next().await.expect("open").expect_err("closed");
    assert_eq!(closed.to_string(), "closed by this client");
    assert_eq!(asked.reply("2").await.expect("settled"), Replied::TooLate);
    // A router that is killed takes its inboxes with it, and not the request.
    let mut replies = open(&client, "kept", 1).await;
    server.kill().await;
    server.restart().await;
    // A packet, or it takes until the next one that is sent by itself to notice; whether it is answered does not matter.
    let (lost, _) = soon("the end", async { tokio::join!(replies.next(), client.call("status", json!({}))) }).await;
    let lost = lost.expect("open").expect_err("lost");
    assert!(matches!(lost, RequestError::Unanswered(_)), "{lost}");
    let kept = self::asked(&mut responder).await;
    assert_eq!(kept.message().payload, "kept");
    assert_eq!(kept.reply("3").await.expect("settled"), Replied::TooLate);
}

#[tokio::test]
async fn a_router_that_stops_is_not_held_up() {
    let mut server = TestServer::start(QUIPU, CONFIG).await;
    let client = server.client().await;
    let mut replies = open(&client, "loom", 1).await;
    server.signal_terminate();
    let gone = soon("the end", replies.next()).await.expect("open").expect_err("given up");
    assert!(matches!(&gone, RequestError::Unanswered(why) if why == "the router goes away"), "{gone}");
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test]
async fn routes_reply() {
    let config = r#"
[queue.work]
subjects = ["work.>"]
[[route]]
name = "worker"
from = "work"
when = 'reply_to != null'
plugins = [{ name = "redact-json", config = { fields = ["secret"] } }]
to = ["{reply_to}"]
[[route]]
name = "door"
on = "door"
plugins = [{ name = "filter-json", config = { field = "n", exists = true, missing = "reject" } }]
to = ["{reply_to}"]
"#;
    let server = TestServer::start(QUIPU, config).await;
    let client = server.client().await;
    for (subject, sent, got) in
        [("work.a", r#"{"n":1,"secret":2}"#, r#"{"n":1}"#), ("door", r#"{"n":1}"#, r#"{"n":1}"#)]
    {
        let reply = client.request(OutgoingMessage::new(subject, sent), PATIENCE).await.expect("a reply");
        assert_eq!(reply.payload, got);
        let path = reply.headers.first("quipu-path");
        assert_eq!(path, Some(if subject == "door" { "door" } else { "worker" }));
    }
    let refused = client.request(OutgoingMessage::new("door", "x"), PATIENCE).await.expect_err("refused");
    assert_eq!(refused.code(), Some(Code::Rejected));
    // A reply that nobody waits for any more is a dead letter of the route, at once.
    client.call("route.pause", json!({ "name": "worker" })).await.expect("paused");
    client.request(OutgoingMessage::new("work.a", "{}"), MOMENT).await.expect_err("nobody works");
    client.call("route.resume", json!({ "name": "worker" })).await.expect("resumed");
    let letter = server.cli(&["sub", "work-dead", "--subscription", "s", "-n", "1", "--json"]).await;
    assert!(letter.contains("who asked has what it asked for, gave up, or is gone"), "{letter}");
    assert!(letter.contains(r#"["quipu-dead-attempts","1"]"#), "{letter}");
}

#[tokio::test]
async fn who_gets_a_request_may_reply_and_nobody_else_knows_where() {
    let hash = |token: &str| blake3::hash(token.as_bytes()).to_hex();
    let config = format!(
        "{CONFIG}[user.shop]\ntoken = \"blake3:{}\"\npublish = [\"prices.>\"]\n[user.desk]\ntoken = \"blake3:{}\"\n\
         consume = [\"prices\"]\n",
        hash("token-of-shop"),
        hash("token-of-desk")
    );
    let server = TestServer::start(QUIPU, &config).await;
    let (shop, desk) = (server.client_as("token-of-shop").await, server.client_as("token-of-desk").await);
    let mut responder = responder(&desk, "desk").await;
    let answering = async { asked(&mut responder).await.reply("12").await.expect("replied") };
    let (reply, replied) = tokio::join!(shop.request(ask("loom"), PATIENCE), answering);
    assert_eq!((&reply.expect("a reply").payload[..], replied), (&b"12"[..], Replied::Sent));
    let refused = desk.request(ask("loom"), PATIENCE).await.expect_err("refused");
    assert!(
        refused.to_string().contains("user \"desk\" may not publish to `prices.get`: needs `publish`"),
        "{refused}"
    );
    let publisher = desk.publisher(PublisherOptions::default()).await.expect("for replies");
    let receipt = publisher.publish(OutgoingMessage::new("$inbox.guessed", "x")).await.expect("sent");
    assert_eq!(soon("a receipt", receipt).await.expect_err("refused").code(), Some(Code::NoInbox));
    let receipt = publisher.publish(OutgoingMessage::new("$quipu.x", "x")).await.expect("sent");
    assert_eq!(soon("a receipt", receipt).await.expect_err("refused").code(), Some(Code::InvalidMessage));
}

#[tokio::test]
async fn requests_have_limits() {
    let server = TestServer::start(QUIPU, &format!("[limits]\nrequests = 1\n{CONFIG}")).await;
    let client = server.client().await;
    let mut replies = open(&client, "one", 1).await;
    let busy = client.request(ask("two"), PATIENCE).await.expect_err("refused");
    assert_eq!(busy.code(), Some(Code::Busy));
    assert!(busy.to_string().contains("this router takes 1 requests at a time (`limits.requests`)"), "{busy}");
    let mut responder = responder(&client, "desk").await;
    asked(&mut responder).await.reply("12").await.expect("replied");
    assert_eq!(next(&mut replies).await, "12");
}

#[tokio::test]
async fn frames_that_do_not_belong_on_a_request_stream_end_it() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let (client, _control) = RawClient::connect(&server).await;
    let header =
        prost::Message::encode_to_vec(&proto::MessageHeader { subject: "prices.x".into(), ..Default::default() });
    let request = |timeout_ms, replies_max| proto::Request { message: header.clone().into(), timeout_ms, replies_max };
    for (request, text) in [
        (request(0, 1), "timeout_ms 0: 1 to 3600000 are allowed"),
        (request(3_600_001, 1), "timeout_ms 3600001"),
        (request(1, 1_025), "replies_max 1025: at most 1024 are allowed"),
    ] {
        let mut stream = client.open().await;
        stream.put(request).await;
        let error = stream.error().await;
        assert_eq!(Code::from_number(error.code), Some(Code::InvalidCall));
        assert!(error.text.contains(text), "{error:?}");
    }
    let mut stream = client.open().await;
    stream.put(Frame::with_payload(request(60_000, 1), "x".into())).await;
    assert!(matches!(stream.next().await.expect("an answer").body, Body::Requested(_)));
    stream.put(proto::End {}).await;
    let error = stream.error().await;
    assert!(error.text.contains("End does not belong on a request stream"), "{error:?}");
    let mut stream = client.open().await;
    stream.put(proto::Reply::default()).await;
    let error = stream.error().await;
    assert!(error.text.contains("no stream begins with Reply"), "{error:?}");
}

#[tokio::test]
async fn by_hand() {
    let server = TestServer::start(QUIPU, CONFIG).await;
    let reply = |arguments: &[&str]| {
        let mut command = quipu(QUIPU, server.directory());
        command.env("QUIPU_SERVER", server.address()).args(["reply", "prices"]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    let echo = reply(&["--echo", "--count", "1"]);
    assert_eq!(server.cli(&["request", "prices.get", "--message", "loom"]).await, "loom\n");
    let said = soon("the end", echo.wait_with_output()).await.expect("waited");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.ends_with("  prices.get  replied\n"), "{said}");

    let command = "read item; case $item in loom) echo \"$QUIPU_SUBJECT 12\";; *) echo \"no $item\" >&2; exit 3;; esac";
    let priced = reply(&["--exec", command, "--count", "2", "--json"]);
    let answer = server.cli(&["request", "prices.get", "--message", "loom", "--json"]).await;
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["payload"], "prices.get 12");
    let failed = server.cli_output(&["request", "prices.get", "--message", "tusk"]).await;
    let text = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!((failed.status.code(), failed.stdout.len()), (Some(1), 0));
    assert_eq!(text, "quipu: the reply says: the command ended with exit status: 3: no tusk\n");
    let said = soon("the end", priced.wait_with_output()).await.expect("waited");
    let last: Value =
        serde_json::from_slice(said.stdout.split(|b| *b == b'\n').nth(1).expect("two lines")).expect("JSON");
    assert_eq!(
        (&last["outcome"], &last["error"]),
        (&"replied".into(), &"the command ended with exit status: 3: no tusk".into())
    );

    let late = server.cli_output(&["request", "prices.get", "--message", "x", "--timeout", "100ms"]).await;
    let text = String::from_utf8_lossy(&late.stderr).into_owned();
    assert_eq!(late.status.code(), Some(1));
    assert!(text.starts_with("quipu: no reply within 0.1 s; the request is stored in `prices` at offset 3"), "{text}");
    let text = reply(&["--message", "{payload}: none", "--count", "1"]);
    let said = soon("the end", text.wait_with_output()).await.expect("waited");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.ends_with("  prices.get  too late: nobody waits for the reply\n"), "{said}");
}
