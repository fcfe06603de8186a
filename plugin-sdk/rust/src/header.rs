//! Headers and keys by the router's rules: what comes out of a payload is checked before it is set, since the router
//! traps on what is invalid.

use crate::{Message, host};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Most headers of a message, the router's own aside.
pub(crate) const HEADERS_MAX: usize = 64;
/// Longest key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 128;
const VALUE_BYTES_MAX: usize = 4 << 10;
const ID_BYTES_MAX: usize = 128;
const PRIORITY_MAX: u8 = 9;

/// The name of a header that a plugin may set: visible ASCII without `:`, 128 bytes at most. Of those that begin with
/// `quipu-`, the properties of the message in hand: `quipu-priority`, `quipu-expires-ms` and `quipu-deliver-at-ms`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HeaderName(String);

impl HeaderName {
    /// Its text, as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a header cannot be set, or a text is no name of one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct HeaderError(String);

/// Why a key cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("key of {0} bytes, {KEY_BYTES_MAX} at most")]
pub struct KeyError(usize);

impl TryFrom<String> for HeaderName {
    type Error = HeaderError;

    fn try_from(name: String) -> Result<Self, HeaderError> {
        if let Some(problem) = problem(&name, "") {
            return Err(HeaderError(problem));
        }
        let lower = name.to_ascii_lowercase();
        if is_reserved(&lower) && (lower == "quipu-id" || !is_property(&lower)) {
            return Err(HeaderError(format!("header {name:?} is the router's own")));
        }
        Ok(Self(name))
    }
}

impl FromStr for HeaderName {
    type Err = HeaderError;

    fn from_str(name: &str) -> Result<Self, HeaderError> {
        Self::try_from(name.to_owned())
    }
}

impl From<HeaderName> for String {
    fn from(name: HeaderName) -> Self {
        name.0
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Changes that say what is wrong, instead of failing the attempt: for names and values out of messages.
impl Message {
    /// As [`Message::set_header`], checked.
    ///
    /// # Errors
    ///
    /// The value is longer than 4 KiB, has a control character, or does not fit a property of the router's; or the
    /// message has 64 headers already.
    pub fn try_set_header(&mut self, name: &HeaderName, value: &str) -> Result<(), HeaderError> {
        let name = name.as_str();
        if let Some(problem) = problem(name, value) {
            return Err(HeaderError(problem));
        }
        let lower = name.to_ascii_lowercase();
        if is_reserved(&lower) {
            if !property_fits(&lower, value) {
                return Err(HeaderError(format!("header {name:?}: {value:?} does not fit")));
            }
        } else if self.header(name).is_none() && plain(&self.headers()) >= HEADERS_MAX {
            return Err(HeaderError(format!("header {name:?}: {HEADERS_MAX} headers at most")));
        }
        host::set_header(name, value);
        Ok(())
    }

    /// As [`Message::set_key`], checked.
    ///
    /// # Errors
    ///
    /// The key is longer than 512 bytes.
    pub fn try_set_key(&mut self, key: impl AsRef<[u8]>) -> Result<(), KeyError> {
        let key = key.as_ref();
        if key.len() > KEY_BYTES_MAX {
            return Err(KeyError(key.len()));
        }
        host::set_key(key);
        Ok(())
    }

    /// Its headers without those that the router adds, in order: what a new message can take along.
    pub fn own_headers(&self) -> Vec<(String, String)> {
        let mut headers = self.headers();
        headers.retain(|(name, _)| !is_reserved(name));
        headers
    }
}

/// How many headers count towards the limit; there is room for the router's own beyond it.
pub(crate) fn plain(headers: &[(String, String)]) -> usize {
    headers.iter().filter(|(name, _)| !is_reserved(name)).count()
}

pub(crate) fn is_reserved(name: &str) -> bool {
    name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("quipu-"))
}

pub(crate) fn is_property(lower: &str) -> bool {
    matches!(lower, "quipu-id" | "quipu-expires-ms" | "quipu-deliver-at-ms" | "quipu-priority")
}

pub(crate) fn property_fits(lower: &str, value: &str) -> bool {
    match lower {
        "quipu-id" => {
            (1..=ID_BYTES_MAX).contains(&value.len()) && !value.chars().any(|c| c.is_control() || c.is_whitespace())
        }
        "quipu-priority" => value.parse::<u8>().is_ok_and(|priority| priority <= PRIORITY_MAX),
        _ => value.parse::<u64>().is_ok(),
    }
}

/// What the router does not take about a header.
pub(crate) fn problem(name: &str, value: &str) -> Option<String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
        Some(format!("header {name:?}: a name is visible ASCII without `:`"))
    } else if name.len() > NAME_BYTES_MAX {
        Some(format!("header {name:?}: a name of {} bytes, {NAME_BYTES_MAX} at most", name.len()))
    } else if value.len() > VALUE_BYTES_MAX {
        Some(format!("header {name:?}: a value of {} bytes, {VALUE_BYTES_MAX} at most", value.len()))
    } else if value.chars().any(char::is_control) {
        Some(format!("header {name:?}: a control character in the value"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::HeaderName;
    use crate::prelude::*;
    use crate::testing::{MockMessage, run};

    /// Sets a header and the key, as its configuration says.
    #[derive(Deserialize)]
    struct Sets {
        name: HeaderName,
        value: String,
        #[serde(default)]
        key: String,
    }

    impl Plugin for Sets {
        fn process(&mut self, message: &mut Message) -> Result<Verdict> {
            message.try_set_header(&self.name, &self.value)?;
            message.try_set_key(&self.key)?;
            Ok(forward())
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let full = (0..64).fold(MockMessage::new("a").header("quipu-parent", "p"), |message, n| {
            message.header(format!("h-{n}"), "v")
        });
        let verdict =
            |name: &str, value: &str| run::<Sets>(json!({ "name": name, "value": value }), full.clone()).verdict;
        assert_eq!(verdict("H-7", "new"), forward());
        assert_eq!(verdict("quipu-priority", "9"), forward());
        assert_eq!(verdict("quipu-priority", "10"), reject(r#"header "quipu-priority": "10" does not fit"#));
        assert_eq!(verdict("new", "v"), reject(r#"header "new": 64 headers at most"#));
        assert_eq!(verdict("h-7", "a\nb"), reject(r#"header "h-7": a control character in the value"#));
        assert_eq!(verdict("h-7", &"v".repeat(4_097)), reject(r#"header "h-7": a value of 4097 bytes, 4096 at most"#));
        let config = json!({ "name": "h-7", "value": "v", "key": "k".repeat(513) });
        assert_eq!(run::<Sets>(config, full.clone()).verdict, reject("key of 513 bytes, 512 at most"));
    }

    #[track_caller]
    fn check(name: &str, expected: &str) {
        let found = name.parse::<HeaderName>().map_or_else(|error| error.to_string(), |_| "valid".into());
        assert_eq!(found, expected);
    }

    #[test]
    fn names() {
        check("ce-Type", "valid");
        check("Quipu-Priority", "valid");
        check("", r#"header "": a name is visible ASCII without `:`"#);
        check("a b", r#"header "a b": a name is visible ASCII without `:`"#);
        check("quipu-parent", r#"header "quipu-parent" is the router's own"#);
        check("quipu-id", r#"header "quipu-id" is the router's own"#);
        assert!(
            "n".repeat(129)
                .parse::<HeaderName>()
                .unwrap_err()
                .to_string()
                .ends_with("a name of 129 bytes, 128 at most")
        );
    }
}
