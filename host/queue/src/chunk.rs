//! Chunks: runs of one queue's messages as they rest in redb.
//!
//! redb checks nothing on reads, so a chunk carries its own checksum, and says itself which queue and offsets it holds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::commit::{Offset, QueueId, Stored};
use crate::state::ChunkInfo;

/// A chunk is closed before it would pass this, in bytes; a larger message has one of its own.
pub(crate) const CHUNK_BYTES_MAX: usize = (256 << 10) - (4 << 10);

const MAGIC: &[u8; 4] = b"QPC1";

/// Messages of one queue, by ascending offset.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) queue: QueueId,
    pub(crate) messages: Vec<(Offset, Arc<Stored>)>,
}

impl Chunk {
    /// Cuts messages into chunks.
    pub(crate) fn cut(queue: QueueId, messages: Vec<(Offset, Arc<Stored>)>) -> Vec<Self> {
        let mut chunks: Vec<Self> = Vec::new();
        let mut room = 0;
        for (offset, stored) in messages {
            let size = stored.size();
            match chunks.last_mut() {
                Some(chunk) if size <= room => {
                    room -= size;
                    chunk.messages.push((offset, stored));
                }
                _ => {
                    room = CHUNK_BYTES_MAX.saturating_sub(size);
                    chunks.push(Self { queue, messages: vec![(offset, stored)] });
                }
            }
        }
        chunks
    }

    /// What is noted of it; none where it is empty.
    pub(crate) fn info(&self) -> Option<ChunkInfo> {
        let (first, last) = (self.messages.first()?.0, self.messages.last()?.0);
        let bytes = self.messages.iter().map(|(_, stored)| stored.size() as u64).sum();
        Some(ChunkInfo { first, last, count: self.messages.len() as u64, bytes })
    }

    pub(crate) fn find(&self, offset: Offset) -> Option<&Arc<Stored>> {
        let at = self.messages.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        Some(&self.messages[at].1)
    }
}

/// A value as a row: magic, CRC-32C, content.
pub(crate) fn seal(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, RowError> {
    let mut row = MAGIC.to_vec();
    row.extend_from_slice(&[0; 4]);
    let mut row = postcard::to_extend(value, row).map_err(|e| RowError::Format(e.to_string()))?;
    let crc = crc32c::crc32c(&row[8..]);
    row[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(row)
}

/// The value of a row.
pub(crate) fn open<T: for<'de> Deserialize<'de>>(row: &[u8]) -> Result<T, RowError> {
    let (head, content) = row.split_at_checked(8).ok_or(RowError::Short)?;
    if &head[..4] != MAGIC {
        return Err(RowError::Magic);
    }
    if head[4..] != crc32c::crc32c(content).to_le_bytes() {
        return Err(RowError::Checksum);
    }
    postcard::from_bytes(content).map_err(|e| RowError::Format(e.to_string()))
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    /// Less than its own head.
    #[error("a row is cut short")]
    Short,
    /// Not written by Quipu.
    #[error("a row does not begin as rows do")]
    Magic,
    /// Altered since it was written.
    #[error("a row's checksum is wrong: its content was altered")]
    Checksum,
    /// Others say that it should be there.
    #[error("the row is missing")]
    Absent,
    /// Whole, but not what was expected.
    #[error("a row's content does not fit: {0}")]
    Format(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Arc<Stored> {
        Arc::new(Stored { header: vec![1; 10].into(), payload: vec![2; bytes].into() })
    }

    #[test]
    fn chunks_hold_what_fits_and_large_messages_stand_alone() {
        let sizes = [100_000, 100_000, 100_000, 1_000_000, 10];
        let messages = (0..).map(Offset).zip(sizes.map(message)).collect();
        let chunks = Chunk::cut(QueueId(1), messages);
        let counts: Vec<usize> = chunks.iter().map(|c| c.messages.len()).collect();
        assert_eq!(counts, [2, 1, 1, 1]);
        assert_eq!(chunks[0].info().map(|info| (info.first, info.last, info.count)), Some((Offset(0), Offset(1), 2)));
        assert!(chunks[1].find(Offset(2)).is_some() && chunks[1].find(Offset(1)).is_none());
    }

    #[test]
    fn an_altered_row_is_refused() {
        let chunk = Chunk { queue: QueueId(7), messages: vec![(Offset(3), message(20))] };
        let row = seal(&chunk).expect("a row");
        assert_eq!(open::<Chunk>(&row).expect("whole").messages, chunk.messages);
        for at in 0..row.len() {
            let mut altered = row.clone();
            altered[at] ^= 1;
            assert!(open::<Chunk>(&altered).is_err(), "byte {at}");
            assert!(open::<Chunk>(&row[..at]).is_err(), "cut at {at}");
        }
    }
}
