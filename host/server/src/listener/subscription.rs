//! A subscription stream.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quinn::WriteError;
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::limits::{EXTEND_MS_MAX, SETTLE_TOKENS_MAX, TEXT_BYTES_MAX};
use quipu_protocol::{Message, proto};
use quipu_queue::delivery::CREDIT_MAX;
use quipu_queue::{
    Consumer, Delivery, Mode, Notice, NoticeKind, Offset, Outcome, Settle, SettleError, Settlement, Start, Store,
    StoreFailed, SubscribeError, Token, Why,
};
use quipu_router::{TraceLog, What};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::frames::{FrameReader, FrameWriter};
use super::hint;
use crate::access::Client;
use crate::services::Services;

/// Batches of deliveries that wait to be written. Each holds one at least, and credit reaches only so far beyond what is
/// written, so there is always room.
const BATCHES_MAX: usize = CREDIT_MAX as usize;
/// Tokens whose answers are not written; for more of them a client that reads waits a moment.
pub(crate) const UNANSWERED_MAX: usize = 4_096;
/// Bytes of deliveries that wait to be written, whatever the credit; the last one may pass it.
pub(crate) const WINDOW_BYTES: u64 = 4 << 20;
/// Longest name of a subscription.
const NAME_BYTES_MAX: usize = 128;
/// Bytes written at once, near enough.
pub(crate) const WRITE_BYTES: usize = 256 << 10;

/// Messages that are followed and not settled, of one consumer; past that the oldest are forgotten.
const HELD_MAX: usize = 10_000;

/// Outcomes after which a message is as it was.
const REFUSED: &str = "refused";
const EXTENDED: &str = "extended";

/// Notices that wait to be written, beside the deliveries; past that they are left out.
const NOTICES_MAX: usize = 16;

/// What is written.
enum Out {
    Deliver(Vec<Delivery>),
    Notice(proto::Notice),
    /// With the room that its tokens take among those not answered.
    Settled(proto::Settled, OwnedSemaphorePermit),
    End,
    /// The subscription is over.
    Over(proto::Notice),
    Fail(proto::Error),
}

/// What the store says of a subscription.
enum Said {
    Deliver(Vec<Delivery>),
    Notice(proto::Notice),
}

type Answer = oneshot::Receiver<Result<Vec<Result<(), SettleError>>, StoreFailed>>;

pub(super) async fn run(
    subscribe: proto::Subscribe,
    reader: FrameReader,
    mut writer: FrameWriter,
    services: Arc<Services>,
    client: Arc<Client>,
) {
    let mut consuming = match client.consuming(&subscribe.queue) {
        Ok(consuming) => consuming,
        Err(error) => return writer.fail(error).await,
    };
    let Some(_place) = services.consumers.take() else {
        let text = format!("this router takes {} consumers at a time (`limits.consumers`)", services.consumers.max());
        return writer.fail(Code::Busy.error(text)).await;
    };
    let (deliver, deliveries) = mpsc::channel(BATCHES_MAX + NOTICES_MAX);
    let (over, is_over) = oneshot::channel();
    let consumer = match join(&subscribe, &services, (deliver, over)).await {
        Ok(consumer) => consumer,
        Err(error) if error.code == Code::UnknownQueue as u32 => {
            let may_see = |queue: &str| client.may_consume(queue);
            return writer.fail(hint::for_queue(error, &subscribe.queue, &services, may_see).await).await;
        }
        Err(error) => return writer.fail(error).await,
    };
    if writer.send(subscribed(&consumer)).await.is_err() {
        return;
    }
    if consumer.paused && writer.send(notice(NoticeKind::Paused, "the subscription is paused".into())).await.is_err() {
        return;
    }
    let stopped = writer.stopped();
    // Every answer has its room among `UNANSWERED_MAX`, and so there is room here; one more for the end.
    let (out, answers) = mpsc::channel(UNANSWERED_MAX + 1);
    let written = Arc::new(Written::default());
    let traced = Arc::new(Traced {
        trace: services.router.trace(),
        queue: subscribe.queue.clone(),
        subscription: subscribe.subscription.clone(),
        consumer: client.name().into(),
        held: Mutex::default(),
    });
    let writing =
        tokio::spawn(write(writer, Outgoing { answers, deliveries, written: written.clone(), traced: traced.clone() }));
    let (settling, settles) = mpsc::channel(UNANSWERED_MAX);
    let answering = tokio::spawn(answer(settles, out.clone(), traced));
    let room = Arc::new(Semaphore::new(UNANSWERED_MAX));
    let place = (services.store.clone(), subscribe.queue, subscribe.subscription);
    let mut subscription = Subscription { reader, consumer, place, settling, room, written };
    let last = tokio::select! {
        last = subscription.read() => last,
        Ok(notice) = is_over => Some(Out::Over(notice)),
        error = consuming.lost() => Some(Out::Fail(error)),
        // A client that is gone, or stopped reading for good: its deliveries go to the others at once.
        () = stopped => None,
    };
    let Subscription { mut reader, consumer, settling, .. } = subscription;
    // What is not settled goes to the others at once; what is being settled is answered before the end.
    drop((settling, consumer));
    if let Some(Out::Fail(error)) = &last {
        reader.stop(Code::from_number(error.code).unwrap_or(Code::Protocol));
    }
    match last {
        Some(last) => {
            answering.await.ok();
            // Ignored: then the client is gone.
            out.send(last).await.ok();
        }
        None => writing.abort(),
    }
    drop(out);
    writing.await.ok();
}

