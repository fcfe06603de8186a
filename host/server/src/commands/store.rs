//! `quipu store`: the store as a whole.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use quipu_client::Client;
use quipu_queue::Problem;
use serde_json::{Value, json};

use super::connect::ServerArgs;
use super::output::say;
use crate::plugins::Blobs;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copies the store of a running router, while everything goes on.
    Backup {
        /// A directory that is not there yet, on the router's machine.
        path: PathBuf,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Looks at every row, record and plugin of a store that is not running, and names what is damaged. Changes nothing; exits
    /// with 1 where something is.
    Verify {
        /// The store's directory.
        path: PathBuf,
    },
    /// Makes a new store of what can be read of a damaged one, and names what is lost. The old one stays as it is.
    Salvage {
        /// The damaged store's directory.
        from: PathBuf,
        /// A directory that is not there yet.
        to: PathBuf,
    },
    /// Gives the room of what is gone back to the file system, in a running router. Messages that are not in memory wait
    /// meanwhile.
    Compact {
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(crate) async fn run(command: StoreCommand) -> Result<ExitCode> {
    match command {
        StoreCommand::Backup { path, server } => {
            // As whoever typed it means it, where the router runs here.
            let path = std::path::absolute(&path).context("no such path")?;
            let client = server.connect().await?;
            until_done(&client, "store.backup", json!({ "path": path })).await?;
            client.close().await;
            say!("copied to {}; it opens like any store", path.display())?;
        }
        StoreCommand::Verify { path } => {
            let verify = move || -> Result<_> {
                let mut report = quipu_queue::inspect(&path)?;
                let wrong = Blobs::verify(&path.join("plugins"), &report.noted);
                report.problems.extend(wrong.into_iter().map(|(file, what)| of_plugin(&file, what)));
                Ok(report)
            };
            let report = tokio::task::spawn_blocking(verify).await??;
            say!("{}", report.to_string().trim_end())?;
            return Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        StoreCommand::Salvage { from, to } => {
            let salvage = move || -> Result<_> {
                let report = quipu_queue::salvage(&from, &to)?;
                Ok((report, Blobs::salvage(&from.join("plugins"), &to.join("plugins"))?))
            };
            let (report, (plugins, damaged)) = tokio::task::spawn_blocking(salvage).await??;
            say!("{}", report.to_string().trim_end())?;
            if plugins > 0 {
                say!("plugins: {plugins} files")?;
            }
            for digest in damaged {
                say!("plugin {digest}: damaged, push it again")?;
            }
        }
        StoreCommand::Compact { server } => {
            let client = server.connect().await?;
            let bytes = |status: &Value| super::table::count(status["state_file_bytes"].as_u64().unwrap_or(0));
            let before = client.call("status", json!({})).await.context("status")?;
            until_done(&client, "store.compact", json!({})).await?;
            let after = client.call("status", json!({})).await.context("status")?;
            client.close().await;
            say!("state file: {} bytes, before {}", bytes(&after), bytes(&before))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// No message is lost with a plugin's file.
fn of_plugin(file: &Path, what: String) -> Problem {
    let file = file.display().to_string();
    Problem { file, place: "the file".into(), what, queue: None, offsets: None, is_of_store: false }
}

/// Calls again until it is done.
async fn until_done(client: &Client, method: &str, arguments: Value) -> Result<()> {
    loop {
        let answer = client.call(method, arguments.clone()).await.with_context(|| method.to_owned())?;
        if answer["done"].as_bool() == Some(true) {
            return Ok(());
        }
    }
}
