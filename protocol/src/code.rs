//! Error codes: numbers that are never used again for anything else.

use crate::proto;

/// What went wrong, and with that what the client should do. The numbers also close streams and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Code {
    /// The router failed; the log says more. Retry later.
    Internal = 1,
    /// Bytes that are no frame, or a frame that does not belong there. A bug in the client.
    Protocol = 2,
    /// A frame over its limit.
    TooLarge = 3,
    /// No version in common.
    Version = 4,
    /// Sent beyond the credit.
    Credit = 5,
    /// Too slow with the handshake, `Hello` or a stream's first frame.
    Timeout = 6,
    /// More streams, publishers or sessions than allowed. Retry later.
    Busy = 7,
    /// The router stops or restarts. Reconnect.
    Stopping = 8,
    /// A feature that this router does not have.
    Unsupported = 9,
    /// The client goes away as it should.
    Goodbye = 10,
    /// Not allowed to do that.
    Forbidden = 11,

    /// A message that breaks a rule: subject, header, key, id.
    InvalidMessage = 32,
    /// No queue and no route takes the subject.
    NoQueue = 33,
    /// The store cannot take messages now. Retry later.
    Unavailable = 34,
    /// A newer epoch or stream of this named publisher has taken over.
    Fenced = 35,
    /// A queue that the message goes to is full. Retry later.
    QueueFull = 36,
    /// The disk has less room than the router keeps in reserve. Retry later.
    DiskFull = 37,
    /// More is published than the router can take in. Retry later.
    Overloaded = 38,
    /// An inline route rejects the message; the text has its plugin's reason.
    Rejected = 39,
    /// An inline route asks for the message later.
    RetryLater = 40,
    /// A plugin of an inline route failed on the message.
    PluginFailed = 41,
    /// A message before this one was refused, and its publisher is to stop at that until it resumes.
    Stopped = 42,
    /// A reply to an inbox that is no more: its request is answered, given up, or lost with its connection.
    NoInbox = 43,
    /// A request got no reply, or not all that it asked for, within its time.
    NoReply = 44,

    /// There is no such queue.
    UnknownQueue = 48,
    /// There is no such subscription.
    UnknownSubscription = 49,
    /// A reject where there is no dead-letter queue to take it.
    NoDeadLetter = 50,
    /// The subscription has another mode.
    ModeMismatch = 51,

    /// No such admin method, or arguments or names that do not fit a call.
    InvalidCall = 64,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 29] = [
        Self::Internal,
        Self::Protocol,
        Self::TooLarge,
        Self::Version,
        Self::Credit,
        Self::Timeout,
        Self::Busy,
        Self::Stopping,
        Self::Unsupported,
        Self::Goodbye,
        Self::Forbidden,
        Self::InvalidMessage,
        Self::NoQueue,
        Self::Unavailable,
        Self::Fenced,
        Self::QueueFull,
        Self::DiskFull,
        Self::Overloaded,
        Self::Rejected,
        Self::RetryLater,
        Self::PluginFailed,
        Self::Stopped,
        Self::NoInbox,
        Self::NoReply,
        Self::UnknownQueue,
        Self::UnknownSubscription,
        Self::NoDeadLetter,
        Self::ModeMismatch,
        Self::InvalidCall,
    ];

    /// The code with this number; none for one of a later version.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u32 == number)
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        let ours = matches!(self, Self::Internal | Self::Timeout | Self::Busy | Self::Stopping | Self::Unavailable);
        ours || self.is_full()
    }

    /// Whether nothing is wrong with a message but the moment, as there is no room for it or a route asks for it later:
    /// publishing the same one later is right.
    pub fn is_full(self) -> bool {
        matches!(self, Self::QueueFull | Self::DiskFull | Self::Overloaded | Self::RetryLater)
    }

    /// An error frame's header with this code.
    pub fn error(self, text: impl Into<String>) -> proto::Error {
        let mut text = text.into();
        truncate(&mut text, crate::limits::TEXT_BYTES_MAX);
        proto::Error { code: self as u32, retryable: self.is_retryable(), after_ms: 0, text }
    }
}

/// Cuts a text to at most so many bytes, at a character's boundary.
pub fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate((0..=bytes_max).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_are_unique() {
        for code in Code::ALL {
            assert_eq!(Code::from_number(code as u32), Some(code));
        }
        assert_eq!(Code::from_number(0), None);
    }

    #[test]
    fn what_is_full_may_be_tried_again_and_what_is_fenced_may_not() {
        let full = Code::ALL.into_iter().filter(|code| code.is_full()).collect::<Vec<_>>();
        assert_eq!(full, [Code::QueueFull, Code::DiskFull, Code::Overloaded, Code::RetryLater]);
        assert!(full.into_iter().all(Code::is_retryable));
        assert!(
            ![Code::Fenced, Code::ModeMismatch, Code::Rejected, Code::PluginFailed, Code::Stopped]
                .into_iter()
                .chain([Code::NoInbox, Code::NoReply])
                .any(Code::is_retryable)
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut text = "aé".repeat(3);
        truncate(&mut text, 5);
        assert_eq!(text, "aéa");
    }
}
