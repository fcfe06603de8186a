//! Subscribers: deliveries in, settlements out.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use quipu_protocol::{Message, proto};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Lost, Refusal};
use crate::link::Shared;
use crate::stream::OpenError;

mod driver;
mod inbox;
mod ledger;

use inbox::Inbox;
use ledger::Verdict;

/// Settlements that the task may not have looked at yet; who settles waits beyond.
const COMMANDS_MAX: usize = 1_024;

/// What to subscribe to, and how.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// The queue.
    pub queue: String,
    /// The subscription, which is made where there is none of this name.
    pub subscription: String,
    /// How its consumers share its messages; fixed when it is made, and refused with [`ModeMismatch`](crate::Code::ModeMismatch) where it
    /// has another. Default [`Mode::Shared`].
    pub mode: Mode,
    /// Where a subscription starts that this makes. Default [`Start::First`].
    pub start: Start,
    /// Deliveries that may wait here to be taken, over and above those that were taken and are not settled. At least
    /// 1, default 256; the router's own limit goes before.
    pub prefetch: u32,
}

/// Where a new subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the oldest message that the queue still has.
    #[default]
    First,
    /// With the next message that the queue gets.
    New,
    /// With the message at this offset; the oldest where that is gone, the next to come where it is not there yet.
    Offset(u64),
    /// With the first message that the queue got at this time or later, in Unix milliseconds.
    Time(u64),
}

/// How the consumers of a subscription share its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Each message goes to whichever has room.
    #[default]
    Shared,
    /// As `Shared`, but messages of one key go to one consumer, in order.
    KeyShared,
    /// All go to the consumer that came first; the others wait for it to go away.
    Exclusive,
}

/// Takes the deliveries of one subscription, together with its other consumers.
///
/// Dropping it is [`close`](Self::close) without waiting.
pub struct Subscriber {
    inbox: Arc<Inbox>,
    commands: mpsc::Sender<Command>,
    done: oneshot::Receiver<Result<(), SubscribeError>>,
}

/// A message to work on and to settle.
///
/// Dropped unsettled, nothing happens until its time to settle is over ([`Subscriber::ack_deadline`]), the subscriber is
/// closed, or its connection lost: then the message goes to whoever is there.
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Its place in the queue; 0 is the first message ever appended.
    pub offset: u64,
    /// 1 the first time.
    pub attempt: u32,
    /// Why it is delivered.
    pub why: Why,
    /// How often the router stopped uncleanly while the message was perhaps in a consumer's hands.
    pub crashes: u32,
    token: u64,
    /// Of the stream it came on; tokens mean nothing on another.
    stream: u64,
    commands: mpsc::Sender<Command>,
}

/// Why a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The first time.
    First,
    /// A consumer gave it back with a nack.
    Nacked,
    /// A consumer went away with it.
    Returned,
    /// A consumer did not settle it in time.
    Expired,
    /// The router stopped uncleanly, and a consumer may have had it.
    Crashed,
    /// For a reason that this version does not know.
    Other,
}

/// What became of a settlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is on disk.
    Committed,
    /// The delivery was not this consumer's any more: its connection was lost, its time over, or it was acked through.
    /// It changed nothing.
    Stale,
}

/// Why there is no subscription (any more).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The router says no.
    #[error("the router refuses the subscription: {0}")]
    Refused(Refusal),
    /// There is no stream, or it was lost before the answer.
    #[error(transparent)]
    Open(OpenError),
    /// The router ended the subscription, as when its queue is deleted.
    #[error("the router ended the subscription: {0}")]
    Ended(String),
    /// The client works no more.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why a settlement has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The router refuses it, as a reject where there is no dead-letter queue. The message is still this consumer's;
    /// once the subscriber is closed it goes to another.
    #[error("the router refuses: {0}")]
    Refused(Refusal),
    /// The delivery is not this consumer's any more, so that it cannot be extended: the message is delivered again, or
    /// was settled.
    #[error("the delivery is not this consumer's any more")]
    Stale,
    /// The stream was lost before the answer: it is settled, or delivered again.
    #[error("the connection was lost before the answer: the message is settled, or delivered again")]
    Unanswered,
    /// The subscriber is closed: the message is delivered again.
    #[error("the subscriber is closed; the message is delivered again")]
    Closed,
}

