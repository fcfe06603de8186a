//! What operators change: records, and queues and subscriptions that are removed, paused, sought or purged.
//!
//! Each is alone in its commit, and so needs to be checked against the state alone.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{OPERATION_BYTES, Plan};
use crate::bounds::{RECORD_BYTES_MAX, RECORD_KEY_BYTES_MAX, RECORDS_BYTES};
use crate::commit::{Durability, Mode, Offset, Operation, QueueId, SubscriptionId};
use crate::state::{Queue, Records};
use crate::store::Start;

/// What is to be changed.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Records(Vec<(String, Option<Bytes>)>),
    RemoveSubscription { queue: String, name: String },
    RemoveQueue { name: String, with_messages: bool },
    Pause { queue: String, name: String, paused: bool },
    Share { queue: String, name: String, mode: Mode },
    Seek { queue: String, name: String, start: Start },
    Purge { queue: String },
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changed {
    Nothing,
    Records,
    Removed(Vec<SubscriptionId>),
    Paused(SubscriptionId, bool),
    Shared(SubscriptionId, Mode, Offset),
    Sought(SubscriptionId, Offset),
    /// So many messages are gone.
    Purged(u64),
}

/// Why something is not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChangeError {
    Record(RecordError),
    Lookup(LookupError),
    /// The queue has so many messages.
    NotEmpty(u64),
}

/// Why records are not set. None of them is then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Its key is empty or too long.
    #[error("a record's key takes 1 to {RECORD_KEY_BYTES_MAX} bytes, not {0}")]
    Key(usize),
    /// Its value is too long.
    #[error("record {key:?} has {bytes} bytes; at most {RECORD_BYTES_MAX} are kept")]
    Value {
        /// Which one.
        key: String,
        /// How long it is.
        bytes: usize,
    },
    /// More than one commit takes.
    #[error("{0} bytes of records at once are more than the journal's segments hold; set fewer of them")]
    TooLarge(usize),
    /// All of them together.
    #[error("all records together would take {0} bytes; at most {RECORDS_BYTES} are kept")]
    Full(usize),
}

/// Why a queue is not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoveQueueError {
    /// There is none of this name.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its messages would go with it.
    #[error("queue {queue:?} has {messages} messages")]
    NotEmpty {
        /// The queue.
        queue: String,
        /// How many.
        messages: u64,
    },
}

/// What there is none of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// A queue of this name.
    #[error("there is no queue {0:?}")]
    Queue(String),
    /// A subscription of this name.
    #[error("queue {queue:?} has no subscription {name:?}")]
    Subscription {
        /// The queue.
        queue: String,
        /// The name.
        name: String,
    },
}

