//! What should become of a message. What is not said may be anything.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::content::{self, Content, Values};

/// Of the message in hand.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<Expected>,
    /// Part of what the plugin says as it refuses its configuration, or fails to start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Of the verdict `route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subjects: Option<Vec<String>>,
    /// Part of what `drop`, `retry`, `reject` or a fault says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Of the verdict `retry`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delay_ms: Option<u64>,
    /// Headers afterwards, each with all its values; null: it is not there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, Option<Values>>,
    /// Headers that are not there afterwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) no_headers: Vec<String>,
    /// The key afterwards; an empty one: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliver_at_ms: Option<u64>,
    /// The payload afterwards, as JSON: of objects, these fields.
    #[serde(alias = "payload_json", skip_serializing_if = "Option::is_none", deserialize_with = "content::some_json")]
    pub(crate) payload: Option<Value>,
    /// Fields that the payload does not have afterwards, as `properties.url`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) absent: Vec<String>,
    /// The payload afterwards, as a text, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
    /// What it emitted, in order, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outputs: Option<Vec<ExpectOutput>>,
    /// How many messages it emitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) emitted: Option<usize>,
    /// Each is part of a line that it logged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) logs: Vec<String>,
}

/// Of a message that it emitted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExpectOutput {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, Option<Values>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) no_headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deliver_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "content::some_json")]
    pub(crate) payload: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) absent: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_base64: Option<String>,
}

/// A verdict by its name, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expected {
    Forward,
    Route,
    Drop,
    Retry,
    Reject,
    Fault,
}

impl Expect {
    /// Whether it says anything at all.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing is said twice.
    ///
    /// # Errors
    ///
    /// What is.
    pub(super) fn check(&self) -> Result<()> {
        check_content(self.content())?;
        ensure!(
            self.error.is_none() || *self == Self { error: self.error.clone(), ..Self::default() },
            "`error` stands alone: a plugin that does not start sees no message"
        );
        for (n, output) in self.outputs.iter().flatten().enumerate() {
            check_content(output.content()).with_context(|| format!("outputs[{n}]"))?;
        }
        Ok(())
    }

    pub(super) fn content(&self) -> Content<'_> {
        Content {
            key: self.key.as_deref(),
            key_base64: self.key_base64.as_deref(),
            payload: self.payload.as_ref(),
            payload_text: self.payload_text.as_deref(),
            payload_base64: self.payload_base64.as_deref(),
        }
    }
}

impl ExpectOutput {
    pub(super) fn content(&self) -> Content<'_> {
        Content {
            key: self.key.as_deref(),
            key_base64: self.key_base64.as_deref(),
            payload: self.payload.as_ref(),
            payload_text: self.payload_text.as_deref(),
            payload_base64: self.payload_base64.as_deref(),
        }
    }
}

fn check_content(content: Content<'_>) -> Result<()> {
    content.payload()?;
    content.key()?;
    Ok(())
}

impl Expected {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Route => "route",
            Self::Drop => "drop",
            Self::Retry => "retry",
            Self::Reject => "reject",
            Self::Fault => "fault",
        }
    }
}
