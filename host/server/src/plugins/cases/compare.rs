//! In what an attempt differs from what was expected.

use std::collections::BTreeMap;
use std::fmt;

use quipu_protocol::{Headers, Key, Subject};
use quipu_runtime::{Attempt, ConfigureError, Emitted, Fault, Verdict};
use serde::Serialize;
use serde_json::Value;

use super::content::{Values, readable};
use super::expect::{Expect, ExpectOutput, Expected};
use super::found::payload_of;

/// Differences of one case that are told.
const DIFFERENCES_MAX: usize = 32;
/// How a thing is shown that is not there.
const ABSENT: &str = "(absent)";

/// One thing that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// `verdict`, `reason`, `header`, `payload` and so on; `output 2 header` for one of a message that was emitted.
    pub(crate) what: String,
    /// Which header, or which part of the payload, as `$.properties.place`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<String>,
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(place) = &self.place {
            write!(f, " {place}")?;
        }
        write!(f, ": expected {}, found {}", self.expected, self.found)
    }
}

impl Expect {
    /// Of a plugin's start: what it refused, where it did not start.
    pub(super) fn differences_of_start(&self, refused: Option<&ConfigureError>) -> Vec<Difference> {
        let mut list = List::default();
        let said = refused.map(ToString::to_string);
        match (&self.error, said) {
            (None, None) => {}
            (None, Some(said)) => list.add("start", None, "a plugin that starts".into(), said),
            (Some(part), Some(said)) if said.contains(part.as_str()) => {}
            (Some(part), said) => {
                let found = said.unwrap_or_else(|| "a plugin that starts".into());
                list.add("error", None, format!("{part:?} in it"), found);
            }
        }
        list.all
    }

    /// Of an attempt. Retries, rejects and faults undo what the plugin did: nothing is there to be as expected.
    pub(super) fn differences(&self, attempt: &Attempt) -> Vec<Difference> {
        let mut list = List::default();
        self.compare_verdict(&attempt.verdict, &mut list);
        let message = remains(&attempt.verdict).then_some(&attempt.output.message);
        let emitted = if message.is_some() { attempt.output.emitted.as_slice() } else { &[] };
        list.headers(&self.headers, &self.no_headers, message.map(|message| &message.headers));
        list.key(self.key.as_deref(), self.key_base64.as_deref(), message.and_then(|message| message.key.as_ref()));
        list.number("priority", self.priority.map(u64::from), message.map(|message| message.priority.into()));
        list.number("expires_ms", self.expires_ms, message.and_then(|message| message.expires_ms));
        list.number("deliver_at_ms", self.deliver_at_ms, message.and_then(|message| message.deliver_at_ms));
        list.payload(self.content(), &self.absent, message.map(|message| &message.payload[..]));
        if let Some(expected) = self.emitted.filter(|expected| *expected != emitted.len()) {
            list.add("emitted", None, expected.to_string(), emitted.len().to_string());
        }
        for (n, expected) in self.outputs.iter().flatten().enumerate() {
            list.prefix = format!("output {} ", n + 1);
            match emitted.get(n) {
                Some(found) => expected.compare(found, attempt, &mut list),
                None => {
                    let subject = expected.subject.clone().unwrap_or_else(|| "a message".into());
                    list.add("message", None, subject, ABSENT.into());
                }
            }
        }
        for (n, more) in emitted.iter().enumerate().skip(self.outputs.as_ref().map_or(usize::MAX, Vec::len)) {
            list.prefix = format!("output {} ", n + 1);
            list.add("message", None, ABSENT.into(), format!("to {}", more.subject));
        }
        list.prefix.clear();
        for part in &self.logs {
            if !attempt.logs.iter().any(|(_, line)| line.contains(part.as_str())) {
                list.add(
                    "log",
                    None,
                    format!("{part:?} in a line"),
                    format!("{} lines without it", attempt.logs.len()),
                );
            }
        }
        list.all
    }

    fn compare_verdict(&self, verdict: &Result<Verdict, Fault>, list: &mut List) {
        let (name, said) = told(verdict);
        if let Some(expected) = self.verdict.filter(|expected| *expected != name) {
            let found = if said.is_empty() { name.name().to_owned() } else { format!("{} {said:?}", name.name()) };
            list.add("verdict", None, expected.name().into(), found);
        }
        if let Some(part) = self.reason.as_ref().filter(|part| !said.contains(part.as_str())) {
            list.add("reason", None, format!("{part:?} in it"), format!("{said:?}"));
        }
        if let Some(subjects) = &self.subjects {
            let routed: Vec<&str> = match verdict {
                Ok(Verdict::Route(subjects)) => subjects.iter().map(Subject::as_str).collect(),
                _ => Vec::new(),
            };
            if routed != *subjects {
                let found = if routed.is_empty() { ABSENT.into() } else { routed.join(" ") };
                list.add("subjects", None, subjects.join(" "), found);
            }
        }
        let delay = match verdict {
            Ok(Verdict::Retry { delay_ms, .. }) => Some(*delay_ms),
            _ => None,
        };
        list.number("delay_ms", self.delay_ms, delay);
    }
}

