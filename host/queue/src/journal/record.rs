//! How a record stands in a segment.
//!
//! Aligned to 4 KiB: magic (8 bytes), CRC-32C of the rest of the head (4), body length (4), sequence (8), store id (16),
//! CRC-32C of the body (4), then the body, then zeros up to the next 4 KiB. The store id is random and secret: a payload
//! could otherwise imitate a head.

/// Records begin at multiples of this, in bytes, which suits direct I/O on any disk in use.
pub const RECORD_ALIGN: usize = 4096;

/// Bytes before the body.
pub(crate) const HEAD_BYTES: usize = 44;

const MAGIC: &[u8; 8] = b"QUIPUJ01";

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) body_bytes: usize,
    body_crc: u32,
}

/// The bytes that a record with such a body takes.
pub(crate) fn record_bytes(body_bytes: usize) -> usize {
    (HEAD_BYTES + body_bytes).next_multiple_of(RECORD_ALIGN)
}

/// Writes a record into a buffer of just its size.
pub(crate) fn write(store_id: &[u8; 16], sequence: u64, body: &[u8], out: &mut [u8]) {
    let length = u32::try_from(body.len()).expect("a record fits a segment, and a segment 4 GiB");
    out[..8].copy_from_slice(MAGIC);
    out[12..16].copy_from_slice(&length.to_le_bytes());
    out[16..24].copy_from_slice(&sequence.to_le_bytes());
    out[24..40].copy_from_slice(store_id);
    out[40..44].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&out[12..HEAD_BYTES]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out[HEAD_BYTES..HEAD_BYTES + body.len()].copy_from_slice(body);
    out[HEAD_BYTES + body.len()..].fill(0);
}

/// Reads a head of this store; none where the bytes are something else.
pub(crate) fn read_head(store_id: &[u8; 16], bytes: &[u8]) -> Option<Head> {
    let head = bytes.get(..HEAD_BYTES)?;
    let number = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?));
    let genuine = &head[..8] == MAGIC && &head[24..40] == store_id && number(8)? == crc32c::crc32c(&head[12..]);
    genuine.then_some(())?;
    Some(Head {
        sequence: u64::from_le_bytes(head[16..24].try_into().ok()?),
        body_bytes: number(12)? as usize,
        body_crc: number(40)?,
    })
}

impl Head {
    /// The body, where it is whole.
    pub(crate) fn body<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let body = record.get(HEAD_BYTES..HEAD_BYTES + self.body_bytes)?;
        (crc32c::crc32c(body) == self.body_crc).then_some(body)
    }
}
