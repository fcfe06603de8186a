//! A publisher stream.
//!
//! The reading side never stops reading: what a client may have under way is bounded by credit, not by the stream, so
//! that a client whose publishers stand still can still settle. Receipts leave by a task of their own; credit comes with
//! them, so that who publishes into a full queue that blocks gets none until there is room.

mod names;
mod receipts;
mod stage;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::frame::Body;
use quipu_protocol::{Message, MessageId, PublisherName, Subject, proto};
use quipu_queue::{OpenPublisherError, PublishError, Receipt, StoreFailed};
use quipu_router::TraceLog;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::frames::{FrameReader, FrameWriter, Incoming, ReadFrameError};
use super::ingest::{Room, Share};
use crate::access::{Client, Publishing};
use crate::services::Services;
use names::Named;
pub(crate) use names::Names;
use receipts::Told;
use stage::{Admitted, Ready, Stage};

/// Messages that a publisher may have under way.
pub(crate) const WINDOW_MESSAGES: u64 = 1_024;
/// Messages handed to the store at once.
const BATCH_MESSAGES: usize = 256;
/// Bytes handed to the store at once, near enough.
const BATCH_BYTES: u64 = 1 << 20;

type Answer = oneshot::Receiver<Result<Vec<Result<Receipt, PublishError>>, StoreFailed>>;
type Results = Option<Result<Vec<Result<Receipt, PublishError>>, StoreFailed>>;

/// What the receipts' task is told.
enum Said {
    Batch(Batch),
    End,
    Fail(proto::Error),
}

/// Messages that were handed to the store together.
#[derive(Default)]
struct Batch {
    first: u64,
    bytes: u64,
    /// One for each message, in order: whether it went to the store.
    taken: Vec<Result<(), proto::Error>>,
    /// Where inline routes look at them first.
    staged: Option<oneshot::Receiver<Admitted>>,
    answer: Option<Answer>,
    /// What they take until they are answered.
    room: Option<Room>,
    /// Those of `taken` that are followed: which ones, ids and subjects.
    followed: Vec<(usize, MessageId, Subject)>,
    /// Of a publisher that stops at a failure: which of `taken` take up again.
    resumes: Vec<usize>,
}

/// What the publisher may send in total, by what was answered so far.
struct Granted {
    messages: AtomicU64,
    bytes: AtomicU64,
    share: Share,
}

pub(super) async fn run(
    open: proto::OpenPublisher,
    reader: FrameReader,
    mut writer: FrameWriter,
    services: Arc<Services>,
    client: Arc<Client>,
) {
    let publishing = match client.publishing() {
        Ok(publishing) => publishing,
        Err(error) => return writer.fail(error).await,
    };
    let Some(_place) = services.publishers.take() else {
        let text =
            format!("this router takes {} publishers at a time (`limits.publishers`)", services.publishers.max());
        return writer.fail(Code::Busy.error(text)).await;
    };
    let (source, named) = match open_source(&open, &services).await {
        Ok(opened) => opened,
        Err(error) => return writer.fail(error).await,
    };
    let share = services.ingest.join();
    let granted = Arc::new(Granted { messages: AtomicU64::new(0), bytes: AtomicU64::new(0), share });
    let credit = Some(granted.raise(0, 0));
    let (last_sequence, epoch) = (source.last_sequence, source.epoch);
    if writer.send(proto::Opened { last_sequence, credit, epoch }).await.is_err() {
        return;
    }
    // Every batch holds at least one message, so the window bounds how many can wait.
    let capacity = usize::try_from(WINDOW_MESSAGES).unwrap_or(usize::MAX) + 2;
    let (sender, receiver) = mpsc::channel(capacity);
    let stopped = writer.stopped();
    let told = Told { trace: services.router.trace(), publisher: open.name.clone() };
    let mut receipts = tokio::spawn(receipts::write(writer, receiver, granted.clone(), told));
    let is_named = named.is_some();
    let fenced = named.as_ref().map_or_else(CancellationToken::new, |named| named.fenced.clone());
    let stage = Stage::new(&services, source, (is_named, open.stop_on_error));
    let trace = services.router.trace();
    let mut publisher = Publisher {
        reader,
        services,
        publishing,
        stage,
        is_named,
        trace,
        granted,
        sequence: last_sequence,
        messages: 0,
        bytes: 0,
    };
    tokio::select! {
        listens = publisher.read(sender.clone()) => if !listens {
            // A client that reset its side may leave the other one open and unread for ever.
            receipts.abort();
        },
        // A client that takes no receipts does not publish either.
        () = stopped => receipts.abort(),
        () = fenced.cancelled() => {
            publisher.reader.stop(Code::Fenced);
            let text = format!("publisher {:?} was opened again elsewhere, and this one is over", open.name);
            // Ignored: then it has said why the stream is over.
            sender.send(Said::Fail(Code::Fenced.error(text))).await.ok();
        },
        // It has said why the stream is over.
        _ = &mut receipts => return publisher.reader.stop(Code::Fenced),
    }
    drop(sender);
    // Ignored: that task does not panic, and one that is cancelled has nobody to write to.
    receipts.await.ok();
}

