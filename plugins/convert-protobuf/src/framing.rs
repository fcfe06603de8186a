//! What stands before a message that went by a schema registry: a zero, the schema's id in four bytes, and which message
//! of the schema it is, by its place in the file
//! (<https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>).

use prost::encoding::{decode_varint, encode_varint};
use prost_reflect::MessageDescriptor;
use serde::Deserialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Framing {
    #[default]
    None,
    Confluent,
}

/// The message without its frame.
pub(crate) fn take_off<'p>(
    framing: Framing,
    descriptor: &MessageDescriptor,
    payload: &'p [u8],
) -> Result<&'p [u8], String> {
    if framing == Framing::None {
        return Ok(payload);
    }
    let [0, _, _, _, _, rest @ ..] = payload else {
        return Err("it does not begin with a zero and the id of a schema".into());
    };
    let mut rest = rest;
    let (found, wanted) = (indexes(&mut rest)?, place(descriptor));
    if found != wanted {
        return Err(format!("its frame is that of message {found:?} of the schema, not {wanted:?}"));
    }
    Ok(rest)
}

/// The frame, where there is an id to put into it.
pub(crate) fn begin(schema_id: Option<u32>, descriptor: &MessageDescriptor) -> Vec<u8> {
    let mut frame = Vec::new();
    let Some(id) = schema_id else { return frame };
    frame.push(0);
    frame.extend(id.to_be_bytes());
    match place(descriptor).as_slice() {
        // The first message, which it mostly is, has a short form.
        [0] => frame.push(0),
        place => {
            zigzag(place.len() as u64, &mut frame);
            place.iter().for_each(|index| zigzag(*index, &mut frame));
        }
    }
    frame
}

/// Which message of its file, and of that which, and so on.
fn place(descriptor: &MessageDescriptor) -> Vec<u64> {
    // A path has the number of the field before each index.
    let indexes = descriptor.path().iter().skip(1).step_by(2);
    indexes.map(|index| u64::from(index.unsigned_abs())).collect()
}

fn indexes(rest: &mut &[u8]) -> Result<Vec<u64>, String> {
    let mut next = || decode_varint(rest).map(|number| number >> 1).map_err(|_| "its frame is cut off".to_owned());
    match next()? {
        0 => Ok(vec![0]),
        // Each takes a byte at least, so a length that is a lie ends here soon.
        length => (0..length).map(|_| next()).collect(),
    }
}

/// As Avro writes integers: these are never negative.
fn zigzag(number: u64, to: &mut Vec<u8>) {
    encode_varint(number << 1, to);
}
