//! A notification goes to everybody who wants it; one that is not fit is refused at the door, and the publisher told why.

mod consumer;
mod producer;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Router;

const MESSAGES: [(&str, &str); 6] = [
    ("notify.all", r#"{"to":"ada","text":"the loom is ready"}"#),
    ("notify.email", r#"{"to":"bob","text":"your invoice"}"#),
    ("notify.sms", r#"{"to":"ada","text":"your parcel is here"}"#),
    ("notify.sms", "not json"),
    ("notify.email", r#"{"to":"bob"}"#),
    ("elsewhere", r#"{"to":"bob","text":"lost"}"#),
];

/// What came of it all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Of each message, in how many queues it is, or why it was refused.
    pub answers: Vec<Result<usize, String>>,
    /// Texts that were sent by each way.
    pub email: Vec<String>,
    /// See [`Told::email`].
    pub sms: Vec<String>,
    /// Everything that was let in.
    pub archive: Vec<String>,
    /// Messages that ever were in the archive.
    pub stored: u64,
}

/// Runs it.
///
/// # Errors
///
/// Where anything is missing or does not work.
pub async fn run(router: &Router) -> Result<Told> {
    let (publisher, sender) = (router.client("publisher").await?, router.client("sender").await?);
    let answers = producer::publish(&publisher, &MESSAGES).await?;
    for ((subject, payload), answer) in MESSAGES.iter().zip(&answers) {
        match answer {
            Ok(queues) => println!("{subject:<12} in {queues} queues  {payload}"),
            Err(why) => println!("{subject:<12} {why}"),
        }
    }
    println!();
    let email = consumer::send(&sender, "email", 2).await?;
    let sms = consumer::send(&sender, "sms", 2).await?;
    let archive = consumer::send(&sender, "archive", 3).await?;
    println!();
    router.quipu(&["queue", "list"]).await?;
    let shown = sender.call("queue.show", json!({ "queue": "archive" })).await?;
    let stored = shown["queue"]["next_offset"].as_u64().context("a count")?;
    publisher.close().await;
    sender.close().await;
    Ok(Told { answers, email, sms, archive, stored })
}
