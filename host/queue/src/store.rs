//! The handle to a store: what the rest of the router calls.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::{CheckpointError, Checkpoints, Frozen, Restored};
use crate::commit::{Commit, Offset, Stored};
use crate::delivery::{ConsumerId, Token, Why};
use crate::journal::segments::RecoverError;
use crate::journal::{JournalConfig, SegmentJournal};
use crate::owner;
use crate::plan::{Plan, PublishError, Published, QueueSettings, Receipt, Settle, SettleError};
use crate::request::{Reply, Request};
use crate::state::{Counts, State};

/// Requests that wait for the owner; past that, senders wait.
const REQUESTS_MAX: usize = 1_024;

/// Where and how a store is kept.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory; made if absent.
    pub path: PathBuf,
    /// Size of the journal. Default 4 segments of 64 MiB.
    pub journal: JournalConfig,
    /// Messages that are also in a checkpoint leave memory past this, in bytes. Default 256 MiB.
    pub memory_bytes: usize,
}

/// An open store. Cloning shares it; it stops when [`Store::stop`] is called or the last clone is gone.
#[derive(Debug, Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    body_bytes_max: usize,
    store_id: [u8; 16],
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
}

/// Why a subscription cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// There is no such queue.
    #[error("there is no queue {0:?}")]
    UnknownQueue(String),
    /// See [`StoreFailed`].
    #[error(transparent)]
    Failed(#[from] StoreFailed),
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
    requests: mpsc::Sender<Request>,
}

/// What a listing says of a queue.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct QueueInfo {
    pub name: String,
    pub subjects: Vec<String>,
    pub durability: &'static str,
    pub retention: &'static str,
    /// Messages that a subscription has not settled.
    pub messages: u64,
    /// Messages ever appended.
    pub next_offset: u64,
    pub attempts_max: u32,
    pub dead_letter: Option<String>,
    pub subscriptions: Vec<SubscriptionInfo>,
}

/// What a listing says of a subscription.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SubscriptionInfo {
    pub name: String,
    pub mode: &'static str,
    pub floor: u64,
    pub consumers: usize,
    pub waiting: u64,
    pub in_flight: u64,
    pub parked: u64,
    #[serde(flatten)]
    pub counts: Counts,
}

impl StoreConfig {
    /// The defaults, in this directory.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), journal: JournalConfig::default(), memory_bytes: 256 << 20 }
    }
}

