//! The till: it asks, and waits for the answer.

use std::time::Duration;

use anyhow::Result;
use quipu_client::{Client, OutgoingMessage, RequestError};

/// Asks for the price of an item; what the answer says, in words, where it is none.
pub(super) async fn price(client: &Client, item: &str) -> Result<Result<String, String>> {
    let answer = client.request(OutgoingMessage::new("prices.get", item.to_owned()), Duration::from_secs(30)).await;
    match answer {
        Ok(reply) => Ok(Ok(String::from_utf8_lossy(&reply.payload).into_owned())),
        Err(RequestError::Failed(why)) => Ok(Err(why)),
        Err(e) => Err(e.into()),
    }
}

/// Asks where nobody answers, and gives up soon.
pub(super) async fn in_vain(client: &Client, subject: &str) -> String {
    let answer = client.request(OutgoingMessage::new(subject, "?"), Duration::from_millis(300)).await;
    answer.map_or_else(|e| e.to_string(), |_| "an answer".into())
}
