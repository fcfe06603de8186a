//! How a record stands in a segment.
//!
//! Aligned to 4 KiB; numbers are little-endian:
//!
//! | at | bytes | |
//! |--:|--:|---|
//! | 0 | 8 | magic, `QUIPUJ02` |
//! | 8 | 4 | CRC-32C of the rest of the head |
//! | 12 | 4 | length of the body |
//! | 16 | 8 | sequence |
//! | 24 | 16 | store id |
//! | 40 | 4 | CRC-32C of the body |
//! | 44 | 8 | synced through |
//! | 52 | | the body, then zeros up to the next 4 KiB |
//!
//! "Synced through" is the last record that was known to be on disk when this one was written: that one missing is damage,
//! while records after it may be missing because nobody had waited for them. Format 1, `QUIPUJ01`, is read too; it has the
//! body at 44, and every record was on disk before the next was written.
//!
//! The store id is random and secret: a payload could otherwise imitate a head.

/// Records begin at multiples of this, in bytes, which suits direct I/O on any disk in use.
pub const RECORD_ALIGN: usize = 4096;

/// Bytes before the body.
pub(crate) const HEAD_BYTES: usize = 52;

const MAGIC: &[u8; 8] = b"QUIPUJ02";
const MAGIC_1: &[u8; 8] = b"QUIPUJ01";
const HEAD_BYTES_1: usize = 44;

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) sequence: u64,
    pub(crate) synced_through: u64,
    pub(crate) store_id: [u8; 16],
    pub(crate) body_bytes: usize,
    head_bytes: usize,
    body_crc: u32,
}

/// The bytes that a record with such a body takes.
pub(crate) fn record_bytes(body_bytes: usize) -> usize {
    (HEAD_BYTES + body_bytes).next_multiple_of(RECORD_ALIGN)
}

/// Writes a record into a buffer of just its size.
pub(crate) fn write(store_id: &[u8; 16], sequence: u64, synced_through: u64, body: &[u8], out: &mut [u8]) {
    let length = u32::try_from(body.len()).expect("a record fits a segment, and a segment 4 GiB");
    out[..8].copy_from_slice(MAGIC);
    out[12..16].copy_from_slice(&length.to_le_bytes());
    out[16..24].copy_from_slice(&sequence.to_le_bytes());
    out[24..40].copy_from_slice(store_id);
    out[40..44].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    out[44..52].copy_from_slice(&synced_through.to_le_bytes());
    let crc = crc32c::crc32c(&out[12..HEAD_BYTES]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out[HEAD_BYTES..HEAD_BYTES + body.len()].copy_from_slice(body);
    out[HEAD_BYTES + body.len()..].fill(0);
}

impl Head {
    /// Reads a head of any store; none where the bytes are something else.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let head_bytes = match bytes.get(..8)? {
            magic if magic == MAGIC => HEAD_BYTES,
            magic if magic == MAGIC_1 => HEAD_BYTES_1,
            _ => return None,
        };
        let head = bytes.get(..head_bytes)?;
        let number = |at: usize| Some(u32::from_le_bytes(head[at..at + 4].try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(head[at..at + 8].try_into().ok()?));
        (number(8)? == crc32c::crc32c(&head[12..])).then_some(())?;
        let sequence = long(16)?;
        Some(Self {
            sequence,
            synced_through: if head_bytes == HEAD_BYTES { long(44)? } else { sequence.checked_sub(1)? },
            store_id: head[24..40].try_into().ok()?,
            body_bytes: number(12)? as usize,
            head_bytes,
            body_crc: number(40)?,
        })
    }

    /// The body, where it is whole.
    pub(crate) fn body<'a>(&self, record: &'a [u8]) -> Option<&'a [u8]> {
        let body = record.get(self.head_bytes..self.head_bytes + self.body_bytes)?;
        (crc32c::crc32c(body) == self.body_crc).then_some(body)
    }

    /// The bytes that the record takes.
    pub(crate) fn record_bytes(&self) -> usize {
        (self.head_bytes + self.body_bytes).next_multiple_of(RECORD_ALIGN)
    }
}

/// A record of format 1, as it was written until format 2 came.
#[cfg(test)]
pub(crate) fn format_1(store_id: &[u8; 16], sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend(u32::try_from(body.len()).expect("short").to_le_bytes());
    rest.extend(sequence.to_le_bytes());
    rest.extend(store_id);
    rest.extend(crc32c::crc32c(body).to_le_bytes());
    let mut record = [&MAGIC_1[..], &crc32c::crc32c(&rest).to_le_bytes(), &rest, body].concat();
    record.resize(record.len().next_multiple_of(RECORD_ALIGN), 0);
    record
}
