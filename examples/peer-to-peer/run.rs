//! Two programs that each send and listen, at the same time and on one connection.

mod consumer;
mod producer;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::{PATIENCE, Router, router};

const LETTERS: u32 = 5;

/// What each read, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// What ada got of bob.
    pub ada: Vec<String>,
    /// What bob got of ada.
    pub bob: Vec<String>,
}

/// Starts this program twice, as ada and as bob, and waits for both.
///
/// # Errors
///
/// Where anything is missing or does not work.
pub async fn run(router: &Router, program: &Path) -> Result<Mail> {
    let (ada, bob) = tokio::try_join!(start(router, program, "ada", "bob"), start(router, program, "bob", "ada"))?;
    Ok(Mail { ada, bob })
}

/// A peer in a process of its own; the letters that it says it got.
async fn start(router: &Router, program: &Path, own: &str, other: &str) -> Result<Vec<String>> {
    let mut process = Command::new(program);
    process.args([own, other, router.address()]).arg(router.certificate());
    process.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, process.output()).await.context("a peer does not end")?;
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8(output.stdout)?;
    print!("{said}");
    ensure!(output.status.success(), "{own} failed");
    let got = format!("{own} got ");
    Ok(said.lines().filter_map(|line| line.strip_prefix(&got)).map(str::to_owned).collect())
}

/// One program: a publisher and a subscriber, each with a stream of the same connection, so that neither waits for the
/// other.
///
/// # Errors
///
/// Where the router cannot be reached, or refuses.
pub fn peer(own: &str, other: &str, server: &str, certificate: PathBuf) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let client = router::connect(server, certificate, own).await?;
        let session = client.session();
        tokio::try_join!(producer::send(&client, own, other, LETTERS), consumer::listen(&client, own, LETTERS))?;
        ensure!(client.session() == session, "another connection than at first");
        client.close().await;
        Ok(())
    })
}
