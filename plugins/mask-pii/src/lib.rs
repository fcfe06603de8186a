//! Stock plugin `mask-pii`: takes personal data out of payloads, by field and by what it looks like.
//!
//! As little as possible of the payload changes: JSON is changed in its text, so that the order of names, the digits of
//! numbers and blanks are kept.

mod detect;

use detect::{Kind, find};
use hmac::{Hmac, Mac};
use quipu_plugin::json::{Change, Fields};
use quipu_plugin::prelude::*;
use quipu_plugin::serde_json;
use serde::de::IgnoredAny;
use sha2::Sha256;

/// The shortest key of hashes, in bytes: a shorter one is soon guessed.
const HASH_KEY_BYTES_MIN: usize = 16;
/// How much of a hash is kept, in bytes: nobody meets two alike.
const HASH_BYTES: usize = 16;
const REPLACEMENT: &str = "***";

/// The configuration of one use.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskPii {
    #[serde(default)]
    remove: Vec<FieldPath>,
    #[serde(default)]
    mask: Vec<FieldPath>,
    #[serde(default)]
    hash: Vec<FieldPath>,
    replacement: Option<String>,
    #[serde(default)]
    detect: Vec<Kind>,
    /// Where to look; in all texts unless said otherwise.
    detect_in: Option<Vec<FieldPath>>,
    #[serde(default)]
    detected: Detected,
    hash_key: Option<String>,
    #[serde(default)]
    payload: Format,
    #[serde(skip)]
    made: Made,
}

/// What becomes of what is detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Detected {
    /// Its kind takes its place: `[email]`.
    #[default]
    Mask,
    /// Its kind and its hash do: `[email:9f86…]`.
    Hash,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Text,
}

/// What `configure` makes of the configuration.
#[derive(Debug, Default)]
struct Made {
    /// `remove`, `mask` and `hash`, in this order.
    fields: Fields,
    detect_in: Fields,
    hasher: Option<Hmac<Sha256>>,
}

impl Plugin for MaskPii {
    fn configure(config: &str) -> Result<Self> {
        let mut plugin: Self = quipu_plugin::parse_config(config)?;
        plugin.check()?;
        plugin.made.fields = plugin.remove.iter().chain(&plugin.mask).chain(&plugin.hash).collect();
        plugin.made.detect_in = plugin.detect_in.iter().flatten().collect();
        if let Some(key) = plugin.hash_key.take() {
            plugin.made.hasher = Some(Hmac::new_from_slice(key.as_bytes()).map_err(|error| error.to_string())?);
        }
        Ok(plugin)
    }

    fn check(&self) -> Result<(), String> {
        let lists = [("remove", &self.remove), ("mask", &self.mask), ("hash", &self.hash)];
        let given = lists.into_iter().find(|(_, fields)| !fields.is_empty());
        if given.is_none() && self.detect.is_empty() {
            return Err("one of remove, mask, hash, detect is required".into());
        }
        if let (Some((name, _)), Format::Text) = (given, self.payload) {
            return Err(format!("{name}: text has no fields; it goes with payload = \"json\""));
        }
        if self.detect_in.is_some() && (self.detect.is_empty() || self.payload == Format::Text) {
            return Err("detect_in: goes with detect and payload = \"json\"".into());
        }
        let hashes = !self.hash.is_empty() || self.detected == Detected::Hash;
        match &self.hash_key {
            None if hashes => Err("hash_key: is required for hashes".into()),
            Some(key) if key.len() < HASH_KEY_BYTES_MIN => {
                Err(format!("hash_key: {} bytes, at least {HASH_KEY_BYTES_MIN} are needed", key.len()))
            }
            _ => Ok(()),
        }
    }

    fn process(&mut self, message: &mut Message) -> Result<Verdict> {
        let Some(text) = message.payload_text() else { return Ok(reject("the payload is not UTF-8")) };
        let changed = match self.payload {
            Format::Text => self.in_text(text),
            Format::Json => self.in_json(text).map_err(|error| format!("the payload is no JSON: {error}"))?,
        };
        if let Some(changed) = changed {
            message.set_payload_text(&changed);
        }
        Ok(forward())
    }
}
plugin!(MaskPii);