impl ExpectOutput {
    fn compare(&self, found: &Emitted, attempt: &Attempt, list: &mut List) {
        if let Some(subject) = self.subject.as_ref().filter(|subject| *subject != found.subject.as_str()) {
            list.add("subject", None, subject.clone(), found.subject.as_str().into());
        }
        let id = found.id.as_ref().map(|id| id.as_str());
        if let Some(expected) = self.id.as_ref().filter(|expected| Some(expected.as_str()) != id) {
            list.add("id", None, format!("{expected:?}"), or_absent(id));
        }
        list.headers(&self.headers, &self.no_headers, Some(&found.headers));
        list.key(self.key.as_deref(), self.key_base64.as_deref(), found.key.as_ref());
        list.number("priority", self.priority.map(u64::from), Some(found.priority.into()));
        list.number("expires_ms", self.expires_ms, found.expires_ms);
        list.number("deliver_at_ms", self.deliver_at_ms, found.deliver_at_ms);
        list.payload(self.content(), &self.absent, Some(payload_of(found, attempt)));
    }
}

#[derive(Default)]
struct List {
    all: Vec<Difference>,
    prefix: String,
}

impl List {
    fn add(&mut self, what: &str, place: Option<String>, expected: String, found: String) {
        if self.all.len() < DIFFERENCES_MAX {
            self.all.push(Difference { what: format!("{}{what}", self.prefix), place, expected, found });
        }
    }

    fn number(&mut self, what: &str, expected: Option<u64>, found: Option<u64>) {
        if let Some(expected) = expected.filter(|expected| Some(*expected) != found) {
            self.add(what, None, expected.to_string(), found.map_or(ABSENT.into(), |found| found.to_string()));
        }
    }

    fn headers(&mut self, expected: &BTreeMap<String, Option<Values>>, absent: &[String], headers: Option<&Headers>) {
        let absent = absent.iter().map(|name| (name, &None));
        for (name, expected) in expected.iter().chain(absent) {
            let found: Vec<&str> = headers.iter().flat_map(|headers| headers.all(name)).collect();
            let wanted: Vec<&str> = expected.iter().flat_map(Values::iter).collect();
            if found != wanted {
                self.add("header", Some(name.clone()), listed(&wanted), listed(&found));
            }
        }
    }

    fn key(&mut self, text: Option<&str>, base64: Option<&str>, found: Option<&Key>) {
        if text.is_none() && base64.is_none() {
            return;
        }
        let shown = found.map_or((String::new(), Value::Null), |key| readable("key", key.as_bytes()));
        let (form, found) = (shown.0, shown.1.as_str().unwrap_or_default());
        let expected = text.or(base64).unwrap_or_default();
        let is_same_form = form.is_empty() || (form == "key") == text.is_some();
        if expected != found || !is_same_form {
            let quoted = |text: &str| if text.is_empty() { ABSENT.into() } else { format!("{text:?}") };
            self.add("key", None, quoted(expected), quoted(found));
        }
    }

    fn payload(&mut self, expected: super::Content<'_>, absent: &[String], found: Option<&[u8]>) {
        let Some(found) = found else { return self.no_payload(expected) };
        let json = || serde_json::from_slice::<Value>(found).ok();
        if let Some(expected) = expected.payload {
            match json() {
                Some(found) => self.json(expected, Some(&found), "$"),
                None => self.add("payload", None, "JSON".into(), bytes(found)),
            }
        }
        if expected.payload_text.is_some_and(|text| text.as_bytes() != found)
            || expected.payload_base64.is_some() && expected.payload().ok().flatten().as_deref() != Some(found)
        {
            let wanted = expected.payload().ok().flatten().unwrap_or_default();
            self.add("payload", None, bytes(&wanted), bytes(found));
        }
        if absent.is_empty() {
            return;
        }
        let json = json().unwrap_or_default();
        for path in absent {
            if let Some(found) = at(&json, path) {
                self.add("payload", Some(format!("$.{path}")), ABSENT.into(), found.to_string());
            }
        }
    }

    fn no_payload(&mut self, expected: super::Content<'_>) {
        if let Ok(Some(expected)) = expected.payload() {
            self.add("payload", None, bytes(&expected), ABSENT.into());
        }
    }

