//! `quipu plugin run`: a plugin on lines of input, or on what an earlier attempt saw.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use quipu_protocol::{Headers, Message, MessageId, Subject};
use quipu_runtime::{Attempt, CAPSULE_BYTES_MAX, Capsule, CapturedLog, Component, Guest, Hand, Use};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufRead, BufReader};

use super::{build, shown};
use crate::author::candidate::{Candidate, read_config};
use crate::author::trial::{self, Names};
use crate::commands::output::say;
use crate::commands::publish::{Line, Lines};
use crate::files;
use crate::plugins::cases::{CaseMessage, found};
use crate::plugins::version::unix_ms;

/// Faults of one run that are shown, with a capsule each; those after them are lines of the output alone.
const FAULTS_SHOWN: usize = 16;
/// The clock where times are left out: 2026-01-01, in Unix milliseconds.
const NO_TIMES_NOW_MS: u64 = 1_767_225_600_000;

/// Runs a plugin on messages: a payload a line on standard input, what became of it a line on standard output.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin run big-quakes.wasm -c at_least=4.5 < sample.ndjson\n  \
    quipu plugin run . --messages < vectors.ndjson\n  \
    quipu plugin run big-quakes.wasm --capsule .quipu/failed/ak0247 --trace\n\n\
    A line of --messages:\n  {\"id\":\"m1\",\"subject\":\"quakes.ak\",\"headers\":{\"type\":\"earthquake\"},\"payload\":{\"n\":1}}")]
pub(crate) struct Args {
    /// A project, which is built first; or a module or component. What a project's build gave has the configuration and
    /// limits of its `plugin.toml`.
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// A key of its configuration; the value is JSON, or else a text. May be repeated.
    #[arg(short = 'c', value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, Value)>,
    /// A file with its configuration, as JSON.
    #[arg(long = "config", value_name = "FILE")]
    config_file: Option<PathBuf>,
    #[command(flatten)]
    lines: LineArgs,
    /// Makes one attempt again: what it saw, from this file. Fails where it comes to something else.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "config_file", "messages", "subject", "headers"])]
    capsule: Option<PathBuf>,
    /// For scripts that say it everywhere: the output is JSON in any case.
    #[arg(long)]
    json: bool,
}

