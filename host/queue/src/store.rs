//! The handle to a store: what the rest of the router calls.

mod change;
mod look;
pub(crate) mod open;
mod parts;
mod publisher;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quipu_protocol::Subject;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::CheckpointError;
use crate::commit::{Mode, Offset, Stored};
use crate::delivery::{ConsumerId, Token, Why};
use crate::inbox::Inbox;
use crate::journal::{JournalConfig, RecoverError};
use crate::plan::{
    DefineQueueError, Plan, PublishError, Published, QueueSettings, Receipt, Redrive, Redriven, Settle, SettleError,
};
use crate::request::{Credit, Reply, Request, Sink, Source, Subscribe};

pub use look::{Found, PEEK_BYTES_MAX, PEEK_MESSAGES_MAX, PeekError};
pub(crate) use look::{Page, PageFrom};
pub use parts::{QueueInfo, StoreInfo, SubscriptionInfo};
pub use publisher::{OpenPublisherError, Publisher};

/// Requests that wait for the owner; past that, senders wait.
const REQUESTS_MAX: usize = 1_024;
/// What the names of routes' subscriptions begin with. These have no deadline.
pub const ROUTE_PREFIX: &str = "route:";

/// Where and how a store is kept.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory; made if absent.
    pub path: PathBuf,
    /// Size of the journal. Default 4 segments of 32 MiB.
    pub journal: JournalConfig,
    /// Messages that are also in a checkpoint leave memory past this, in bytes. Default 64 MiB.
    pub memory_bytes: usize,
    /// Publishes are refused while the disk has less room than this, in bytes. Default 64 MiB.
    pub disk_reserve_bytes: u64,
}

/// An open store. Cloning shares it; it stops when [`Store::stop`] is called or the last clone is gone.
#[derive(Debug, Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    body_bytes_max: usize,
    store_id: [u8; 16],
    sources: Arc<AtomicU64>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it.
    #[error("store {path}: {source}")]
    Io {
        /// Which one.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another router has it.
    #[error("store {0} is in use by another quipu process; stop it, or give this one another `store.path`")]
    Locked(String),
    /// The state file.
    #[error("store {path}: {source}")]
    State {
        /// The directory.
        path: String,
        /// What is wrong.
        source: CheckpointError,
    },
    /// The journal.
    #[error("store {path}: {source}")]
    Journal {
        /// The directory.
        path: String,
        /// What is wrong.
        source: RecoverError,
    },
}

/// The store has failed or stopped; what was asked for may or may not be durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store takes nothing more: {0}")]
pub struct StoreFailed(pub Arc<str>);

/// Where a new subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the first message that is still there.
    #[default]
    First,
    /// With the next one published.
    New,
    /// With this one, or the first that is still there after it.
    Offset(Offset),
    /// With the first one stored at this time, in Unix milliseconds, or a little before. Of queues that are no logs, with
    /// the first one.
    Time(u64),
}

/// Why a subscription cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// There is no such queue.
    #[error("there is no queue {0:?}")]
    UnknownQueue(String),
    /// It is there, with another mode.
    #[error("subscription {name:?} of queue {queue:?} is {mode}, and stays so until that is changed")]
    Mode {
        /// Whose.
        queue: String,
        /// Which one.
        name: String,
        /// What it is.
        mode: &'static str,
    },
    /// See [`StoreFailed`].
    #[error(transparent)]
    Failed(#[from] StoreFailed),
}

/// What became of a consumer's subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What happened.
    pub kind: NoticeKind,
    /// The same, for people.
    pub text: String,
}

/// What happens to a subscription while it has consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// Nothing is delivered until it is resumed. What is in hand may be settled.
    Paused,
    /// It goes on.
    Resumed,
    /// It goes on elsewhere. What is in hand is stale.
    Moved,
    /// It is removed, or its queue. What is in hand is stale, and the consumer gets nothing more.
    Deleted,
}

/// A message in a consumer's hands.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Settles it.
    pub token: Token,
    /// Its place in the queue.
    pub offset: Offset,
    /// 1 on the first try.
    pub attempt: u32,
    /// Unclean stops of the router while it was perhaps in hand.
    pub crashes: u32,
    /// Why it is delivered.
    pub why: Why,
    /// The message.
    pub stored: Arc<Stored>,
}

/// A reader of a subscription. Dropping it gives back what it has in flight.
#[derive(Debug)]
pub struct Consumer {
    id: ConsumerId,
    /// Whether the subscription was made for it.
    pub created: bool,
    /// Everything before was settled when it came.
    pub floor: Offset,
    /// How the subscription is shared.
    pub mode: Mode,
    /// Milliseconds to settle a delivery; 0: for ever.
    pub ack_deadline_ms: u64,
    /// Whether the subscription stood still when it came.
    pub paused: bool,
    requests: mpsc::Sender<Request>,
}

