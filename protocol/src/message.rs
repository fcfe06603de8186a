//! The message itself.

use bytes::Bytes;
use prost::Message as _;

use crate::headers::{HeaderError, Headers};
use crate::id::{IdError, MessageId};
use crate::limits::{FRAME_HEADER_BYTES_MAX, HOPS_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX};
use crate::limits::{HEADERS_MAX, ROUTER_HEADERS_MAX};
use crate::proto;
use crate::scan;
use crate::subject::{Subject, SubjectError};

/// A message: what producers publish, plugins see and consumers get. Immutable once stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Removes duplicates within (subject, id).
    pub id: MessageId,
    /// What it is published to now.
    pub subject: Subject,
    /// What it was published to first; kept through every route.
    pub origin_subject: Subject,
    /// Order is kept per key where asked for.
    pub key: Option<Key>,
    /// Names and values.
    pub headers: Headers,
    /// Where an answer goes.
    pub reply_to: Option<Subject>,
    /// When the router took it, in Unix milliseconds; 0 until then.
    pub published_ms: u64,
    /// Not delivered before, in Unix milliseconds.
    pub deliver_at_ms: Option<u64>,
    /// Worthless after, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// 0 to 9.
    pub priority: u8,
    /// Routes it went through.
    pub hops: u8,
    /// The content; never looked at by the router itself.
    pub payload: Bytes,
    /// Fields of a later version, as they came.
    unknown: Bytes,
}

/// A message's key: at most 512 bytes of anything.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Bytes);

/// A key over its limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key of {0} bytes; at most {KEY_BYTES_MAX} are allowed")]
pub struct KeyError(pub usize);

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum MessageError {
    #[error("malformed message header: {0}")]
    Malformed(String),
    #[error("invalid subject: {0}")]
    Subject(#[source] SubjectError),
    #[error("invalid origin subject: {0}")]
    Origin(#[source] SubjectError),
    #[error("invalid reply-to: {0}")]
    ReplyTo(#[source] SubjectError),
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("a payload of {0} bytes; at most {PAYLOAD_BYTES_MAX} are allowed")]
    Payload(usize),
    #[error("priority {0}; 0 to {PRIORITY_MAX} are allowed")]
    Priority(u32),
    #[error("{0} hops; at most {HOPS_MAX} are allowed")]
    Hops(u32),
    #[error("a message header of {0} bytes; at most {max} are allowed", max = FRAME_HEADER_BYTES_MAX)]
    HeaderBytes(usize),
}

impl Key {
    /// Checks and takes a key.
    ///
    /// # Errors
    ///
    /// [`KeyError`] where it is longer than 512 bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        if bytes.len() > KEY_BYTES_MAX { Err(KeyError(bytes.len())) } else { Ok(Self(bytes)) }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Message {
    /// A message with nothing but the necessary.
    pub fn new(id: MessageId, subject: Subject, payload: impl Into<Bytes>) -> Self {
        Self {
            id,
            origin_subject: subject.clone(),
            subject,
            key: None,
            headers: Headers::new(),
            reply_to: None,
            published_ms: 0,
            deliver_at_ms: None,
            expires_ms: None,
            priority: 0,
            hops: 0,
            payload: payload.into(),
            unknown: Bytes::new(),
        }
    }

    /// Reads a stored or delivered message.
    ///
    /// # Errors
    ///
    /// [`MessageError`] says which part breaks which rule.
    pub fn decode(header: Bytes, payload: Bytes) -> Result<Self, MessageError> {
        let parsed = parse(&header)?;
        let id = MessageId::new(&parsed.id)?;
        Self::from_parts(parsed, &header, payload, id)
    }

    /// Reads a message that a publisher sent: what only the router may say is set anew, and an absent id is `assigned`.
    /// Also whether the publisher gave an id, so that duplicates are looked for.
    ///
    /// # Errors
    ///
    /// [`MessageError`] says which part breaks which rule.
    pub fn decode_published(
        header: &Bytes,
        payload: Bytes,
        published_ms: u64,
        assigned: impl FnOnce() -> MessageId,
    ) -> Result<(Self, bool), MessageError> {
        let mut parsed = parse(header)?;
        (parsed.origin_subject, parsed.hops, parsed.published_ms) = (String::new(), 0, published_ms);
        let has_id = !parsed.id.is_empty();
        let id = if has_id { MessageId::new(&parsed.id)? } else { assigned() };
        let message = Self::from_parts(parsed, header, payload, id)?;
        message.headers.refuse_reserved()?;
        Ok((message, has_id))
    }

    /// The header as it goes on the wire and to disk. The payload goes beside it.
    pub fn encode_header(&self) -> Bytes {
        let header = proto::MessageHeader {
            id: self.id.as_str().into(),
            subject: self.subject.as_str().into(),
            origin_subject: self.origin_subject.as_str().into(),
            key: self.key.as_ref().map(|key| key.0.clone()),
            headers: self.headers.iter().map(|(n, v)| proto::Header { name: n.into(), value: v.into() }).collect(),
            reply_to: self.reply_to.as_ref().map(|s| s.as_str().into()).unwrap_or_default(),
            published_ms: self.published_ms,
            deliver_at_ms: self.deliver_at_ms.unwrap_or(0),
            expires_ms: self.expires_ms.unwrap_or(0),
            priority: self.priority.into(),
            hops: self.hops.into(),
        };
        let mut bytes = Vec::with_capacity(header.encoded_len() + self.unknown.len());
        header.encode_raw(&mut bytes);
        bytes.extend_from_slice(&self.unknown);
        bytes.into()
    }

    /// The header of a publish of this message without an id, for a router that is to give one.
    pub fn encode_header_without_id(&self) -> Bytes {
        let header = proto::MessageHeader::decode(self.encode_header()).unwrap_or_default();
        proto::MessageHeader { id: String::new(), ..header }.encode_to_vec().into()
    }

    fn from_parts(
        parsed: proto::MessageHeader,
        raw: &Bytes,
        payload: Bytes,
        id: MessageId,
    ) -> Result<Self, MessageError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(MessageError::Payload(payload.len()));
        }
        let subject = Subject::new(&parsed.subject).map_err(MessageError::Subject)?;
        let origin_subject = match parsed.origin_subject.as_str() {
            "" => subject.clone(),
            text => Subject::new(text).map_err(MessageError::Origin)?,
        };
        let reply_to = match parsed.reply_to.as_str() {
            "" => None,
            text => Some(Subject::new(text).map_err(MessageError::ReplyTo)?),
        };
        let mut headers = Headers::new();
        for header in &parsed.headers {
            headers.add(&header.name, &header.value)?;
        }
        let small = |n: u32, most: u8| u8::try_from(n).ok().filter(|n| *n <= most);
        let nonzero = |ms: u64| (ms > 0).then_some(ms);
        Ok(Self {
            id,
            subject,
            origin_subject,
            key: parsed.key.map(Key::new).transpose()?,
            headers,
            reply_to,
            published_ms: parsed.published_ms,
            deliver_at_ms: nonzero(parsed.deliver_at_ms),
            expires_ms: nonzero(parsed.expires_ms),
            priority: small(parsed.priority, PRIORITY_MAX).ok_or(MessageError::Priority(parsed.priority))?,
            hops: small(parsed.hops, HOPS_MAX).ok_or(MessageError::Hops(parsed.hops))?,
            payload,
            unknown: scan::unknown_fields(raw, KNOWN_FIELD_MAX).map_err(malformed)?.into(),
        })
    }
}