async fn join(
    subscribe: &proto::Subscribe,
    services: &Services,
    (deliver, over): (mpsc::Sender<Said>, oneshot::Sender<proto::Notice>),
) -> Result<Consumer, proto::Error> {
    let name = &subscribe.subscription;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        let text = format!(
            "invalid subscription name {:?}: 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.` are expected",
            name.chars().take(NAME_BYTES_MAX).collect::<String>()
        );
        return Err(Code::InvalidCall.error(text));
    }
    let (mode, start) = asked(subscribe)?;
    let (tell, mut over) = (deliver.clone(), Some(over));
    let sink = move |batch: Vec<Delivery>| {
        // Ignored: the client is gone, and its consumer leaves in a moment.
        deliver.try_send(Said::Deliver(batch)).ok();
    };
    let notices = move |Notice { kind, text }: Notice| match kind {
        NoticeKind::Deleted => drop(over.take().map(|over| over.send(notice(kind, text)))),
        // In order with the deliveries, and in nobody's place.
        _ if tell.capacity() > BATCHES_MAX => drop(tell.try_send(Said::Notice(notice(kind, text)))),
        _ => {}
    };
    let how = (Some(mode), start);
    let joined = services.store.subscribe_with_notices(&subscribe.queue, name, how, sink, notices).await;
    let consumer = joined.map_err(|e| match e {
        SubscribeError::UnknownQueue(_) => Code::UnknownQueue.error(e.to_string()),
        SubscribeError::Mode { .. } => Code::ModeMismatch.error(e.to_string()),
        SubscribeError::Failed(_) => Code::Unavailable.error(e.to_string()),
    })?;
    consumer.window(WINDOW_BYTES).await.map_err(unavailable)?;
    Ok(consumer)
}

fn notice(kind: NoticeKind, text: String) -> proto::Notice {
    let kind = match kind {
        NoticeKind::Paused => proto::notice::Kind::Paused,
        NoticeKind::Resumed => proto::notice::Kind::Resumed,
        NoticeKind::Moved => proto::notice::Kind::Moved,
        NoticeKind::Deleted => proto::notice::Kind::Deleted,
    };
    proto::Notice { kind: kind.into(), text }
}

/// How the subscription is to be shared, and where it starts.
fn asked(subscribe: &proto::Subscribe) -> Result<(Mode, Start), proto::Error> {
    let mode = match proto::Mode::try_from(subscribe.mode) {
        Ok(proto::Mode::Unspecified | proto::Mode::Shared) => Mode::Shared,
        Ok(proto::Mode::KeyShared) => Mode::KeyShared,
        Ok(proto::Mode::Exclusive) => Mode::Exclusive,
        Err(_) => return Err(Code::Unsupported.error("a mode that this router does not have")),
    };
    let start = match proto::Start::try_from(subscribe.start) {
        Ok(proto::Start::Unspecified | proto::Start::First) => Start::First,
        Ok(proto::Start::New) => Start::New,
        Ok(proto::Start::Offset) => Start::Offset(Offset(subscribe.start_offset)),
        Ok(proto::Start::Time) => Start::Time(subscribe.start_ms),
        Err(_) => return Err(Code::Unsupported.error("a start that this router does not have")),
    };
    Ok((mode, start))
}

fn subscribed(consumer: &Consumer) -> proto::Subscribed {
    let mode = match consumer.mode {
        Mode::Shared => proto::Mode::Shared,
        Mode::KeyShared => proto::Mode::KeyShared,
        Mode::Exclusive => proto::Mode::Exclusive,
    };
    proto::Subscribed {
        created: consumer.created,
        floor: consumer.floor.0,
        credit_max: CREDIT_MAX,
        ack_deadline_ms: consumer.ack_deadline_ms,
        mode: mode.into(),
    }
}

