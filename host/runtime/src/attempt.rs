//! One attempt of one plugin, watched: what it made of the message, what it said, what it took. For those who try
//! plugins; a route at work needs none of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu_protocol::{Headers, Message, MessageId, Subject};
use serde::Serialize;
use serde_json::{Value, json};

use crate::capsule::MessageRecord;
use crate::logs::{CapturedLog, LogLevel};
use crate::plugin::{Digest, Emitted, Fault, FaultKind, Hand, Plugin, Usage, Verdict};
use crate::text::start;

/// An attempt, and all that it came to.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The message in hand before.
    pub input: Message,
    /// The hand after; what was emitted is in it.
    pub output: Hand,
    /// What the plugin decided, or how it failed.
    pub verdict: Result<Verdict, Fault>,
    /// How long it took, an instance's start included where it needed one.
    pub time: Duration,
    /// What it logged.
    pub logs: Vec<(LogLevel, String)>,
    /// What it takes now.
    pub usage: Usage,
}

/// A difference that a plugin made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `header NAME`, `key`, `priority`, `expires-ms`, `deliver-at-ms`, `payload`, or a place in a JSON payload as `$.a.b`.
    pub what: String,
    /// None where it was not there. At most 256 bytes.
    pub before: Option<String>,
    /// None where it is gone. At most 256 bytes.
    pub after: Option<String>,
}

/// Most differences that are told.
const CHANGES_MAX: usize = 64;
/// How much of a value is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 256;
/// Largest payload that is compared as JSON.
const JSON_BYTES_MAX: usize = 1 << 20;

impl Attempt {
    /// Has the plugin make one attempt; its lines are taken from the log that it was made with, where there is one.
    pub fn of(plugin: &mut dyn Plugin, mut hand: Hand, log: Option<&CapturedLog>) -> Self {
        let input = hand.message.clone();
        hand.emitted.clear();
        let begun = Instant::now();
        let verdict = plugin.process(&mut hand);
        let time = begun.elapsed();
        let logs = log.map(CapturedLog::take).unwrap_or_default();
        Self { input, output: hand, verdict, time, logs, usage: plugin.usage() }
    }

    /// `forward`, `drop` and so on, or `fault` and its kind.
    pub fn verdict_name(&self) -> String {
        match &self.verdict {
            Ok(verdict) => verdict.name().into(),
            Err(fault) => format!("fault {}", fault.kind),
        }
    }

    /// Of all that reaches the world: the verdict, the message as edited and what was emitted; of a fault, its kind and
    /// text. The same for a replay. What a failed attempt left half done counts for nothing.
    pub fn digest(&self) -> Digest {
        let outcome = match &self.verdict {
            Ok(verdict) => json!([
                said(verdict),
                MessageRecord::of(&self.output.message),
                self.output.emitted.iter().map(whole).collect::<Vec<_>>(),
            ]),
            Err(Fault { kind: FaultKind::Deadline, .. }) => json!(["fault", "deadline"]),
            Err(fault) => json!(["fault", fault.kind.as_str(), fault.text]),
        };
        Digest::of(outcome.to_string().as_bytes())
    }

    /// What it made of the message: at most 64 differences.
    pub fn changes(&self) -> Vec<Change> {
        changes(&self.input, &self.output.message)
    }

    /// For people and programs: one object.
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "id": self.input.id.as_str(),
            "verdict": self.verdict_name(),
            "ns": u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX),
            "memory_bytes": self.usage.memory_bytes.max(self.usage.memory_peak_bytes),
            "outcome": self.digest(),
        });
        match &self.verdict {
            Ok(verdict) => {
                let Value::Object(said) = said(verdict) else { return object };
                said.into_iter().for_each(|(name, value)| object[name] = value);
            }
            Err(fault) => {
                object["verdict"] = "fault".into();
                object["kind"] = fault.kind.as_str().into();
                object["text"] = fault.text.as_str().into();
                object["trace"] = json!(fault.trace);
                object["fingerprint"] = fault.fingerprint().into();
            }
        }
        let changes = if self.verdict.is_ok() { self.changes() } else { Vec::new() };
        if !changes.is_empty() {
            object["changes"] = json!(changes);
        }
        if self.verdict.is_ok() && !self.output.emitted.is_empty() {
            object["emitted"] = self.output.emitted.iter().map(emitted).collect();
        }
        if !self.logs.is_empty() {
            object["logs"] = self.logs.iter().map(|(level, text)| json!({ "level": level, "text": text })).collect();
        }
        object
    }
}

impl Verdict {
    /// `forward`, `route`, `drop`, `retry` or `reject`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Route(_) => "route",
            Self::Drop(_) => "drop",
            Self::Retry { .. } => "retry",
            Self::Reject(_) => "reject",
        }
    }
}

