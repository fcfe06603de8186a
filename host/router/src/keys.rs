//! Which messages of a lane wait for an earlier one of their key.
//!
//! A settlement can be refused, and an attempt can fail. Until the store has answered, a later message of that key
//! must not go ahead of it. From the answer on, the subscription itself hands out nothing more of a key than what
//! failed, until that is settled.

use std::collections::{HashMap, VecDeque};

use quipu_queue::{Delivery, Offset};

/// A message that came to a lane.
pub(crate) struct Incoming {
    pub(crate) delivery: Delivery,
    /// The hash of its key; none where it keeps no order.
    pub(crate) key: Option<u64>,
}

/// What a lane does with a message.
pub(crate) enum Turn {
    Now(Incoming),
    /// An earlier one of its key failed.
    GiveBack(Delivery),
    /// It is kept until the store has answered.
    Wait,
}

/// The keys that have something on its way to the store. No more than the route has in hand.
#[derive(Default)]
pub(crate) struct Keys(HashMap<u64, Line>);

#[derive(Default)]
struct Line {
    /// Settlements without an answer.
    unanswered: usize,
    /// This one failed.
    stopped_at: Option<Offset>,
    behind: VecDeque<Incoming>,
}

impl Keys {
    /// What to do with a message that is its lane's next.
    pub(crate) fn turn(&mut self, incoming: Incoming) -> Turn {
        if self.is_stopped(incoming.key, incoming.delivery.offset) {
            return Turn::GiveBack(incoming.delivery);
        }
        match incoming.key.and_then(|key| self.0.get_mut(&key)) {
            Some(line) if line.unanswered > 0 => {
                line.behind.push_back(incoming);
                Turn::Wait
            }
            _ => Turn::Now(incoming),
        }
    }

    /// Whether an earlier one of its key failed.
    pub(crate) fn is_stopped(&self, key: Option<u64>, offset: Offset) -> bool {
        let line = key.and_then(|key| self.0.get(&key));
        line.and_then(|line| line.stopped_at).is_some_and(|stopped_at| offset > stopped_at)
    }

    /// An attempt failed: what comes after it goes back.
    pub(crate) fn stop(&mut self, key: Option<u64>, offset: Offset) {
        if let Some(key) = key {
            let line = self.0.entry(key).or_default();
            line.stopped_at = Some(line.stopped_at.map_or(offset, |before| before.min(offset)));
        }
    }

    /// A settlement is on its way.
    pub(crate) fn sent(&mut self, key: Option<u64>) {
        if let Some(key) = key {
            self.0.entry(key).or_default().unanswered += 1;
        }
    }

    /// The store has answered a settlement.
    pub(crate) fn answered(&mut self, key: Option<u64>, offset: Offset) {
        if let Some(line) = key.and_then(|key| self.0.get_mut(&key)) {
            line.unanswered = line.unanswered.saturating_sub(1);
            line.stopped_at = line.stopped_at.filter(|stopped_at| *stopped_at != offset);
        }
    }

    /// What waited for answers that have come, and what must go back; each of them has its turn again.
    pub(crate) fn release(&mut self, key: Option<u64>) -> VecDeque<Incoming> {
        let Some(key) = key else { return VecDeque::new() };
        let is_free = |line: &&mut Line| line.unanswered == 0 || line.stopped_at.is_some();
        let Some(line) = self.0.get_mut(&key).filter(is_free) else { return VecDeque::new() };
        let behind = std::mem::take(&mut line.behind);
        if line.unanswered == 0 && line.stopped_at.is_none() {
            self.0.remove(&key);
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quipu_queue::{Stored, Token, Why};
    use std::sync::Arc;

    /// Says of each message what its turn is: `=` now, `<` back, `~` it waits.
    fn turns(keys: &mut Keys, incoming: impl IntoIterator<Item = Incoming>) -> String {
        let mut said = String::new();
        for one in incoming {
            let offset = one.delivery.offset;
            let turn = match keys.turn(one) {
                Turn::Now(_) => '=',
                Turn::GiveBack(_) => '<',
                Turn::Wait => '~',
            };
            said.push_str(&format!("{offset}{turn} "));
        }
        said
    }

    fn message(key: Option<u64>, offset: u64) -> Incoming {
        let stored = Arc::new(Stored { header: Bytes::new(), payload: Bytes::new() });
        let (token, offset) = (Token(offset), Offset(offset));
        Incoming { delivery: Delivery { token, offset, attempt: 1, crashes: 0, why: Why::First, stored }, key }
    }

    #[test]
    fn what_comes_behind_an_unanswered_settlement_waits_and_behind_a_failed_one_goes_back() {
        let (mut keys, k) = (Keys::default(), Some(1));
        let of = |offsets: &[u64]| offsets.iter().map(|offset| message(k, *offset)).collect::<Vec<_>>();
        assert_eq!(turns(&mut keys, of(&[1, 2])), "1= 2= ");
        keys.sent(k);
        keys.sent(k);
        assert_eq!(turns(&mut keys, of(&[3, 4])), "3~ 4~ ");
        assert_eq!(turns(&mut keys, [message(Some(2), 5), message(None, 6)]), "5= 6= ", "others go on");
        keys.answered(k, Offset(1));
        assert_eq!(keys.release(k).len(), 0, "not yet");
        // The second one was refused, and is tried again later.
        keys.answered(k, Offset(2));
        keys.stop(k, Offset(2));
        keys.sent(k);
        let released = keys.release(k);
        assert_eq!(turns(&mut keys, released), "3< 4< ");
        assert_eq!(turns(&mut keys, of(&[7])), "7< ");
        keys.answered(k, Offset(2));
        assert_eq!(keys.release(k).len(), 0);
        assert!(keys.0.is_empty(), "nothing is kept of a key with nothing on its way");
        assert_eq!(turns(&mut keys, of(&[2, 3])), "2= 3= ");
    }
}
