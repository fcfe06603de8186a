//! Publishers: messages in, receipts out, any number of them under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use quipu_protocol::code::Code;
use quipu_protocol::{MessageError, proto};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::{Lost, Refusal};
use crate::link::Shared;
use crate::message::{Encoded, OutgoingMessage};
use crate::stream::OpenError;

mod driver;
mod window;

use driver::Driver;

/// Publishes that the task may not have looked at yet.
const COMMANDS_MAX: usize = 1_024;

/// Least that one message counts among the pending bytes: what it costs beside its content, and some more, so that the
/// bytes bound the number of messages too.
const PENDING_BYTES_MIN: usize = 1 << 10;

/// How a publisher works.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// The name of a *named publisher*: 1 to 255 ASCII letters, digits, `-`, `_`, `.` and `:`. Default none.
    ///
    /// The router then knows each message by its place in the order of this publisher: whatever is sent again after a
    /// lost connection is stored once, however long that took, and no ids are made (`ids` means nothing). Opening a
    /// name fences whoever has it: that publisher fails with [`Lost::Fenced`] and does not come back.
    pub name: Option<String>,
    /// Whether messages without an id get one (a UUID, version 7), so that what is sent again after a lost connection
    /// is not stored twice. Without, such messages fail then with [`ReceiptError::Ambiguous`]. Default true.
    pub ids: bool,
    /// Whether a message that the router has no room for now, or that a route asks for later ([`Code::is_full`]), is sent
    /// again, with growing pauses in
    /// which nothing else is sent either, until [`Reconnect::give_up_after`](crate::Reconnect::give_up_after) has
    /// passed; messages that were under way behind it are stored before it then. Default false: its receipt is an
    /// error, with [`ReceiptError::is_retryable`].
    pub retry_refused: bool,
    /// Whether everything behind a message that is refused, whatever for, is refused too ([`Code::Stopped`]), also what
    /// was under way by then, until [`Publisher::resume`]. Default false: those behind it go on.
    ///
    /// That holds over lost connections: what has no receipt is sent again in order, and what is behind a failure that
    /// a receipt told of is refused without being sent. Where a message without an id was under way (`ids: false`, no
    /// name), all that was fails with [`ReceiptError::Ambiguous`], and that is a failure as well. A message that
    /// [`Publisher::publish`] itself refuses is none: whoever publishes knows of it before the next. `retry_refused`
    /// means nothing then.
    pub stop_on_error: bool,
    /// Most bytes of messages without a receipt, each counted with at least 1 KiB; [`Publisher::publish`] waits
    /// beyond. Default 16 MiB, hence at most 16,384 messages. One larger message is let through alone.
    pub pending_bytes_max: usize,
}

/// Publishes messages in order. Cheap; to be used from one task or many.
///
/// Dropping it is [`close`](Self::close) without waiting: what was published is still sent, and receipts still come.
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    options: PublisherOptions,
    payload_bytes_max: usize,
    lost: Arc<OnceLock<Lost>>,
}

/// The receipt of one message: a future. Dropping it does not take the message back.
#[must_use = "a message without a receipt may not be stored"]
#[derive(Debug)]
pub struct PendingReceipt {
    answer: oneshot::Receiver<Result<Receipt, ReceiptError>>,
    lost: Arc<OnceLock<Lost>>,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// In these queues, as durably as they promise.
    Stored(Vec<Position>),
    /// Published before, under the same subject and id; where it went then.
    ///
    /// A message whose id is of this library's making is never that: sent again, it counts as stored. From a named
    /// publisher, and without positions: stored, but the receipt was lost with the connection, and with it the places.
    Duplicate(Vec<Position>),
    /// Taken by inline routes: what they made of it is stored, if anything is. The message itself is in no queue.
    Routed,
}

/// A message's place in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The queue.
    pub queue: String,
    /// 0 is the first message ever appended.
    pub offset: u64,
}

/// Why a message is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It breaks a rule of messages.
    #[error(transparent)]
    Invalid(#[from] MessageError),
    /// The publisher works no more.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why a message has no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The router refuses this message; nothing of it is stored. Those after it go on, but for
    /// [`PublisherOptions::stop_on_error`].
    #[error("the router refuses the message: {0}")]
    Refused(Refusal),
    /// The connection was lost before the receipt, and the message has no id under which it could be sent again: it
    /// may be stored, or not.
    #[error("the connection was lost before the receipt: the message may be stored, or not")]
    Ambiguous,
    /// The publisher works no more. The message may be stored, or not.
    #[error("no receipt: {0}")]
    Lost(#[from] Lost),
}

impl ReceiptError {
    /// The router's code, where it refuses the message and this version knows it.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Ambiguous | Self::Lost(_) => None,
        }
    }

    /// Whether publishing the same message later may do better: nothing of it is stored, and the router says so.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.retryable)
    }
}

