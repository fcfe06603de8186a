//! Looking at messages without consuming them.

use std::sync::Arc;

use quipu_protocol::{Message, MessageId, Subject};

use super::{Store, StoreFailed, ask};
use crate::checkpoint::{CheckpointError, Checkpoints};
use crate::commit::{DedupKey, Offset, QueueId, Stored};
use crate::request::Request;

/// Messages that one look takes at most.
pub const PEEK_MESSAGES_MAX: usize = 1_000;
/// Their bytes at most, but for the last one, near enough.
pub const PEEK_BYTES_MAX: u64 = 16 << 20;
/// Messages looked at in one go while one is searched for, and their bytes.
const FIND_PAGE: (usize, u64) = (256, 4 << 20);
/// Messages that a search finds at most.
const FOUND_MAX: usize = 64;

/// Messages of one queue, by offset.
type Messages = Vec<(Offset, Arc<Stored>)>;

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageFrom {
    /// Ascending from here on.
    At(Offset),
    /// Descending from the one before this.
    Before(Offset),
}

/// Messages of one queue; those that memory no longer holds are to be read.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) queue: QueueId,
    pub(crate) messages: Vec<(Offset, Option<Arc<Stored>>)>,
    /// Where the next page begins, if there is one.
    pub(crate) more: Option<PageFrom>,
    pub(crate) checkpoints: Checkpoints,
}

/// Why a queue cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// There is no such queue.
    #[error("there is no queue {0:?}")]
    UnknownQueue(String),
    /// A message cannot be read.
    #[error("message {offset} of queue {queue:?} cannot be read: {why}")]
    Unreadable {
        /// The queue.
        queue: String,
        /// Which message.
        offset: Offset,
        /// What is wrong.
        why: String,
    },
}

/// What a search found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Queue, offset and message, the newest of each queue first.
    pub messages: Vec<(Arc<str>, Offset, Arc<Stored>)>,
    /// Messages that were looked at.
    pub looked: u64,
    /// Whether that were all.
    pub done: bool,
}

