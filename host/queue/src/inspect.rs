//! Looking at a store without changing anything: what is in it, and what is damaged or lost.
//!
//! Nothing is written to the store's files, and nothing is trusted: every row and record has a checksum, a length counts
//! only within what was checked, and what breaks an assertion is told like any other damage.

pub(crate) mod found;
mod live;
mod overlay;
pub(crate) mod replay;
mod report;
pub(crate) mod source;

use std::path::Path;

pub(crate) use report::counted;
pub use report::{Problem, QueueReport, Report};

use crate::checkpoint::FORMAT;
use crate::journal::{self, Inspection, JournalConfig, RECORD_ALIGN};
use found::{Found, Problems};
use source::{Source, guarded};

/// Why a store cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The directory or a file in it.
    #[error("store {path}: {source}")]
    Io {
        /// Which one.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A router has it.
    #[error("store {0} is in use by another quipu process; stop it first")]
    Locked(String),
    /// Nothing there that a store is made of.
    #[error("{0} is no store: neither `state.redb` nor `journal` is there")]
    NoStore(String),
}

/// Looks at a store that is not running: at every row of its state file and every record of its journal, and whether each
/// message that somebody still waits for can be read. Reads everything once or twice, and blocks as long as that takes.
///
/// # Errors
///
/// [`InspectError`]. Damage is no error but a [`Problem`] of the report.
pub fn inspect(path: &Path) -> Result<Report, InspectError> {
    let (source, opened) = Source::open(path)?;
    let mut problems = Problems::new(path);
    if let Err(why) = &opened {
        problems.store("the file", format!("it cannot be opened: {why}"));
    } else if let Err(why) = source.check_pages(path) {
        problems.store("its pages", format!("{why}; rows that are not told of below may be missing"));
    }
    let mut found = Found::read(&source, &mut problems, |_, _, _| {});
    let mut report = Report::new(path);
    let meta = found.meta.as_ref();
    (report.format, report.position) = (meta.map(|meta| meta.format), meta.map(|meta| meta.position));
    if meta.is_some_and(|meta| meta.format > FORMAT) {
        problems.store("table meta", "a later version of quipu wrote it; use that one".into());
    } else {
        look(&source, &mut found, &mut problems, &mut report);
    }
    (report.problems, report.problems_left_out) = problems.into_list();
    Ok(report)
}

/// What keeps the journal from being replayed, and segments that were cut: to a length that none is made with.
pub(crate) fn tell_damage(source: &Source, inspection: &Inspection, problems: &mut Problems) {
    for damage in &inspection.damage {
        problems.journal(&damage.path, format!("byte {}", damage.at), damage.what.clone());
    }
    for (path, bytes) in source.segment_lengths() {
        if bytes < JournalConfig::SEGMENT_BYTES_MIN as u64 || bytes % RECORD_ALIGN as u64 != 0 {
            problems.journal(&path, format!("byte {bytes}"), "it was cut here: records behind this are lost".into());
        }
    }
}

fn look(source: &Source, found: &mut Found, problems: &mut Problems, report: &mut Report) {
    let known = found.meta.as_ref().map(|meta| (meta.store_id, meta.position));
    let inspection = match journal::inspect(&source.disk, known.map(|(id, _)| id), known.map(|(_, position)| position))
    {
        Ok(inspection) => inspection,
        Err(e) => return problems.journal("journal", "the directory", e.to_string()),
    };
    tell_damage(source, &inspection, problems);
    if let Some(cut) = &inspection.cut {
        let (path, at, sequence, records) = (&cut.path, cut.at, cut.sequence, cut.records);
        report.notes.push(format!(
            "{path}, byte {at}: record {sequence} is not whole, and nobody was told of it or the {} behind it; opening the \
             store cuts them",
            records.saturating_sub(1)
        ));
    }
    let lengths = source.segment_lengths();
    if let Some((path, bytes)) = lengths.iter().min_by_key(|(_, bytes)| *bytes)
        && lengths.iter().any(|(_, longer)| longer > bytes)
    {
        report.notes.push(format!(
            "{path} has {bytes} bytes and others have more: unless `journal_segment` was changed, it was cut, and records \
             behind that are lost"
        ));
    }
    if known.is_none() && !inspection.records.is_empty() {
        problems
            .store("table meta", "it does not say where the journal goes on, so that the store does not open".into());
    }
    let mut state = std::mem::take(&mut found.state);
    let checked = guarded(|| {
        found.restore(&mut state);
        replay::replay(source, found, &mut state, &inspection, (problems, report));
        live::check(&state, found, problems, report);
        Ok(())
    });
    if let Err(why) = checked {
        problems.store("the rows", format!("what they say does not fit together: {why}"));
    }
    report.publishers = state.publishers.count();
    report.message_ids = state.dedup.ids();
    report.noted = state.records.with_prefix("").map(|(key, _)| key.clone()).collect();
}
