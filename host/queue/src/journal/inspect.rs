//! Looking at a journal without changing anything: for checking a store and for saving what is left of one.

use std::collections::BTreeMap;
use std::fmt;

use super::scan::{Cut, RecordInfo, RecoverError, Scan, files, heads};
use crate::disk::Disk;

/// What a journal holds.
#[derive(Debug, Default)]
pub struct Inspection {
    /// The store whose records these are; none where there are none.
    pub store_id: Option<[u8; 16]>,
    /// Every whole record, also old ones and those behind a gap, by sequence. [`Reader`](super::Reader) has the bodies.
    pub records: Vec<RecordInfo>,
    /// What keeps the store from being opened.
    pub damage: Vec<Damage>,
    /// What opening the store would cut.
    pub cut: Option<Cut>,
}

/// Something that should be there and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, as the user knows it.
    pub path: String,
    /// Where in the file.
    pub at: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "journal {}: byte {}: {}", self.path, self.at, self.what)
    }
}

/// Looks for the records of a store; without its id, of the one that most heads name. Nothing is written.
///
/// `position` is the last record in the checkpoint. Without it missing records are no damage: their room may have been
/// used again.
///
/// # Errors
///
/// [`RecoverError::Io`] where the journal's directory cannot be read; a file that cannot be is damage.
pub fn inspect(disk: &dyn Disk, store_id: Option<[u8; 16]>, position: Option<u64>) -> Result<Inspection, RecoverError> {
    let store_id = match store_id {
        Some(store_id) => Some(store_id),
        None => most_named(disk)?,
    };
    let mut inspection = Inspection { store_id, ..Inspection::default() };
    let failed = |error| {
        if let RecoverError::Io { path, source } = error {
            inspection.damage.push(Damage { path, at: 0, what: source.to_string() });
        }
        Ok(())
    };
    let scan = Scan::read(disk, &store_id.unwrap_or_default(), failed)?;
    if let Some(position) = position {
        find_gaps(disk, &scan, position, &mut inspection);
    }
    inspection.records = scan.records.into_iter().filter(|record| record.whole).collect();
    Ok(inspection)
}

/// What is missing between the records after a position.
fn find_gaps(disk: &dyn Disk, scan: &Scan, position: u64, inspection: &mut Inspection) {
    let after = scan.after(position);
    let mut expected = position + 1;
    for (n, record) in after.iter().enumerate() {
        if record.whole && record.sequence == expected {
            expected += 1;
            continue;
        }
        let rest = &after[n..];
        // A record that is there but not whole is missing itself.
        let missing_to = if record.whole { record.sequence } else { record.sequence + 1 };
        let (path, at) = scan.place(record);
        let path = disk.display(path);
        let Some(later) = rest.iter().find(|later| later.synced_through >= expected) else {
            inspection.cut = Some(Cut { path, at, sequence: expected, records: rest.len() });
            return;
        };
        let what = match missing_to - expected {
            1 => format!("record {expected} is missing or altered, but {} is there", later.sequence),
            _ => format!(
                "records {expected} to {} are missing or altered, but {} is there",
                missing_to - 1,
                later.sequence
            ),
        };
        inspection.damage.push(Damage { path, at, what });
        expected = record.sequence + 1;
    }
}

/// The store id in most heads. A payload may hold heads of another store, but hardly more than there are records.
fn most_named(disk: &dyn Disk) -> Result<Option<[u8; 16]>, RecoverError> {
    let mut named = BTreeMap::<[u8; 16], usize>::new();
    for path in files(disk)? {
        // One that cannot be read is told of when its records are looked for.
        let bytes = disk.read(&path).unwrap_or_default();
        heads(&bytes, |_, head, _| *named.entry(head.store_id).or_default() += 1);
    }
    Ok(named.into_iter().max_by_key(|(_, count)| *count).map(|(store_id, _)| store_id))
}
