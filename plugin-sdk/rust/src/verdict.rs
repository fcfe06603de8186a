//! What becomes of the message in hand.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What becomes of the message in hand; made by [`forward`], [`route`], [`drop`], [`retry`], [`retry_after`] and
/// [`reject`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict does something only where `process` returns it"]
pub enum Verdict {
    /// To the next plugin of the chain; after the last one, to the route's `to`.
    Forward,
    /// As `Forward`, but these subjects, 1 to 64, take the place of `to`. The last plugin that says so wins.
    Route(Vec<String>),
    /// Settled and gone.
    Drop(String),
    /// Try again later.
    Retry {
        /// Zero: the route's own backoff.
        after: Duration,
        /// Shown with the attempt.
        reason: String,
    },
    /// To the dead-letter queue now.
    Reject(String),
}

/// To the next plugin of the chain; after the last one, to the route's `to`.
pub const fn forward() -> Verdict {
    Verdict::Forward
}

/// As [`forward`], but these subjects, 1 to 64, take the place of the route's `to`.
pub fn route<S: Into<String>>(subjects: impl IntoIterator<Item = S>) -> Verdict {
    Verdict::Route(subjects.into_iter().map(Into::into).collect())
}

/// Settled and gone. Drops are counted by their reason: keep to a few, and leave out what differs from message to
/// message.
pub fn drop(reason: impl Into<String>) -> Verdict {
    Verdict::Drop(reason.into())
}

/// Try again after the route's own backoff.
pub fn retry(reason: impl Into<String>) -> Verdict {
    retry_after(Duration::ZERO, reason)
}

/// Try again after this delay, kept in whole milliseconds.
pub fn retry_after(after: Duration, reason: impl Into<String>) -> Verdict {
    Verdict::Retry { after, reason: reason.into() }
}

/// To the dead-letter queue now, with this reason.
pub fn reject(reason: impl Into<String>) -> Verdict {
    Verdict::Reject(reason.into())
}

/// What becomes of a message that a plugin can make nothing of; in configurations `"forward"`, `"drop"` or `"reject"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// It goes on as it is.
    Forward,
    /// It is settled and gone.
    Drop,
    /// It goes to the dead-letter queue.
    Reject,
}

impl Otherwise {
    /// The verdict; the reason is for those that have one.
    pub fn verdict(self, reason: impl Into<String>) -> Verdict {
        match self {
            Self::Forward => forward(),
            Self::Drop => drop(reason),
            Self::Reject => reject(reason),
        }
    }
}
