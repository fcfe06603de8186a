//! All that one attempt of a plugin saw, as JSON: enough to make it again elsewhere.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu_protocol::{Headers, Key, Message, MessageId, Subject};
use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;
use crate::component::{Isolation, Recycle, Use};
use crate::plugin::{Digest, Hand, Limits};

/// The only version so far.
const VERSION: u32 = 1;

/// Longest capsule that is read, in bytes: a payload of 8 MiB in base64, and all else at its largest.
pub const CAPSULE_BYTES_MAX: usize = 16 << 20;

/// One attempt of one plugin: message, configuration, plugin, clock and seed; and what it came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capsule {
    /// 1.
    pub version: u32,
    /// The plugin's name.
    pub plugin: String,
    /// Of the plugin's file.
    pub digest: Digest,
    /// As written; JSON inside of a string, so that not a byte of it changes.
    pub config: String,
    /// What it might take.
    pub limits: LimitsRecord,
    /// In which route.
    pub route: String,
    /// 1 on the first try.
    pub attempt: u32,
    /// The attempt's clock, in Unix milliseconds.
    pub now_ms: u64,
    /// The attempt's seed.
    pub seed: u64,
    /// The clock that `configure` saw, in Unix milliseconds, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// The message in hand, as the plugins before this one left it.
    pub message: MessageRecord,
    /// Whether a plugin before this one set the payload.
    #[serde(default)]
    pub payload_changed: bool,
    /// Whether a plugin before this one changed anything else.
    #[serde(default)]
    pub header_changed: bool,
    /// What it came to, where that is known: `forward`, `fault deadline` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// [`Attempt::digest`] of what it came to: a replay has the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Digest>,
}

/// [`Limits`], as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as in `Limits`")]
pub struct LimitsRecord {
    pub deadline_us: u64,
    pub memory_bytes: usize,
    pub output_bytes: usize,
    pub emits: u32,
    pub host_calls: u32,
    pub log_lines: u32,
    pub log_bytes: usize,
}

/// A [`Message`], as JSON has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as in `Message`")]
pub struct MessageRecord {
    pub id: String,
    pub subject: String,
    pub origin_subject: String,
    /// Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    pub published_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
    #[serde(default)]
    pub priority: u8,
    #[serde(default)]
    pub hops: u8,
    /// Base64.
    pub payload: String,
}

/// Why a capsule cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapsuleError {
    /// Longer than any.
    #[error("a capsule of {0} bytes; at most {CAPSULE_BYTES_MAX} are read")]
    TooLarge(usize),
    /// No JSON, or other JSON than a capsule's.
    #[error("not a capsule: {0}")]
    Json(String),
    /// Of a later router.
    #[error("a capsule of version {0}; this router reads version {VERSION}")]
    Version(u32),
    /// A part of the message that is none.
    #[error("the capsule's message is invalid: {field}: {reason}")]
    Message {
        /// Which part.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Capsule {
    /// Of a plugin's use and the hand that it is about to see.
    pub fn of(plugin: &str, digest: Digest, r#use: &Use, hand: &Hand) -> Self {
        Self {
            version: VERSION,
            plugin: plugin.to_owned(),
            digest,
            config: r#use.config_json.clone(),
            limits: r#use.limits.into(),
            route: r#use.route.clone(),
            attempt: hand.attempt,
            now_ms: hand.now_ms,
            seed: hand.seed,
            started_ms: r#use.started_ms,
            message: MessageRecord::of(&hand.message),
            payload_changed: hand.payload_changed,
            header_changed: hand.header_changed,
            verdict: None,
            outcome: None,
        }
    }

    /// With what the attempt came to, so that a replay can be compared.
    #[must_use]
    pub fn with_outcome(self, attempt: &Attempt) -> Self {
        Self { verdict: Some(attempt.verdict_name()), outcome: Some(attempt.digest()), ..self }
    }

    /// The hand as the plugin saw it.
    ///
    /// # Errors
    ///
    /// [`CapsuleError::Message`].
    pub fn hand(&self) -> Result<Hand, CapsuleError> {
        let mut hand = Hand::new(self.message.message()?, self.attempt, self.now_ms, self.seed);
        (hand.payload_changed, hand.header_changed) = (self.payload_changed, self.header_changed);
        Ok(hand)
    }

    /// The use of the plugin: an instance of its own, made for this attempt.
    pub fn r#use(&self) -> Use {
        Use {
            route: self.route.clone(),
            config_json: self.config.clone(),
            limits: self.limits.into(),
            isolation: Isolation::Message,
            recycle: Recycle::default(),
            started_ms: self.started_ms,
        }
    }

    /// As JSON on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // strings and numbers alone, which cannot fail
    }

    /// Reads what [`Capsule::to_json`] wrote.
    ///
    /// # Errors
    ///
    /// [`CapsuleError`].
    pub fn from_json(text: &str) -> Result<Self, CapsuleError> {
        if text.len() > CAPSULE_BYTES_MAX {
            return Err(CapsuleError::TooLarge(text.len()));
        }
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let json = |e: serde_json::Error| CapsuleError::Json(e.to_string());
        let Version { version } = serde_json::from_str(text).map_err(json)?;
        if version != VERSION {
            return Err(CapsuleError::Version(version));
        }
        let capsule: Self = serde_json::from_str(text).map_err(json)?;
        capsule.hand()?;
        Ok(capsule)
    }
}

