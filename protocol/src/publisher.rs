//! Names of publishers.

use std::sync::Arc;

use crate::limits::PUBLISHER_NAME_BYTES_MAX;

/// A named publisher's name: 1 to 255 ASCII letters, digits, `-`, `_`, `.` and `:`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublisherName(Arc<str>);

/// Why a text is no publisher's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublisherNameError {
    /// Nothing there.
    #[error("a publisher's name cannot be empty")]
    Empty,
    /// More than 255 bytes.
    #[error("a publisher's name of {0} bytes; at most {PUBLISHER_NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A character that names may not hold.
    #[error("publisher name {name:?} has {character:?} in it; letters, digits, `-`, `_`, `.` and `:` are allowed")]
    Character {
        /// The text.
        name: String,
        /// The first wrong character.
        character: char,
    },
}

impl PublisherName {
    /// Checks and takes a name.
    ///
    /// # Errors
    ///
    /// [`PublisherNameError`] says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, PublisherNameError> {
        match text.len() {
            0 => return Err(PublisherNameError::Empty),
            1..=PUBLISHER_NAME_BYTES_MAX => {}
            long => return Err(PublisherNameError::TooLong(long)),
        }
        match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.:".contains(*c)) {
            Some(character) => Err(PublisherNameError::Character { name: text.into(), character }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::text::shown!(PublisherName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_characters() {
        assert_eq!(PublisherName::new("billing:eu-1.a_B").expect("a name").as_str(), "billing:eu-1.a_B");
        assert!(PublisherName::new(&"x".repeat(255)).is_ok());
        assert_eq!(PublisherName::new(""), Err(PublisherNameError::Empty));
        assert_eq!(PublisherName::new(&"x".repeat(256)), Err(PublisherNameError::TooLong(256)));
        for (name, wrong) in [("a b", ' '), ("a/b", '/'), ("ü", 'ü'), ("a\n", '\n')] {
            let character = PublisherNameError::Character { name: name.into(), character: wrong };
            assert_eq!(PublisherName::new(name), Err(character));
        }
    }
}