impl StoreConfig {
    /// The defaults, in this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            journal: JournalConfig::default(),
            memory_bytes: 64 << 20,
            disk_reserve_bytes: 64 << 20,
        }
    }
}

impl Store {
    /// Makes a queue, or changes one that has this name.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; within, [`DefineQueueError`] where it cannot become that.
    pub async fn define_queue(&self, settings: QueueSettings) -> Result<Result<(), DefineQueueError>, StoreFailed> {
        ask(&self.requests, |reply| Request::DefineQueue { settings, reply }).await?
    }

    /// A publisher: what it hands over stays in order, also where it has to wait for a full queue.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(self.requests.clone(), self.source(), None)
    }

    /// A named publisher. Epoch 0 begins its next run; another goes on with that run after a lost connection, and takes
    /// it from whoever had it.
    ///
    /// # Errors
    ///
    /// [`OpenPublisherError`].
    pub async fn named_publisher(&self, name: &str, epoch: u64) -> Result<Publisher, OpenPublisherError> {
        publisher::open(self.requests.clone(), self.source(), name, epoch).await
    }

    /// Publishes messages, each by itself: the answer is there when all that was stored is on disk.
    ///
    /// Cancelled, they may or may not be stored.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn publish(&self, messages: Vec<Published>) -> Result<Vec<Result<Receipt, PublishError>>, StoreFailed> {
        answer(self.publisher().submit(messages).await?).await?
    }

    /// Reads a queue by a durable subscription, made if it is not there. Nothing is delivered before
    /// [`Consumer::credit`]; `sink` then gets at most as many deliveries as granted, on the store's thread: it must not
    /// block. `mode`: none takes the subscription as it is, and makes a shared one.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`].
    pub async fn subscribe(
        &self,
        queue: &str,
        subscription: &str,
        mode: Option<Mode>,
        start: Start,
        sink: impl FnMut(Vec<Delivery>) + Send + 'static,
    ) -> Result<Consumer, SubscribeError> {
        self.subscribe_with_notices(queue, subscription, (mode, start), sink, drop).await
    }

    /// As [`Self::subscribe`]; `notices` is told what becomes of the subscription once that is durable, on the store's
    /// thread: it must not block either.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`].
    pub async fn subscribe_with_notices(
        &self,
        queue: &str,
        subscription: &str,
        (mode, start): (Option<Mode>, Start),
        sink: impl FnMut(Vec<Delivery>) + Send + 'static,
        notices: impl FnMut(Notice) + Send + 'static,
    ) -> Result<Consumer, SubscribeError> {
        let subscribe = Subscribe::new(queue, subscription, mode, start);
        let sink = Sink { deliver: Box::new(sink), notice: Box::new(notices) };
        let joined = ask(&self.requests, |reply| Request::Subscribe { subscribe, sink, reply }).await??;
        Ok(Consumer {
            id: joined.consumer,
            created: joined.created,
            floor: joined.floor,
            mode: joined.mode,
            ack_deadline_ms: joined.ack_deadline_ms,
            paused: joined.paused,
            requests: self.requests.clone(),
        })
    }

    /// Opens the inbox of this subject, which must be one ([`Subject::is_inbox`]) and nobody else's: it takes so many
    /// replies, of messages that are published there and of outputs, and refuses those that come after. Nothing of it is
    /// durable. At most 64 replies and a mebibyte of them wait to be read, and 64 MiB in all inboxes together; past that
    /// who replies is told to try later.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn inbox(&self, subject: Subject, most: u32) -> Result<Inbox, StoreFailed> {
        let of = subject.clone();
        let replies = ask(&self.requests, |reply| Request::OpenInbox { subject: of, most, reply }).await??;
        Ok(Inbox::new(subject, replies, self.requests.clone()))
    }

    /// What is there, by name, and how the store is. Also of a store that has failed.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`] where it is stopped.
    pub async fn info(&self) -> Result<StoreInfo, StoreFailed> {
        ask(&self.requests, |reply| Request::Describe { reply }).await?
    }

    /// Moves dead letters back to where they died, as far as one commit goes; none where there is no such queue.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn redrive(&self, redrive: Redrive) -> Result<Option<Redriven>, StoreFailed> {
        ask(&self.requests, |reply| Request::Redrive { redrive, reply }).await?
    }

    /// Writes everything to the state file and gives the room of what is gone back to the file system. Messages that
    /// are not in memory wait meanwhile.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn compact(&self) -> Result<(), StoreFailed> {
        ask(&self.requests, |reply| Request::Checkpoint { shrink: true, reply }).await?.map(drop)
    }

    /// Copies the store into a directory that is not there yet, while everything goes on: all that was answered before
    /// this was called is in the copy. It opens like any store.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; a copy that failed is removed.
    pub async fn backup(&self, to: PathBuf) -> Result<(), BackupError> {
        let checkpoints = ask(&self.requests, |reply| Request::Checkpoint { shrink: false, reply }).await??;
        let copied = tokio::task::spawn_blocking(move || crate::backup::copy(&checkpoints, &to)).await;
        copied.unwrap_or_else(|e| Err(BackupError::Copy(e.to_string())))
    }

    /// A secret of this store for one purpose, the same after every restart. Derived with BLAKE3's key derivation.
    pub fn secret(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.store_id)
    }

    /// Finishes what is under way, writes a checkpoint and closes the files. Later requests fail.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`] where the last checkpoint could not be written; nothing is lost then, the journal has it.
    pub async fn stop(&self) -> Result<(), StoreFailed> {
        ask(&self.requests, |reply| Request::Stop { reply }).await?
    }

    /// The largest message that the journal takes, in bytes as of [`Published::size`]: half a segment, so that a commit
    /// has room for it whatever else is in there.
    pub fn message_bytes_max(&self) -> usize {
        Plan::message_bytes_max(self.body_bytes_max - crate::engine::COMMIT_OVERHEAD_BYTES)
    }

    fn source(&self) -> Source {
        Source { id: self.sources.fetch_add(1, Ordering::Relaxed), named: None, stops: false }
    }
}