type Answer = oneshot::Sender<Result<Settled, SettleError>>;

enum Command {
    Settle { stream: u64, token: u64, verdict: Verdict, answer: Option<Answer> },
    Flush(oneshot::Sender<()>),
    Seek(u64),
}

impl Subscribe {
    /// Shared, from the first message, with a prefetch of 256.
    pub fn new(queue: &str, subscription: &str) -> Self {
        let (queue, subscription) = (queue.into(), subscription.into());
        Self { queue, subscription, mode: Mode::Shared, start: Start::First, prefetch: 256 }
    }
}

impl Subscriber {
    pub(crate) async fn open(shared: Arc<Shared>, subscribe: Subscribe) -> Result<Self, SubscribeError> {
        let session = shared.session().await?;
        let opened = driver::open(&session, &subscribe, shared.config.open_timeout).await?;
        let inbox = Arc::new(Inbox::new(opened.ack_deadline()));
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (done, closed) = oneshot::channel();
        let driver = driver::Driver::new(shared, subscribe, inbox.clone(), commands.downgrade(), receiver);
        tokio::spawn(driver.run(opened, done));
        Ok(Self { inbox, commands, done: closed })
    }

    /// The next delivery; nothing after an error, or once closed. Cancel-safe: no delivery is lost.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`], once, where the subscription is over: refused, ended, or no connection to be had.
    pub async fn next(&mut self) -> Option<Result<Delivery, SubscribeError>> {
        std::future::poll_fn(|cx| self.inbox.poll_take(cx)).await
    }

    /// How long each delivery may stay unsettled before the router takes it back, unless it is
    /// [extended](Delivery::extend); none where the queue has no such limit. As of the last time that this subscribed.
    ///
    /// The time runs while a delivery waits here to be taken, too: where work is slow, have a small
    /// [`prefetch`](Subscribe::prefetch).
    pub fn ack_deadline(&self) -> Option<Duration> {
        self.inbox.ack_deadline()
    }

    /// Waits until every settlement handed over so far is answered, whatever the answer.
    ///
    /// # Errors
    ///
    /// [`SettleError::Closed`] where the subscriber works no more.
    pub async fn flush(&self) -> Result<(), SettleError> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Flush(done)).await.map_err(|_| SettleError::Closed)?;
        answer.await.map_err(|_| SettleError::Closed)
    }

    /// Lets the subscription go on at this offset, for all its consumers: back, and messages come again; ahead, and those
    /// between are passed over. What is in hand settles to [`Settled::Stale`] from then on, and deliveries that are on
    /// their way may still come first. Comes back once it is on its way; lost with its connection, nothing is changed.
    ///
    /// # Errors
    ///
    /// [`SubscribeError::Lost`] where the subscriber works no more.
    pub async fn seek(&self, offset: u64) -> Result<(), SubscribeError> {
        self.commands.send(Command::Seek(offset)).await.map_err(|_| Lost::Closed.into())
    }

    /// Sends the outstanding settlements, waits for their answers, and gives back what is not settled.
    ///
    /// Deliveries still in hand cannot be settled any more. Cancelling goes on with it in the background.
    ///
    /// # Errors
    ///
    /// [`SubscribeError`] where the subscriber had come to another end before.
    pub async fn close(mut self) -> Result<(), SubscribeError> {
        self.inbox.close();
        (&mut self.done).await.unwrap_or(Err(Lost::Closed.into()))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

/// As [`Subscriber::next`].
impl Stream for Subscriber {
    type Item = Result<Delivery, SubscribeError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inbox.poll_take(cx)
    }
}

impl Delivery {
    /// Done: the message is this subscription's no more. Waits until that is on disk.
    ///
    /// Cancelled, it may be carried out or not.
    ///
    /// # Errors
    ///
    /// [`SettleError`] where there is no answer.
    pub async fn ack(self) -> Result<Settled, SettleError> {
        self.settle(Verdict::Ack).await
    }

    /// This one is done, and so are all deliveries of an earlier offset that this subscriber has and has not settled.
    /// Waits until that is on disk.
    ///
    /// Settling one of the others later comes to [`Settled::Stale`]; so it does for those that waited to be taken and
    /// are given out after this. Cancelled, it may be carried out or not.
    ///
    /// # Errors
    ///
    /// [`SettleError`] where there is no answer.
    pub async fn ack_through(self) -> Result<Settled, SettleError> {
        self.settle(Verdict::AckThrough).await
    }