impl Store {
    /// Opens a store or makes it, replays its journal, and starts its threads. Blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`] names the file and what is wrong.
    pub fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let path = &config.path;
        let io = |at: &Path, source| OpenError::Io { path: at.display().to_string(), source };
        std::fs::create_dir_all(path).map_err(|e| io(path, e))?;
        let lock = lock(path)?;
        let name = || path.display().to_string();
        let state_error = |source| OpenError::State { path: name(), source };
        let checkpoints = Checkpoints::open(&path.join("state.redb")).map_err(state_error)?;
        let restored = checkpoints.restore().map_err(state_error)?;
        let fresh = || Restored { state: State::default(), position: 0, store_id: *uuid::Uuid::new_v4().as_bytes() };
        let Restored { mut state, position, store_id } = restored.unwrap_or_else(fresh);
        let replay = |_: u64, body: &[u8]| {
            let commit: Commit = postcard::from_bytes(body).map_err(|e| e.to_string())?;
            state.apply(commit, &checkpoints).map_err(|e| e.to_string())
        };
        let size = config.journal.sound();
        let (journal, last) = SegmentJournal::open(&path.join("journal"), store_id, size, position, replay)
            .map_err(|source| OpenError::Journal { path: name(), source })?;
        tracing::info!(path = %path.display(), checkpoint = position, replayed = last - position, "store is open");
        // Everything is in this checkpoint, so that the journal starts empty.
        let frozen = Frozen::new(&mut state, last, store_id);
        let begun = frozen.begun();
        checkpoints.write(frozen).map_err(state_error)?;
        begun.done(&mut state);
        File::open(path).and_then(|directory| directory.sync_all()).map_err(|e| io(path, e))?;
        let parts = owner::Parts {
            state,
            sequence: last,
            store_id,
            checkpoints,
            journal: Box::new(journal),
            memory_bytes: config.memory_bytes,
            lock,
        };
        Self::start(parts).map_err(|e| io(path, e))
    }

    pub(crate) fn start(parts: owner::Parts) -> io::Result<Self> {
        let (body_bytes_max, store_id) = (parts.journal.body_bytes_max(), parts.store_id);
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        owner::start(parts, receiver)?;
        Ok(Self { requests, body_bytes_max, store_id })
    }

    /// Makes a queue, or changes one that has this name.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn define_queue(&self, settings: QueueSettings) -> Result<(), StoreFailed> {
        ask(&self.requests, |reply| Request::DefineQueue { settings, reply }).await?
    }

    /// Publishes messages, each by itself: the answer is there when all that was stored is on disk.
    ///
    /// Cancelled, they may or may not be stored.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn publish(&self, messages: Vec<Published>) -> Result<Vec<Result<Receipt, PublishError>>, StoreFailed> {
        answer(self.submit(messages).await?).await?
    }

    /// Hands messages over in order and returns at once; the answer comes through the receiver.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn submit(
        &self,
        messages: Vec<Published>,
    ) -> Result<oneshot::Receiver<Result<Vec<Result<Receipt, PublishError>>, StoreFailed>>, StoreFailed> {
        let (reply, receiver) = oneshot::channel();
        let request = Request::Publish { messages, reply: Reply::Once(reply) };
        self.requests.send(request).await.map_err(|_| stopped())?;
        Ok(receiver)
    }

    /// Reads a queue by a durable subscription, made if it is not there. Nothing is delivered before
    /// [`Consumer::credit`]; `sink` then gets at most as many deliveries as granted, on the store's thread: it must not
    /// block.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`].
    pub async fn subscribe(
        &self,
        queue: &str,
        subscription: &str,
        start: Start,
        sink: impl FnMut(Vec<Delivery>) + Send + 'static,
    ) -> Result<Consumer, SubscribeError> {
        let (queue, subscription) = (queue.to_owned(), subscription.to_owned());
        let sink = Box::new(sink);
        let joined =
            ask(&self.requests, |reply| Request::Subscribe { queue, subscription, start, sink, reply }).await??;
        Ok(Consumer {
            id: joined.consumer,
            created: joined.created,
            floor: joined.floor,
            requests: self.requests.clone(),
        })
    }

    /// What is there, by name.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn queues(&self) -> Result<Vec<QueueInfo>, StoreFailed> {
        ask(&self.requests, |reply| Request::Describe { reply }).await?
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
        Plan::message_bytes_max(self.body_bytes_max - owner::COMMIT_OVERHEAD_BYTES)
    }
}

impl Consumer {
    /// Takes so many deliveries in total since it came, at most [`CREDIT_MAX`](crate::delivery::CREDIT_MAX) ahead.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn credit(&self, total: u64) -> Result<(), StoreFailed> {
        self.requests.send(Request::Credit { consumer: self.id, total }).await.map_err(|_| stopped())
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

    /// Settles deliveries from a thread that may block, and grants credit along; `reply` is called on the store's
    /// thread and must not block.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`]; `reply` is not called then.
    pub fn settle_blocking(
        &self,
        items: Vec<Settle>,
        credit: u64,
        reply: impl FnOnce(Result<Vec<Result<(), SettleError>>, StoreFailed>) + Send + 'static,
    ) -> Result<(), StoreFailed> {
        let (reply, credit) = (Reply::Call(Box::new(reply)), Some(credit));
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

/// Takes the store for this process; the lock goes with the file handle, also when the process is killed.
fn lock(path: &Path) -> Result<File, OpenError> {
    let file = path.join("LOCK");
    let io = |source| OpenError::Io { path: file.display().to_string(), source };
    let handle = File::options().create(true).truncate(false).write(true).open(&file).map_err(io)?;
    match handle.try_lock() {
        Ok(()) => Ok(handle),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(path.display().to_string())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}
