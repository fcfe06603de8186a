//! The message itself.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::headers::{HeaderError, Headers};
use crate::id::{IdError, MessageId};
use crate::limits::{FRAME_HEADER_BYTES_MAX, HOPS_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, PRIORITY_MAX};
use crate::limits::{HEADERS_MAX, ROUTER_HEADERS_MAX};
use crate::proto;
use crate::scan;
use crate::subject::{Subject, SubjectError};

/// Number of the field `key` of a `MessageHeader`.
const KEY_FIELD: u32 = 4;

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
        let texts = self.id.as_str().len() + self.subject.as_str().len() + self.origin_subject.as_str().len();
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 12).sum();
        let key = self.key.as_ref().map_or(0, |key| key.0.len());
        let reply_to = self.reply_to.as_ref().map_or("", Subject::as_str);
        let mut bytes = Vec::with_capacity(texts + headers + key + reply_to.len() + self.unknown.len() + 64);
        put_text(1, self.id.as_str(), &mut bytes);
        put_text(2, self.subject.as_str(), &mut bytes);
        put_text(3, self.origin_subject.as_str(), &mut bytes);
        if let Some(key) = &self.key {
            put_bytes(KEY_FIELD, &key.0, &mut bytes);
        }
        for (name, value) in self.headers.iter() {
            encode_key(5, WireType::LengthDelimited, &mut bytes);
            encode_varint(text_bytes(name) + text_bytes(value), &mut bytes);
            put_text(1, name, &mut bytes);
            put_text(2, value, &mut bytes);
        }
        put_text(6, reply_to, &mut bytes);
        put_number(7, self.published_ms, &mut bytes);
        put_number(8, self.deliver_at_ms.unwrap_or(0), &mut bytes);
        put_number(9, self.expires_ms.unwrap_or(0), &mut bytes);
        put_number(10, self.priority.into(), &mut bytes);
        put_number(11, self.hops.into(), &mut bytes);
        bytes.extend_from_slice(&self.unknown);
        bytes.into()
    }

    /// A hash of the key of an encoded header, without decoding the rest; none without a key, or where the bytes are no
    /// header. The same for the life of a store: FNV-1a with 64 bits, mixed as in MurmurHash3's finaliser, so that slots
    /// are taken evenly.
    pub fn key_hash(mut header: &[u8]) -> Option<u64> {
        use prost::encoding::{DecodeContext, decode_key, decode_varint, skip_field};
        while !header.is_empty() {
            let (field, wire) = decode_key(&mut header).ok()?;
            if field == KEY_FIELD && wire == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(&mut header).ok()?).ok()?;
                return Some(hash(header.get(..length)?));
            }
            skip_field(wire, field, &mut header, DecodeContext::default()).ok()?;
        }
        None
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

/// A field as prost writes it, without a structure that owns it: nothing where it is empty.
fn put_text(field: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        put_bytes(field, text.as_bytes(), out);
    }
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_number(field: u32, number: u64, out: &mut Vec<u8>) {
    if number > 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(number, out);
    }
}

/// What [`put_text`] writes for a field below 16.
fn text_bytes(text: &str) -> u64 {
    if text.is_empty() { 0 } else { 1 + encoded_len_varint(text.len() as u64) as u64 + text.len() as u64 }
}

fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

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
    fn is_encoded_as_prost_does_it() {
        let mut sent = message();
        sent.headers.add("empty", "").expect("a header");
        sent.headers.add("long", &"x".repeat(300)).expect("a header");
        let encoded = sent.encode_header();
        let mut known = proto::MessageHeader::decode(encoded.clone()).expect("a header").encode_to_vec();
        known.extend_from_slice(&sent.unknown);
        assert_eq!(encoded, known);
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