/// Highest field number of `MessageHeader` in this version.
const KNOWN_FIELD_MAX: u32 = 11;

/// Fields of a header besides the repeated ones, with room for those of later versions.
const OTHER_FIELDS_MAX: usize = 32;

fn parse(header: &Bytes) -> Result<proto::MessageHeader, MessageError> {
    if header.len() > FRAME_HEADER_BYTES_MAX {
        return Err(MessageError::HeaderBytes(header.len()));
    }
    let most = HEADERS_MAX + ROUTER_HEADERS_MAX + OTHER_FIELDS_MAX;
    if scan::count_fields(header, &[], most).map_err(malformed)? > most {
        return Err(HeaderError::TooMany.into());
    }
    proto::MessageHeader::decode(header.clone()).map_err(malformed)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn malformed(e: prost::DecodeError) -> MessageError {
    MessageError::Malformed(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let id = MessageId::new("m1").expect("an id");
        let mut message = Message::new(id, Subject::new("a.b").expect("a subject"), &b"payload"[..]);
        message.headers.add("type", "earthquake").expect("a header");
        message.key = Some(Key::new(&b"\x00k"[..]).expect("a key"));
        message.priority = 3;
        message
    }

    #[test]
    fn survives_encoding_with_fields_of_later_versions() {
        let mut raw = message().encode_header().to_vec();
        raw.extend_from_slice(&[0xa2, 0x06, 2, b'n', b'w']); // field 100, two bytes
        let read = Message::decode(raw.clone().into(), Bytes::from_static(b"payload")).expect("a message");
        assert_eq!(read.encode_header(), raw);
        assert_eq!(Message { unknown: Bytes::new(), ..read }, message());
    }

    #[test]
    fn a_publisher_cannot_say_what_is_the_routers() {
        let mut sent = message();
        sent.origin_subject = Subject::new("forged").expect("a subject");
        (sent.hops, sent.published_ms) = (9, 7);
        let assign = || MessageId::new("given").expect("an id");
        let (read, has_id) = Message::decode_published(&sent.encode_header(), Bytes::new(), 42, assign).expect("read");
        assert!(has_id);
        assert_eq!((read.origin_subject.as_str(), read.hops, read.published_ms), ("a.b", 0, 42));
        let (read, has_id) =
            Message::decode_published(&sent.encode_header_without_id(), Bytes::new(), 42, assign).expect("read");
        assert_eq!((has_id, read.id.as_str()), (false, "given"));
        sent.headers.add("quipu-root", "x").expect("a header");
        let refused = Message::decode_published(&sent.encode_header(), Bytes::new(), 42, assign);
        assert!(matches!(refused, Err(MessageError::Header(HeaderError::Reserved(_)))));
    }
}
