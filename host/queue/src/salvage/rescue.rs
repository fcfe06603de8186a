//! Messages that no chunk has any more: in the journal, whose old records stay until their room is used again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Failed, put_messages};
use crate::checkpoint::Checkpoints;
use crate::commit::{Commit, Offset, Operation, Payload, QueueId, Stored};
use crate::inspect::found::{Found, Problems};
use crate::inspect::replay::read;
use crate::inspect::source::Source;
use crate::journal::{Inspection, Reader};
use crate::state::{Bodies as _, State};

type Place = (QueueId, Offset);

/// What was found, by queue and offset.
pub(super) type Rescued = BTreeMap<Place, Arc<Stored>>;

/// Looks in the journal for what the checkpoint should have and has not. What is not there either goes for good.
pub(super) fn rescue(
    source: &Source,
    inspection: &Inspection,
    format: u32,
    state: &mut State,
    (found, checkpoints): (&Found, &Checkpoints),
    problems: &mut Problems,
) -> Result<Rescued, Failed> {
    let missing = missing(state, found);
    let mut rescued = Rescued::new();
    if missing.is_empty() {
        return Ok(rescued);
    }
    let mut reader = Reader::new(&source.disk);
    for record in &inspection.records {
        if let Ok(commit) = read(&mut reader, format, record) {
            look(commit, &missing, checkpoints, &mut rescued);
        }
    }
    for (id, queue) in &mut state.queues {
        let places = missing.range((*id, Offset(0))..=(*id, Offset(u64::MAX)));
        let (found_here, lost): (Vec<&Place>, Vec<&Place>) = places.partition(|place| rescued.contains_key(place));
        // Between two chunks that are there, what is missing is one run; across them it would hide them.
        let infos = found.chunks.get(&id.0).map(|held| held.infos()).unwrap_or_default();
        let mut runs: BTreeMap<usize, BTreeMap<Offset, Arc<Stored>>> = BTreeMap::new();
        for place in found_here {
            let run = infos.partition_point(|info| info.last < place.1);
            runs.entry(run).or_default().insert(place.1, rescued[place].clone());
        }
        for messages in runs.into_values() {
            for info in put_messages(checkpoints, *id, messages)? {
                queue.chunks.insert(info, info.count, info.bytes);
            }
        }
        for run in joined(lost.iter().map(|(_, offset)| *offset)) {
            problems.queue("table chunks", &queue.name, Some(run), "lost: no whole chunk or record has it".into());
        }
        for (_, offset) in lost {
            // It is in no memory that would be freed.
            queue.remove(*offset);
        }
        queue.live_bytes = queue.chunks.live_bytes();
    }
    Ok(rescued)
}

/// What somebody still waits for and no chunk has. Counts anew what is live.
fn missing(state: &mut State, found: &Found) -> BTreeSet<Place> {
    let mut missing = BTreeSet::new();
    for (id, queue) in &mut state.queues {
        if queue.is_in_memory_alone() {
            continue;
        }
        queue.live = 0;
        let mut offset = queue.next_live(Offset(0));
        while offset < queue.next {
            queue.live += 1;
            if !found.holds(*id, offset) {
                missing.insert((*id, offset));
            }
            offset = queue.next_live(offset.next());
        }
    }
    missing
}

fn look(commit: Commit, missing: &BTreeSet<Place>, checkpoints: &Checkpoints, rescued: &mut Rescued) {
    for operation in commit.operations {
        let (header, payload, places) = match operation {
            Operation::Append { header, payload, places, .. } => (header, payload, places),
            Operation::Redrive { header, payload, queue, offset, .. } => (header, payload, vec![(queue, offset)]),
            _ => continue,
        };
        let wanted: Vec<Place> = places.into_iter().filter(|place| missing.contains(place)).collect();
        if wanted.is_empty() {
            continue;
        }
        let payload = match payload {
            Payload::Inline(payload) => payload,
            Payload::Of(queue, offset) => {
                let known = rescued.get(&(queue, offset)).cloned();
                match known.map_or_else(|| checkpoints.message(queue, offset), Ok) {
                    Ok(stored) => stored.payload.clone(),
                    Err(_) => continue,
                }
            }
        };
        let stored = Arc::new(Stored { header, payload });
        rescued.extend(wanted.into_iter().map(|place| (place, stored.clone())));
    }
}

/// Runs of offsets that ascend, each with its first and its last.
pub(super) fn joined(offsets: impl Iterator<Item = Offset>) -> Vec<(Offset, Offset)> {
    let mut runs: Vec<(Offset, Offset)> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some((_, last)) if last.next() == offset => *last = offset,
            _ => runs.push((offset, offset)),
        }
    }
    runs
}
