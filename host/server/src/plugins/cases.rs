//! The self-test of a plugin: messages, and what should become of them. An author's tests, and pushed along with a
//! version, run before it serves.
//!
//! What is not here: files ([`file`]), and what people see of the outcome.

mod compare;
pub(crate) mod content;
pub(crate) mod expect;
pub(crate) mod file;
mod found;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use quipu_protocol::{Headers, Message, MessageId, Subject};
use quipu_runtime::{Attempt, Capsule, CapturedLog, Component, ConfigureError, Hand, Use};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use compare::{Difference, at, fits, remains};
use content::{Content, Values};
pub(crate) use expect::Expect;
pub(crate) use found::found;

/// Most cases of one version.
const CASES_MAX: usize = 256;
/// Longest text of all cases, as JSON, in bytes.
pub(crate) const CASES_BYTES_MAX: usize = 64 << 10;
/// Longest name of a case, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A message, and what should become of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The plugin's configuration; without it, that of the project, or of the route it is deployed to.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "content::some_json")]
    pub(crate) config: Option<Value>,
    #[serde(default)]
    pub(crate) message: CaseMessage,
    #[serde(default)]
    pub(crate) expect: Expect,
}

/// The message of a case, and when it is seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CaseMessage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    /// The subject that it was first published to; `subject`, unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin_subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_base64: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u8>,
    /// Unix milliseconds, as the two after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_ms: Option<u64>,
    /// The attempt's clock; that of the machine, unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) now_ms: Option<u64>,
    /// 1, unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    /// JSON.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "content::some_json")]
    pub(crate) payload: Option<Value>,
    /// The payload as it is, where it is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_text: Option<String>,
    /// The payload as it is, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
}

/// What became of a case.
#[derive(Debug, Clone)]
pub(crate) struct Tried {
    pub(crate) name: String,
    /// In what it differs from what was expected; none: it passed.
    pub(crate) differences: Vec<Difference>,
    /// None where the plugin did not start.
    pub(crate) attempt: Option<Attempt>,
    /// Why it did not start.
    pub(crate) refused: Option<ConfigureError>,
    /// What it saw, to be tried again elsewhere.
    pub(crate) capsule: Capsule,
}

/// Reads a list of cases and checks it.
pub(crate) fn parse(text: &str) -> Result<Vec<Case>> {
    let cases = serde_json::from_str(text).context("cases: a JSON list of cases is expected")?;
    check(&cases)?;
    Ok(cases)
}

/// Whether every case has a name and a message that can be, and there are not too many of them.
pub(crate) fn check(cases: &Vec<Case>) -> Result<()> {
    ensure!(cases.len() <= CASES_MAX, "{} cases; at most {CASES_MAX} are allowed", cases.len());
    let bytes = serde_json::to_vec(cases).map_or(0, |json| json.len());
    ensure!(bytes <= CASES_BYTES_MAX, "cases: {bytes} bytes of JSON; at most {CASES_BYTES_MAX} are allowed");
    cases.iter().try_for_each(Case::check)
}

impl Case {
    /// Whether it has a name, a message that can be, and nothing said twice.
    pub(crate) fn check(&self) -> Result<()> {
        let name = &self.name;
        ensure!(
            !name.is_empty() && name.len() <= NAME_BYTES_MAX,
            "a case has a name of 1 to {NAME_BYTES_MAX} bytes, found {name:?}"
        );
        self.message.hand(0, 0).with_context(|| format!("case {name:?}: message"))?;
        self.expect.check().with_context(|| format!("case {name:?}: expect"))
    }