    /// Of objects, the fields that are expected; anything else as a whole. Null is also what is not there.
    fn json(&mut self, expected: &Value, found: Option<&Value>, path: &str) {
        match (expected, found) {
            (Value::Object(fields), Some(Value::Object(others))) => {
                for (name, value) in fields {
                    self.json(value, others.get(name), &format!("{path}.{name}"));
                }
            }
            (Value::Array(items), Some(Value::Array(others))) if items.len() == others.len() => {
                for (n, (item, other)) in items.iter().zip(others).enumerate() {
                    self.json(item, Some(other), &format!("{path}[{n}]"));
                }
            }
            (Value::Null, None) => {}
            (expected, Some(found)) if is_same(expected, found) => {}
            (expected, found) => {
                let found = found.map_or_else(|| ABSENT.to_owned(), ToString::to_string);
                self.add("payload", Some(path.to_owned()), expected.to_string(), found);
            }
        }
    }
}

/// Whether a payload has what is expected of it.
pub(crate) fn fits(expected: &Value, found: Option<&Value>) -> bool {
    let mut list = List::default();
    list.json(expected, found, "$");
    list.all.is_empty()
}

/// 1 and 1.0 are the same number: which one is written is the writer's taste. Integers compare exactly, whatever their
/// size.
fn is_same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() || b.is_f64() => a.as_f64() == b.as_f64(),
        _ => expected == found,
    }
}

/// The value at `a.b[0].c`.
pub(crate) fn at<'a>(json: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(json, |value, part| {
        let (name, indexes) = part.split_once('[').unwrap_or((part, ""));
        let value = if name.is_empty() { value } else { value.get(name)? };
        let indexes = indexes.split('[').filter_map(|index| index.strip_suffix(']')?.parse::<usize>().ok());
        indexes.into_iter().try_fold(value, |value, index| value.get(index))
    })
}

