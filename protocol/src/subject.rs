//! Subjects: the dot-separated names that messages are published to.

use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{SUBJECT_BYTES_MAX, SUBJECT_TOKENS_MAX};

/// What the subjects of inboxes begin with.
const INBOX_PREFIX: &str = "$inbox.";

/// A subject: 1 to 16 tokens of letters, digits, `-` and `_`, joined by dots; at most 255 bytes.
///
/// A first token that begins with `$` marks the router's own subjects. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(Arc<str>);

/// Why a text is no subject (or no pattern). Each message quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Nothing there.
    #[error("a subject cannot be empty")]
    Empty,
    /// More than 255 bytes.
    #[error("subject {}… has {bytes} bytes; at most {SUBJECT_BYTES_MAX} are allowed", .start.escape_debug())]
    TooLong {
        /// Its first characters.
        start: String,
        /// Its length.
        bytes: usize,
    },
    /// More than 16 tokens.
    #[error("subject {subject:?} has {tokens} tokens; at most {SUBJECT_TOKENS_MAX} are allowed")]
    TooManyTokens {
        /// The text.
        subject: String,
        /// How many it has.
        tokens: usize,
    },
    /// Two dots in a row, or one at an end.
    #[error("subject {0:?} has an empty token; join tokens with single dots, as in `orders.eu`")]
    EmptyToken(String),
    /// A character that no token may hold.
    #[error("subject {subject:?} has {character:?} in it; a token is made of letters, digits, `-` and `_`")]
    Character {
        /// The text.
        subject: String,
        /// The first wrong character.
        character: char,
    },
}

impl Subject {
    /// Checks and takes a subject.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, SubjectError> {
        check(text, |token| token.chars().find(|&c| !is_token_character(c)))?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tokens between the dots.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }

    /// The inbox of a request, by a token that nobody can guess: whoever knows the subject may reply.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] where the token is none.
    pub fn inbox(token: &str) -> Result<Self, SubjectError> {
        Self::new(&format!("{INBOX_PREFIX}{token}"))
    }

    /// Whether this is the inbox of a request. What is published there is handed to who asked, and never stored.
    pub fn is_inbox(&self) -> bool {
        self.0.starts_with(INBOX_PREFIX)
    }

    /// Whether this is one of the router's own subjects, which no pattern reaches unless it names the `$` token.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with('$')
    }
}

/// Checks the shape that subjects and patterns share; `wrong` finds a character that a token may not hold.
pub(crate) fn check(text: &str, wrong: impl Fn(&str) -> Option<char>) -> Result<(), SubjectError> {
    if text.is_empty() {
        return Err(SubjectError::Empty);
    }
    if text.len() > SUBJECT_BYTES_MAX {
        return Err(SubjectError::TooLong { start: text.chars().take(32).collect(), bytes: text.len() });
    }
    let mut tokens = 0;
    for token in text.split('.') {
        tokens += 1;
        if token.is_empty() || token == "$" {
            return Err(SubjectError::EmptyToken(text.into()));
        }
        // The `$` of the router's own subjects is no character of the token itself.
        let token = if tokens == 1 { token.strip_prefix('$').unwrap_or(token) } else { token };
        if let Some(character) = wrong(token) {
            return Err(SubjectError::Character { subject: text.into(), character });
        }
    }
    if tokens > SUBJECT_TOKENS_MAX {
        return Err(SubjectError::TooManyTokens { subject: text.into(), tokens });
    }
    Ok(())
}

pub(crate) fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

crate::text::shown!(Subject);

impl FromStr for Subject {
    type Err = SubjectError;
    fn from_str(text: &str) -> Result<Self, SubjectError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;
    fn try_from(text: String) -> Result<Self, SubjectError> {
        Self::new(&text)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_rules_allow() {
        for good in ["a", "orders.eu.created", "a-b_C.9", "$quipu.dead", &["t"; 16].join("."), &"x".repeat(255)] {
            assert_eq!(Subject::new(good).map(String::from), Ok(good.to_owned()));
        }
    }

    #[test]
    fn inboxes_are_the_routers_own() {
        let inbox = Subject::inbox("0af3").expect("a subject");
        assert_eq!((inbox.as_str(), inbox.is_inbox(), inbox.is_internal()), ("$inbox.0af3", true, true));
        for other in ["inbox.a", "$inbox", "$inboxes.a", "$quipu.inbox"] {
            assert!(!Subject::new(other).expect("a subject").is_inbox(), "{other}");
        }
        assert!(Subject::inbox("").is_err());
    }

    #[test]
    fn says_what_is_wrong() {
        let text = |s: &str| Subject::new(s).expect_err("refused").to_string();
        assert!(text("").contains("cannot be empty"));
        assert!(text("a..b").contains("empty token"));
        assert!(text(".a").contains("empty token"));
        assert!(text("$").contains("empty token"));
        assert!(text("a b").contains("' '"));
        assert!(text("a.*").contains("'*'"));
        assert!(text("a.$b").contains("'$'"));
        assert!(text("ü").contains("'ü'"));
        assert!(text(&["t"; 17].join(".")).contains("17 tokens"));
        assert!(text(&"x".repeat(256)).contains("256 bytes"));
    }
}