enum Command {
    Publish { message: Encoded, waiter: Waiter },
    Resume,
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// Who gets a message's receipt, and the room that the message takes until then.
struct Waiter {
    answer: oneshot::Sender<Result<Receipt, ReceiptError>>,
    room: OwnedSemaphorePermit,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { name: None, ids: true, retry_refused: false, stop_on_error: false, pending_bytes_max: 16 << 20 }
    }
}

impl Publisher {
    pub(crate) async fn open(shared: Arc<Shared>, options: PublisherOptions) -> Result<Self, OpenError> {
        let session = shared.session().await?;
        let (name, stop_on_error) = (options.name.clone().unwrap_or_default(), options.stop_on_error);
        let opening = proto::OpenPublisher { name, epoch: 0, stop_on_error };
        let open = driver::open(&session, &opening, shared.config.open_timeout).await?;
        let payload_bytes_max = session.limits.payload_bytes;
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let lost = Arc::new(OnceLock::new());
        tokio::spawn(Driver::new(shared, receiver, &options, opening).run(open, lost.clone()));
        let room = Arc::new(Semaphore::new(options.pending_bytes_max.clamp(PENDING_BYTES_MIN, u32::MAX as usize)));
        Ok(Self { commands, room, options, payload_bytes_max, lost })
    }

    /// Hands a message over for sending. Waits only while too much is pending.
    ///
    /// Messages are sent in the order in which this was first polled. Cancelling publishes nothing.
    ///
    /// # Errors
    ///
    /// [`PublishError`] where the message breaks a rule, or the publisher works no more.
    pub async fn publish(&self, message: impl Into<OutgoingMessage>) -> Result<PendingReceipt, PublishError> {
        let ids = self.options.ids && self.options.name.is_none();
        let message = message.into().encode(ids, self.payload_bytes_max)?;
        let bytes = (message.header.len() + message.payload.len()).max(PENDING_BYTES_MIN);
        let bytes = u32::try_from(bytes.min(self.options.pending_bytes_max.max(PENDING_BYTES_MIN))).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(bytes).await.map_err(|_| self.reason())?;
        let (answer, receipt) = oneshot::channel();
        let publish = Command::Publish { message, waiter: Waiter { answer, room } };
        self.commands.send(publish).await.map_err(|_| self.reason())?;
        Ok(PendingReceipt { answer: receipt, lost: self.lost.clone() })
    }

    /// Takes up again, with [`PublisherOptions::stop_on_error`], after a failure: with the next message that is
    /// published. Those between the failure and that one stay refused; whoever wants them stored publishes them again.
    ///
    /// It says that failures before that message are known: call it once their receipts are.
    ///
    /// # Errors
    ///
    /// [`Lost`] where the publisher works no more.
    pub async fn resume(&self) -> Result<(), Lost> {
        self.commands.send(Command::Resume).await.map_err(|_| self.reason())
    }

    /// Waits until everything published so far has its receipt, whatever that says.
    ///
    /// # Errors
    ///
    /// [`Lost`] where the publisher works no more.
    pub async fn flush(&self) -> Result<(), Lost> {
        self.ask(Command::Flush).await
    }

    /// Waits until everything published has its receipt, and ends the stream.
    ///
    /// Cancelling goes on with it in the background.
    ///
    /// # Errors
    ///
    /// [`Lost`] where receipts are missing.
    pub async fn close(self) -> Result<(), Lost> {
        self.ask(Command::Close).await
    }

    async fn ask(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) -> Result<(), Lost> {
        let (done, answer) = oneshot::channel();
        self.commands.send(command(done)).await.map_err(|_| self.reason())?;
        answer.await.map_err(|_| self.reason())
    }

    fn reason(&self) -> Lost {
        self.lost.get().cloned().unwrap_or(Lost::Closed)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("options", &self.options).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Future for PendingReceipt {
    type Output = Result<Receipt, ReceiptError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map(|answer| {
            answer.unwrap_or_else(|_| Err(ReceiptError::Lost(self.lost.get().cloned().unwrap_or(Lost::Closed))))
        })
    }
}

impl From<proto::Position> for Position {
    fn from(position: proto::Position) -> Self {
        Self { queue: position.queue, offset: position.offset }
    }
}