impl Store {
    /// Whether messages with these ids were published already, and where they went: nowhere, perhaps, where an inline
    /// route took one. None for one that would be stored.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn known(
        &self,
        ids: Vec<(Subject, MessageId)>,
    ) -> Result<Vec<Option<Vec<(Arc<str>, Offset)>>>, StoreFailed> {
        let ids = ids.iter().map(|(subject, id)| DedupKey::new(subject.as_str(), id.as_str())).collect();
        ask(&self.requests, |reply| Request::Known { ids, reply }).await?
    }

    /// Messages of a queue that are still there, from an offset on: so many, [`PEEK_MESSAGES_MAX`] and
    /// [`PEEK_BYTES_MAX`] at most, and one at least where there is one. One that goes meanwhile is left out.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`PeekError`].
    pub async fn peek(
        &self,
        queue: &str,
        from: Offset,
        messages_max: usize,
        bytes_max: u64,
    ) -> Result<Result<Vec<(Offset, Arc<Stored>)>, PeekError>, StoreFailed> {
        let most = (messages_max.min(PEEK_MESSAGES_MAX), bytes_max.min(PEEK_BYTES_MAX));
        self.look(queue, PageFrom::At(from), most).await
    }

    /// The last messages of a queue that are still there, ascending; as many and as large as for [`Self::peek`].
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`PeekError`].
    pub async fn peek_last(
        &self,
        queue: &str,
        messages_max: usize,
    ) -> Result<Result<Vec<(Offset, Arc<Stored>)>, PeekError>, StoreFailed> {
        self.peek_before(queue, Offset(u64::MAX), messages_max, PEEK_BYTES_MAX).await
    }

    /// The last messages of a queue before this offset that are still there, ascending; as many and as large as for
    /// [`Self::peek`].
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`PeekError`].
    pub async fn peek_before(
        &self,
        queue: &str,
        before: Offset,
        messages_max: usize,
        bytes_max: u64,
    ) -> Result<Result<Vec<(Offset, Arc<Stored>)>, PeekError>, StoreFailed> {
        let most = (messages_max.min(PEEK_MESSAGES_MAX), bytes_max.min(PEEK_BYTES_MAX));
        let last = self.look(queue, PageFrom::Before(before), most).await?;
        Ok(last.map(|mut messages| {
            messages.reverse();
            messages
        }))
    }

    /// Looks for messages with an id in all queues, the newest first, at so many in all. One that cannot be read is
    /// passed over.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn find(&self, id: &str, look_max: u64) -> Result<Found, StoreFailed> {
        let mut found = Found::default();
        let queues = self.info().await?.queues.into_iter();
        let mut left: Vec<(Arc<str>, PageFrom)> =
            queues.map(|queue| (queue.name.into(), PageFrom::Before(Offset(u64::MAX)))).collect();
        while !left.is_empty() && found.looked < look_max && found.messages.len() < FOUND_MAX {
            let mut more = Vec::new();
            for (queue, from) in left {
                let most = look_max.saturating_sub(found.looked).min(FIND_PAGE.0 as u64);
                let Ok(most @ 1..) = usize::try_from(most) else {
                    more.push((queue, from));
                    continue;
                };
                let Some(page) = self.page(&queue, from, (most, FIND_PAGE.1)).await? else { continue };
                found.looked += page.messages.len() as u64;
                more.extend(page.more.map(|from| (queue.clone(), from)));
                let wanted = id.to_owned();
                let here = blocking(move || page.with_id(&wanted)).await?;
                found.messages.extend(here.into_iter().map(|(offset, stored)| (queue.clone(), offset, stored)));
            }
            left = more;
        }
        found.done = left.is_empty();
        found.messages.truncate(FOUND_MAX);
        Ok(found)
    }

    async fn look(
        &self,
        queue: &str,
        from: PageFrom,
        most: (usize, u64),
    ) -> Result<Result<Messages, PeekError>, StoreFailed> {
        let Some(page) = self.page(queue, from, most).await? else {
            return Ok(Err(PeekError::UnknownQueue(queue.to_owned())));
        };
        let read = blocking(move || page.read()).await?;
        let queue = queue.to_owned();
        Ok(read.map_err(|(offset, why)| PeekError::Unreadable { queue, offset, why }))
    }

    async fn page(&self, queue: &str, from: PageFrom, most: (usize, u64)) -> Result<Option<Page>, StoreFailed> {
        let queue = queue.to_owned();
        ask(&self.requests, |reply| Request::Page { queue, from, most, reply }).await?
    }
}

impl Page {
    fn read(self) -> Result<Messages, (Offset, String)> {
        let Self { queue, messages, checkpoints, .. } = self;
        let read = |(offset, stored): (Offset, Option<Arc<Stored>>)| match stored {
            Some(stored) => Some(Ok((offset, stored))),
            None => match checkpoints.read_message(queue, offset) {
                Ok(stored) => Some(Ok((offset, stored))),
                // It went meanwhile.
                Err(CheckpointError::Missing { .. }) => None,
                Err(e) => Some(Err((offset, e.to_string()))),
            },
        };
        messages.into_iter().filter_map(read).collect()
    }

    fn with_id(self, id: &str) -> Messages {
        let Self { queue, messages, checkpoints, .. } = self;
        let read = |(offset, stored): (Offset, Option<Arc<Stored>>)| {
            let stored = stored.or_else(|| checkpoints.read_message(queue, offset).ok())?;
            Some((offset, stored))
        };
        let has_id = |stored: &Stored| {
            let message = Message::decode(stored.header.clone(), stored.payload.clone());
            message.is_ok_and(|message| message.id.as_str() == id)
        };
        messages.into_iter().filter_map(read).filter(|(_, stored)| has_id(stored)).collect()
    }
}

/// Reads from the disk, where that may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreFailed> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreFailed(e.to_string().into()))
}