/// A verdict with all that belongs to it.
fn said(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Forward => json!({ "verdict": verdict.name() }),
        Verdict::Route(subjects) => {
            let subjects: Vec<&str> = subjects.iter().map(Subject::as_str).collect();
            json!({ "verdict": verdict.name(), "subjects": subjects })
        }
        Verdict::Drop(reason) | Verdict::Reject(reason) => json!({ "verdict": verdict.name(), "reason": reason }),
        Verdict::Retry { delay_ms, reason } => {
            json!({ "verdict": verdict.name(), "delay_ms": delay_ms, "reason": reason })
        }
    }
}

/// An emitted message with all that belongs to it.
fn whole(emitted: &Emitted) -> Value {
    let Emitted { subject, key, headers, payload, id, reply_to, expires_ms, deliver_at_ms, priority } = emitted;
    json!({
        "subject": subject.as_str(),
        "key": key.as_ref().map(|key| STANDARD.encode(key.as_bytes())),
        "headers": headers.iter().collect::<Vec<_>>(),
        "payload": payload.as_ref().map(|payload| STANDARD.encode(payload)),
        "id": id.as_ref().map(MessageId::as_str),
        "reply_to": reply_to.as_ref().map(Subject::as_str),
        "expires_ms": expires_ms,
        "deliver_at_ms": deliver_at_ms,
        "priority": priority,
    })
}

/// An emitted message as people see it.
fn emitted(emitted: &Emitted) -> Value {
    json!({
        "subject": emitted.subject.as_str(),
        "id": emitted.id.as_ref().map(MessageId::as_str),
        "key": emitted.key.as_ref().map(|key| shown(key.as_bytes())),
        "headers": emitted.headers.iter().collect::<Vec<_>>(),
        "payload": emitted.payload.as_ref().map(|payload| shown(payload)),
        "payload_bytes": emitted.payload.as_ref().map(bytes::Bytes::len),
    })
}

/// What differs between two messages: at most 64 differences.
fn changes(before: &Message, after: &Message) -> Vec<Change> {
    let mut list = List(Vec::new());
    let names = |headers: &Headers| headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect::<BTreeSet<_>>();
    for name in names(&before.headers).union(&names(&after.headers)) {
        let value = |headers: &Headers| {
            let all: Vec<&str> = headers.all(name).collect();
            (!all.is_empty()).then(|| all.join(", "))
        };
        list.add(format!("header {name}"), value(&before.headers), value(&after.headers));
    }
    let key = |message: &Message| message.key.as_ref().map(|key| shown(key.as_bytes()));
    list.add("key".into(), key(before), key(after));
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    list.add("priority".into(), number(Some(before.priority.into())), number(Some(after.priority.into())));
    list.add("expires-ms".into(), number(before.expires_ms), number(after.expires_ms));
    list.add("deliver-at-ms".into(), number(before.deliver_at_ms), number(after.deliver_at_ms));
    if before.payload != after.payload {
        list.payload(&before.payload, &after.payload);
    }
    list.0
}

struct List(Vec<Change>);

impl List {
    fn add(&mut self, what: String, before: Option<String>, after: Option<String>) {
        if before != after && self.0.len() < CHANGES_MAX {
            let cut = |text: Option<String>| text.map(|text| start(&text, SHOWN_BYTES_MAX).to_owned());
            self.0.push(Change { what, before: cut(before), after: cut(after) });
        }
    }

    fn payload(&mut self, before: &[u8], after: &[u8]) {
        let json = |bytes: &[u8]| -> Option<Value> {
            (bytes.len() <= JSON_BYTES_MAX).then(|| serde_json::from_slice(bytes).ok()).flatten()
        };
        let others = self.0.len();
        if let (Some(a), Some(b)) = (json(before), json(after)) {
            self.json("$", Some(&a), Some(&b));
        }
        if self.0.len() == others {
            // Other bytes, perhaps of the same JSON, or of the same beginning.
            let told = |bytes: &[u8]| Some(format!("{} bytes: {}", bytes.len(), shown(bytes)));
            self.add("payload".into(), told(before), told(after));
        }
    }

    fn json(&mut self, at: &str, before: Option<&Value>, after: Option<&Value>) {
        if before == after || self.0.len() >= CHANGES_MAX {
            return;
        }
        match (before, after) {
            (Some(Value::Object(a)), Some(Value::Object(b))) => {
                for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
                    self.json(&format!("{at}.{name}"), a.get(name), b.get(name));
                }
            }
            (Some(Value::Array(a)), Some(Value::Array(b))) => {
                for n in 0..a.len().max(b.len()) {
                    self.json(&format!("{at}[{n}]"), a.get(n), b.get(n));
                }
            }
            _ => {
                let text = |value: Option<&Value>| value.map(ToString::to_string);
                self.add(start(at, SHOWN_BYTES_MAX).into(), text(before), text(after));
            }
        }
    }
}

/// Bytes as text, as far as they are shown.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]) {
        Ok(text) => text.to_owned(),
        Err(e) if e.valid_up_to() + 4 > SHOWN_BYTES_MAX => {
            String::from_utf8_lossy(&bytes[..e.valid_up_to()]).into_owned() // cut within a character
        }
        Err(_) => bytes[..bytes.len().min(SHOWN_BYTES_MAX / 4)].escape_ascii().to_string(),
    }
}
