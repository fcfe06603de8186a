//! Errors that more than one operation has in common.

use std::time::Duration;

use quipu_protocol::code::Code;
use quipu_protocol::proto;

/// The router says no, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (code {number}{})", .retryable.then_some(", may succeed later").unwrap_or_default())]
pub struct Refusal {
    /// The code's number, also where this version has no name for it.
    pub number: u32,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long to wait before that; zero where the router does not say.
    pub after: Duration,
    /// For people.
    pub text: String,
}

/// Why a client, or one publisher or subscriber of it, works no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Closed from this side.
    #[error("closed by this client")]
    Closed,
    /// No connection was had in time.
    #[error("gave up after trying for {} s: {last}", .after.as_secs_f32())]
    GaveUp {
        /// How long it tried.
        after: Duration,
        /// What the last attempt came to.
        last: String,
    },
    /// Another publisher of the same name has taken over: this one stops, and so does what it has pending.
    #[error("fenced: {}", .0.text)]
    Fenced(Refusal),
    /// The router refuses it, and would again.
    #[error("the router refuses: {0}")]
    Refused(Refusal),
    /// The router sent what `quipu/1` does not allow there.
    #[error("the router broke the protocol: {0}")]
    Protocol(String),
}

impl Lost {
    /// Because of a refusal that is final.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        match refusal.code() {
            Some(Code::Fenced) => Self::Fenced(refusal),
            _ => Self::Refused(refusal),
        }
    }
}

impl Refusal {
    /// The code, where this version knows it.
    pub fn code(&self) -> Option<Code> {
        Code::from_number(self.number)
    }

    /// What a closed connection or a reset stream says by its number alone.
    pub(crate) fn from_close(number: u64, text: String) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        // Numbers of a later version may well pass; zero is what an endpoint says that just went away.
        let retryable = Code::from_number(number).is_none_or(|code| code.is_retryable() || code == Code::Goodbye);
        Self { number, retryable, after: Duration::ZERO, text }
    }
}

impl From<proto::Error> for Refusal {
    fn from(error: proto::Error) -> Self {
        let proto::Error { code, retryable, after_ms, text } = error;
        Self { number: code, retryable, after: Duration::from_millis(after_ms), text }
    }
}
