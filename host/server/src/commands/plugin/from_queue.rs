//! `quipu plugin test --from-queue`: what a plugin makes of messages that are in a queue. None of them is consumed.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use quipu_client::Client;
use quipu_runtime::{Attempt, Capsule, CapturedLog, Component, Fault, Hand, MessageRecord};
use regex::Regex;
use serde_json::{Value, json};

use super::shown;
use crate::author::candidate::Candidate;
use crate::author::report::{self, Report};
use crate::author::trial::Outcome;
use crate::commands::connect::ServerArgs;
use crate::commands::output::say;
use crate::plugins::cases::file::CaseFile;
use crate::plugins::cases::{Case, Difference, Tried, found};
use crate::plugins::version::unix_ms;

/// Where the verdicts begin, and how wide they are, in characters.
const VERDICT_COLUMN: usize = 48;
const VERDICT_WIDTH: usize = 56;

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) queue: &'a str,
    pub(super) last: usize,
    /// Of their ids.
    pub(super) filter: Option<&'a Regex>,
    pub(super) reports: &'a [Report],
    pub(super) show: bool,
    pub(super) json: bool,
}

pub(super) async fn run(
    candidate: &Candidate,
    component: Component,
    server: &ServerArgs,
    look: Look<'_>,
) -> Result<ExitCode> {
    let client = server.connect().await?;
    let mut messages = last(&client, look).await?;
    client.close().await;
    if let Some(filter) = look.filter {
        messages.retain(|(_, record)| filter.is_match(&record.id));
        ensure!(!messages.is_empty(), "no message has an id in which {:?} is found", filter.as_str());
    }
    let (r#use, digest, of_attempts) = (candidate.r#use(), *component.digest(), component.clone());
    let tried = tokio::task::spawn_blocking(move || -> Result<Vec<(u64, Tried)>> {
        let log = Arc::new(CapturedLog::default());
        let mut guest = of_attempts.plugin_with(r#use.clone(), log.clone())?;
        let attempt = |(offset, record): (u64, MessageRecord)| -> Result<(u64, Tried)> {
            let hand = Hand::new(record.message()?, 1, unix_ms(), offset);
            let name = hand.message.id.as_str().to_owned();
            let capsule = Capsule::of(of_attempts.name(), *of_attempts.digest(), &r#use, &hand);
            let attempt = Attempt::of(&mut guest, hand, Some(&log));
            let differences = attempt.verdict.as_ref().err().map(no_fault).into_iter().collect();
            Ok((offset, Tried { name, differences, attempt: Some(attempt), refused: None, capsule }))
        };
        messages.into_iter().map(attempt).collect()
    });
    let tried = tried.await??;
    write_reports(&tried, candidate, &component, look)?;
    let tried: Vec<(u64, Attempt)> =
        tried.into_iter().filter_map(|(offset, tried)| Some((offset, tried.attempt?))).collect();
    let faults = tried.iter().filter(|(_, attempt)| attempt.verdict.is_err()).count();
    if look.json {
        let messages: Vec<Value> = tried.iter().map(|(offset, attempt)| json(*offset, attempt)).collect();
        say!("{}", json!({ "plugin": candidate.name, "digest": digest, "messages": messages, "faults": faults }))?;
    } else {
        tried.iter().try_for_each(|(offset, attempt)| print(*offset, attempt, look.show))?;
        say!("{}           {}", counts(&tried), shown::limits(&candidate.limits))?;
    }
    Ok(if faults > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is expected of every message: anything else.
fn no_fault(fault: &Fault) -> Difference {
    let found = format!("fault {:?}", fault.text);
    Difference { what: "verdict".into(), place: None, expected: "a verdict".into(), found }
}

/// Each message as a case of a file that has the queue's name, at the line of its offset.
fn write_reports(tried: &[(u64, Tried)], candidate: &Candidate, component: &Component, look: Look<'_>) -> Result<()> {
    let outcome = |(offset, tried): &(u64, Tried)| {
        let case = Case { name: tried.name.clone(), ..Case::default() };
        let line = usize::try_from(*offset).unwrap_or(usize::MAX);
        Outcome { file: 0, index: 0, line, case, tried: tried.clone(), capsule: None }
    };
    if look.reports.is_empty() {
        return Ok(());
    }
    let outcomes: Vec<Outcome> = tried.iter().map(outcome).collect();
    let files = [CaseFile { path: look.queue.into(), text: String::new(), cases: Vec::new() }];
    let run = report::Run { component, limits: &candidate.limits, files: &files, outcomes: &outcomes };
    look.reports.iter().try_for_each(|report| report.write(run))
}

/// The last messages of the queue, the oldest first, page by page from the end.
async fn last(client: &Client, Look { queue, last, .. }: Look<'_>) -> Result<Vec<(u64, MessageRecord)>> {
    let (mut messages, mut before) = (Vec::new(), None::<u64>);
    while messages.len() < last {
        let call = json!({ "queue": queue, "last": last - messages.len(), "before": before });
        let mut answer = client.call("queue.peek", call).await.context("queue.peek")?;
        for message in answer["messages"].as_array_mut().into_iter().flatten().rev() {
            let offset = message["offset"].as_u64().context("queue.peek: a message without an offset")?;
            match serde_json::from_value(message["message"].take()).context("queue.peek")? {
                Some(record) => messages.push((offset, record)),
                None => eprintln!("offset {offset}: {} bytes are too large to look at", message["payload_bytes"]),
            }
        }
        before = answer["before"].as_u64();
        if before.is_none() {
            break;
        }
    }
    messages.reverse();
    Ok(messages)
}

fn print(offset: u64, attempt: &Attempt, show: bool) -> std::io::Result<()> {
    let id = shown::cut(attempt.input.id.as_str(), VERDICT_COLUMN - 14);
    let begin = shown::padded(&format!("{offset:>10}  {id}"), VERDICT_COLUMN);
    let verdict = shown::cut(&shown::verdict(&attempt.verdict), VERDICT_WIDTH - 2);
    say!("{begin} {}{}", shown::padded(&verdict, VERDICT_WIDTH), shown::duration(attempt.time))?;
    match &attempt.verdict {
        Err(fault) => {
            for line in shown::fault(fault, false) {
                say!("            {line}")?;
            }
        }
        Ok(_) => {
            let changes = attempt.changes();
            let most = if show { changes.len() } else { CHANGES_SHOWN };
            for change in changes.iter().take(most) {
                let or_absent = |value: &Option<String>| value.clone().unwrap_or_else(|| "(absent)".into());
                let [before, after] = [&change.before, &change.after].map(|value| shown::visible(&or_absent(value)));
                say!("            {}: {before} → {after}", change.what)?;
            }
            if changes.len() > most {
                say!("            {} more changes: --show", changes.len() - most)?;
            }
        }
    }
    for emitted in &attempt.output.emitted {
        say!("            emits to {}", emitted.subject)?;
    }
    for (level, text) in &attempt.logs {
        say!("            log {} {}", level.as_str().to_uppercase(), shown::visible(text))?;
    }
    if show {
        say!("            input {}", shown::visible(&String::from_utf8_lossy(&attempt.input.payload)))?;
    }
    Ok(())
}

/// Changes of one message that are shown where not all are asked for.
const CHANGES_SHOWN: usize = 4;

fn json(offset: u64, attempt: &Attempt) -> Value {
    let mut line = found(attempt);
    line.insert("offset".into(), offset.into());
    line.insert("id".into(), attempt.input.id.as_str().into());
    line.insert("ns".into(), u64::try_from(attempt.time.as_nanos()).unwrap_or(u64::MAX).into());
    Value::Object(line)
}

/// `12 forward, 3 drop, 1 fault`.
fn counts(tried: &[(u64, Attempt)]) -> String {
    let of = |name: &str| {
        let is_it = |attempt: &Attempt| attempt.verdict.as_ref().map_or("fault", |verdict| verdict.name()) == name;
        let count = tried.iter().filter(|(_, attempt)| is_it(attempt)).count();
        (count > 0).then(|| format!("{count} {name}"))
    };
    let counts: Vec<String> =
        ["forward", "route", "drop", "retry", "reject", "fault"].into_iter().filter_map(of).collect();
    if counts.is_empty() { "the queue is empty".into() } else { counts.join(", ") }
}
