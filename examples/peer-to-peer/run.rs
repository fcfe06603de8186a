//! Two programs that each send and listen, at the same time and on one connection.

mod consumer;
mod producer;

use anyhow::Result;
use quipu_client::Client;

use crate::Router;

const LETTERS: u32 = 5;

/// What each read, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// What ada got of bob.
    pub ada: Vec<String>,
    /// What bob got of ada.
    pub bob: Vec<String>,
}

/// Runs it.
///
/// # Errors
///
/// Where anything is missing or does not work.
pub async fn run(router: &Router) -> Result<Mail> {
    let (ada, bob) = (router.client("ada").await?, router.client("bob").await?);
    let (ada, bob) = tokio::try_join!(peer(ada, "ada", "bob"), peer(bob, "bob", "ada"))?;
    Ok(Mail { ada, bob })
}

/// One program: a publisher and a subscriber, each with a stream of the same connection, so that neither waits for the
/// other.
async fn peer(client: Client, own: &str, other: &str) -> Result<Vec<String>> {
    let session = client.session().unwrap_or_default();
    let (_, read) =
        tokio::try_join!(producer::send(&client, own, other, LETTERS), consumer::listen(&client, own, LETTERS))?;
    anyhow::ensure!(client.session().unwrap_or_default() == session, "another connection than at first");
    println!("{own} got {}", read.join(", "));
    client.close().await;
    Ok(read)
}