/// What lines of input are, and how what becomes of them is shown.
#[derive(Debug, clap::Args)]
pub(super) struct LineArgs {
    /// The messages' subject.
    #[arg(long, default_value = "test", conflicts_with = "messages")]
    subject: String,
    /// A header of every message. May be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = text_pair, conflicts_with = "messages")]
    headers: Vec<(String, String)>,
    /// Each line is a whole message, as a case has it: id, subject, key, headers, payload and so on.
    #[arg(long)]
    messages: bool,
    /// Leaves out what differs from run to run or build to build, times and fingerprints; the clock stands still.
    #[arg(long)]
    no_times: bool,
    /// Shows whole traces, what was changed and what was logged, on standard error.
    #[arg(long)]
    trace: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let Some(candidate) = build::candidate(&args.path, None, false).await? else { return Ok(ExitCode::FAILURE) };
    match &args.capsule {
        Some(file) => replay(&candidate, file, &args).await,
        None => {
            let (component, _) = candidate.load().await?;
            let config_json = args.config_json(&candidate)?;
            let input = BufReader::new(tokio::io::stdin());
            let faults = lines(component, &candidate, config_json, input, &args.lines).await?;
            Ok(if faults > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

async fn replay(candidate: &Candidate, file: &Path, args: &Args) -> Result<ExitCode> {
    let text = files::read_text(file, CAPSULE_BYTES_MAX as u64)?;
    let capsule = Capsule::from_json(&text).with_context(|| file.display().to_string())?;
    let (component, _) = candidate.load_for(&capsule.r#use().limits).await?;
    let (file_digest, replayed) = (*component.digest(), capsule.clone());
    let attempt = tokio::task::spawn_blocking(move || -> Result<Attempt> {
        let log = Arc::new(CapturedLog::default());
        let mut guest = component.plugin_with(replayed.r#use(), log.clone())?;
        Ok(Attempt::of(&mut guest, replayed.hand()?, Some(&log)))
    });
    let attempt = attempt.await??;
    let same = capsule.outcome.map(|outcome| outcome == attempt.digest());
    let (now, recorded) = (attempt.verdict_name(), capsule.verdict.clone().unwrap_or_default());
    let more = [("outcome", json!(attempt.digest())), ("same", json!(same))];
    let args = &args.lines;
    print_line(&attempt, args.no_times, more)?;
    if let Err(fault) = &attempt.verdict {
        shown::fault(fault, args.trace).iter().for_each(|line| eprintln!("{line}"));
    }
    if args.trace {
        print_trace(&attempt);
    }
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

/// Runs a plugin on each line of the input; how many ended in a fault.
pub(super) async fn lines(
    component: Component,
    candidate: &Candidate,
    config_json: String,
    input: impl AsyncBufRead + Unpin,
    args: &LineArgs,
) -> Result<usize> {
    let log = Arc::new(CapturedLog::default());
    let started_ms = args.no_times.then_some(NO_TIMES_NOW_MS);
    let r#use = Use { config_json, started_ms, ..candidate.r#use() };
    let (sink, started, digest) = (log.clone(), r#use.clone(), *component.digest());
    let guest = tokio::task::spawn_blocking(move || component.plugin_with(started, sink)).await?;
    let mut guest = guest.map_err(|e| anyhow!("{}", shown::refused(&e, candidate.is_own, args.trace).join("\n")))?;
    let mut lines = Lines::new(input);
    let mut faults = Faults { candidate, r#use, digest, names: Names::default(), count: 0, all: args.trace };
    while let Some(line) = lines.next().await? {
        let (number, payload) = match line {
            Line::Text { number, bytes } => (number, bytes),
            Line::TooLong { number, bytes } => bail!("line {number}: {bytes} bytes; at most {PAYLOAD_BYTES_MAX}"),
        };
        let hand = args.hand(number, payload).with_context(|| format!("line {number}"))?;
        let (back, attempt) = attempt(guest, hand, log.clone()).await?;
        guest = back;
        print_line(&attempt, args.no_times, [])?;
        if attempt.verdict.is_err() {
            faults.show(&attempt)?;
        }
        if args.trace {
            print_trace(&attempt);
        }
    }
    if faults.count > FAULTS_SHOWN {
        eprintln!("{} faults more: see the lines of the output", faults.count - FAULTS_SHOWN);
    }
    Ok(faults.count)
}

async fn attempt(mut guest: Guest, hand: Hand, log: Arc<CapturedLog>) -> Result<(Guest, Attempt)> {
    let attempt = tokio::task::spawn_blocking(move || {
        let attempt = Attempt::of(&mut guest, hand, Some(&log));
        (guest, attempt)
    });
    Ok(attempt.await?)
}

/// A line of the output; what it has beside id and times is what a case could expect.
#[derive(Serialize)]
struct Output<'a> {
    id: &'a str,
    verdict: Value,
    #[serde(flatten)]
    rest: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ns: Option<u64>,
}

fn print_line<const N: usize>(attempt: &Attempt, no_times: bool, more: [(&str, Value); N]) -> Result<()> {
    let mut rest = found(attempt);
    let verdict = rest.remove("verdict").unwrap_or_default();
    if let (Err(fault), false) = (&attempt.verdict, no_times) {
        rest.insert("fingerprint".into(), fault.fingerprint().into());
    }
    if !attempt.logs.is_empty() {
        let logs = attempt.logs.iter().map(|(level, text)| json!({ "level": level, "text": text }));
        rest.insert("logs".into(), logs.collect());
    }
    rest.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
    let ns = (!no_times).then(|| u64::try_from(attempt.time.as_nanos()).unwrap_or(u64::MAX));
    say!("{}", serde_json::to_string(&Output { id: attempt.input.id.as_str(), verdict, rest, ns })?)?;
    Ok(())
}

/// What was changed and logged, on standard error.
fn print_trace(attempt: &Attempt) {
    if attempt.verdict.is_ok() {
        for change in attempt.changes() {
            let or_absent = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
            let [before, after] = [&change.before, &change.after].map(|value| shown::visible(&or_absent(value)));
            eprintln!("change    {}: {before} → {after}", change.what);
        }
    }
    for (level, text) in &attempt.logs {
        eprintln!("log       {} {}", level.as_str().to_uppercase(), shown::visible(text));
    }
}

/// Attempts that failed: each is shown, and kept in a capsule.
struct Faults<'a> {
    candidate: &'a Candidate,
    r#use: Use,
    digest: quipu_runtime::Digest,
    names: Names,
    count: usize,
    all: bool,
}

impl Faults<'_> {
    fn show(&mut self, attempt: &Attempt) -> Result<()> {
        self.count += 1;
        let Err(fault) = &attempt.verdict else { return Ok(()) };
        if self.count > FAULTS_SHOWN {
            return Ok(());
        }
        shown::fault(fault, self.all).iter().for_each(|line| eprintln!("{line}"));
        let config = quipu_runtime::Digest::of(self.r#use.config_json.as_bytes());
        eprintln!("{}", shown::message(attempt, &self.candidate.name, &self.digest, &config, &self.r#use.limits));
        let input =
            Hand::new(attempt.input.clone(), attempt.output.attempt, attempt.output.now_ms, attempt.output.seed);
        let started_ms = Some(attempt.usage.started_ms);
        let capsule = Capsule::of(&self.candidate.name, self.digest, &Use { started_ms, ..self.r#use.clone() }, &input);
        let path = trial::failed_dir(&self.candidate.dir).join(self.names.of(attempt.input.id.as_str()));
        trial::write_capsule(&path, &capsule.with_outcome(attempt))?;
        let (file, path) = (shown::typed(&self.candidate.file), shown::typed(&path));
        eprintln!("again     quipu plugin run {file} --capsule {path}");
        Ok(())
    }
}

impl Args {
    /// Of the file, or else of the project whose plugin it is, with each key that is said here.
    fn config_json(&self, candidate: &Candidate) -> Result<String> {
        let mut config = match &self.config_file {
            Some(file) => read_config(file)?,
            None if candidate.is_own => candidate.config.clone(),
            None => Map::new(),
        };
        config.extend(self.config.iter().cloned());
        Ok(Value::Object(config).to_string())
    }
}

impl LineArgs {
    /// Payloads a line, or whole messages.
    pub(super) fn of(messages: bool) -> Self {
        Self { subject: "test".into(), headers: Vec::new(), messages, no_times: false, trace: false }
    }

    fn hand(&self, number: u64, line: Vec<u8>) -> Result<Hand> {
        let now_ms = if self.no_times { NO_TIMES_NOW_MS } else { unix_ms() };
        if self.messages {
            let message: CaseMessage = serde_json::from_slice(&line).context("a message as JSON is expected")?;
            let id = message.id.clone().unwrap_or_else(|| format!("line-{number}"));
            return CaseMessage { id: Some(id), ..message }.hand(now_ms, number);
        }
        Ok(Hand::new(self.message(number, line, now_ms)?, 1, now_ms, number))
    }

    /// A message with the payload's field `id`, where it has one, or else the line's number.
    fn message(&self, number: u64, payload: Vec<u8>, now_ms: u64) -> Result<Message> {
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
        message.published_ms = now_ms;
        Ok(message)
    }
}

fn text_pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "KEY=VALUE is expected".to_owned())
}

pub(super) fn pair(text: &str) -> Result<(String, Value), String> {
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
