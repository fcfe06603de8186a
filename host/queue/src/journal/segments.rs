//! A journal of a few files of fixed size that are used in turn.
//!
//! Segments are written with zeros once, so that an append changes no file's size.

use super::buffer::AlignedBuffer;
use super::record::{self, RECORD_ALIGN, record_bytes};
use super::scan::{DIRECTORY, Reader, RecoverError, Recovered, Scan, io_error};
use super::{Journal, JournalError};
use crate::disk::{Disk, SegmentFile};

/// Size and number of the segments.
#[derive(Debug, Clone, Copy)]
pub struct JournalConfig {
    /// How many; at least 2. Default 4.
    pub segments: usize,
    /// Bytes of each, rounded up to a multiple of 4 KiB and to at least 256 KiB. No commit may be larger, and no message
    /// larger than half of it. Default 32 MiB.
    pub segment_bytes: usize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { segments: 4, segment_bytes: 32 << 20 }
    }
}

impl JournalConfig {
    /// Less has no room for what a commit takes besides its messages.
    pub(crate) const SEGMENT_BYTES_MIN: usize = 256 << 10;

    pub(crate) fn sound(self) -> Self {
        let segment_bytes = self.segment_bytes.max(Self::SEGMENT_BYTES_MIN).next_multiple_of(RECORD_ALIGN);
        Self { segment_bytes, ..self }
    }
}

/// The journal of a store on disk.
#[derive(Debug)]
pub struct SegmentJournal {
    store_id: [u8; 16],
    segments: Vec<Segment>,
    /// Which one is appended to, and where.
    current: usize,
    at: usize,
    /// The last record that was appended, and the last that is durable.
    last: u64,
    synced: u64,
    /// Records up to this one are in a checkpoint.
    released: u64,
    segment_bytes: usize,
    buffer: AlignedBuffer,
}

#[derive(Debug)]
struct Segment {
    /// As the user knows it.
    path: String,
    file: Box<dyn SegmentFile>,
    /// The last record in it; 0: none yet.
    last: u64,
    /// Holds records that no sync has followed.
    unsynced: bool,
}

impl SegmentJournal {
    /// Opens a store's journal, made if absent, and replays every record after `position`, in order.
    ///
    /// Afterwards the state must be written to a checkpoint at [`Recovered::last`] before anything is appended: the
    /// segments are all free.
    ///
    /// # Errors
    ///
    /// [`RecoverError`] names the file and what is wrong. Records at the end that nobody had waited for, or a torn last
    /// one, are no error: they are cut and logged.
    pub fn open(
        disk: &dyn Disk,
        store_id: [u8; 16],
        config: JournalConfig,
        position: u64,
        mut replay: impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(Self, Recovered), RecoverError> {
        let segments = (0..config.segments.max(2)).map(|n| Segment::open(disk, n, config.segment_bytes));
        let segments = segments.collect::<Result<_, _>>()?;
        let scan = Scan::read(disk, &store_id, Err)?;
        let (usable, cut) = scan.usable(disk, position)?;
        let mut reader = Reader::new(disk);
        for record in usable {
            let sequence = record.sequence;
            replay(sequence, reader.body(record)?).map_err(|why| RecoverError::Record { sequence, why })?;
        }
        if let Some(cut) = &cut {
            let (path, at, sequence, records) = (&cut.path, cut.at, cut.sequence, cut.records);
            tracing::warn!(path, at, sequence, records, "cut records at the end that were not whole or not synced");
        }
        let last = scan.records.last().map_or(position, |record| record.sequence.max(position));
        let recovered = Recovered { last, replayed: usable.len() as u64, cut };
        let (segment_bytes, buffer) = (config.segment_bytes, AlignedBuffer::default());
        let (released, synced) = (last, last);
        Ok((Self { store_id, segments, current: 0, at: 0, last, synced, released, segment_bytes, buffer }, recovered))
    }

    /// Finds the segment and the place for a record.
    fn make_room(&mut self, bytes: usize) -> Result<(), JournalError> {
        if bytes > self.segment_bytes {
            return Err(JournalError::TooLarge { bytes, segment: self.segment_bytes });
        }
        if self.at + bytes > self.segment_bytes {
            let next = (self.current + 1) % self.segments.len();
            if self.segments[next].last > self.released {
                return Err(JournalError::Full);
            }
            (self.current, self.at) = (next, 0);
        }
        Ok(())
    }
}

impl Journal for SegmentJournal {
    fn append(&mut self, sequence: u64, body: &[u8], durable: bool) -> Result<(), JournalError> {
        let bytes = record_bytes(body.len());
        self.make_room(bytes)?;
        if durable {
            // The write below makes durable what is in its own segment, but not what is in those before.
            let mut others = self.segments.iter_mut().enumerate().filter(|(n, _)| *n != self.current);
            others.try_for_each(|(_, segment)| segment.sync())?;
        }
        let record = self.buffer.of(bytes);
        record::write(&self.store_id, sequence, self.synced, body, record);
        let segment = &mut self.segments[self.current];
        segment.write(self.at as u64, record, durable)?;
        segment.last = sequence;
        self.at += bytes;
        self.last = sequence;
        if durable {
            self.synced = sequence;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        self.segments.iter_mut().try_for_each(Segment::sync)?;
        self.synced = self.last;
        Ok(())
    }

    fn release(&mut self, through: u64) {
        self.released = self.released.max(through);
    }

    fn body_bytes_max(&self) -> usize {
        self.segment_bytes - record::HEAD_BYTES
    }

    fn bytes(&self) -> u64 {
        (self.segment_bytes * self.segments.len()) as u64
    }
}

impl Segment {
    fn open(disk: &dyn Disk, n: usize, bytes: usize) -> Result<Self, RecoverError> {
        let name = format!("{DIRECTORY}/{n:03}.journal");
        let file = disk.segment(&name, bytes as u64).map_err(|source| io_error(disk, &name, source))?;
        Ok(Self { path: disk.display(&name), file, last: 0, unsynced: false })
    }

    fn write(&mut self, at: u64, record: &[u8], durable: bool) -> Result<(), JournalError> {
        self.unsynced |= !durable;
        self.file.write(at, record, durable).map_err(|source| self.failed(source))?;
        self.unsynced &= !durable;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced {
            self.file.sync().map_err(|source| self.failed(source))?;
            self.unsynced = false;
        }
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }
}
