//! `quipu plugin logs`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_client::CallError;
use quipu_protocol::code::Code;
use serde_json::{Value, json};

use super::{Ask, text, time};
use crate::commands::output::say;
use crate::plugins::version::unix_ms;

/// Between two questions for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(500);

/// Shows what a plugin logged: the last lines, and with --follow those that come.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plugin.
    name: String,
    /// In this route alone.
    #[arg(long)]
    route: Option<String>,
    /// Goes on with the lines that come.
    #[arg(long, short)]
    follow: bool,
    /// No older than this, as 5m.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Of this level and worse: trace, debug, info, warn, error.
    #[arg(long, value_parser = ["trace", "debug", "info", "warn", "error"])]
    level: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.ask.server.connect().await?;
    let back = args.since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    let since_ms = back.map_or(0, |back| unix_ms().saturating_sub(back));
    let (mut after, mut life) = (0, Value::Null);
    loop {
        let call = json!({
            "name": args.name, "route": args.route, "after": after, "life": life, "level": args.level,
            "since_ms": since_ms,
        });
        match client.call("plugin.logs", call).await {
            Ok(answer) => {
                for line in answer["lines"].as_array().into_iter().flatten() {
                    print(line, args.ask.json)?;
                }
                after = answer["after"].as_u64().unwrap_or(after);
                // A router that restarted counts anew, and knows by this that it does.
                life = answer["life"].clone();
            }
            // Once there was an answer, the router is only away for a while.
            Err(e) if life.is_null() || is_final(&e) => return Err(e).context("plugin.logs"),
            Err(e) => eprintln!("plugin.logs: {e}; waiting for the router"),
        }
        if !args.follow {
            client.close().await;
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

/// Whether asking again comes to the same.
fn is_final(error: &CallError) -> bool {
    match error {
        CallError::Open(_) => false,
        CallError::Refused(refusal) => !matches!(refusal.code(), Some(Code::Busy | Code::Stopping | Code::Unavailable)),
        CallError::Json(_) | CallError::Lost(_) => true,
    }
}

fn print(line: &Value, json: bool) -> std::io::Result<()> {
    if json {
        return say!("{line}");
    }
    let (level, route) = (text(&line["level"]).to_ascii_uppercase(), text(&line["route"]));
    say!("{}  {level:<5}  {route}  {}", time(&line["time_ms"]), text(&line["text"]))
}
