//! The journal on top of the checkpoint, as opening the store replays it; and what records hold that it would not reach.

use std::collections::BTreeMap;

use super::Report;
use super::found::{Found, Problems};
use super::source::{Source, guarded};
use crate::commit::{Commit, Offset, Operation, QueueId};
use crate::journal::{Inspection, Reader, RecordInfo};
use crate::legacy;
use crate::state::State;

/// Replays what opening the store would, and tells which messages are lost with what it would not.
pub(super) fn replay(
    source: &Source,
    found: &Found,
    state: &mut State,
    inspection: &Inspection,
    (problems, report): (&mut Problems, &mut Report),
) {
    let Some(meta) = &found.meta else {
        report.records = inspection.records.len() as u64;
        return;
    };
    let from = inspection.records.partition_point(|record| record.sequence <= meta.position);
    let after = &inspection.records[from..];
    report.records = after.len() as u64;
    let mut reader = Reader::new(&source.disk);
    let mut replayed = 0;
    for (record, sequence) in after.iter().zip(meta.position + 1..) {
        if record.sequence != sequence {
            break;
        }
        let applied = read(&mut reader, meta.format, record)
            .and_then(|commit| guarded(|| state.apply(commit, source).map_err(|e| e.to_string())));
        if let Err(why) = applied {
            problems.journal(&record.path, format!("byte {}, record {sequence}", record.at), why);
            break;
        }
        replayed += 1;
    }
    if inspection.cut.is_none() {
        let mut next = state.queues.iter().map(|(id, queue)| (*id, queue.next)).collect();
        for record in &after[replayed..] {
            if let Ok(commit) = read(&mut reader, meta.format, record) {
                tell_gaps(&commit, record, state, &mut next, problems);
            }
        }
    }
}

/// A record's commit.
pub(crate) fn read(reader: &mut Reader<'_>, format: u32, record: &RecordInfo) -> Result<Commit, String> {
    let body = reader.body(record).map_err(|e| e.to_string())?;
    guarded(|| legacy::commit(format, body))
}

/// Offsets are in the commits, so that a later one tells which messages were in those that are missing.
fn tell_gaps(
    commit: &Commit,
    record: &RecordInfo,
    state: &State,
    next: &mut BTreeMap<QueueId, Offset>,
    problems: &mut Problems,
) {
    let mut tell = |id: QueueId, offset: Offset| {
        let Some(queue) = state.queues.get(&id) else { return };
        let expected = next.entry(id).or_default();
        let place = format!("before record {}", record.sequence);
        if *expected < offset {
            let what = "lost with the records that are missing".to_owned();
            problems.queue_in(&record.path, &place, &queue.name, (*expected, Offset(offset.0 - 1)), what);
        }
        let what = format!("in record {}, which opening the store does not reach; salvaging does", record.sequence);
        problems.queue_in(&record.path, &place, &queue.name, (offset, offset), what);
        *expected = (*expected).max(Offset(offset.0.saturating_add(1)));
    };
    for operation in &commit.operations {
        match operation {
            Operation::Append { places, .. } => places.iter().for_each(|(id, offset)| tell(*id, *offset)),
            Operation::Redrive { queue, offset, .. } => tell(*queue, *offset),
            _ => {}
        }
    }
}
