//! What becomes of an operator's change: who hears of it, and what is over with it.

use super::ask::{Ask, Item};
use super::world::World;
use crate::commit::{Commit, Operation, SubscriptionId};
use crate::plan::{Change, ChangeError, Changed, SettleError};
use crate::request::{ChangeAnswer, SettleResults};
use crate::store::{Notice, NoticeKind, SubscribeError};

impl World {
    pub(super) fn told(&mut self, consumer: u64, notice: &Notice) {
        self.note(|| format!("consumer {consumer} is told {notice:?}"));
        assert!(self.consumers.contains_key(&consumer), "consumer {consumer} is gone, and is told {notice:?}");
        if notice.kind == NoticeKind::Deleted {
            self.hit("consumers whose subscription is removed");
            self.consumers.remove(&consumer);
        }
    }

    pub(super) fn subscription_defined(&mut self, ask: u64, answer: &Result<bool, SubscribeError>) {
        assert!(self.asks.remove(&ask).is_some(), "answered twice");
        if *answer == Ok(true) {
            self.is_positive();
            self.promised = self.promised.max(self.defined_in);
            self.hit("subscriptions without consumers");
        }
    }

    pub(super) fn changed(&mut self, ask: u64, answer: ChangeAnswer) {
        let Some(Ask::Change(change)) = self.asks.remove(&ask) else { panic!("answered twice") };
        let Ok(answer) = answer else { return };
        self.note(|| format!("answer {ask}: {answer:?}"));
        match answer {
            Err(ChangeError::Record(why)) => panic!("records are not set: {why}"),
            Err(ChangeError::NotEmpty(messages)) => {
                let is_meant = matches!(change, Change::RemoveQueue { with_messages: false, .. });
                assert!(is_meant && messages > 0, "{change:?}: {messages} messages");
                self.hit("queues that are not removed with their messages");
            }
            // Also where it was there and went with a commit before.
            Err(ChangeError::Lookup(_)) => assert!(!self.is_there(&change), "{change:?}: what it is about is there"),
            Ok(changed) => {
                self.is_positive();
                self.promised = self.promised.max(self.changed_in);
                self.take_change(&change, &changed);
            }
        }
    }

    fn is_there(&self, change: &Change) -> bool {
        match change {
            Change::Records(_) => true,
            Change::RemoveQueue { name: queue, .. } | Change::Purge { queue } => self.model.named(queue).is_some(),
            Change::RemoveSubscription { queue, name }
            | Change::Pause { queue, name, .. }
            | Change::Share { queue, name, .. }
            | Change::Seek { queue, name, .. } => {
                let queue = self.model.named(queue);
                queue.is_some_and(|(_, queue)| queue.readers.values().any(|reader| reader.name == *name))
            }
        }
    }

    fn take_change(&mut self, change: &Change, changed: &Changed) {
        match changed {
            Changed::Nothing | Changed::Records => {}
            Changed::Shared(id, ..) => {
                self.hit("subscriptions whose mode is changed");
                self.fence(*id);
            }
            Changed::Paused(..) => self.hit("subscriptions that are paused or go on"),
            Changed::Purged(_) => self.hit("queues that are purged"),
            Changed::Sought(id, _) => {
                self.hit("subscriptions that are sought");
                self.fence(*id);
            }
            Changed::Removed(ids) => {
                if let Change::RemoveQueue { .. } = change {
                    self.hit("queues that are removed");
                }
                ids.iter().for_each(|id| self.fence(*id));
                let left = self.consumers.values().filter_map(|consumer| consumer.subscription);
                assert!(left.filter(|id| ids.contains(id)).count() == 0, "a consumer was not told");
            }
        }
    }

    /// But for logs that are trimmed.
    pub(super) fn check_alone(&self, commit: &Commit) {
        let others = commit.operations.iter().filter(|operation| !matches!(operation, Operation::Trim { .. }));
        assert_eq!(others.count(), 1, "a change beside others");
    }

    /// Subscriptions are removed, sought or shared out otherwise. What is answered from here on was asked before.
    pub(super) fn observe_end(&mut self, operation: &Operation) {
        let ids: Vec<SubscriptionId> = match operation {
            Operation::RemoveQueue { id } => {
                let queue = &self.model.queues[id];
                self.removed.insert(queue.definition.name.clone());
                queue.readers.keys().copied().collect()
            }
            Operation::RemoveSubscription { id }
            | Operation::Seek { subscription: id, .. }
            | Operation::Share { subscription: id, .. } => vec![*id],
            _ => Vec::new(),
        };
        let is_meant = |ask: &Ask| matches!(ask, Ask::Settle { subscription, .. } if ids.contains(subscription));
        self.fenced.extend(self.asks.iter().filter(|(_, ask)| is_meant(ask)).map(|(ask, _)| *ask));
    }

    /// What is in hand is stale, and all begins anew.
    fn fence(&mut self, id: SubscriptionId) {
        self.flights.remove(&id);
        self.begun.retain(|(of, _)| *of != id);
        self.gone.retain(|(of, _)| *of != id);
        self.not_before.retain(|(of, _), _| *of != id);
        let is_meant = |ask: &Ask| matches!(ask, Ask::Settle { subscription, .. } if *subscription == id);
        self.fenced.extend(self.asks.iter().filter(|(_, ask)| is_meant(ask)).map(|(ask, _)| *ask));
    }

    /// The answer to a request that was not all planned when its subscription was changed in such a way.
    pub(super) fn settled_before(&mut self, items: &[Item], results: &SettleResults) {
        assert_eq!(items.len(), results.len());
        for (item, result) in items.iter().zip(results) {
            if *result == Err(SettleError::Stale) {
                self.hit("settlements that a change made stale");
            }
            let there = item.outputs.iter().any(|id| self.model.stored.contains_key(id));
            assert!(result.is_ok() || !there, "an output of a settlement that was refused is there");
        }
    }
}
