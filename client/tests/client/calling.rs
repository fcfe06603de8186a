//! Admin calls.

use std::time::Duration;

use bytes::Bytes;
use quipu_client::{CallError, Code, OpenError};
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::proto;
use serde_json::json;

use crate::router::{Duplex, FakeRouter, timely};

#[tokio::test]
async fn a_call_is_a_stream_with_one_question_and_one_answer() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let answering = async {
            let mut stream = Duplex::accept(&peer.connection).await;
            let call = stream.next().await;
            assert_eq!(call.body, Body::AdminCall(proto::AdminCall { method: "queue.show".into() }));
            assert_eq!(call.payload, r#"{"queue":"orders"}"#);
            stream.expect_fin().await;
            let payload = Bytes::from_static(br#"{"messages":3}"#);
            stream.send(Frame::with_payload(proto::AdminAnswer {}, payload)).await;
            stream
        };
        let (answer, _stream) = tokio::join!(client.call("queue.show", json!({ "queue": "orders" })), answering);
        assert_eq!(answer.expect("an answer"), json!({ "messages": 3 }));
    })
    .await;
}

#[tokio::test]
async fn a_call_can_be_refused() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let answering = async {
            let mut stream = Duplex::accept(&peer.connection).await;
            stream.next().await;
            stream.fail(Code::InvalidCall, "no method `x`").await;
            stream
        };
        let (answer, _stream) = tokio::join!(client.call("x", json!({})), answering);
        let Err(CallError::Refused(refusal)) = answer else { panic!("refused") };
        assert_eq!(refusal.code(), Some(Code::InvalidCall));
    })
    .await;
}

#[tokio::test]
async fn a_call_is_not_repeated() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let (answer, ()) = tokio::join!(client.call("x", json!({})), async {
            Duplex::accept(&peer.connection).await.next().await;
            peer.vanish();
        });
        assert!(matches!(answer, Err(CallError::Open(_))), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn a_call_waits_as_long_as_it_is_told() {
    timely(async {
        let router = FakeRouter::start();
        let (client, peer) = router.client().await;
        let wait = Duration::from_millis(50);
        let (answer, _stream) = tokio::join!(client.call_within("x", json!({}), wait), async {
            let mut stream = Duplex::accept(&peer.connection).await;
            stream.next().await;
            stream
        });
        assert!(matches!(answer, Err(CallError::Open(OpenError::TimedOut(after))) if after == wait), "{answer:?}");
    })
    .await;
}
