//! What is known of a plugin's version, and how versions are named.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::cases::Case;

/// Longest name of a plugin, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Longest tag, in bytes.
const TAG_BYTES_MAX: usize = 64;
/// Shortest beginning of a digest that names a version.
const PREFIX_MIN: usize = 4;
/// Longest text of who did something, or where something came from, in bytes.
pub(super) const SOURCE_BYTES_MAX: usize = 512;

/// Tags that the router gives itself. Each goes on to the next version, and nobody else gives it, but for the last.
pub(crate) const FILE: &str = "file";
/// Of a stock plugin.
pub(crate) const STOCK: &str = "stock";
/// Of a file in the directory that is watched.
pub(crate) const WATCH: &str = "watch";
/// Of what an author tries out, `quipu plugin dev`: pushed, and otherwise as those the router gives itself.
pub(crate) const DEV: &str = "dev";

/// One version of a plugin, as the index has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) name: String,
    /// Of the file, 64 hex digits.
    pub(crate) digest: String,
    /// As pushed: `1.5.0`.
    pub(crate) tag: String,
    /// Counts all pushes of the store: the highest is the latest.
    pub(crate) sequence: u64,
    pub(crate) when_ms: u64,
    pub(crate) who: String,
    pub(crate) size_bytes: u64,
    /// Of the contract, as `0.1.0`.
    pub(crate) contract: String,
    pub(crate) imports: Vec<String>,
    /// Some of its functions, where it carries names.
    pub(crate) functions: Vec<String>,
    pub(crate) has_names: bool,
    /// Where it came from.
    pub(crate) source: String,
    /// Its self-test.
    pub(crate) cases: Vec<Case>,
}

/// Which version of a plugin a route serves, as somebody deployed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deployed {
    pub(crate) digest: String,
    /// What it took the place of.
    pub(crate) previous: Option<String>,
    pub(crate) who: String,
    pub(crate) when_ms: u64,
}

/// `NAME@VERSION`: a tag, or the beginning of a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// Why something is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("expected a name of 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`, found {0:?}")]
    Name(String),
    #[error("expected a version of 1 to {TAG_BYTES_MAX} letters, digits, `.`, `-`, `_` and `+`, found {0:?}")]
    Tag(String),
    #[error("expected NAME@VERSION, found {0:?}")]
    Reference(String),
}

impl Version {
    /// As people read it: `1.5.0`, or the digest where the tag says nothing.
    pub(crate) fn label(&self) -> &str {
        if is_own(&self.tag) { self.short() } else { &self.tag }
    }

    /// The first 8 digits of its digest.
    pub(crate) fn short(&self) -> &str {
        short(&self.digest)
    }

    /// Whether this names it, by its tag or its digest.
    pub(super) fn is_called(&self, version: &str) -> bool {
        self.tag == version || self.begins_with(version)
    }

    pub(super) fn begins_with(&self, prefix: &str) -> bool {
        prefix.len() >= PREFIX_MIN && self.digest.starts_with(&prefix.to_ascii_lowercase())
    }
}

/// The first 8 digits of a digest.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..8).unwrap_or(digest)
}

/// Whether a tag goes on to the next version, so that a version is better called by its digest.
pub(crate) fn is_own(tag: &str) -> bool {
    [FILE, STOCK, WATCH, DEV].contains(&tag)
}

/// Whether this can be a plugin's name.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let fine = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed);
    if fine { Ok(()) } else { Err(NameError::Name(name.to_owned())) }
}

/// Whether this can be a tag, or the beginning of a digest.
pub(crate) fn check_tag(tag: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
    let fine = (1..=TAG_BYTES_MAX).contains(&tag.len()) && tag.chars().all(allowed);
    if fine { Ok(()) } else { Err(NameError::Tag(tag.to_owned())) }
}

impl FromStr for Reference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, version) = text.split_once('@').ok_or_else(|| NameError::Reference(text.to_owned()))?;
        check_name(name)?;
        check_tag(version)?;
        Ok(Self { name: name.to_owned(), version: version.to_owned() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Now, in Unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_a_name_and_a_version() {
        let good: Reference = "big-quakes@1.5.0".parse().expect("a reference");
        assert_eq!((good.name.as_str(), good.version.as_str()), ("big-quakes", "1.5.0"));
        assert_eq!(good.to_string(), "big-quakes@1.5.0");
        for bad in ["big-quakes", "@1", "a@", "a b@1", "a@1/2", "a@b@c"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
