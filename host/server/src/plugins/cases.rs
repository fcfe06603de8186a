//! The self-test of a plugin: messages, and what should become of them. Pushed along with a version, run before it serves.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use quipu_protocol::{Headers, Key, Message, MessageId, Subject};
use quipu_runtime::{Fault, Hand, Plugin, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most cases of one version.
const CASES_MAX: usize = 256;
/// Longest text of all cases, as JSON, in bytes.
pub(crate) const CASES_BYTES_MAX: usize = 64 << 10;
/// Differences of one case that are told.
const DIFFERENCES_MAX: usize = 8;

/// A message, and what should become of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The plugin's configuration; without it, that of the route it is deployed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Value>,
    pub(crate) message: CaseMessage,
    pub(crate) expect: Expect,
}

/// The message of a case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CaseMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    /// The payload as it is, where it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_text: Option<String>,
}

/// What should become of it. What is not said may be anything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Expected>,
    /// Of the verdict `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    subjects: Option<Vec<String>>,
    /// Part of what `drop`, `retry`, `reject` or a fault says.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Headers afterwards, each with its first value; null: it is not there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, Option<String>>,
    /// The payload afterwards, as JSON: of objects, these fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_json: Option<Value>,
    /// How many messages it emitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    emitted: Option<usize>,
}

/// A verdict by its name, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Forward,
    Route,
    Drop,
    Retry,
    Reject,
    Fault,
}

/// What became of a case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Tried {
    pub(crate) name: String,
    /// In what it differs from what was expected; none: it passed.
    pub(crate) differences: Vec<String>,
}

/// Reads a list of cases and checks it.
pub(crate) fn parse(text: &str) -> Result<Vec<Case>> {
    let cases = serde_json::from_str(text).context("cases: a JSON list of cases is expected")?;
    check(&cases)?;
    Ok(cases)
}

/// Whether every case has a name and a message that can be.
pub(crate) fn check(cases: &Vec<Case>) -> Result<()> {
    ensure!(cases.len() <= CASES_MAX, "{} cases; at most {CASES_MAX} are allowed", cases.len());
    let bytes = serde_json::to_vec(cases).map_or(0, |json| json.len());
    ensure!(bytes <= CASES_BYTES_MAX, "cases: {bytes} bytes of JSON; at most {CASES_BYTES_MAX} are allowed");
    for case in cases {
        ensure!(!case.name.is_empty() && case.name.len() <= 128, "a case has a name of 1 to 128 bytes");
        case.message.message().with_context(|| format!("case {:?}: message", case.name))?;
    }
    Ok(())
}

impl Case {
    /// Tries it on an instance that is for nothing else.
    pub(crate) fn run(&self, plugin: &mut dyn Plugin, now_ms: u64) -> Result<Tried> {
        let mut hand = Hand::new(self.message.message()?, 1, now_ms, 0);
        let verdict = plugin.process(&mut hand);
        let mut differences = self.expect.differences(&verdict, &hand);
        differences.truncate(DIFFERENCES_MAX);
        Ok(Tried { name: self.name.clone(), differences })
    }
}

impl CaseMessage {
    fn message(&self) -> Result<Message> {
        let subject = Subject::new(self.subject.as_deref().unwrap_or("test"))?;
        let mut headers = Headers::new();
        for (name, value) in &self.headers {
            headers.add(name, value)?;
        }
        ensure!(self.payload.is_none() || self.payload_text.is_none(), "either `payload` or `payload_text`");
        let payload = match (&self.payload, &self.payload_text) {
            (Some(json), _) => Bytes::from(json.to_string()),
            (None, Some(text)) => Bytes::from(text.clone()),
            (None, None) => Bytes::new(),
        };
        let mut message = Message::new(MessageId::new(self.id.as_deref().unwrap_or("test"))?, subject, payload);
        message.headers = headers;
        message.key = self.key.as_ref().map(|key| Key::new(Bytes::from(key.clone()))).transpose()?;
        Ok(message)
    }
}

