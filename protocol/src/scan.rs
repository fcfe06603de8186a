//! Looks through an encoded protobuf message before it is decoded.
//!
//! Decoding makes a structure for each repeated element, and an element may take two bytes on the wire: the scan counts
//! them first, so that what is decoded is bounded by what was received. It also keeps what a decoder would drop: fields
//! that this version does not know.

use bytes::Buf;
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A field that may hold many elements.
pub(crate) enum Nested {
    /// A message, and what to look at in there.
    Message { field: u32, inner: &'static [Nested] },
    /// Numbers of any length, packed: each of its bytes may be one.
    Varints { field: u32 },
}

impl Nested {
    fn field(&self) -> u32 {
        match self {
            Self::Message { field, .. } | Self::Varints { field } => *field,
        }
    }
}

/// Counts the fields of a message and of the named messages within, up to `most`.
pub(crate) fn count_fields(mut bytes: &[u8], nested: &[Nested], most: usize) -> Result<usize, DecodeError> {
    let mut count = 0;
    while bytes.has_remaining() {
        let (field, wire) = decode_key(&mut bytes)?;
        count += 1;
        match nested.iter().find(|n| n.field() == field) {
            Some(nested) if wire == WireType::LengthDelimited && count < most => {
                let content = take_delimited(&mut bytes)?;
                count += match nested {
                    Nested::Message { inner, .. } => count_fields(content, inner, most - count)?,
                    Nested::Varints { .. } => content.len(),
                };
            }
            _ => skip_field(wire, field, &mut bytes, DecodeContext::default())?,
        }
        if count > most {
            break;
        }
    }
    Ok(count)
}

/// The raw bytes of every field numbered above `known_max`, in order.
pub(crate) fn unknown_fields(mut bytes: &[u8], known_max: u32) -> Result<Vec<u8>, DecodeError> {
    let mut unknown = Vec::new();
    while bytes.has_remaining() {
        let start = bytes;
        let (field, wire) = decode_key(&mut bytes)?;
        skip_field(wire, field, &mut bytes, DecodeContext::default())?;
        if field > known_max {
            unknown.extend_from_slice(&start[..start.len() - bytes.len()]);
        }
    }
    Ok(unknown)
}

fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let whole = *bytes;
    let mut length = *bytes;
    let content = usize::try_from(decode_varint(&mut length)?).unwrap_or(usize::MAX);
    // The decoder judges the length, so that its error is the one that is told.
    skip_field(WireType::LengthDelimited, 1, bytes, DecodeContext::default())?;
    let end = whole.len() - bytes.len();
    Ok(&whole[end - content..end])
}
