//! What a plugin made of a message, in the words in which a case says what it should have made of it.

use std::collections::BTreeSet;

use quipu_protocol::{Headers, Message, Subject};
use quipu_runtime::{Attempt, Emitted, Fault, Verdict};
use serde_json::{Map, Value};

use super::compare::remains;
use super::content::readable;

/// The verdict with its reason, what was changed, and what was emitted: an object that would do as `expect`.
pub(crate) fn found(attempt: &Attempt) -> Map<String, Value> {
    let mut found = Map::new();
    match &attempt.verdict {
        Err(Fault { kind, text, .. }) => {
            found.insert("verdict".into(), "fault".into());
            found.insert("kind".into(), kind.as_str().into());
            found.insert("reason".into(), text.as_str().into());
        }
        Ok(verdict) => {
            say(verdict, &mut found);
            // What was emitted before a drop is sent; before a retry or a reject it is not.
            if remains(&attempt.verdict) {
                changes(&attempt.input, &attempt.output.message, &mut found);
                if !attempt.output.emitted.is_empty() {
                    found.insert("outputs".into(), outputs(attempt).collect());
                }
            }
        }
    }
    found
}

fn say(verdict: &Verdict, found: &mut Map<String, Value>) {
    found.insert("verdict".into(), verdict.name().into());
    match verdict {
        Verdict::Forward => {}
        Verdict::Route(subjects) => {
            let subjects: Vec<&str> = subjects.iter().map(Subject::as_str).collect();
            found.insert("subjects".into(), subjects.into());
        }
        Verdict::Drop(reason) | Verdict::Reject(reason) => {
            found.insert("reason".into(), reason.as_str().into());
        }
        Verdict::Retry { delay_ms, reason } => {
            found.insert("delay_ms".into(), (*delay_ms).into());
            found.insert("reason".into(), reason.as_str().into());
        }
    }
}

/// What a message has that it had not before, or has otherwise.
fn changes(before: &Message, after: &Message, found: &mut Map<String, Value>) {
    let changed = changed_headers(&before.headers, &after.headers);
    if !changed.is_empty() {
        found.insert("headers".into(), changed.into());
    }
    if before.key != after.key {
        let (name, key) = readable("key", after.key.as_ref().map_or(&[][..], |key| key.as_bytes()));
        found.insert(name, key);
    }
    if before.priority != after.priority {
        found.insert("priority".into(), after.priority.into());
    }
    let times = [
        ("expires_ms", before.expires_ms, after.expires_ms),
        ("deliver_at_ms", before.deliver_at_ms, after.deliver_at_ms),
    ];
    for (name, _, after) in times.into_iter().filter(|(_, before, after)| before != after) {
        found.insert(name.into(), after.into());
    }
    if before.payload != after.payload {
        let (name, payload) = readable("payload", &after.payload);
        found.insert(name, payload);
    }
}

fn changed_headers(before: &Headers, after: &Headers) -> Map<String, Value> {
    let names = |headers: &Headers| headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect::<BTreeSet<_>>();
    let mut changed = Map::new();
    for name in names(before).union(&names(after)) {
        let values = |headers: &Headers| headers.all(name).map(str::to_owned).collect::<Vec<String>>();
        if values(before) != values(after) {
            changed.insert(name.clone(), header(&values(after)));
        }
    }
    changed
}

/// Null, one text, or a list.
fn header(values: &[String]) -> Value {
    match values {
        [] => Value::Null,
        [one] => one.as_str().into(),
        several => several.into(),
    }
}

/// What was emitted, in order.
fn outputs(attempt: &Attempt) -> impl Iterator<Item = Value> {
    attempt.output.emitted.iter().map(|emitted| output(emitted, attempt).into())
}

/// An emitted message with all that belongs to it.
fn output(emitted: &Emitted, attempt: &Attempt) -> Map<String, Value> {
    let mut output = Map::new();
    output.insert("subject".into(), emitted.subject.as_str().into());
    if let Some(id) = &emitted.id {
        output.insert("id".into(), id.as_str().into());
    }
    let headers = changed_headers(&Headers::new(), &emitted.headers);
    if !headers.is_empty() {
        output.insert("headers".into(), headers.into());
    }
    if let Some(key) = &emitted.key {
        let (name, key) = readable("key", key.as_bytes());
        output.insert(name, key);
    }
    if emitted.priority != 0 {
        output.insert("priority".into(), emitted.priority.into());
    }
    for (name, ms) in [("expires_ms", emitted.expires_ms), ("deliver_at_ms", emitted.deliver_at_ms)] {
        if let Some(ms) = ms {
            output.insert(name.into(), ms.into());
        }
    }
    let (name, payload) = readable("payload", payload_of(emitted, attempt));
    output.insert(name, payload);
    output
}

/// What is emitted without a payload of its own has the input's.
pub(super) fn payload_of<'a>(emitted: &'a Emitted, attempt: &'a Attempt) -> &'a [u8] {
    emitted.payload.as_ref().unwrap_or(&attempt.input.payload)
}
