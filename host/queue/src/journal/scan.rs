//! Finding records in the segments, and what of them a store goes on from.
//!
//! Segments are read one at a time, once to find the records and once more to hand them out.

use std::io;
use std::sync::Arc;

use super::record::{Head, RECORD_ALIGN};
use crate::disk::Disk;

/// Where the segments are.
pub(crate) const DIRECTORY: &str = "journal";

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordInfo {
    /// Its sequence.
    pub sequence: u64,
    /// The last record that was known to be on disk when it was written.
    pub synced_through: u64,
    /// The segment's file, by its name in the store.
    pub path: Arc<str>,
    /// Where it begins in there.
    pub at: u64,
    /// Bytes of its body.
    pub bytes: usize,
    /// Where it ends.
    pub(crate) end: u64,
    /// Otherwise its head is genuine and its body is not.
    pub(crate) whole: bool,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The disk failed.
    #[error("journal {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A record is missing that was on disk when a later one was written: more than a torn last write.
    #[error("journal {path}: damage at byte {at}: record {expected} is missing or altered, but {later} is there")]
    Damage {
        /// The file.
        path: String,
        /// Where it should begin.
        at: u64,
        /// The missing record.
        expected: u64,
        /// One that is there.
        later: u64,
    },
    /// A record that is whole but no commit, or does not fit the state.
    #[error("journal: record {sequence}: {why}")]
    Record {
        /// Which one.
        sequence: u64,
        /// What is wrong.
        why: String,
    },
}

/// What a journal held when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The last sequence ever written, cut ones included: the checkpoint that follows must have it as its position, and
    /// the next record is the one after. A cut record so never stands where one is looked for again.
    pub last: u64,
    /// How many records were replayed.
    pub replayed: u64,
    /// What was not replayed.
    pub cut: Option<Cut>,
}

/// Records at the end that nobody was told of, left out because the first of them is missing or not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file, as the user knows it.
    pub path: String,
    /// Where the first of them should begin.
    pub at: u64,
    /// The first of them.
    pub sequence: u64,
    /// How many from there on were found, whole or not.
    pub records: usize,
}

/// Every record of a store, by sequence.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) records: Vec<RecordInfo>,
}

impl Scan {
    /// Reads every file there is, also those beyond a configuration that has shrunk. One that cannot be read goes to
    /// `failed`, which may end this.
    pub(crate) fn read(
        disk: &dyn Disk,
        store_id: &[u8; 16],
        mut failed: impl FnMut(RecoverError) -> Result<(), RecoverError>,
    ) -> Result<Self, RecoverError> {
        let mut records = Vec::new();
        for path in files(disk)? {
            match disk.read(&path) {
                Ok(bytes) => find(store_id, &path.into(), &bytes, &mut records),
                Err(source) => failed(io_error(disk, &path, source))?,
            }
        }
        records.sort_by_key(|record: &RecordInfo| (record.sequence, !record.whole));
        records.dedup_by_key(|record| record.sequence);
        Ok(Self { records })
    }

    /// The records after a position.
    pub(crate) fn after(&self, position: u64) -> &[RecordInfo] {
        &self.records[self.records.partition_point(|record| record.sequence <= position)..]
    }

    /// The records to replay, and what is cut behind them.
    pub(crate) fn usable(&self, disk: &dyn Disk, position: u64) -> Result<(&[RecordInfo], Option<Cut>), RecoverError> {
        let after = self.after(position);
        let usable = after.iter().zip(position + 1..).take_while(|(record, n)| record.whole && record.sequence == *n);
        let (usable, rest) = after.split_at(usable.count());
        let Some(first) = rest.first() else { return Ok((usable, None)) };
        let expected = position + 1 + usable.len() as u64;
        let synced = rest.iter().find(|record| record.synced_through >= expected);
        let (path, at) = self.place(synced.unwrap_or(first));
        let path = disk.display(path);
        match synced {
            Some(later) => Err(RecoverError::Damage { path, at, expected, later: later.sequence }),
            None => Ok((usable, Some(Cut { path, at, sequence: expected, records: rest.len() }))),
        }
    }

