//! The examples do what their pages say: the same code, against the binary under test.

use std::path::Path;

use quipu_examples::{Router, build_example, notifications, orders, peer_to_peer, request_reply, sensors};
use quipu_tests::soon;

use crate::QUIPU;

async fn router(example: &str) -> Router {
    soon("the router", Router::start(Path::new(QUIPU), example)).await.expect("it starts")
}

#[tokio::test]
async fn orders() {
    let counts = soon("the example", orders::run(&router("orders").await)).await.expect("it works");
    assert!(counts.orders > 20, "the shop was open while the other version was deployed");
    let orders = usize::try_from(counts.orders).expect("few");
    assert_eq!((counts.invoices, counts.stock), (orders, orders));
    assert_eq!((counts.shipping, counts.cents_each), (orders - orders / 4, 0));
    assert!(counts.poison.contains("attempt to divide by zero"), "{}", counts.poison);
}

#[tokio::test]
async fn sensors() {
    let counts = soon("the example", sensors::run(&router("sensors").await)).await.expect("it works");
    assert_eq!(counts, sensors::Counts { sent: 400, dropped: 40, shown: 360 });
}

#[tokio::test]
async fn request_reply() {
    let answers = soon("the example", request_reply::run(&router("request-reply").await)).await.expect("it works");
    let price = |price: &str| Ok(price.to_owned());
    assert_eq!(answers.prices, [price("250"), price("12"), Err("no such item".into()), price("180")]);
    assert_eq!((answers.answered, answers.customer.as_str()), (4, r#"{"name":"Ada"}"#));
    assert_eq!(answers.nowhere, "the router refuses the request: no queue or route takes `nowhere` (code 33)");
    let nobody = "no reply within 0.3 s; the request is stored in `lists` at offset 0 and may still be worked on";
    assert_eq!(answers.nobody, nobody);
}

#[tokio::test]
async fn notifications() {
    let told = soon("the example", notifications::run(&router("notifications").await)).await.expect("it works");
    assert_eq!(told.answers[..3], [Ok(3), Ok(2), Ok(2)]);
    let refused = |n: usize| told.answers[n].as_ref().expect_err("refused").clone();
    assert!(refused(3).contains("route \"door\" rejects it: the payload is no JSON"), "{}", refused(3));
    assert!(refused(4).contains("route \"door\" rejects it: text absent"), "{}", refused(4));
    assert!(refused(5).contains("no queue or route takes `elsewhere`"), "{}", refused(5));
    assert_eq!(told.email, ["the loom is ready", "your invoice"]);
    assert_eq!(told.sms, ["the loom is ready", "your parcel is here"]);
    assert_eq!(told.archive, ["the loom is ready", "your invoice", "your parcel is here"]);
    assert_eq!(told.stored, 3, "what was refused is stored nowhere");
}

#[tokio::test]
async fn peer_to_peer() {
    // Each peer is a process of this program. The tests' own build may have left it out.
    let program = build_example("peer-to-peer").await.expect("it builds");
    let router = router("peer-to-peer").await;
    let mail = soon("the example", peer_to_peer::run(&router, &program)).await.expect("it works");
    let letters = |from: &str| (1..=5).map(|n| format!("{from}'s letter {n}")).collect::<Vec<_>>();
    assert_eq!((mail.ada, mail.bob), (letters("bob"), letters("ada")));
}
