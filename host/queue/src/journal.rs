//! The journal: what makes a commit durable before anyone hears of it.

mod buffer;
mod inspect;
mod record;
mod scan;
pub mod segments;

pub(crate) use buffer::AlignedBuffer;
pub use inspect::{Damage, Inspection, inspect};
pub use record::RECORD_ALIGN;
pub use scan::{Cut, Reader, RecordInfo, RecoverError, Recovered};
pub use segments::{JournalConfig, SegmentJournal};

/// Where commits are made durable. Owned by one thread, which may block.
pub trait Journal: Send {
    /// Writes a record. Where `durable`, it and all before it are on disk when this returns. Sequences are consecutive.
    ///
    /// # Errors
    ///
    /// [`JournalError::Full`] and [`JournalError::TooLarge`] leave the journal as it was; after any other error nothing
    /// may be appended again.
    fn append(&mut self, sequence: u64, body: &[u8], durable: bool) -> Result<(), JournalError>;

    /// Makes all records so far durable; they are when this returns.
    ///
    /// # Errors
    ///
    /// [`JournalError::Io`]; nothing may be appended again.
    fn sync(&mut self) -> Result<(), JournalError>;

    /// Gives the room of records up to this one back: they are in a checkpoint.
    fn release(&mut self, through: u64);

    /// Bytes of the largest body that a record can hold.
    fn body_bytes_max(&self) -> usize;

    /// Bytes that all records together may take.
    fn bytes(&self) -> u64;
}

/// Why the journal did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No room until a checkpoint lets segments be used again.
    #[error("the journal is full until the next checkpoint")]
    Full,
    /// Larger than a segment.
    #[error("a commit of {bytes} bytes does not fit a journal segment of {segment}; enlarge `journal_segment`")]
    TooLarge {
        /// Of the record.
        bytes: usize,
        /// Of a segment.
        segment: usize,
    },
    /// The disk failed. What was being written may or may not be there after a restart.
    #[error("journal {path}: {source}")]
    Io {
        /// The segment's file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests;