impl Plan<'_> {
    pub(crate) fn change(&mut self, change: &Change) -> Result<Changed, ChangeError> {
        match change {
            Change::Records(records) => self.set_records(records).map_err(ChangeError::Record),
            Change::RemoveSubscription { queue, name } => {
                let (_, id) = self.lookup(queue, name)?;
                self.planned.needs_sync = true;
                self.push(Operation::RemoveSubscription { id }, 0, false);
                Ok(Changed::Removed(vec![id]))
            }
            Change::RemoveQueue { name, with_messages } => {
                let known = self.queue_named(name)?;
                let id = known.definition.id;
                // Here, because no publish comes between this and the commit.
                if known.live > 0 && !with_messages {
                    return Err(ChangeError::NotEmpty(known.live));
                }
                let subscriptions = self.state.queues[&id].subscriptions.keys().copied().collect();
                self.planned.needs_sync = true;
                self.emptied = Some(id);
                self.push(Operation::RemoveQueue { id }, 0, false);
                Ok(Changed::Removed(subscriptions))
            }
            Change::Pause { queue, name, paused } => {
                let (_, subscription) = self.lookup(queue, name)?;
                let (paused, is) = (*paused, self.state.subscription(subscription).is_some_and(|(_, s)| s.paused));
                if is == paused {
                    return Ok(Changed::Nothing);
                }
                self.planned.needs_sync = true;
                self.push(Operation::Pause { subscription, paused }, 0, false);
                Ok(Changed::Paused(subscription, paused))
            }
            Change::Share { queue, name, mode } => {
                let (queue, subscription) = self.lookup(queue, name)?;
                let (mode, known) = (*mode, &self.state.queues[&queue].subscriptions[&subscription]);
                if known.mode == mode {
                    return Ok(Changed::Nothing);
                }
                let floor = known.settled.floor();
                self.planned.needs_sync = true;
                self.push(Operation::Share { subscription, mode }, 0, false);
                Ok(Changed::Shared(subscription, mode, floor))
            }
            Change::Seek { queue, name, start } => {
                let (queue, subscription) = self.lookup(queue, name)?;
                let floor = start.floor(&self.state.queues[&queue]);
                self.change_queue(queue, Operation::Seek { subscription, floor });
                Ok(Changed::Sought(subscription, floor))
            }
            Change::Purge { queue } => {
                let (queue, below, count) = {
                    let known = self.queue_named(queue)?;
                    (known.definition.id, known.next, known.live)
                };
                self.emptied = Some(queue);
                self.change_queue(queue, Operation::Purge { queue, below });
                Ok(Changed::Purged(count))
            }
        }
    }

    fn set_records(&mut self, records: &[(String, Option<Bytes>)]) -> Result<Changed, RecordError> {
        // The last one of a key counts.
        let mut wanted: BTreeMap<&String, &Option<Bytes>> = BTreeMap::new();
        for (key, value) in records {
            let bytes = value.as_ref().map_or(0, Bytes::len);
            if !(1..=RECORD_KEY_BYTES_MAX).contains(&key.len()) {
                return Err(RecordError::Key(key.len()));
            }
            if bytes > RECORD_BYTES_MAX {
                return Err(RecordError::Value { key: key.clone(), bytes });
            }
            wanted.insert(key, value);
        }
        wanted.retain(|key, value| self.state.records.get(key) != value.as_ref());
        let size = |key: &str, value: Option<&Bytes>| value.map_or(0, |value| Records::size(key, value));
        let added: usize = wanted.iter().map(|(key, value)| size(key, value.as_ref())).sum();
        let gone: usize = wanted.keys().map(|key| size(key, self.state.records.get(key))).sum();
        let all = self.state.records.bytes() + added - gone;
        // What frees room is taken, even where there is too little.
        if all > RECORDS_BYTES && added > gone {
            return Err(RecordError::Full(all));
        }
        let bytes: usize =
            wanted.iter().map(|(key, v)| OPERATION_BYTES + key.len() + v.as_ref().map_or(0, Bytes::len)).sum();
        if bytes > self.bytes_max / 4 * 3 {
            return Err(RecordError::TooLarge(bytes));
        }
        for (key, value) in wanted {
            let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
            self.planned.needs_sync = true;
            self.push(Operation::Record { key: key.clone(), value: value.clone() }, bytes, false);
        }
        Ok(Changed::Records)
    }

    /// In the journal, unless the queue is in memory alone.
    fn change_queue(&mut self, queue: QueueId, operation: Operation) {
        let durability = self.durability(queue);
        // Also of a buffered queue: it is rare.
        self.planned.needs_sync |= durability != Durability::Memory;
        self.push(operation, 0, durability == Durability::Memory);
    }

    fn queue_named(&self, name: &str) -> Result<&Queue, ChangeError> {
        self.state.queue_named(name).ok_or_else(|| ChangeError::Lookup(LookupError::Queue(name.to_owned())))
    }

    fn lookup(&self, queue: &str, name: &str) -> Result<(QueueId, SubscriptionId), ChangeError> {
        let known = self.queue_named(queue)?;
        let unknown = || LookupError::Subscription { queue: queue.to_owned(), name: name.to_owned() };
        let (id, _) = known.subscription_named(name).ok_or_else(|| ChangeError::Lookup(unknown()))?;
        Ok((known.definition.id, id))
    }
}