    /// Where what is missing before a record should begin: behind the whole one that stands before it.
    pub(crate) fn place<'a>(&'a self, record: &'a RecordInfo) -> (&'a str, u64) {
        let before = |other: &&RecordInfo| other.whole && other.path == record.path && other.end <= record.at;
        if let Some(before) = self.records.iter().filter(before).max_by_key(|other| other.end) {
            return (&record.path, before.end);
        }
        let older = |other: &&RecordInfo| other.whole && other.sequence < record.sequence;
        match self.records.iter().rfind(older) {
            // It is the first in its segment, so that the gap is at the end of the one before.
            Some(older) if record.at == 0 && record.whole => (&older.path, older.end),
            _ => (&record.path, 0),
        }
    }
}

/// The segments' files, by their names in the store.
pub(crate) fn files(disk: &dyn Disk) -> Result<Vec<String>, RecoverError> {
    let names = disk.list(DIRECTORY).map_err(|source| io_error(disk, DIRECTORY, source))?;
    Ok(names.into_iter().filter(|name| name.ends_with(".journal")).map(|name| format!("{DIRECTORY}/{name}")).collect())
}

/// Calls back with every genuine head at a place where one can be, the bytes from there on, and whether its body is
/// whole.
pub(crate) fn heads(bytes: &[u8], mut found: impl FnMut(usize, &Head, bool)) {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let head = Head::read(rest);
        let whole = head.is_some_and(|head| head.body(rest).is_some());
        if let Some(head) = &head {
            found(at, head, whole);
        }
        at += head.filter(|_| whole).map_or(RECORD_ALIGN, |head| head.record_bytes());
    }
}

fn find(store_id: &[u8; 16], path: &Arc<str>, bytes: &[u8], records: &mut Vec<RecordInfo>) {
    heads(bytes, |at, head, whole| {
        if head.store_id == *store_id {
            records.push(RecordInfo {
                sequence: head.sequence,
                synced_through: head.synced_through,
                path: Arc::clone(path),
                at: at as u64,
                bytes: head.body_bytes,
                end: (at + head.record_bytes()) as u64,
                whole,
            });
        }
    });
}

/// Reads bodies; one segment is in memory at a time.
#[derive(Debug)]
pub struct Reader<'a> {
    disk: &'a dyn Disk,
    file: Option<(Arc<str>, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    /// Reads from this store.
    pub fn new(disk: &'a dyn Disk) -> Self {
        Self { disk, file: None }
    }

    /// A record's body.
    ///
    /// # Errors
    ///
    /// [`RecoverError::Io`], or [`RecoverError::Record`] where it is not what it was when it was found.
    pub fn body(&mut self, record: &RecordInfo) -> Result<&[u8], RecoverError> {
        if self.file.as_ref().is_none_or(|(path, _)| *path != record.path) {
            self.file = None;
            let bytes = self.disk.read(&record.path).map_err(|source| io_error(self.disk, &record.path, source))?;
            self.file = Some((Arc::clone(&record.path), bytes));
        }
        let place = usize::try_from(record.at).unwrap_or(usize::MAX);
        let bytes = self.file.as_ref().and_then(|(_, bytes)| bytes.get(place..)).unwrap_or_default();
        let head = Head::read(bytes).filter(|head| head.sequence == record.sequence);
        let changed = || RecoverError::Record { sequence: record.sequence, why: "it changed while it was read".into() };
        head.and_then(|head| head.body(bytes)).ok_or_else(changed)
    }
}

pub(crate) fn io_error(disk: &dyn Disk, path: &str, source: io::Error) -> RecoverError {
    RecoverError::Io { path: disk.display(path), source }
}