/// What was written to the client: its credit and its window go beyond that, not beyond what waits for it to read.
#[derive(Default)]
struct Written {
    deliveries: AtomicU64,
    /// As the store counts them.
    bytes: AtomicU64,
    /// That half a window was written.
    half: Notify,
}

struct Subscription {
    reader: FrameReader,
    consumer: Consumer,
    /// The queue and the subscription's name.
    place: (Store, String, String),
    settling: mpsc::Sender<Settling>,
    /// For tokens that are not answered.
    room: Arc<Semaphore>,
    written: Arc<Written>,
}

/// A `Settle` that the store has.
struct Settling {
    tokens: Vec<u64>,
    /// Or why it was not even handed over.
    answer: Result<Answer, proto::Error>,
    /// What it comes to, for the trace.
    outcome: &'static str,
    room: OwnedSemaphorePermit,
}

impl Subscription {
    /// Reads until the end; what is to be written last, if the client still listens.
    async fn read(&mut self) -> Option<Out> {
        loop {
            let next = tokio::select! {
                next = self.reader.next() => next,
                () = self.written.half.notified() => {
                    let total = self.written.bytes.load(Ordering::Acquire) + WINDOW_BYTES;
                    match self.consumer.window(total).await {
                        Ok(()) => continue,
                        Err(e) => return Some(Out::Fail(unavailable(e))),
                    }
                }
            };
            let frame = match next {
                Ok(Some(frame)) => frame,
                // FIN without End is as good as a reset.
                Ok(None) => return None,
                Err(e) => return e.to_error().map(Out::Fail),
            };
            match self.take(frame).await {
                Ok(true) => {}
                Ok(false) => return Some(Out::End),
                Err(error) => return Some(Out::Fail(error)),
            }
        }
    }

    /// One frame; false at `End`. An error is for the whole stream.
    async fn take(&mut self, frame: Frame) -> Result<bool, proto::Error> {
        match frame.body {
            Body::Credit(credit) => {
                let most = self.written.deliveries.load(Ordering::Acquire) + u64::from(CREDIT_MAX);
                if credit.messages > most {
                    let text = format!("credit for {} deliveries; at most {CREDIT_MAX} may be ahead", credit.messages);
                    return Err(Code::Credit.error(text));
                }
                self.consumer.credit(credit.messages).await.map_err(unavailable)?;
            }
            Body::Settle(settle) => self.settle(settle).await?,
            Body::Seek(seek) => {
                let (store, queue, name) = &self.place;
                let sought = store.seek(queue, name, Start::Offset(Offset(seek.offset))).await.map_err(unavailable)?;
                // Ignored: then it is deleted, and the client is about to be told.
                sought.ok();
            }
            Body::End(_) => return Ok(false),
            other => {
                let text = format!("{} does not belong on a subscription stream", other.name());
                return Err(Code::Protocol.error(text));
            }
        }
        Ok(true)
    }

    async fn settle(&mut self, settle: proto::Settle) -> Result<(), proto::Error> {
        if settle.tokens.len() > SETTLE_TOKENS_MAX || settle.reason.len() > TEXT_BYTES_MAX {
            let text =
                format!("a Settle takes {SETTLE_TOKENS_MAX} tokens and {TEXT_BYTES_MAX} bytes of reason at most");
            return Err(Code::TooLarge.error(text));
        }
        if settle.tokens.is_empty() {
            return Err(Code::Protocol.error("a Settle without tokens"));
        }
        let settlement = settlement(&settle)?;
        let outcome = settlement.as_ref().map_or(REFUSED, outcome);
        // Answers leave as fast as the client reads them, so one that reads gets its room soon. One that settles without
        // end and never reads must not hold up its other streams.
        let count = u32::try_from(settle.tokens.len()).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(count);
        let full = || Code::Credit.error(format!("{UNANSWERED_MAX} settlements wait for their answers; read Settled"));
        let room =
            tokio::time::timeout(super::FIRST_FRAME_TIMEOUT, room).await.ok().and_then(Result::ok).ok_or_else(full)?;
        let answer = match settlement {
            Ok(settlement) => {
                let item =
                    |token: &u64| Settle { token: Token(*token), settlement: settlement.clone(), outputs: Vec::new() };
                let items = settle.tokens.iter().map(item).collect();
                Ok(self.consumer.submit_settle(items).await.map_err(unavailable)?)
            }
            Err(refused) => Err(refused),
        };
        // Ignored: then nobody is there to be answered.
        self.settling.send(Settling { tokens: settle.tokens, answer, outcome, room }).await.ok();
        Ok(())
    }
}