    /// Not done yet: from now on, so much time to settle it, 1 ms to 12 h. Of no effect where the queue has no
    /// [deadline](Subscriber::ack_deadline).
    ///
    /// Cancelled, it may be carried out or not.
    ///
    /// # Errors
    ///
    /// [`SettleError::Stale`] where the time was over already or the connection lost, and the message goes to whoever
    /// is there; another where there is no answer, or the time is not within its limits.
    pub async fn extend(&self, time: Duration) -> Result<(), SettleError> {
        let (answer, settled) = oneshot::channel();
        self.hand_over(Verdict::extend(time), Some(answer)).await?;
        match settled.await.unwrap_or(Err(SettleError::Closed))? {
            Settled::Committed => Ok(()),
            Settled::Stale => Err(SettleError::Stale),
        }
    }

    /// Not done: back to the queue, for another attempt after this delay; zero leaves the delay to the queue.
    ///
    /// Cancelled, it may be carried out or not.
    ///
    /// # Errors
    ///
    /// [`SettleError`] where there is no answer.
    pub async fn nack(self, delay: Duration) -> Result<Settled, SettleError> {
        self.settle(Verdict::nack(delay)).await
    }

    /// Never to be done: to the dead-letter queue, with this reason (4 KiB at most are kept).
    ///
    /// Cancelled, it may be carried out or not.
    ///
    /// # Errors
    ///
    /// [`SettleError`] where there is no answer, or no dead-letter queue.
    pub async fn reject(self, reason: &str) -> Result<Settled, SettleError> {
        self.settle(Verdict::reject(reason)).await
    }

    /// As [`ack`](Self::ack), but does not wait for the answer; [`Subscriber::flush`] waits for all of them.
    ///
    /// Waits only while too many settlements are outstanding. Cancelled, nothing is settled.
    ///
    /// # Errors
    ///
    /// [`SettleError::Closed`] where the subscriber works no more.
    pub async fn ack_later(self) -> Result<(), SettleError> {
        self.hand_over(Verdict::Ack, None).await
    }

    /// As [`nack`](Self::nack), but does not wait for the answer.
    ///
    /// Waits only while too many settlements are outstanding. Cancelled, nothing is settled.
    ///
    /// # Errors
    ///
    /// [`SettleError::Closed`] where the subscriber works no more.
    pub async fn nack_later(self, delay: Duration) -> Result<(), SettleError> {
        self.hand_over(Verdict::nack(delay), None).await
    }

    /// As [`reject`](Self::reject), but does not wait for the answer.
    ///
    /// Waits only while too many settlements are outstanding. Cancelled, nothing is settled.
    ///
    /// # Errors
    ///
    /// [`SettleError::Closed`] where the subscriber works no more.
    pub async fn reject_later(self, reason: &str) -> Result<(), SettleError> {
        self.hand_over(Verdict::reject(reason), None).await
    }

    async fn settle(self, verdict: Verdict) -> Result<Settled, SettleError> {
        let (answer, settled) = oneshot::channel();
        self.hand_over(verdict, Some(answer)).await?;
        settled.await.unwrap_or(Err(SettleError::Closed))
    }

    async fn hand_over(&self, verdict: Verdict, answer: Option<Answer>) -> Result<(), SettleError> {
        let settle = Command::Settle { stream: self.stream, token: self.token, verdict, answer };
        self.commands.send(settle).await.map_err(|_| SettleError::Closed)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("offset", &self.offset)
            .field("attempt", &self.attempt)
            .field("why", &self.why)
            .field("crashes", &self.crashes)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").finish_non_exhaustive()
    }
}

impl From<proto::Why> for Why {
    fn from(why: proto::Why) -> Self {
        match why {
            proto::Why::Unspecified | proto::Why::First => Self::First,
            proto::Why::Nacked => Self::Nacked,
            proto::Why::Returned => Self::Returned,
            proto::Why::Expired => Self::Expired,
            proto::Why::Crashed => Self::Crashed,
        }
    }
}

impl From<Mode> for proto::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Shared => Self::Shared,
            Mode::KeyShared => Self::KeyShared,
            Mode::Exclusive => Self::Exclusive,
        }
    }
}
