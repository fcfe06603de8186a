//! Messages on their way out.

use bytes::Bytes;
use prost::Message as _;
use quipu_protocol::limits::PRIORITY_MAX;
use quipu_protocol::{Headers, Key, Message, MessageError, MessageId, Subject, proto};
use uuid::Uuid;

/// A message to publish: a subject and a payload, and what else is wanted.
///
/// Each part is checked as it is given; the first mistake is told when the message is published.
#[derive(Debug, Clone)]
pub struct OutgoingMessage {
    header: proto::MessageHeader,
    headers: Headers,
    payload: Bytes,
    mistake: Option<MessageError>,
}

/// A checked message, encoded once for every time it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) id: Id,
}

/// Where a message's id comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Id {
    /// The caller: the message may have been published before.
    Given,
    /// This library: nobody else has it, so a duplicate is our own repetition.
    Made,
    /// Nowhere: it cannot be sent twice.
    Absent,
}

impl OutgoingMessage {
    /// A message with nothing but the necessary.
    pub fn new(subject: &str, payload: impl Into<Bytes>) -> Self {
        let mistake = Subject::new(subject).err().map(MessageError::Subject);
        let header = proto::MessageHeader { subject: subject.into(), ..Default::default() };
        Self { header, headers: Headers::new(), payload: payload.into(), mistake }
    }

    /// The id, by which the router knows a message that is published again. Default: one of this library's making.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.header.id = id.into();
        self.check(MessageId::new(id))
    }

    /// The key, per which order is kept where the queue is asked for that.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        let key = key.into();
        self.header.key = Some(key.clone());
        self.check(Key::new(key))
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let added = self.headers.add(name, value).and_then(|()| self.headers.refuse_reserved());
        self.check(added)
    }

    /// Where an answer goes.
    #[must_use]
    pub fn reply_to(mut self, subject: &str) -> Self {
        self.header.reply_to = subject.into();
        self.check(Subject::new(subject).map_err(MessageError::ReplyTo))
    }

    /// Not delivered before this time, in Unix milliseconds.
    #[must_use]
    pub fn deliver_at_ms(mut self, at_ms: u64) -> Self {
        self.header.deliver_at_ms = at_ms;
        self
    }

    /// Worthless after this time, in Unix milliseconds.
    #[must_use]
    pub fn expires_ms(mut self, at_ms: u64) -> Self {
        self.header.expires_ms = at_ms;
        self
    }

    /// 0, the ordinary one and default, to 9.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.header.priority = priority.into();
        self.check(if priority > PRIORITY_MAX { Err(MessageError::Priority(priority.into())) } else { Ok(()) })
    }

    fn check<T>(mut self, part: Result<T, impl Into<MessageError>>) -> Self {
        if let (None, Err(mistake)) = (&self.mistake, part) {
            self.mistake = Some(mistake.into());
        }
        self
    }

    /// Checks the rest, and gives it an id where it has none and `ids` says so.
    pub(crate) fn encode(self, ids: bool, payload_bytes_max: usize) -> Result<Encoded, MessageError> {
        let Self { mut header, headers, payload, mistake } = self;
        if let Some(mistake) = mistake {
            return Err(mistake);
        }
        if payload.len() > payload_bytes_max {
            return Err(MessageError::Payload(payload.len()));
        }
        let id = match (header.id.is_empty(), ids) {
            (false, _) => Id::Given,
            (true, true) => Id::Made,
            (true, false) => Id::Absent,
        };
        if id == Id::Made {
            header.id = Uuid::now_v7().to_string();
        }
        header.headers = headers.iter().map(|(n, v)| proto::Header { name: n.into(), value: v.into() }).collect();
        Ok(Encoded { header: header.encode_to_vec().into(), payload, id })
    }
}

/// The same content again, under the same id; what is the router's own is left out.
impl From<Message> for OutgoingMessage {
    fn from(message: Message) -> Self {
        let mut again = Self::new(message.subject.as_str(), message.payload).id(message.id.as_str());
        again.header.key = message.key.map(|key| key.as_bytes().clone());
        again.header.reply_to = message.reply_to.map(String::from).unwrap_or_default();
        again.header.deliver_at_ms = message.deliver_at_ms.unwrap_or(0);
        again.header.expires_ms = message.expires_ms.unwrap_or(0);
        again.header.priority = message.priority.into();
        let own = message.headers.iter().filter(|(name, _)| !Headers::is_reserved(name));
        own.fold(again, |again, (name, value)| again.header(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_reads_what_was_built() {
        let built = OutgoingMessage::new("a.b", "x").key("k").header("n", "v").reply_to("r").priority(3);
        let encoded = built.encode(true, 10).expect("a message");
        assert_eq!(encoded.id, Id::Made);
        let read = Message::decode(encoded.header, encoded.payload).expect("a message");
        assert_eq!((read.subject.as_str(), read.priority, read.id.as_str().len()), ("a.b", 3, 36));
        let again = OutgoingMessage::from(read.clone()).encode(true, 10).expect("a message");
        assert_eq!(again.id, Id::Given);
        assert_eq!(Message::decode(again.header, again.payload).expect("a message"), read);
    }

    #[test]
    fn the_first_mistake_is_told() {
        let text = |m: OutgoingMessage| m.encode(true, 3).expect_err("a mistake").to_string();
        assert!(text(OutgoingMessage::new("a..b", "").id("")).contains("empty token"));
        assert!(text(OutgoingMessage::new("a", "").id("")).contains("id cannot be empty"));
        assert!(text(OutgoingMessage::new("a", "").header("quipu-x", "")).contains("the router's own"));
        assert!(text(OutgoingMessage::new("a", "").priority(10)).contains("priority 10"));
        assert!(text(OutgoingMessage::new("a", "1234")).contains("4 bytes"));
    }
}