    /// Tries it on an instance that is for nothing else.
    pub(crate) fn try_on(&self, component: &Component, base: &Use, now_ms: u64) -> Result<Tried> {
        let config_json = self.config.as_ref().map_or_else(|| base.config_json.clone(), ToString::to_string);
        let now_ms = self.message.now_ms.unwrap_or(now_ms);
        let r#use = Use { config_json, started_ms: Some(now_ms), ..base.clone() };
        let hand = self.message.hand(now_ms, 0)?;
        let capsule = Capsule::of(component.name(), *component.digest(), &r#use, &hand);
        let log = Arc::new(CapturedLog::default());
        let name = self.name.clone();
        match component.plugin_with(r#use, log.clone()) {
            Err(refused) => {
                let differences = self.expect.differences_of_start(Some(&refused));
                Ok(Tried { name, differences, attempt: None, refused: Some(refused), capsule })
            }
            Ok(mut guest) => {
                let attempt = Attempt::of(&mut guest, hand, Some(&log));
                let mut differences = self.expect.differences_of_start(None);
                if differences.is_empty() {
                    differences = self.expect.differences(&attempt);
                }
                let capsule = capsule.with_outcome(&attempt);
                Ok(Tried { name, differences, attempt: Some(attempt), refused: None, capsule })
            }
        }
    }
}

impl CaseMessage {
    /// The message in hand that it describes.
    pub(crate) fn hand(&self, now_ms: u64, seed: u64) -> Result<Hand> {
        let subject = Subject::new(self.subject.as_deref().unwrap_or("test")).context("subject")?;
        let id = MessageId::new(self.id.as_deref().unwrap_or("test")).context("id")?;
        let payload = self.content().payload()?.unwrap_or_default();
        let mut message = Message::new(id, subject, Bytes::from(payload));
        if let Some(origin) = &self.origin_subject {
            message.origin_subject = Subject::new(origin).context("origin_subject")?;
        }
        let mut headers = Headers::new();
        for (name, values) in &self.headers {
            for value in values.iter() {
                headers.add(name, value)?;
            }
        }
        message.headers = headers;
        message.key = self.content().key()?;
        message.reply_to = self.reply_to.as_deref().map(Subject::new).transpose().context("reply_to")?;
        message.priority = self.priority.unwrap_or(0);
        message.published_ms = self.published_ms.unwrap_or(now_ms);
        message.expires_ms = self.expires_ms;
        Ok(Hand::new(message, self.attempt.unwrap_or(1), self.now_ms.unwrap_or(now_ms), seed))
    }

    fn content(&self) -> Content<'_> {
        Content {
            key: self.key.as_deref(),
            key_base64: self.key_base64.as_deref(),
            payload: self.payload.as_ref(),
            payload_text: self.payload_text.as_deref(),
            payload_base64: self.payload_base64.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_that_cannot_be_is_named() {
        let bad = r#"[{ "name": "n", "message": { "subject": "a b" }, "expect": {} }]"#;
        assert!(parse(bad).expect_err("refused").to_string().contains("case \"n\""));
        let unknown = r#"[{ "name": "n", "message": {}, "expect": { "verdikt": "drop" } }]"#;
        assert!(format!("{:#}", parse(unknown).expect_err("refused")).contains("verdikt"));
        let twice = r#"[{ "name": "n", "message": { "payload": 1, "payload_text": "1" } }]"#;
        assert!(format!("{:#}", parse(twice).expect_err("refused")).contains("`payload_text`"));
    }

    #[test]
    fn what_is_not_said_of_a_message_has_a_default() {
        let hand = CaseMessage::default().hand(7, 1).expect("a hand");
        let message = &hand.message;
        assert_eq!((message.id.as_str(), message.subject.as_str(), message.payload.len()), ("test", "test", 0));
        assert_eq!((hand.attempt, hand.now_ms, message.published_ms), (1, 7, 7));
        let said = r#"{ "headers": { "a": ["1", "2"], "b": "3" }, "attempt": 4, "now_ms": 9, "key_base64": "AP8=" }"#;
        let said: CaseMessage = serde_json::from_str(said).expect("a message");
        let hand = said.hand(7, 1).expect("a hand");
        assert_eq!(hand.message.headers.all("A").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((hand.attempt, hand.now_ms), (4, 9));
        assert_eq!(hand.message.key.map(|key| key.as_bytes().to_vec()), Some(vec![0, 255]));
    }
}
