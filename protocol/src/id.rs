//! Message ids.

use std::sync::Arc;

use crate::limits::ID_BYTES_MAX;

/// A message's id: 1 to 128 bytes of UTF-8 without control characters and spaces.
///
/// The same id on the same subject within the dedup window is the same message. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Arc<str>);

/// Why a text is no message id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("a message id cannot be empty")]
    Empty,
    /// More than 128 bytes.
    #[error("a message id of {0} bytes; at most {ID_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// A space or a control character.
    #[error("message id {id:?} has {character:?} in it; spaces and control characters are not allowed")]
    Character {
        /// The text.
        id: String,
        /// The first wrong character.
        character: char,
    },
}

impl MessageId {
    /// Checks and takes an id.
    ///
    /// # Errors
    ///
    /// [`IdError`] says what is wrong with the text.
    pub fn new(text: &str) -> Result<Self, IdError> {
        match text.len() {
            0 => return Err(IdError::Empty),
            1..=ID_BYTES_MAX => {}
            long => return Err(IdError::TooLong(long)),
        }
        match text.chars().find(|c| c.is_control() || c.is_whitespace()) {
            Some(character) => Err(IdError::Character { id: text.into(), character }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

crate::text::shown!(MessageId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_characters() {
        assert!(MessageId::new("us2000cvkp").is_ok());
        assert!(MessageId::new(&"x".repeat(128)).is_ok());
        assert_eq!(MessageId::new(""), Err(IdError::Empty));
        assert_eq!(MessageId::new(&"x".repeat(129)), Err(IdError::TooLong(129)));
        assert!(matches!(MessageId::new("a b"), Err(IdError::Character { character: ' ', .. })));
        assert!(matches!(MessageId::new("a\n"), Err(IdError::Character { character: '\n', .. })));
    }
}
