//! `quipu status`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::connect::ServerArgs;
use super::output::say;
use super::table::count;

/// Says whether a router does its work; fails where it does not, with the reasons.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  quipu status")]
pub(crate) struct Args {
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.server.connect().await?;
    let answer = client.call("status", json!({})).await.context("status")?;
    client.close().await;
    let ready = answer["ready"].as_bool() == Some(true);
    if args.json {
        say!("{answer}")?;
    } else {
        print(&answer, ready)?;
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(answer: &Value, ready: bool) -> std::io::Result<()> {
    say!("{}", if ready { "ready" } else { "not ready" })?;
    for reason in answer["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say!("  {reason}")?;
    }
    let number = |field: &str| count(answer[field].as_u64().unwrap_or(0));
    say!("journal             {} bytes that no checkpoint has", number("journal_used_bytes"))?;
    say!("state file          {} bytes", number("state_file_bytes"))?;
    say!("messages in memory  {} bytes", number("memory_bytes"))?;
    say!("message ids         {}", number("dedup_ids"))?;
    say!("publishes           {} bytes under way", number("ingest_bytes"))?;
    say!("blocked publishers  {}", number("blocked_publishers"))?;
    let access = &answer["access"];
    let reasons = access["refusals_by_reason"].as_object().into_iter().flatten();
    let reasons: Vec<String> =
        reasons.map(|(reason, n)| format!("{} {reason}", count(n.as_u64().unwrap_or(0)))).collect();
    let of = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    say!("refusals            {}{of}", count(access["refusals"].as_u64().unwrap_or(0)))
}