impl MaskPii {
    /// The fields first, and then whatever is detected in what they left; nothing where nothing changes.
    fn in_json(&self, text: &str) -> serde_json::Result<Option<String>> {
        let changed = self.made.fields.rewrite(text, &mut |number, value| self.field(number, value))?;
        if self.detect.is_empty() {
            return Ok(changed);
        }
        let left = changed.as_deref().unwrap_or(text);
        let detected = if self.detect_in.is_some() {
            let mut broken = None;
            let detected = self.made.detect_in.rewrite(left, &mut |_, value| match self.in_values(value) {
                Ok(None) => Change::Keep,
                Ok(Some(value)) => Change::Replace(value),
                Err(error) => {
                    broken = Some(error);
                    Change::Keep
                }
            })?;
            broken.map_or(Ok(detected), Err)?
        } else {
            self.in_values(left)?
        };
        Ok(detected.or(changed))
    }

    /// By the number of its path among those of `remove`, `mask` and `hash`.
    fn field(&self, number: usize, value: &str) -> Change {
        if number < self.remove.len() {
            Change::Remove
        } else if number < self.remove.len() + self.mask.len() {
            Change::Replace(json!(self.replacement.as_deref().unwrap_or(REPLACEMENT)).to_string())
        } else {
            // What is no text is hashed as it is written.
            let text = serde_json::from_str::<String>(value);
            Change::Replace(json!(self.hashed(text.as_deref().unwrap_or(value))).to_string())
        }
    }

    /// The texts and numbers of a JSON text that is known to be valid, or fails here. Names are left alone.
    fn in_values(&self, json: &str) -> serde_json::Result<Option<String>> {
        serde_json::from_str::<IgnoredAny>(json)?;
        let mut changed = String::new();
        let (mut kept, mut at) = (0, 0);
        while let Some(byte) = json.as_bytes().get(at) {
            let end = at
                + match byte {
                    b'"' => string_length(&json[at..]),
                    b'-' | b'0'..=b'9' => json[at..].bytes().take_while(|byte| !b",]} \t\r\n".contains(byte)).count(),
                    _ => 1,
                };
            let is_single = matches!(byte, b'"' | b'-' | b'0'..=b'9');
            // In JSON a colon is behind names, and behind nothing else.
            if is_single && !json[end..].trim_ascii_start().starts_with(':') {
                let text = if *byte == b'"' { serde_json::from_str(&json[at..end])? } else { json[at..end].to_owned() };
                if let Some(text) = self.in_text(&text) {
                    changed.push_str(&json[kept..at]);
                    changed.push_str(&json!(text).to_string());
                    kept = end;
                }
            }
            at = end;
        }
        if kept == 0 {
            return Ok(None);
        }
        changed.push_str(&json[kept..]);
        Ok(Some(changed))
    }

    /// The text with what is detected in it masked; nothing where there is none.
    fn in_text(&self, text: &str) -> Option<String> {
        let found = find(text, &self.detect);
        if found.is_empty() {
            return None;
        }
        let mut masked = String::with_capacity(text.len());
        let mut kept = 0;
        for (range, kind) in found {
            masked.push_str(&text[kept..range.start]);
            kept = range.end;
            masked.push_str(&match self.detected {
                Detected::Mask => format!("[{}]", kind.name()),
                Detected::Hash => format!("[{}:{}]", kind.name(), self.hashed(&text[range])),
            });
        }
        masked.push_str(&text[kept..]);
        Some(masked)
    }

    /// The first half of HMAC-SHA-256 under the key, in hexadecimal digits.
    fn hashed(&self, text: &str) -> String {
        let mut hasher = self.made.hasher.clone().expect("a configuration that hashes has a key");
        hasher.update(text.as_bytes());
        hasher.finalize().into_bytes()[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The bytes of the JSON text that begins here, with its quotes.
fn string_length(json: &str) -> usize {
    let mut is_escaped = false;
    let closing = json.bytes().skip(1).position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    });
    closing.map_or(json.len(), |at| at + 2)
}

#[cfg(test)]
mod tests;
