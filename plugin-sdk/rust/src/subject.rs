//! Subjects that are known to be valid: for configurations, so that a wrong one is refused before any message comes.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use thiserror::Error;

/// Longest subject, in bytes.
const BYTES_MAX: usize = 255;
/// Most tokens of a subject.
const TOKENS_MAX: usize = 16;

/// A subject to publish to: tokens of letters, digits, `-` and `_`, joined by dots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

impl Subject {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is no subject.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("invalid subject {subject:?}: {problem}")]
pub struct SubjectError {
    subject: String,
    problem: String,
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(subject: String) -> Result<Self, SubjectError> {
        match problem(&subject) {
            None => Ok(Self(subject)),
            Some(problem) => Err(SubjectError { subject, problem }),
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(subject: &str) -> Result<Self, SubjectError> {
        Self::try_from(subject.to_owned())
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0
    }
}

impl From<&Subject> for String {
    fn from(subject: &Subject) -> Self {
        subject.0.clone()
    }
}

impl AsRef<str> for Subject {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn problem(subject: &str) -> Option<String> {
    if subject.len() > BYTES_MAX {
        return Some(format!("{} bytes, {BYTES_MAX} at most", subject.len()));
    }
    let tokens = subject.split('.').count();
    if tokens > TOKENS_MAX {
        return Some(format!("{tokens} tokens, {TOKENS_MAX} at most"));
    }
    if subject.split('.').any(str::is_empty) {
        return Some("empty token".into());
    }
    let stray = subject.chars().find(|&c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_'))?;
    Some(format!("{stray:?} is no letter, digit, `-`, `_` or `.`"))
}

#[cfg(test)]
mod tests {
    use super::Subject;

    #[track_caller]
    fn check(subject: &str, expected: &str) {
        let found = subject.parse::<Subject>().map_or_else(|error| error.to_string(), |_| "valid".into());
        assert_eq!(found, expected);
    }

    #[test]
    fn subjects() {
        check("region.ak-2_X", "valid");
        check(&["t"; 16].join("."), "valid");
        check("", r#"invalid subject "": empty token"#);
        check("a..b", r#"invalid subject "a..b": empty token"#);
        check("a.*", r#"invalid subject "a.*": '*' is no letter, digit, `-`, `_` or `.`"#);
        check("$sys", r#"invalid subject "$sys": '$' is no letter, digit, `-`, `_` or `.`"#);
        assert!(["t"; 17].join(".").parse::<Subject>().unwrap_err().to_string().ends_with("17 tokens, 16 at most"));
        assert!("t".repeat(256).parse::<Subject>().unwrap_err().to_string().ends_with("256 bytes, 255 at most"));
    }
}
