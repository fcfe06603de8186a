//! Frames: `u32 length | u8 type | u32 header length | header (protobuf) | payload`, big-endian, the length counting
//! what follows it.
//!
//! Lengths are checked before anything is made of them, and no length makes anything grow: [`split`] cuts frames out of
//! the bytes that are there. Decoding a header allocates at most the bytes received and 64 KiB, the most that 2,048
//! repeated elements come to.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::{FRAME_BYTES_MAX, FRAME_ELEMENTS_MAX, FRAME_HEADER_BYTES_MAX};
use crate::proto;
use crate::scan::{self, Nested};

/// Bytes before a frame's header.
const PREFIX_BYTES: usize = 4 + 1 + 4;

/// Frame types from here up are ignored by who does not know them; below, they are refused.
pub const IGNORABLE_TYPES: u8 = 128;

/// A frame as it stands on the wire, its header not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// The type number.
    pub kind: u8,
    /// Encoded protobuf.
    pub header: Bytes,
    /// What the header speaks of; empty for most types.
    pub payload: Bytes,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length over the limit.
    #[error("a frame of {length} bytes; at most {FRAME_BYTES_MAX} are allowed")]
    TooLarge {
        /// What the length field says.
        length: u32,
    },
    /// A length below the five bytes that every frame has.
    #[error("a frame of {length} bytes; type and header length alone take 5")]
    TooShort {
        /// What the length field says.
        length: u32,
    },
    /// A header longer than its frame, or over its limit.
    #[error("a header of {header} bytes in a frame of {length}; at most {FRAME_HEADER_BYTES_MAX} are allowed")]
    Header {
        /// What the header length says.
        header: u32,
        /// What the length field says.
        length: u32,
    },
    /// A type that this version does not know and must not ignore.
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    /// A header that is no protobuf of its type.
    #[error("malformed header of frame type {kind}: {why}")]
    Malformed {
        /// The frame's type.
        kind: u8,
        /// The decoder's words.
        why: String,
    },
    /// More repeated elements than allowed.
    #[error("more than {FRAME_ELEMENTS_MAX} elements in the header of frame type {0}")]
    TooMany(u8),
    /// A payload where the type has none.
    #[error("frame type {0} carries no payload")]
    Payload(u8),
}

/// Takes the first whole frame off the buffer; none while bytes are missing. Errors are final for the stream.
///
/// Limits are checked as soon as the length fields are there. The parts share the buffer's memory.
///
/// # Errors
///
/// [`FrameError`] where the lengths break a limit.
pub fn split(buffer: &mut BytesMut) -> Result<Option<RawFrame>, FrameError> {
    let Some(length) = read_u32(buffer, 0) else { return Ok(None) };
    if length as usize > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { length });
    }
    if length < 5 {
        return Err(FrameError::TooShort { length });
    }
    let Some(header) = read_u32(buffer, 5) else { return Ok(None) };
    if header as usize > FRAME_HEADER_BYTES_MAX || header > length - 5 {
        return Err(FrameError::Header { header, length });
    }
    if buffer.len() < 4 + length as usize {
        return Ok(None);
    }
    let mut frame = buffer.split_to(4 + length as usize).freeze();
    let kind = frame[4];
    frame.advance(PREFIX_BYTES);
    let header = frame.split_to(header as usize);
    Ok(Some(RawFrame { kind, header, payload: frame }))
}

