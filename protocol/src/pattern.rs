//! Patterns over subjects.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::subject::{Subject, SubjectError, check, is_token_character};

/// A pattern over subjects: as a [`Subject`], but a token may be `*` (any one token) and the last may be `>` (one or
/// more).
///
/// Subjects that begin with `$` are matched only by patterns whose first token is that very token.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectPattern(String);

impl SubjectPattern {
    /// Checks and takes a pattern.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, SubjectError> {
        check(
            text,
            |token| if token == "*" || token == ">" { None } else { token.chars().find(|&c| !is_token_character(c)) },
        )?;
        match text.strip_suffix('>').unwrap_or(text).contains('>') {
            true => Err(SubjectError::Character { subject: text.into(), character: '>' }),
            false => Ok(Self(text.into())),
        }
    }

    /// The pattern that matches this subject alone.
    pub fn exactly(subject: &Subject) -> Self {
        Self(subject.as_str().into())
    }

    /// Whether it names the inboxes of requests, which no queue and no route takes.
    pub fn is_of_inboxes(&self) -> bool {
        self.0.split('.').next() == Some("$inbox")
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the subject is one of those meant. No allocation.
    pub fn matches(&self, subject: &Subject) -> bool {
        let mut wanted = self.0.split('.');
        let mut tokens = subject.tokens();
        let mut first = true;
        loop {
            let literal_only = std::mem::take(&mut first) && subject.is_internal();
            match (wanted.next(), tokens.next()) {
                (Some(">"), Some(_)) => return !literal_only,
                (Some("*"), Some(_)) if !literal_only => {}
                (Some(want), Some(token)) if want == token => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

crate::text::shown!(SubjectPattern);

impl FromStr for SubjectPattern {
    type Err = SubjectError;
    fn from_str(text: &str) -> Result<Self, SubjectError> {
        Self::new(text)
    }
}

impl TryFrom<String> for SubjectPattern {
    type Error = SubjectError;
    fn try_from(text: String) -> Result<Self, SubjectError> {
        Self::new(&text)
    }
}

impl From<SubjectPattern> for String {
    fn from(pattern: SubjectPattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, subjects: &str, expect: &str) {
        let pattern = SubjectPattern::new(pattern).expect("a pattern");
        let matched: Vec<&str> =
            subjects.split(' ').filter(|s| pattern.matches(&Subject::new(s).expect("a subject"))).collect();
        assert_eq!(matched.join(" "), expect, "{pattern}");
    }

    #[test]
    fn matches_by_token() {
        let subjects = "a a.b a.b.c b $a.b";
        check("a", subjects, "a");
        check("a.*", subjects, "a.b");
        check("a.>", subjects, "a.b a.b.c");
        check("*.b", subjects, "a.b");
        check(">", subjects, "a a.b a.b.c b");
        check("*", subjects, "a b");
        check("$a.*", subjects, "$a.b");
        check("$a.>", subjects, "$a.b");
    }

    #[test]
    fn refuses_what_is_no_pattern() {
        for bad in ["", "a.>.b", ">.a", "a*", "a.b>", "a..b", "*>"] {
            assert!(SubjectPattern::new(bad).is_err(), "{bad}");
        }
    }
}
