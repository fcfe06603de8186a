//! Logs let go of what is too old or too much.

use super::Plan;
use crate::commit::{Offset, Operation, QueueId, Retention};
use crate::state::Queue;

/// Messages that one commit lets go of at most, of one queue.
const TRIMMED_MAX: u64 = 100_000;

impl Plan<'_> {
    /// Whether time alone makes a log let go of something.
    pub(crate) fn is_too_old(queue: &Queue, time_ms: u64) -> bool {
        old_below(queue, time_ms) > queue.floor()
    }

    /// Trims every log that is over its retention.
    pub(crate) fn retain(&mut self) {
        let over = |id: &QueueId| {
            let queue = &self.state.queues[id];
            let below = self.retained_from(queue);
            (below > queue.floor()).then_some((*id, below, queue.is_in_memory_alone()))
        };
        let stays = |id: &&QueueId| self.emptied != Some(**id);
        let trims: Vec<_> = self.state.logs.iter().filter(stays).filter_map(over).collect();
        for (queue, below, volatile) in trims {
            self.push(Operation::Trim { queue, below }, 0, volatile);
        }
    }

    /// The first offset that stays.
    fn retained_from(&self, queue: &Queue) -> Offset {
        let Retention::Log { bytes, messages, .. } = queue.definition.retention else { return Offset(0) };
        let below = queue.floor().max(old_below(queue, self.time_ms));
        let (mut left, mut left_bytes) = (queue.live, queue.live_bytes);
        let mut offset = queue.next_live(queue.floor());
        let mut looked = 0;
        while offset < queue.next && looked < TRIMMED_MAX {
            let over = messages.is_some_and(|most| left > most) || bytes.is_some_and(|most| left_bytes > most);
            if offset >= below && !over {
                break;
            }
            (left, left_bytes) = (left - 1, left_bytes.saturating_sub(queue.size_of(offset)));
            offset = queue.next_live(offset.next());
            looked += 1;
        }
        offset.max(queue.floor())
    }
}

/// Below this, everything is past the age that the log keeps.
fn old_below(queue: &Queue, time_ms: u64) -> Offset {
    let Retention::Log { age_ms: Some(age_ms), .. } = queue.definition.retention else { return Offset(0) };
    queue.known_before(time_ms.saturating_sub(age_ms))
}