fn read_u32(buffer: &BytesMut, at: usize) -> Option<u32> {
    let bytes = buffer.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Writes a frame of any type.
///
/// # Panics
///
/// Where header and payload together pass 4 GiB, which the limits of messages exclude.
pub fn put(kind: u8, header: &impl prost::Message, payload: &[u8], out: &mut BytesMut) {
    let header_len = header.encoded_len();
    put_prefix(kind, header_len, payload.len(), out);
    header.encode_raw(out);
    out.put_slice(payload);
}

fn put_prefix(kind: u8, header_len: usize, payload_len: usize, out: &mut BytesMut) {
    let narrow = |n: usize| u32::try_from(n).expect("limits keep frames under 4 GiB");
    out.reserve(PREFIX_BYTES + header_len + payload_len);
    out.put_u32(narrow(5 + header_len + payload_len));
    out.put_u8(kind);
    out.put_u32(narrow(header_len));
}

macro_rules! bodies {
    ($( $number:literal $name:ident, $nested:expr; )*) => {
        /// The header of a frame, by its type.
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, reason = "each names its message in quipu.proto")]
        pub enum Body {
            $( $name(proto::$name), )*
        }

        impl Body {
            /// The frame's type number.
            pub fn kind(&self) -> u8 {
                match self {
                    $( Self::$name(_) => $number, )*
                }
            }

            /// The frame's name in `quipu.proto`.
            pub fn name(&self) -> &'static str {
                match self {
                    $( Self::$name(_) => stringify!($name), )*
                }
            }

            fn decode(kind: u8, header: Bytes) -> Result<Option<Self>, FrameError> {
                match kind {
                    $( $number => decode_header(kind, header, $nested).map(|h| Some(Self::$name(h))), )*
                    ignorable if ignorable >= IGNORABLE_TYPES => Ok(None),
                    unknown => Err(FrameError::UnknownType(unknown)),
                }
            }

            fn encode(&self, payload: &[u8], out: &mut BytesMut) {
                match self {
                    $( Self::$name(header) => put($number, header, payload, out), )*
                }
            }
        }

        $( impl From<proto::$name> for Frame {
            fn from(header: proto::$name) -> Self {
                Self { body: Body::$name(header), payload: Bytes::new() }
            }
        } )*
    };
}

/// Positions count in the results, but what a position is made of does not: a receipt of as many results as are allowed,
/// with a position each, must fit.
const RESULT: &[Nested] = &[Nested::Message { field: 1, inner: &[] }, Nested::Message { field: 2, inner: &[] }];

bodies! {
    1 Hello, &[Nested::Varints { field: 1 }];
    2 Welcome, &[];
    3 Ping, &[];
    4 Goaway, &[];
    5 Goodbye, &[];
    6 Error, &[];
    7 End, &[];
    8 Credit, &[];
    16 OpenPublisher, &[];
    17 Opened, &[];
    18 Publish, &[];
    19 Receipt, &[Nested::Message { field: 3, inner: RESULT }];
    // 20 to 23 are kept for batches.
    32 Subscribe, &[];
    33 Subscribed, &[];
    34 Deliver, &[];
    35 Settle, &[];
    36 Settled, &[];
    37 Seek, &[];
    38 Notice, &[];
    48 Request, &[];
    49 Requested, &[Nested::Message { field: 1, inner: RESULT }];
    50 Reply, &[];
    // 51 to 55 are kept for requests and replies.
    64 AdminCall, &[];
    65 AdminAnswer, &[];
    // 80 to 87 are kept for datagrams.
}

impl Body {
    fn carries_payload(&self) -> bool {
        let of_messages = matches!(self, Self::Publish(_) | Self::Deliver(_) | Self::Request(_) | Self::Reply(_));
        of_messages || matches!(self, Self::AdminCall(_) | Self::AdminAnswer(_))
    }
}

/// A frame: its header and, for the types that carry one, a payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The header.
    pub body: Body,
    /// Empty but for `Publish`, `Deliver`, `Request`, `Reply`, `AdminCall` and `AdminAnswer`.
    pub payload: Bytes,
}

impl Frame {
    /// A frame of a type that carries a payload.
    pub fn with_payload(frame: impl Into<Self>, payload: Bytes) -> Self {
        Self { payload, ..frame.into() }
    }

    /// Reads a frame; none where its type is unknown and to be ignored.
    ///
    /// # Errors
    ///
    /// [`FrameError`] where the type is unknown or the header does not fit it.
    pub fn decode(raw: RawFrame) -> Result<Option<Self>, FrameError> {
        let Some(body) = Body::decode(raw.kind, raw.header)? else { return Ok(None) };
        if !body.carries_payload() && !raw.payload.is_empty() {
            return Err(FrameError::Payload(raw.kind));
        }
        Ok(Some(Self { body, payload: raw.payload }))
    }

    /// Writes the frame behind what is in the buffer.
    pub fn encode(&self, out: &mut BytesMut) {
        self.body.encode(&self.payload, out);
    }
}

fn decode_header<H: prost::Message + Default>(kind: u8, header: Bytes, nested: &[Nested]) -> Result<H, FrameError> {
    let malformed = |e: prost::DecodeError| FrameError::Malformed { kind, why: e.to_string() };
    if scan::count_fields(&header, nested, FRAME_ELEMENTS_MAX).map_err(malformed)? > FRAME_ELEMENTS_MAX {
        return Err(FrameError::TooMany(kind));
    }
    H::decode(header).map_err(malformed)
}
