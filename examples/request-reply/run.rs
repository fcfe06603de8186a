//! Requests that a program answers, one that a route answers, and what is told where nobody does.

mod consumer;
mod producer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_client::OutgoingMessage;

use crate::Router;

/// What came of it all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Of each item that was asked for: the price, or why there is none.
    pub prices: Vec<Result<String, String>>,
    /// How many questions the two desks answered together.
    pub answered: usize,
    /// What the route answered.
    pub customer: String,
    /// What is told where nothing takes the subject.
    pub nowhere: String,
    /// What is told where nobody answers.
    pub nobody: String,
}

/// Runs it.
///
/// # Errors
///
/// Where an answer is missing.
pub async fn run(router: &Router) -> Result<Answers> {
    let answered = Arc::new(AtomicUsize::new(0));
    let mut desks = tokio::task::JoinSet::new();
    for name in ["desk-1", "desk-2"] {
        desks.spawn(consumer::answer(router.client(name).await?, answered.clone()));
    }
    let till = router.client("till").await?;
    let mut prices = Vec::new();
    for item in ["loom", "yarn", "tusk", "spindle"] {
        let price = producer::price(&till, item).await?;
        match &price {
            Ok(price) => println!("{item:<8} {price}"),
            Err(why) => println!("{item:<8} {why}"),
        }
        prices.push(price);
    }
    let ask = OutgoingMessage::new("customers", r#"{"name":"Ada","card":"4711"}"#);
    let customer = till.request(ask, Duration::from_secs(30)).await.context("the route's answer")?;
    let customer = String::from_utf8_lossy(&customer.payload).into_owned();
    println!("customer {customer}");
    let (nowhere, nobody) = (producer::in_vain(&till, "nowhere").await, producer::in_vain(&till, "lists").await);
    println!("\nnowhere  {nowhere}\nlists    {nobody}");
    let replying = ["reply", "lists", "--echo", "--count", "1"];
    router.quipu(&replying).await?;
    till.close().await;
    Ok(Answers { prices, answered: answered.load(Ordering::Acquire), customer, nowhere, nobody })
}
