//! `quipu store`: the store as a whole.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use quipu_queue::Problem;
use serde_json::{Value, json};

use super::connect::ServerArgs;
use super::output::say;
use super::plugin::until_done;
use super::table::count;
use crate::plugins::Blobs;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Copies the store of a running router, while everything goes on.
    #[command(after_help = "Example:\n  quipu store backup /backups/monday")]
    Backup {
        /// A directory that is not there yet, on the router's machine.
        path: PathBuf,
        /// Prints JSON, one object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Looks at every row, record and plugin of a store that is not running, and names what is damaged. Changes nothing; exits
    /// with 1 where something is.
    #[command(after_help = "Example:\n  quipu store verify data")]
    Verify {
        /// The store's directory.
        path: PathBuf,
        /// Prints JSON, one object.
        #[arg(long)]
        json: bool,
    },
    /// Makes a new store of what can be read of a damaged one, and names what is lost. The old one stays as it is.
    #[command(after_help = "Example:\n  quipu store salvage data rescued")]
    Salvage {
        /// The damaged store's directory.
        from: PathBuf,
        /// A directory that is not there yet.
        to: PathBuf,
        /// Prints JSON, one object.
        #[arg(long)]
        json: bool,
    },
    /// Gives the room of what is gone back to the file system, in a running router. Messages that are not in memory wait
    /// meanwhile.
    #[command(after_help = "Example:\n  quipu store compact")]
    Compact {
        /// Prints JSON, one object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(crate) async fn run(command: StoreCommand) -> Result<ExitCode> {
    match command {
        StoreCommand::Backup { path, json, server } => backup(&path, json, &server).await,
        StoreCommand::Verify { path, json } => verify(path, json).await,
        StoreCommand::Salvage { from, to, json } => salvage(from, to, json).await,
        StoreCommand::Compact { json, server } => compact(json, &server).await,
    }
}

async fn backup(path: &Path, as_json: bool, server: &ServerArgs) -> Result<ExitCode> {
    // As whoever typed it means it, where the router runs here.
    let path = std::path::absolute(path).context("no such path")?;
    let client = server.connect().await?;
    until_done(&client, "store.backup", &json!({ "path": path })).await?;
    client.close().await;
    if as_json {
        say!("{}", json!({ "copied_to": path }))?;
    } else {
        say!("copied to {}; it opens like any store", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn verify(path: PathBuf, as_json: bool) -> Result<ExitCode> {
    let verify = move || -> Result<_> {
        let mut report = quipu_queue::inspect(&path)?;
        let wrong = Blobs::verify(&path.join("plugins"), &report.noted);
        report.problems.extend(wrong.into_iter().map(|(file, what)| of_plugin(&file, what)));
        Ok(report)
    };
    let report = tokio::task::spawn_blocking(verify).await??;
    if as_json {
        let mut found = serde_json::to_value(&report)?;
        found["sound"] = report.is_sound().into();
        say!("{found}")?;
    } else {
        say!("{}", report.to_string().trim_end())?;
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn salvage(from: PathBuf, to: PathBuf, as_json: bool) -> Result<ExitCode> {
    let salvage = move || -> Result<_> {
        let report = quipu_queue::salvage(&from, &to)?;
        Ok((report, Blobs::salvage(&from.join("plugins"), &to.join("plugins"))?))
    };
    let (report, (plugins, damaged)) = tokio::task::spawn_blocking(salvage).await??;
    if as_json {
        let mut saved = serde_json::to_value(&report)?;
        saved["plugins"] = json!({ "files": plugins, "damaged": damaged });
        say!("{saved}")?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("{}", report.to_string().trim_end())?;
    if plugins > 0 {
        say!("plugins: {plugins} files")?;
    }
    for digest in damaged {
        say!("plugin {digest}: damaged, push it again")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn compact(as_json: bool, server: &ServerArgs) -> Result<ExitCode> {
    let client = server.connect().await?;
    let bytes = |status: &Value| status["state_file_bytes"].as_u64().unwrap_or(0);
    let before = bytes(&client.call("status", json!({})).await.context("status")?);
    until_done(&client, "store.compact", &json!({})).await?;
    let after = bytes(&client.call("status", json!({})).await.context("status")?);
    client.close().await;
    if as_json {
        say!("{}", json!({ "state_file_bytes": after, "state_file_bytes_before": before }))?;
    } else {
        say!("state file: {} bytes, before {}", count(after), count(before))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// No message is lost with a plugin's file.
fn of_plugin(file: &Path, what: String) -> Problem {
    let file = file.display().to_string();
    Problem { file, place: "the file".into(), what, queue: None, offsets: None, is_of_store: false }
}
