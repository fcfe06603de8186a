//! Requests and replies, as a router sees them.

use std::time::Duration;

use bytes::Bytes;
use quipu_client::{
    Client, Code, Message, MessageId, OutgoingMessage, Receipt, Replied, RequestError, Responder, Subscribe,
};
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::proto;

use crate::router::{Duplex, FakeRouter, Peer, position, timely};

const WAIT: Duration = Duration::from_secs(20);

fn ask() -> OutgoingMessage {
    OutgoingMessage::new("prices.get", "loom")
}

/// Accepts a request, which asks for so many replies, and says that it is stored.
async fn accept(peer: &Peer, replies: u32) -> Duplex {
    let mut stream = Duplex::accept(&peer.connection).await;
    let frame = stream.next().await;
    let Body::Request(request) = frame.body else { panic!("a Request, not {}", frame.body.name()) };
    assert_eq!((frame.payload, request.replies_max), (Bytes::from_static(b"loom"), replies));
    assert!((19_000..=20_000).contains(&request.timeout_ms), "{}", request.timeout_ms);
    let message = Message::decode(request.message, Bytes::new()).expect("a message");
    assert_eq!((message.subject.as_str(), message.id.as_str().len(), message.reply_to), ("prices.get", 36, None));
    let result = Some(proto::Result { kind: Some(proto::result::Kind::Stored(position(7))) });
    stream.send(proto::Requested { result, inbox: "$inbox.1".into() }).await;
    stream
}

fn reply(payload: &'static str) -> Frame {
    let id = MessageId::new("r").expect("an id");
    let message = Message::new(id, "$inbox.1".parse().expect("a subject"), Bytes::new()).encode_header();
    Frame::with_payload(proto::Reply { message }, Bytes::from_static(payload.as_bytes()))
}

#[tokio::test]
async fn a_request_is_a_stream_of_its_own_until_its_replies_have_come() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (asked, mut stream) = tokio::join!(client.request_many(ask(), WAIT, 2), accept(&peer, 2));
        let mut replies = asked.expect("taken");
        assert_eq!(replies.inbox, "$inbox.1");
        assert!(matches!(&replies.receipt, Receipt::Stored(at) if at[0].offset == 7));
        stream.send(reply("12")).await;
        stream.send(reply("13")).await;
        stream.send(proto::End {}).await;
        for payload in ["12", "13"] {
            assert_eq!(replies.next().await.expect("open").expect("a reply").payload, payload);
        }
        assert!(replies.next().await.is_none());
        stream.expect_fin().await;
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_given_up_resets_its_stream() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (asked, mut stream) = tokio::join!(client.request_many(ask(), WAIT, 1), accept(&peer, 1));
        drop(asked.expect("taken"));
        assert!(stream.read().await.is_err(), "reset");
    })
    .await;
}

#[tokio::test]
async fn refusals_silence_and_a_lost_connection_are_told_apart() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        for (code, expected) in
            [(Code::NoQueue, "the router refuses the request: why (code 33)"), (Code::NoReply, "why")]
        {
            let refusing = async {
                let mut stream = Duplex::accept(&peer.connection).await;
                stream.next().await;
                stream.fail(code, "why").await;
                stream
            };
            let (answer, _stream) = tokio::join!(client.request(ask(), WAIT), refusing);
            let error = answer.expect_err("refused");
            assert_eq!((error.code(), error.to_string().as_str()), (Some(code), expected));
        }
        let (answer, ()) = tokio::join!(client.request(ask(), WAIT), async {
            drop(accept(&peer, 1).await);
            peer.vanish();
        });
        assert!(matches!(answer, Err(RequestError::Unanswered(_))), "{answer:?}");
    })
    .await;
}

async fn responder(client: &Client, peer: &Peer) -> (Responder, Duplex, Duplex) {
    let (responder, streams) = tokio::join!(client.respond(Subscribe::new("orders", "billing")), async {
        let publisher = peer.accept_publisher(100).await;
        (publisher, peer.accept_subscriber().await.0)
    });
    (responder.expect("a responder"), streams.0, streams.1)
}

#[tokio::test]
async fn a_reply_comes_before_the_settlement_and_its_id_follows_from_the_requests() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (mut responder, mut publisher, mut subscriber) = responder(&client, &peer).await;
        let id = MessageId::new("m1").expect("an id");
        let mut request = Message::new(id, "orders.eu".parse().expect("a subject"), Bytes::new());
        request.reply_to = Some("$inbox.1".parse().expect("a subject"));
        let deliver =
            proto::Deliver { token: 5, attempt: 1, why: 1, message: request.encode_header(), ..Default::default() };
        subscriber.send(Frame::with_payload(deliver, Bytes::new())).await;
        let asked = responder.next().await.expect("open").expect("a request");
        let serving = async {
            let (sequence, reply) = publisher.publish().await;
            assert_eq!((reply.subject.as_str(), reply.id.as_str()), ("$inbox.1", "re:0:orders:billing:m1"));
            assert_eq!((sequence, &reply.payload[..]), (1, &b"12"[..]));
            publisher.receipt(1, vec![proto::result::Kind::Error(Code::NoInbox.error("gone"))]).await;
            let settle = subscriber.settle().await;
            assert_eq!((settle.verb, settle.tokens), (proto::Verb::Ack.into(), vec![5]));
            subscriber.committed(&[5]).await;
        };
        let (replied, ()) = tokio::join!(asked.reply("12"), serving);
        assert_eq!(replied.expect("settled"), Replied::TooLate);
        // Without a place to reply to, it is settled alone.
        subscriber.deliver(6, 1).await;
        let asked = responder.next().await.expect("open").expect("a request");
        let serving = async {
            assert_eq!(subscriber.settle().await.tokens, [6]);
            subscriber.committed(&[6]).await;
        };
        let (replied, ()) = tokio::join!(asked.reply("12"), serving);
        assert_eq!(replied.expect("settled"), Replied::NotAsked);
    })
    .await;
}