/// Whether what a plugin changed and emitted before this verdict is still there after it.
pub(crate) fn remains(verdict: &Result<Verdict, Fault>) -> bool {
    !matches!(verdict, Err(_) | Ok(Verdict::Retry { .. } | Verdict::Reject(_)))
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

fn or_absent(value: Option<&str>) -> String {
    value.map_or(ABSENT.into(), |value| format!("{value:?}"))
}

fn listed(values: &[&str]) -> String {
    if values.is_empty() {
        return ABSENT.into();
    }
    values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ")
}

/// A payload as people read it.
fn bytes(payload: &[u8]) -> String {
    match readable("payload", payload) {
        (_, Value::String(text)) => format!("{text:?}"),
        (_, json) => json.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::CaseMessage;
    use super::*;
    use quipu_protocol::Message;
    use quipu_runtime::{Hand, LogLevel, Usage};
    use std::time::Duration;

    fn attempt(verdict: Result<Verdict, Fault>, edit: impl FnOnce(&mut Hand)) -> Attempt {
        let message = CaseMessage {
            payload: Some(serde_json::json!({ "a": { "b": 1, "c": 2 }, "l": [{ "x": 1, "y": 2 }, 3.0] })),
            ..Default::default()
        };
        let mut hand = message.hand(0, 0).expect("a message");
        let input: Message = hand.message.clone();
        edit(&mut hand);
        let logs = vec![(LogLevel::Warn, "no field \"place\"".to_owned())];
        Attempt { input, output: hand, verdict, time: Duration::ZERO, logs, usage: Usage::default() }
    }

    fn emitted(subject: &str, payload: Option<&'static [u8]>) -> Emitted {
        Emitted {
            subject: Subject::new(subject).expect("a subject"),
            key: None,
            headers: Headers::new(),
            payload: payload.map(bytes::Bytes::from_static),
            id: None,
            reply_to: None,
            expires_ms: None,
            deliver_at_ms: None,
            priority: 0,
        }
    }

    fn tried(expect: &str, attempt: &Attempt) -> Vec<String> {
        let expect: Expect = serde_json::from_str(expect).expect("what to expect");
        expect.differences(attempt).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_is_said_is_compared() {
        let forward = attempt(Ok(Verdict::Forward), |_| {});
        assert_eq!(tried("{}", &forward), [""; 0]);
        let fine = r#"{ "verdict": "drop", "reason": "small", "payload": { "a": { "b": 1.0, "z": null } },
                        "headers": { "x": null }, "no_headers": ["y"], "absent": ["a.d", "l[2]"], "outputs": [], "key": "",
                        "logs": ["place"] }"#;
        assert_eq!(tried(fine, &attempt(Ok(Verdict::Drop("too small".into())), |_| {})), [""; 0]);
        // Of objects in lists too, the fields that are said.
        assert_eq!(tried(r#"{ "payload_json": { "l": [{ "x": 1 }, 3] } }"#, &forward), [""; 0]);
    }

    #[test]
    fn each_difference_is_told() {
        let all = r#"{ "verdict": "forward", "reason": "x", "subjects": ["a"], "headers": { "h": "v" }, "key": "k",
                       "priority": 3, "payload": { "a": { "b": 2 }, "l": [] }, "absent": ["a.c"], "emitted": 1,
                       "outputs": [{ "subject": "s" }], "logs": ["nothing"], "delay_ms": 5 }"#;
        let told = [
            "verdict: expected forward, found drop \"small\"",
            "reason: expected \"x\" in it, found \"small\"",
            "subjects: expected a, found (absent)",
            "delay_ms: expected 5, found (absent)",
            "header h: expected \"v\", found (absent)",
            "key: expected \"k\", found (absent)",
            "priority: expected 3, found 0",
            "payload $.a.b: expected 2, found 1",
            "payload $.l: expected [], found [{\"x\":1,\"y\":2},3.0]",
            "payload $.a.c: expected (absent), found 2",
            "emitted: expected 1, found 0",
            "output 1 message: expected s, found (absent)",
            "log: expected \"nothing\" in a line, found 1 lines without it",
        ];
        assert_eq!(tried(all, &attempt(Ok(Verdict::Drop("small".into())), |_| {})), told);
    }

    #[test]
    fn what_is_emitted_is_compared_in_order() {
        let attempt = attempt(Ok(Verdict::Forward), |hand| {
            hand.emitted = vec![emitted("audit", None), emitted("other", Some(b"text")), emitted("third", Some(b""))];
        });
        let expect = r#"{ "outputs": [{ "subject": "audit", "payload": { "a": { "b": 1 } }, "headers": { "h": "v" } },
                                      { "subject": "second", "payload_text": "texts" }] }"#;
        let told = [
            "output 1 header h: expected \"v\", found (absent)",
            "output 2 subject: expected second, found other",
            "output 2 payload: expected \"texts\", found \"text\"",
            "output 3 message: expected (absent), found to third",
        ];
        assert_eq!(tried(expect, &attempt), told);
    }

    #[test]
    fn large_integers_compare_exactly() {
        let is_same = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| serde_json::from_str(text).expect("JSON"));
            is_same(&a, &b)
        };
        assert!(is_same("1", "1.0") && is_same("9007199254740993", "9007199254740993"));
        assert!(!is_same("9007199254740992", "9007199254740993") && !is_same("-9007199254740993", "-9007199254740992"));
    }

    #[test]
    fn what_a_verdict_undoes_is_not_there_to_be_as_expected() {
        let edit = |hand: &mut Hand| {
            hand.message.headers.add("by", "one").expect("a header");
            hand.emitted = vec![emitted("audit", None)];
        };
        let all = r#"{ "headers": { "by": "one" }, "priority": 0, "payload": { "a": {} }, "emitted": 1,
                       "outputs": [{ "subject": "audit" }] }"#;
        let told = [
            "header by: expected \"one\", found (absent)",
            "priority: expected 0, found (absent)",
            "payload: expected {\"a\":{}}, found (absent)",
            "emitted: expected 1, found 0",
            "output 1 message: expected audit, found (absent)",
        ];
        let nothing = r#"{ "no_headers": ["by"], "absent": ["a"], "outputs": [], "emitted": 0, "key": "" }"#;
        let fault = Fault { kind: quipu_runtime::FaultKind::Said, text: "boom".into(), trace: Vec::new() };
        let retry = Verdict::Retry { delay_ms: 1, reason: "later".into() };
        for verdict in [Err(fault), Ok(retry), Ok(Verdict::Reject("bad".into()))] {
            let attempt = attempt(verdict, edit);
            assert_eq!(tried(all, &attempt), told);
            assert_eq!(tried(nothing, &attempt), [""; 0]);
        }
        // What was emitted before a drop is sent.
        assert_eq!(tried(all, &attempt(Ok(Verdict::Drop("small".into())), edit)), [""; 0]);
    }

    #[test]
    fn a_start_that_should_fail_must_fail_with_that_text() {
        let refused = ConfigureError::Refused { plugin: "p".into(), reason: "at_least: no number".into() };
        let of = |expect: &str, refused: Option<&ConfigureError>| {
            let expect: Expect = serde_json::from_str(expect).expect("what to expect");
            expect.differences_of_start(refused).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(r#"{ "error": "at_least" }"#, Some(&refused)), [""; 0]);
        assert_eq!(of(r#"{ "error": "at" }"#, None), ["error: expected \"at\" in it, found a plugin that starts"]);
        let text =
            "start: expected a plugin that starts, found plugin `p` refuses its configuration: at_least: no number";
        assert_eq!(of("{}", Some(&refused)), [text]);
    }
}