impl From<Limits> for LimitsRecord {
    fn from(limits: Limits) -> Self {
        let Limits { deadline, memory_bytes, output_bytes, emits, host_calls, log_lines, log_bytes } = limits;
        let deadline_us = u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX);
        Self { deadline_us, memory_bytes, output_bytes, emits, host_calls, log_lines, log_bytes }
    }
}

impl From<LimitsRecord> for Limits {
    fn from(limits: LimitsRecord) -> Self {
        let LimitsRecord { deadline_us, memory_bytes, output_bytes, emits, host_calls, log_lines, log_bytes } = limits;
        let deadline = Duration::from_micros(deadline_us);
        Self { deadline, memory_bytes, output_bytes, emits, host_calls, log_lines, log_bytes }
    }
}

impl MessageRecord {
    /// All that a plugin can see of it.
    pub fn of(message: &Message) -> Self {
        Self {
            id: message.id.as_str().into(),
            subject: message.subject.as_str().into(),
            origin_subject: message.origin_subject.as_str().into(),
            key: message.key.as_ref().map(|key| STANDARD.encode(key.as_bytes())),
            headers: message.headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            reply_to: message.reply_to.as_ref().map(|subject| subject.as_str().into()),
            published_ms: message.published_ms,
            deliver_at_ms: message.deliver_at_ms,
            expires_ms: message.expires_ms,
            priority: message.priority,
            hops: message.hops,
            payload: STANDARD.encode(&message.payload),
        }
    }

    /// The message again.
    ///
    /// # Errors
    ///
    /// [`CapsuleError::Message`] names the part that is invalid.
    pub fn message(&self) -> Result<Message, CapsuleError> {
        let id = MessageId::new(&self.id).map_err(invalid("id"))?;
        let subject = |field, text: &str| Subject::new(text).map_err(invalid(field));
        let payload = STANDARD.decode(&self.payload).map_err(invalid("payload"))?;
        let mut message = Message::new(id, subject("subject", &self.subject)?, payload);
        message.origin_subject = subject("origin_subject", &self.origin_subject)?;
        if let Some(key) = &self.key {
            let bytes = STANDARD.decode(key).map_err(invalid("key"))?;
            message.key = Some(Key::new(bytes).map_err(invalid("key"))?);
        }
        let mut headers = Headers::new();
        for (name, value) in &self.headers {
            headers.add(name, value).map_err(invalid("headers"))?;
        }
        message.headers = headers;
        message.reply_to = self.reply_to.as_deref().map(|text| subject("reply_to", text)).transpose()?;
        message.published_ms = self.published_ms;
        message.deliver_at_ms = self.deliver_at_ms;
        message.expires_ms = self.expires_ms;
        message.priority = self.priority;
        message.hops = self.hops;
        Ok(message)
    }
}

fn invalid<E: std::fmt::Display>(field: &'static str) -> impl Fn(E) -> CapsuleError {
    move |e| CapsuleError::Message { field, reason: e.to_string() }
}