/// What a verb means, or why those tokens are refused. An error is for the whole stream.
fn settlement(settle: &proto::Settle) -> Result<Result<Settlement, proto::Error>, proto::Error> {
    Ok(Ok(match settle.verb() {
        proto::Verb::Ack => Settlement::Done(Outcome::Acked),
        proto::Verb::AckThrough => Settlement::AckThrough,
        proto::Verb::Nack => Settlement::Nack { delay_ms: (settle.delay_ms > 0).then_some(settle.delay_ms) },
        proto::Verb::Reject => {
            let reason = if settle.reason.is_empty() { "rejected".to_owned() } else { settle.reason.clone() };
            Settlement::DeadLetter { queue: None, reason, headers: Vec::new() }
        }
        proto::Verb::Extend if (1..=EXTEND_MS_MAX).contains(&settle.delay_ms) => {
            Settlement::Extend { by_ms: settle.delay_ms }
        }
        proto::Verb::Extend => {
            let text = format!("an extension takes 1 to {EXTEND_MS_MAX} ms, not {}", settle.delay_ms);
            return Ok(Err(Code::InvalidCall.error(text)));
        }
        proto::Verb::Unspecified => {
            return Err(Code::Protocol.error("a Settle without a verb that this version has"));
        }
    }))
}

fn unavailable(e: StoreFailed) -> proto::Error {
    Code::Unavailable.error(e.to_string())
}

/// Waits for the store's answers, in order.
async fn answer(mut settles: mpsc::Receiver<Settling>, out: mpsc::Sender<Out>, traced: Arc<Traced>) {
    while let Some(Settling { tokens, answer, outcome, room }) = settles.recv().await {
        let settled = settled(tokens, answer).await;
        traced.settled(&settled, outcome);
        if out.send(Out::Settled(settled, room)).await.is_err() {
            return;
        }
    }
}

async fn settled(tokens: Vec<u64>, answer: Result<Answer, proto::Error>) -> proto::Settled {
    let mut settled = proto::Settled::default();
    let answer = match answer {
        Ok(answer) => match answer.await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_) => Err(Code::Unavailable.error("the store has stopped")),
        },
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(results) => {
            for (token, result) in tokens.into_iter().zip(results) {
                match result {
                    Ok(()) => settled.committed.push(token),
                    Err(SettleError::Stale) => settled.stale.push(token),
                    Err(e) => {
                        settled.refused.push(token);
                        settled.error = Some(settle_error(&e));
                    }
                }
            }
        }
        Err(error) => (settled.refused, settled.error) = (tokens, Some(error)),
    }
    settled
}

fn settle_error(error: &SettleError) -> proto::Error {
    let code = match error {
        SettleError::NoDeadLetter(_) => Code::NoDeadLetter,
        SettleError::NoQueue(_) => Code::NoQueue,
        SettleError::NoInbox(_) => Code::NoInbox,
        SettleError::TooLarge(_) => Code::TooLarge,
        SettleError::Full(_) | SettleError::InboxFull(_) => Code::QueueFull,
        SettleError::Stale | SettleError::Behind | SettleError::Unreadable(_) => Code::Internal,
    };
    code.error(error.to_string())
}

/// Where it is told which messages that are followed a consumer has.
struct Traced {
    trace: Arc<TraceLog>,
    queue: String,
    subscription: String,
    /// What the client calls itself.
    consumer: Arc<str>,
    /// Ids of messages that are followed and not settled, by token.
    held: Mutex<BTreeMap<u64, String>>,
}

impl Traced {
    fn delivered(&self, delivery: &Delivery) {
        if self.trace.is_on()
            && let Ok(message) = Message::decode(delivery.stored.header.clone(), Bytes::new())
            && self.trace.follows(&message)
        {
            let (queue, subscription, attempt) = (self.queue.clone(), self.subscription.clone(), delivery.attempt);
            let consumer = Some(self.consumer.as_ref().to_owned());
            self.trace.add(message.id.as_str(), What::Delivered { queue, subscription, consumer, attempt });
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.len() >= HELD_MAX {
                held.pop_first();
            }
            held.insert(delivery.token.0, message.id.as_str().to_owned());
        }
    }