/// The source of the messages and, with a name, the place that a later one of this name takes over.
async fn open_source(
    open: &proto::OpenPublisher,
    services: &Services,
) -> Result<(quipu_queue::Publisher, Option<Named>), proto::Error> {
    if open.name.is_empty() {
        return match open.epoch {
            0 => Ok((services.store.publisher(), None)),
            _ => Err(Code::InvalidCall.error("an epoch is a named publisher's; without a name it is 0")),
        };
    }
    let name = PublisherName::new(&open.name).map_err(|e| Code::InvalidCall.error(e.to_string()))?;
    let opened = services.names.open(name.as_str(), services.store.named_publisher(name.as_str(), open.epoch)).await;
    let (source, named) = opened.map_err(|e| match e {
        OpenPublisherError::Fenced(_) => Code::Fenced.error(e.to_string()),
        OpenPublisherError::TooMany => Code::Busy.error(e.to_string()),
        OpenPublisherError::Failed(_) => Code::Unavailable.error(e.to_string()),
    })?;
    Ok((source, Some(named)))
}

struct Publisher {
    reader: FrameReader,
    services: Arc<Services>,
    publishing: Publishing,
    /// The way to the store.
    stage: Stage,
    is_named: bool,
    trace: Arc<TraceLog>,
    granted: Arc<Granted>,
    /// Of the last message that came.
    sequence: u64,
    messages: u64,
    bytes: u64,
}

impl Publisher {
    /// Reads until the end, which it says last; whether the client still listens.
    async fn read(&mut self, said: mpsc::Sender<Said>) -> bool {
        let last = loop {
            match self.read_batch().await {
                Ok((batch, end)) => {
                    if let Some(batch) = batch
                        && said.send(Said::Batch(batch)).await.is_err()
                    {
                        self.reader.stop(Code::Internal);
                        return false;
                    }
                    if end {
                        break Said::End;
                    }
                }
                Err(Some(error)) => {
                    self.reader.stop(Code::from_number(error.code).unwrap_or(Code::Protocol));
                    break Said::Fail(error);
                }
                // Reset or lost: nobody is there to be told.
                Err(None) => return false,
            }
        };
        // Fails where the receipts' task has ended, and with it the stream.
        said.send(last).await.is_ok()
    }

    /// Takes what is there, at least one frame; also whether that was the end.
    async fn read_batch(&mut self) -> Result<(Option<Batch>, bool), Option<proto::Error>> {
        let read = |e: ReadFrameError| e.to_error();
        let mut next = self.reader.incoming().await.map_err(read)?;
        let mut batch = Batch::default();
        let mut messages = Vec::new();
        let mut failed = None;
        let end = loop {
            let Some(incoming) = next else { break true };
            match self.take(incoming, &mut batch) {
                Ok(Some(ready)) => batch.taken.push(self.stage.keep(ready).map(|ready| messages.push(ready))),
                Ok(None) => break true,
                Err(error) => {
                    failed = Some(error);
                    break true;
                }
            }
            if batch.taken.len() >= BATCH_MESSAGES || batch.bytes >= BATCH_BYTES {
                break false;
            }
            match self.reader.buffered() {
                Ok(Some(frame)) => next = Some(frame),
                Ok(None) => break false,
                Err(e) => {
                    failed = e.to_error();
                    break true;
                }
            }
        };
        if !messages.is_empty() {
            self.stage.submit(messages, &mut batch).await;
        }
        match failed {
            // What came before the error is stored; its receipts are lost with the stream.
            Some(error) => Err(Some(error)),
            None => Ok(((!batch.taken.is_empty()).then_some(batch), end)),
        }
    }

    /// One frame: a message, or why it is refused; none at `End`. An error is for the whole stream.
    fn take(
        &mut self,
        incoming: Incoming,
        batch: &mut Batch,
    ) -> Result<Option<Result<Ready, proto::Error>>, proto::Error> {
        let overloaded =
            || Code::Overloaded.error("publishers send more than the router can take in; publish it later");
        let (frame, length, room) = match incoming {
            Incoming::Frame(frame, length, room) => (frame, length, room),
            Incoming::Refused(sequence, length) => {
                // Only the first of a named publisher may be any.
                let first_of_named = self.is_named && self.messages == 0;
                let next = if first_of_named { None } else { Some(self.sequence + 1) };
                self.begin(sequence.or(next).ok_or_else(overloaded)?, length, batch)?;
                return Ok(Some(Err(overloaded())));
            }
        };
        let publish = match frame.body {
            Body::Publish(publish) => publish,
            Body::End(_) => return Ok(None),
            other => {
                return Err(Code::Protocol.error(format!("{} does not belong on a publisher stream", other.name())));
            }
        };
        self.begin(publish.sequence, length, batch)?;
        match &mut batch.room {
            Some(all) => all.add(room),
            none => *none = Some(room),
        }
        if publish.resume {
            batch.resumes.push(batch.taken.len());
        }
        Ok(Some(self.message(&publish, frame.payload, batch)))
    }

