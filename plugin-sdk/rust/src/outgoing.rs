//! New messages, and why the router may refuse one.

use serde::Serialize;
use thiserror::Error;

/// A new message, for [`Message::emit`](crate::Message::emit).
///
/// ```
/// # use quipu_plugin::prelude::*;
/// let alarm = Outgoing::new("alarms").header("type", "earthquake").json(&json!({ "magnitude": 7.1 }))?.priority(9);
/// # assert_eq!(alarm.headers[1], ("quipu-priority".into(), "9".into()));
/// # Ok::<_, Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a new message goes out by `Message::emit`"]
pub struct Outgoing {
    /// Where it is published.
    pub subject: String,
    /// Its key, if any.
    pub key: Option<Vec<u8>>,
    /// In order; names compare without case. Those that begin with `quipu-` are properties, and the router's own.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Outgoing {
    /// A message without key, headers and payload.
    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), ..Self::default() }
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the payload; takes text as well.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = payload.into();
        self
    }

    /// Sets the payload to this value as JSON.
    ///
    /// # Errors
    ///
    /// A value that JSON cannot say, such as a map whose keys are no text.
    pub fn json(self, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(self.payload(serde_json::to_vec(value)?))
    }

    /// Sets the id, which stores a repeated message once. Without it the router derives one.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.header("quipu-id", id)
    }

    /// Sets when it expires, in Unix milliseconds.
    pub fn expires_ms(self, at: u64) -> Self {
        self.header("quipu-expires-ms", at.to_string())
    }

    /// Sets when it is delivered, in Unix milliseconds.
    pub fn deliver_at_ms(self, at: u64) -> Self {
        self.header("quipu-deliver-at-ms", at.to_string())
    }

    /// Sets the priority, 0 to 9.
    pub fn priority(self, priority: u8) -> Self {
        self.header("quipu-priority", priority.to_string())
    }
}

/// Why the router did not take a new message. The message in hand is not affected, unless the plugin says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Too many of them for one message in hand, or too large together.
    #[error("past the limit of emitted messages")]
    Limit,
    /// An invalid subject, key, header or property.
    #[error("the emitted message is invalid")]
    Invalid,
    /// The route does not let this plugin publish there.
    #[error("not granted to publish there")]
    NotGranted,
    /// It would come back to this route.
    #[error("emitting there would loop")]
    Loop,
}