    fn settled(&self, settled: &proto::Settled, outcome: &'static str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_empty() {
            return;
        }
        let outcomes = [(&settled.committed, outcome), (&settled.stale, "stale"), (&settled.refused, REFUSED)];
        for (token, outcome) in outcomes.into_iter().flat_map(|(tokens, said)| tokens.iter().map(move |t| (t, said))) {
            // What is refused may be settled again.
            let stays = [REFUSED, EXTENDED].contains(&outcome);
            let id = if stays { held.get(token).cloned() } else { held.remove(token) };
            if let Some(id) = id {
                let (subscription, outcome) = (self.subscription.clone(), outcome.to_owned());
                self.trace.add(&id, What::Settled { subscription, outcome });
            }
        }
    }
}

/// As it is told.
fn outcome(settlement: &Settlement) -> &'static str {
    match settlement {
        Settlement::Done(Outcome::Acked) | Settlement::AckThrough => "acked",
        Settlement::Done(Outcome::Filtered) => "filtered",
        Settlement::Done(Outcome::Dropped) => "dropped",
        Settlement::Nack { .. } | Settlement::Park { .. } => "nacked",
        Settlement::Later { .. } => "put off",
        Settlement::GiveBack => "given back",
        Settlement::Extend { .. } => EXTENDED,
        Settlement::Done(Outcome::DeadLettered) | Settlement::DeadLetter { .. } => "dead-lettered",
    }
}

/// What waits to be written: answers, which go first and end the stream, and deliveries.
struct Outgoing {
    answers: mpsc::Receiver<Out>,
    deliveries: mpsc::Receiver<Said>,
    traced: Arc<Traced>,
    written: Arc<Written>,
}

impl From<Said> for Out {
    fn from(said: Said) -> Self {
        match said {
            Said::Deliver(batch) => Self::Deliver(batch),
            Said::Notice(notice) => Self::Notice(notice),
        }
    }
}

impl Outgoing {
    async fn next(&mut self) -> Option<Out> {
        tokio::select! {
            biased;
            answer = self.answers.recv() => answer,
            Some(said) = self.deliveries.recv() => Some(said.into()),
        }
    }

    /// What is there already.
    fn ready(&mut self) -> Option<Out> {
        self.answers.try_recv().ok().or_else(|| self.deliveries.try_recv().ok().map(Out::from))
    }
}

async fn write(mut writer: FrameWriter, mut out: Outgoing) {
    match write_all(&mut writer, &mut out).await {
        Ok(Some(error)) => writer.fail(error).await,
        Ok(None) => {
            if writer.send(proto::End {}).await.is_ok() {
                writer.finish();
            }
        }
        // The client is gone.
        Err(_) => {}
    }
}

/// Writes until the last frame; the error that it is, if it is one.
async fn write_all(writer: &mut FrameWriter, out: &mut Outgoing) -> Result<Option<proto::Error>, WriteError> {
    // Put into frames, and told to the reading side.
    let (mut bytes, mut told) = (0, 0);
    while let Some(first) = out.next().await {
        let mut next = Some(first);
        while let Some(said) = next {
            match said {
                Out::Deliver(batch) => {
                    for delivery in batch {
                        out.written.deliveries.fetch_add(1, Ordering::AcqRel);
                        bytes += delivery.stored.size() as u64;
                        out.traced.delivered(&delivery);
                        put_delivery(writer, delivery);
                        if writer.waiting() >= WRITE_BYTES {
                            writer.flush().await?;
                        }
                    }
                }
                Out::Settled(settled, _room) => writer.put(settled),
                Out::Notice(notice) => writer.put(notice),
                Out::Over(notice) => {
                    writer.put(notice);
                    writer.flush().await?;
                    return Ok(None);
                }
                Out::End => {
                    writer.flush().await?;
                    return Ok(None);
                }
                Out::Fail(error) => return Ok(Some(error)),
            }
            next = if writer.waiting() < WRITE_BYTES { out.ready() } else { None };
        }
        writer.flush().await?;
        if bytes - told >= WINDOW_BYTES / 2 {
            told = bytes;
            out.written.bytes.store(bytes, Ordering::Release);
            out.written.half.notify_one();
        }
    }
    Ok(None)
}

fn put_delivery(writer: &mut FrameWriter, delivery: Delivery) {
    let why = match delivery.why {
        Why::First => proto::Why::First,
        Why::Nacked => proto::Why::Nacked,
        Why::Returned => proto::Why::Returned,
        Why::Expired => proto::Why::Expired,
        Why::Crashed => proto::Why::Crashed,
    };
    let payload: Bytes = delivery.stored.payload.clone();
    let deliver = proto::Deliver {
        token: delivery.token.0,
        offset: delivery.offset.0,
        attempt: delivery.attempt,
        why: why.into(),
        message: delivery.stored.header.clone(),
        crashes: delivery.crashes,
    };
    writer.put(Frame::with_payload(deliver, payload));
}
