//! What operators ask of a store: records, and queues and subscriptions that are made, removed, paused, sought and purged.
//! Each is durable when it is answered.

use bytes::Bytes;

use super::{Start, Store, StoreFailed, SubscribeError, ask};
use crate::commit::{Mode, Offset};
use crate::plan::{Change, ChangeError, Changed, LookupError, RecordError, RemoveQueueError};
use crate::request::{Request, Subscribe};

impl Store {
    /// Sets small facts of the router, all or nothing; none as a value removes one.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`RecordError`].
    pub async fn set_records(
        &self,
        records: Vec<(String, Option<Bytes>)>,
    ) -> Result<Result<(), RecordError>, StoreFailed> {
        Ok(match self.change(Change::Records(records)).await? {
            Err(ChangeError::Record(why)) => Err(why),
            _ => Ok(()),
        })
    }

    /// The records whose keys begin so, sorted by key.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn records(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, StoreFailed> {
        let prefix = prefix.to_owned();
        ask(&self.requests, |reply| Request::Records { prefix, reply }).await?
    }

    /// Makes a subscription without a consumer; whether it was not there. `mode`: none takes it as it is, and makes a
    /// shared one.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`].
    pub async fn define_subscription(
        &self,
        queue: &str,
        name: &str,
        mode: Option<Mode>,
        start: Start,
    ) -> Result<bool, SubscribeError> {
        let subscribe = Subscribe::new(queue, name, mode, start);
        ask(&self.requests, |reply| Request::DefineSubscription { subscribe, reply }).await?
    }

    /// Removes a subscription; its consumers are told. What only it still needed goes, but the last one of a work queue
    /// leaves what it had not settled to whoever comes next.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`LookupError`].
    pub async fn remove_subscription(&self, queue: &str, name: &str) -> Result<Result<(), LookupError>, StoreFailed> {
        let (queue, name) = (queue.to_owned(), name.to_owned());
        Ok(looked_up(self.change(Change::RemoveSubscription { queue, name }).await?).map(drop))
    }

    /// Removes a queue with its messages and subscriptions; its consumers are told.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`LookupError`].
    pub async fn remove_queue(&self, name: &str) -> Result<Result<(), LookupError>, StoreFailed> {
        let change = Change::RemoveQueue { name: name.to_owned(), with_messages: true };
        Ok(looked_up(self.change(change).await?).map(drop))
    }

    /// As [`remove_queue`](Self::remove_queue), but only where the queue has no messages: none that was acknowledged
    /// before is lost.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`RemoveQueueError`].
    pub async fn remove_empty_queue(&self, name: &str) -> Result<Result<(), RemoveQueueError>, StoreFailed> {
        let queue = name.to_owned();
        let change = Change::RemoveQueue { name: queue.clone(), with_messages: false };
        Ok(match self.change(change).await? {
            Err(ChangeError::NotEmpty(messages)) => Err(RemoveQueueError::NotEmpty { queue, messages }),
            changed => looked_up(changed).map(drop).map_err(RemoveQueueError::from),
        })
    }

    /// Lets a subscription stand still or go on; its consumers are told. What is in flight may be settled meanwhile. It
    /// stays so over restarts.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`LookupError`].
    pub async fn set_paused(
        &self,
        queue: &str,
        name: &str,
        paused: bool,
    ) -> Result<Result<(), LookupError>, StoreFailed> {
        let (queue, name) = (queue.to_owned(), name.to_owned());
        Ok(looked_up(self.change(Change::Pause { queue, name, paused }).await?).map(drop))
    }

    /// Has the consumers of a subscription share it in another way; they are told. What they have in hand is stale, and
    /// comes again. Whoever subscribes from now on must ask for it so.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`LookupError`].
    pub async fn set_mode(&self, queue: &str, name: &str, mode: Mode) -> Result<Result<(), LookupError>, StoreFailed> {
        let (queue, name) = (queue.to_owned(), name.to_owned());
        Ok(looked_up(self.change(Change::Share { queue, name, mode }).await?).map(drop))
    }

    /// Lets a subscription go on elsewhere: at the offset that this answers with. What it has in hand is stale, and failed
    /// attempts are forgotten. On a work queue, what all subscriptions had settled does not come again.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`LookupError`].
    pub async fn seek(
        &self,
        queue: &str,
        name: &str,
        start: Start,
    ) -> Result<Result<Offset, LookupError>, StoreFailed> {
        let (queue, name) = (queue.to_owned(), name.to_owned());
        Ok(looked_up(self.change(Change::Seek { queue, name, start }).await?).map(|changed| match changed {
            Changed::Sought(_, floor) => floor,
            _ => Offset(0),
        }))
    }

    /// Lets go of all messages of a queue, settled or not; how many there were.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`LookupError`].
    pub async fn purge(&self, queue: &str) -> Result<Result<u64, LookupError>, StoreFailed> {
        let queue = queue.to_owned();
        Ok(looked_up(self.change(Change::Purge { queue }).await?).map(|changed| match changed {
            Changed::Purged(count) => count,
            _ => 0,
        }))
    }

    async fn change(&self, change: Change) -> Result<Result<Changed, ChangeError>, StoreFailed> {
        ask(&self.requests, |reply| Request::Change { change, reply }).await?
    }
}

/// Records, and queues that are to be empty, are the only things to fail otherwise.
fn looked_up(changed: Result<Changed, ChangeError>) -> Result<Changed, LookupError> {
    match changed {
        Ok(changed) => Ok(changed),
        Err(ChangeError::Lookup(why)) => Err(why),
        Err(ChangeError::Record(why)) => Err(LookupError::Queue(why.to_string())),
        Err(ChangeError::NotEmpty(messages)) => Err(LookupError::Queue(format!("with {messages} messages"))),
    }
}
