//! Queues and subscriptions that are made or changed.

use quipu_protocol::Subject;

use super::{Plan, QueueSettings};
use crate::commit::{Durability, Mode, Offset, Operation, QueueDefinition, QueueId, SubscriptionId};
use crate::state::Queue;
use crate::store::Start;

/// Why a queue cannot become what it is to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefineQueueError {
    /// Its durability.
    #[error("queue {0:?}: a queue in memory alone cannot become a durable one, nor the other way round; {ANOTHER}")]
    Memory(String),
    /// Its retention.
    #[error("queue {0:?}: a log cannot become a work queue, nor the other way round; {ANOTHER}")]
    Retention(String),
}

const ANOTHER: &str = "give the new one another name";

impl Start {
    /// The first offset that it means in a queue.
    pub(super) fn floor(self, queue: &Queue) -> Offset {
        match self {
            Self::New => queue.next,
            Self::First => queue.floor(),
            Self::Offset(offset) => offset.clamp(queue.floor(), queue.next),
            Self::Time(ms) => queue.known_before(ms).clamp(queue.floor(), queue.next),
        }
    }
}

impl Plan<'_> {
    /// Makes a queue or changes it. Nothing where it is so already.
    pub(crate) fn define_queue(&mut self, settings: &QueueSettings) -> Result<(), DefineQueueError> {
        let name = settings.name.as_str();
        let stored = self.state.queue_named(name).map(|queue| &queue.definition);
        match self.definitions.get(name).or(stored) {
            Some(known) => {
                let definition = settings.define(known.id);
                let in_memory = |d: &QueueDefinition| d.durability == Durability::Memory;
                if in_memory(&definition) != in_memory(known) {
                    return Err(DefineQueueError::Memory(name.to_owned()));
                }
                if definition.retention.as_str() != known.retention.as_str() {
                    return Err(DefineQueueError::Retention(name.to_owned()));
                }
                if definition != *known {
                    self.define(definition);
                }
            }
            None => drop(self.make_queue(settings)),
        }
        Ok(())
    }

    /// The subscription of a queue, made where it is not there; none where there is no such queue.
    pub(crate) fn subscribe(
        &mut self,
        queue: &str,
        name: &str,
        mode: Mode,
        start: Start,
    ) -> Option<(QueueId, SubscriptionId)> {
        let queue = *self.state.names.get(queue)?;
        let known = self.state.queues.get(&queue)?.subscription_named(name);
        let id = known.map(|(id, _)| id).unwrap_or_else(|| self.define_subscription(queue, name, mode, start));
        self.joins = true;
        Some((queue, id))
    }

    fn define_subscription(&mut self, queue: QueueId, name: &str, mode: Mode, start: Start) -> SubscriptionId {
        if let Some(made) = self.subscriptions_made.get(&(queue, name.to_owned())) {
            return *made;
        }
        let made = u32::try_from(self.subscriptions_made.len()).unwrap_or(u32::MAX);
        let id = SubscriptionId(self.state.subscription_next.saturating_add(made));
        let floor = self.state.queues.get(&queue).map_or(Offset(0), |known| start.floor(known));
        self.subscriptions_made.insert((queue, name.to_owned()), id);
        let operation = Operation::DefineSubscription { id, queue, name: name.to_owned(), mode, floor };
        self.planned.needs_sync = true;
        self.push(operation, name.len(), false);
        id
    }

    pub(super) fn queue_for_dead_letters(&mut self, name: Subject) -> QueueId {
        let defined = self.definitions.get(name.as_str()).map(|definition| definition.id);
        let known = defined.or_else(|| self.state.names.get(name.as_str()).copied());
        known.unwrap_or_else(|| self.make_queue(&QueueSettings::for_dead_letters(name)))
    }

    fn make_queue(&mut self, settings: &QueueSettings) -> QueueId {
        let id = QueueId(self.state.queue_next.saturating_add(self.queues_made));
        self.queues_made += 1;
        self.define(settings.define(id));
        id
    }

    fn define(&mut self, definition: QueueDefinition) {
        let subjects: usize = definition.subjects.iter().map(|subject| subject.as_str().len() + 8).sum();
        let bytes = 128 + 2 * definition.name.len() + subjects + 16 * definition.backoff_ms.len();
        self.definitions.insert(definition.name.clone(), definition.clone());
        self.planned.needs_sync = true;
        self.push(Operation::DefineQueue(definition), bytes, false);
    }
}