/// Why a store could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// See [`StoreFailed`].
    #[error(transparent)]
    Failed(#[from] StoreFailed),
    /// The copy cannot be written, or the state not read.
    #[error("backup: {0}")]
    Copy(String),
}

impl Consumer {
    /// Takes so many deliveries in total since it came, at most [`CREDIT_MAX`](crate::delivery::CREDIT_MAX) ahead.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn credit(&self, total: u64) -> Result<(), StoreFailed> {
        let credit = Credit { messages: Some(total), bytes: None };
        self.requests.send(Request::Credit { consumer: self.id, credit }).await.map_err(|_| stopped())
    }

    /// Takes so many bytes in total since it came; without end where this is never called. The last delivery may go past
    /// it.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn window(&self, total: u64) -> Result<(), StoreFailed> {
        let credit = Credit { messages: None, bytes: Some(total) };
        self.requests.send(Request::Credit { consumer: self.id, credit }).await.map_err(|_| stopped())
    }

    /// Settles deliveries, each by itself, in order; answered when that is on disk.
    ///
    /// Cancelled, they may or may not be settled.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn settle(&self, items: Vec<Settle>) -> Result<Vec<Result<(), SettleError>>, StoreFailed> {
        ask(&self.requests, |reply| Request::Settle { consumer: self.id, items, credit: None, reply }).await?
    }

    /// Hands settlements over in order and returns at once; the answer comes through the receiver.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn submit_settle(
        &self,
        items: Vec<Settle>,
    ) -> Result<oneshot::Receiver<Result<Vec<Result<(), SettleError>>, StoreFailed>>, StoreFailed> {
        let (reply, receiver) = oneshot::channel();
        let request = Request::Settle { consumer: self.id, items, credit: None, reply: Reply::Once(reply) };
        self.requests.send(request).await.map_err(|_| stopped())?;
        Ok(receiver)
    }

    /// Settles deliveries from a thread that may block, and grants messages and bytes in total along; `reply` is called on the store's
    /// thread and must not block.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; `reply` is not called then.
    pub fn settle_blocking(
        &self,
        items: Vec<Settle>,
        (messages, bytes): (u64, u64),
        reply: impl FnOnce(Result<Vec<Result<(), SettleError>>, StoreFailed>) + Send + 'static,
    ) -> Result<(), StoreFailed> {
        let credit = Some(Credit { messages: Some(messages), bytes: Some(bytes) });
        let reply = Reply::Call(Box::new(reply));
        let request = Request::Settle { consumer: self.id, items, credit, reply };
        self.requests.blocking_send(request).map_err(|_| stopped())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let request = Request::Leave { consumer: self.id };
        if let Err(mpsc::error::TrySendError::Full(request)) = self.requests.try_send(request) {
            let requests = self.requests.clone();
            // Its deliveries must go back to the others, so this waits for room, where waiting hurts nobody.
            std::thread::spawn(move || requests.blocking_send(request).ok());
        }
    }
}

async fn ask<T>(requests: &mpsc::Sender<Request>, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, StoreFailed> {
    let (reply, receiver) = oneshot::channel();
    requests.send(request(Reply::Once(reply))).await.map_err(|_| stopped())?;
    answer(receiver).await
}

async fn answer<T>(receiver: oneshot::Receiver<T>) -> Result<T, StoreFailed> {
    receiver.await.map_err(|_| stopped())
}

fn stopped() -> StoreFailed {
    StoreFailed("it is stopped".into())
}