    /// A `Publish` came: counts it where it may.
    fn begin(&mut self, sequence: u64, length: u64, batch: &mut Batch) -> Result<(), proto::Error> {
        let may_be_any = self.is_named && self.messages == 0;
        if sequence == 0 || (sequence != self.sequence + 1 && !may_be_any) {
            let text = format!("sequence {sequence} where {} is next", self.sequence + 1);
            return Err(Code::Protocol.error(text));
        }
        if !self.granted.allows(self.messages, self.bytes) {
            return Err(Code::Credit.error(format!("publish {sequence} is beyond the credit; wait for Credit")));
        }
        if batch.taken.is_empty() {
            batch.first = sequence;
        }
        batch.bytes += length;
        self.sequence = sequence;
        self.messages += 1;
        self.bytes += length;
        Ok(())
    }

    /// The message, or why it is refused.
    fn message(&mut self, publish: &proto::Publish, payload: Bytes, batch: &mut Batch) -> Result<Ready, proto::Error> {
        let most = self.services.limits.message_bytes;
        let (message, has_id) = read_message(&publish.message, payload, &mut self.publishing, most)?;
        if self.trace.follows(&message) {
            batch.followed.push((batch.taken.len(), message.id.clone(), message.subject.clone()));
        }
        self.stage.ready(message, has_id, publish.sequence)
    }
}

/// A message that a client may publish, and whether it gave it an id; or why it may not.
pub(super) fn read_message(
    header: &Bytes,
    payload: Bytes,
    publishing: &mut Publishing,
    bytes_max: usize,
) -> Result<(Message, bool), proto::Error> {
    let assigned = || MessageId::new(&uuid::Uuid::now_v7().simple().to_string()).expect("hex digits are an id");
    let decoded = Message::decode_published(header, payload, quipu_queue::now_ms(), assigned);
    let (message, has_id) = decoded.map_err(|e| Code::InvalidMessage.error(e.to_string()))?;
    if message.subject.is_internal() && !message.subject.is_inbox() {
        let text = format!("subject `{}`: subjects that begin with `$` are the router's own", message.subject);
        return Err(Code::InvalidMessage.error(text));
    }
    publishing.check(&message.subject)?;
    if let Some(property) = not_offered(&message) {
        return Err(Code::Unsupported.error(format!("{property} is not offered by this router")));
    }
    if message.payload.len() > bytes_max {
        let bytes = message.payload.len();
        let text = format!("a payload of {bytes} bytes; this router takes {bytes_max} (`limits.message`)");
        return Err(Code::TooLarge.error(text));
    }
    Ok((message, has_id))
}

/// Publishes one message that no stream is for, as a publisher without a name would. It takes `room` until it is
/// answered, also where nobody waits for that any more.
pub(super) async fn publish_one(services: &Services, message: Message, has_id: bool, room: Room) -> proto::Result {
    let trace = services.router.trace();
    let followed = trace.follows(&message).then(|| (message.id.clone(), message.subject.clone()));
    let mut stage = Stage::new(services, services.store.publisher(), (false, false));
    let mut batch = Batch::default();
    (batch.first, batch.room) = (1, Some(room));
    let mut messages = Vec::new();
    batch.taken.push(stage.ready(message, has_id, 1).map(|ready| messages.push(ready)));
    if !messages.is_empty() {
        stage.submit(messages, &mut batch).await;
    }
    let result = batch.result().await;
    if let Some((id, subject)) = followed {
        Told { trace, publisher: String::new() }.published(id.as_str(), subject.as_str(), &result);
    }
    result
}

/// A property that this router would not act upon: refused, since taking it in silence would break its promise.
fn not_offered(message: &Message) -> Option<&'static str> {
    let asked = [
        ("deliver_at_ms", message.deliver_at_ms.is_some()),
        ("expires_ms", message.expires_ms.is_some()),
        ("priority", message.priority > 0),
    ];
    asked.into_iter().find_map(|(property, asked)| asked.then_some(property))
}

impl Granted {
    fn allows(&self, messages: u64, bytes: u64) -> bool {
        messages < self.messages.load(Ordering::Acquire) && bytes < self.bytes.load(Ordering::Acquire)
    }

    /// Grants a window beyond what was answered. Totals never go down, also where the publisher's share does.
    fn raise(&self, messages: u64, bytes: u64) -> proto::Credit {
        let credit = proto::Credit { messages: messages + WINDOW_MESSAGES, bytes: bytes + self.share.bytes() };
        proto::Credit {
            messages: self.messages.fetch_max(credit.messages, Ordering::AcqRel).max(credit.messages),
            bytes: self.bytes.fetch_max(credit.bytes, Ordering::AcqRel).max(credit.bytes),
        }
    }
}