impl Expect {
    fn differences(&self, verdict: &Result<Verdict, Fault>, hand: &Hand) -> Vec<String> {
        let mut found = Vec::new();
        let (name, said) = told(verdict);
        if let Some(expected) = self.verdict.filter(|expected| *expected != name) {
            found.push(format!("verdict: expected {}, found {}", text(&expected), with(&text(&name), said)));
        }
        if let Some(part) = self.reason.as_ref().filter(|part| !said.contains(part.as_str())) {
            found.push(format!("reason: expected {part:?} in it, found {said:?}"));
        }
        if let Some(subjects) = &self.subjects {
            let routed: Vec<&str> = match verdict {
                Ok(Verdict::Route(subjects)) => subjects.iter().map(Subject::as_str).collect(),
                _ => Vec::new(),
            };
            if routed != *subjects {
                found.push(format!("subjects: expected {}, found {}", subjects.join(" "), routed.join(" ")));
            }
        }
        for (name, expected) in &self.headers {
            let value = hand.message.headers.first(name);
            if value != expected.as_deref() {
                found.push(format!(
                    "header {name}: expected {}, found {}",
                    or_none(expected.as_deref()),
                    or_none(value)
                ));
            }
        }
        if let Some(expected) = &self.payload_json {
            match serde_json::from_slice(&hand.message.payload) {
                Ok(payload) => differences_of(expected, &payload, "$", &mut found),
                Err(_) => found.push("payload: it is no JSON".into()),
            }
        }
        if let Some(expected) = self.emitted.filter(|expected| *expected != hand.emitted.len()) {
            found.push(format!("emitted: expected {expected}, found {}", hand.emitted.len()));
        }
        found
    }
}

fn told(verdict: &Result<Verdict, Fault>) -> (Expected, &str) {
    match verdict {
        Ok(Verdict::Forward) => (Expected::Forward, ""),
        Ok(Verdict::Route(_)) => (Expected::Route, ""),
        Ok(Verdict::Drop(reason)) => (Expected::Drop, reason),
        Ok(Verdict::Retry { reason, .. }) => (Expected::Retry, reason),
        Ok(Verdict::Reject(reason)) => (Expected::Reject, reason),
        Err(fault) => (Expected::Fault, &fault.text),
    }
}

fn text(expected: &Expected) -> String {
    serde_json::to_value(expected).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn with(verdict: &str, said: &str) -> String {
    if said.is_empty() { verdict.to_owned() } else { format!("{verdict} {said:?}") }
}

fn or_none(value: Option<&str>) -> String {
    value.map_or("none".into(), |value| format!("{value:?}"))
}

/// Of objects, the fields that are expected; anything else as a whole.
fn differences_of(expected: &Value, found: &Value, path: &str, differences: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, value) in fields {
                differences_of(value, &found[name], &format!("{path}.{name}"), differences);
            }
        }
        _ if expected == found => {}
        _ => differences.push(format!("payload {path}: expected {expected}, found {found}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(expect: &str, verdict: Result<Verdict, Fault>) -> Vec<String> {
        let message =
            CaseMessage { payload: Some(serde_json::json!({ "a": { "b": 1, "c": 2 } })), ..Default::default() };
        let hand = Hand::new(message.message().expect("a message"), 1, 0, 0);
        let expect: Expect = serde_json::from_str(expect).expect("what to expect");
        expect.differences(&verdict, &hand)
    }

    #[test]
    fn only_what_is_said_is_compared() {
        assert_eq!(tried("{}", Ok(Verdict::Forward)), [""; 0]);
        let fine = r#"{ "verdict": "drop", "reason": "small", "payload_json": { "a": { "b": 1 } }, "headers": { "x": null } }"#;
        assert_eq!(tried(fine, Ok(Verdict::Drop("too small".into()))), [""; 0]);
    }

    #[test]
    fn each_difference_is_told() {
        let all = r#"{ "verdict": "forward", "reason": "x", "subjects": ["a"], "headers": { "h": "v" },
                       "payload_json": { "a": { "b": 2 } }, "emitted": 1 }"#;
        let told = [
            "verdict: expected forward, found drop \"small\"",
            "reason: expected \"x\" in it, found \"small\"",
            "subjects: expected a, found ",
            "header h: expected \"v\", found none",
            "payload $.a.b: expected 2, found 1",
            "emitted: expected 1, found 0",
        ];
        assert_eq!(tried(all, Ok(Verdict::Drop("small".into()))), told);
    }

    #[test]
    fn a_case_that_cannot_be_is_named() {
        let bad = r#"[{ "name": "n", "message": { "subject": "a b" }, "expect": {} }]"#;
        assert!(parse(bad).expect_err("refused").to_string().contains("case \"n\""));
        let unknown = r#"[{ "name": "n", "message": {}, "expect": { "verdikt": "drop" } }]"#;
        assert!(format!("{:#}", parse(unknown).expect_err("refused")).contains("verdikt"));
    }
}
