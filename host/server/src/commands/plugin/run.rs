//! `quipu plugin run`: a plugin on lines of input, or on what an earlier attempt saw.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use quipu_protocol::{Headers, Message, MessageId, Subject};
use quipu_runtime::{Attempt, Capsule, CapturedLog, Component, Guest, Hand, RuntimeConfig, Use};
use serde_json::{Map, Value, json};
use tokio::io::BufReader;

use crate::commands::output::say;
use crate::commands::publish::{Line, Lines};
use crate::plugins::offline;
use crate::plugins::version::unix_ms;

/// Largest configuration file, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Runs a file on messages: a payload a line on standard input, a verdict a line on standard output.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin run big-quakes.wasm -c at_least=4.5 < sample.ndjson\n  \
    quipu plugin run big-quakes.wasm --capsule ak0247.json --trace")]
pub(crate) struct Args {
    /// A module or component.
    file: PathBuf,
    /// A key of its configuration; the value is JSON, or else a text. May be repeated.
    #[arg(short = 'c', value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, Value)>,
    /// A file with its configuration, as JSON.
    #[arg(long = "config", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// The messages' subject.
    #[arg(long, default_value = "test")]
    subject: String,
    /// A header of every message. May be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = text_pair)]
    headers: Vec<(String, String)>,
    /// Shows whole traces, and what was logged, on standard error.
    #[arg(long)]
    trace: bool,
    /// Makes one attempt again: what it saw, from this file. Fails where it comes to something else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "config_file"])]
    capsule: Option<PathBuf>,
    /// For scripts that say it everywhere: the output is JSON in any case.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    // With lines, where the file carries them.
    let runtime = RuntimeConfig { trace_lines: args.trace, memory_bytes_max: 4 << 30, ..RuntimeConfig::default() };
    let (component, _) =
        offline::load(&args.file, RuntimeConfig { memories_max: 16, instances_max: 4, ..runtime }).await?;
    match &args.capsule {
        Some(file) => replay(&component, file, args.trace).await,
        None => lines(component, &args).await,
    }
}

async fn replay(component: &Component, file: &Path, trace: bool) -> Result<ExitCode> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let capsule = Capsule::from_json(&text).with_context(|| file.display().to_string())?;
    let file_digest = *component.digest();
    let (component, replayed) = (component.clone(), capsule.clone());
    let attempt = tokio::task::spawn_blocking(move || -> Result<Attempt> {
        let log = Arc::new(CapturedLog::default());
        let mut guest = component.plugin_with(replayed.r#use(), log.clone())?;
        Ok(Attempt::of(&mut guest, replayed.hand()?, Some(&log)))
    });
    let attempt = attempt.await??;
    let mut shown = attempt.to_json();
    let same = capsule.outcome.map(|outcome| outcome == attempt.digest());
    shown["same"] = json!(same);
    let (now, recorded) = (attempt.verdict_name(), capsule.verdict.clone().unwrap_or_default());
    print(shown, trace)?;
    match same {
        Some(true) => eprintln!("same as recorded: {now}"),
        Some(false) if now == recorded => {
            eprintln!("differs from what was recorded: {now} both times, with another outcome")
        }
        Some(false) => eprintln!("differs from what was recorded: {recorded} then, {now} now"),
        None if recorded.is_empty() => {}
        None => eprintln!("recorded: {recorded}; now: {now}; the outcome as a whole was not recorded"),
    }
    if file_digest != capsule.digest {
        eprintln!(
            "another file than the one that failed: {} then, {} now",
            capsule.digest.short(),
            file_digest.short()
        );
    }
    Ok(if same == Some(false) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn lines(component: Component, args: &Args) -> Result<ExitCode> {
    let config_json = args.config_json()?;
    let log = Arc::new(CapturedLog::default());
    let r#use = Use { route: "run".into(), config_json, ..Use::default() };
    let sink = log.clone();
    let mut guest = tokio::task::spawn_blocking(move || component.plugin_with(r#use, sink)).await??;
    let mut lines = Lines::new(BufReader::new(tokio::io::stdin()));
    let mut failed = false;
    while let Some(line) = lines.next().await? {
        let (number, payload) = match line {
            Line::Text { number, bytes } => (number, bytes),
            Line::TooLong { number, bytes } => bail!("line {number}: {bytes} bytes; at most {PAYLOAD_BYTES_MAX}"),
        };
        let hand = Hand::new(args.message(number, payload)?, 1, unix_ms(), number);
        let (back, attempt) = attempt(guest, hand, log.clone()).await?;
        guest = back;
        failed |= attempt.verdict.is_err();
        print(attempt.to_json(), args.trace)?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn attempt(mut guest: Guest, hand: Hand, log: Arc<CapturedLog>) -> Result<(Guest, Attempt)> {
    let attempt = tokio::task::spawn_blocking(move || {
        let attempt = Attempt::of(&mut guest, hand, Some(&log));
        (guest, attempt)
    });
    Ok(attempt.await?)
}

/// The verdict on standard output; where asked for, the trace and the log on standard error.
fn print(mut attempt: Value, trace: bool) -> std::io::Result<()> {
    let Some(object) = attempt.as_object_mut() else { return Ok(()) };
    let (frames, logs) = (object.remove("trace"), object.get("logs").cloned());
    say!("{}", Value::Object(object.clone()))?;
    if !trace {
        return Ok(());
    }
    if let Some(text) = object.get("text").and_then(Value::as_str) {
        eprintln!("fault     {text}");
    }
    for frame in frames.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("          {frame}");
    }
    for line in logs.as_ref().and_then(Value::as_array).into_iter().flatten() {
        eprintln!(
            "log       {} {}",
            line["level"].as_str().unwrap_or_default(),
            line["text"].as_str().unwrap_or_default()
        );
    }
    Ok(())
}

impl Args {
    fn config_json(&self) -> Result<String> {
        let mut config = match &self.config_file {
            Some(file) => {
                let size = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
                ensure!(size <= CONFIG_BYTES_MAX, "{} has {size} bytes", file.display());
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                serde_json::from_str::<Map<String, Value>>(&text)
                    .with_context(|| format!("{}: a JSON object is expected", file.display()))?
            }
            None => Map::new(),
        };
        config.extend(self.config.iter().cloned());
        Ok(Value::Object(config).to_string())
    }

    /// A message with the payload's field `id`, where it has one, or else the line's number.
    fn message(&self, number: u64, payload: Vec<u8>) -> Result<Message> {
        let json = serde_json::from_slice::<Value>(&payload).ok();
        let id = match json.as_ref().and_then(|json| json.get("id")) {
            Some(Value::String(id)) => MessageId::new(id).ok(),
            Some(Value::Number(id)) => MessageId::new(&id.to_string()).ok(),
            _ => None,
        };
        let id = id.map_or_else(|| MessageId::new(&format!("line-{number}")), Ok)?;
        let mut message = Message::new(id, Subject::new(&self.subject)?, payload);
        let mut headers = Headers::new();
        for (name, value) in &self.headers {
            headers.add(name, value)?;
        }
        message.headers = headers;
        message.published_ms = unix_ms();
        Ok(message)
    }
}

fn text_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "KEY=VALUE is expected".to_owned())
}

fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text_pair(text)?;
    let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_or_else_texts() {
        assert_eq!(pair("at_least=4.5"), Ok(("at_least".into(), json!(4.5))));
        assert_eq!(pair("field=a.b"), Ok(("field".into(), json!("a.b"))));
        assert!(pair("nothing").is_err());
    }
}
