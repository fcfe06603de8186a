//! A publisher stream.
//!
//! The reading side never stops reading: what a client may have under way is bounded by credit, not by the stream, so
//! that a client whose publishers stand still can still settle. Receipts leave by a task of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;
use quinn::WriteError;
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::limits::{FRAME_ELEMENTS_MAX, RECEIPT_RESULTS_MAX};
use quipu_protocol::{Message, MessageId, proto};
use quipu_queue::{PublishError, Published, Receipt, StoreFailed};
use tokio::sync::{mpsc, oneshot};

use super::frames::{FrameReader, FrameWriter, ReadFrameError};
use crate::services::Services;

/// Messages that a publisher may have under way.
const WINDOW_MESSAGES: u64 = 1_024;
/// Bytes that a publisher may have under way; the message that passes the mark may be larger.
const WINDOW_BYTES: u64 = 4 << 20;
/// Messages handed to the store at once.
const BATCH_MESSAGES: usize = 256;
/// Bytes handed to the store at once, near enough.
const BATCH_BYTES: u64 = 1 << 20;
/// Bytes of receipts written at once, near enough.
const WRITE_BYTES: usize = 64 << 10;

/// Bytes of results in one receipt, near enough: a frame's header holds more.
const RECEIPT_BYTES: usize = 256 << 10;
/// Elements in one receipt, with room for its own fields.
const RECEIPT_ELEMENTS: usize = FRAME_ELEMENTS_MAX - 16;

type Answer = oneshot::Receiver<Result<Vec<Result<Receipt, PublishError>>, StoreFailed>>;
type Results = Option<Result<Vec<Result<Receipt, PublishError>>, StoreFailed>>;

/// What the receipts' task is told.
enum Said {
    Batch(Batch),
    End,
    Fail(proto::Error),
}

/// Messages that were handed to the store together.
struct Batch {
    first: u64,
    bytes: u64,
    /// One for each message, in order: whether it went to the store.
    taken: Vec<Result<(), proto::Error>>,
    answer: Option<Answer>,
}

/// What the publisher may send in total, by what was answered so far.
#[derive(Default)]
struct Granted {
    messages: AtomicU64,
    bytes: AtomicU64,
}

pub(super) async fn run(
    open: proto::OpenPublisher,
    reader: FrameReader,
    mut writer: FrameWriter,
    services: Arc<Services>,
) {
    if !open.name.is_empty() || open.epoch != 0 {
        let text = "named publishers are not offered by this router; leave name and epoch empty";
        return writer.fail(Code::Unsupported.error(text)).await;
    }
    let granted = Arc::new(Granted::default());
    let credit = granted.raise(0, 0);
    if writer.send(proto::Opened { last_sequence: 0, credit: Some(credit) }).await.is_err() {
        return;
    }
    // Every batch holds at least one message, so the window bounds how many can wait.
    let capacity = usize::try_from(WINDOW_MESSAGES).unwrap_or(usize::MAX) + 2;
    let (sender, receiver) = mpsc::channel(capacity);
    let stopped = writer.stopped();
    let receipts = tokio::spawn(write_receipts(writer, receiver, granted.clone()));
    let publisher = Publisher { reader, services, granted, sequence: 0, messages: 0, bytes: 0 };
    tokio::select! {
        listens = publisher.read(sender) => if !listens {
            // A client that reset its side may leave the other one open and unread for ever.
            receipts.abort();
        },
        // A client that takes no receipts does not publish either.
        () = stopped => receipts.abort(),
    }
    // Ignored: that task does not panic, and one that is cancelled has nobody to write to.
    receipts.await.ok();
}

struct Publisher {
    reader: FrameReader,
    services: Arc<Services>,
    granted: Arc<Granted>,
    sequence: u64,
    messages: u64,
    bytes: u64,
}

impl Publisher {
    /// Reads until the end, which it says last; whether the client still listens.
    async fn read(mut self, said: mpsc::Sender<Said>) -> bool {
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
        let mut next = self.reader.next().await.map_err(read)?;
        let mut batch = Batch { first: self.sequence + 1, bytes: 0, taken: Vec::new(), answer: None };
        let mut messages = Vec::new();
        let mut failed = None;
        let end = loop {
            let Some((frame, length)) = next else { break true };
            match self.take(frame, length) {
                Ok(Some(published)) => {
                    batch.bytes += length;
                    batch.taken.push(published.map(|published| messages.push(published)));
                }
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
            // An error here is the same as an answer that never comes.
            batch.answer = self.services.store.submit(messages).await.ok();
        }
        match failed {
            // What came before the error is stored; its receipts are lost with the stream.
            Some(error) => Err(Some(error)),
            None => Ok(((!batch.taken.is_empty()).then_some(batch), end)),
        }
    }

    /// One frame: a message, or why it is refused; none at `End`. An error is for the whole stream.
    fn take(&mut self, frame: Frame, length: u64) -> Result<Option<Result<Published, proto::Error>>, proto::Error> {
        let publish = match frame.body {
            Body::Publish(publish) => publish,
            Body::End(_) => return Ok(None),
            other => {
                return Err(Code::Protocol.error(format!("{} does not belong on a publisher stream", other.name())));
            }
        };
        if publish.sequence != self.sequence + 1 {
            let text = format!("sequence {} where {} is next", publish.sequence, self.sequence + 1);
            return Err(Code::Protocol.error(text));
        }
        if !self.granted.allows(self.messages, self.bytes) {
            let text = format!("publish {} is beyond the credit; wait for Credit", publish.sequence);
            return Err(Code::Credit.error(text));
        }
        self.sequence += 1;
        self.messages += 1;
        self.bytes += length;
        let assigned = || MessageId::new(&uuid::Uuid::now_v7().simple().to_string()).expect("hex digits are an id");
        let decoded = Message::decode_published(&publish.message, frame.payload, now_ms(), assigned);
        let refused = |code: Code, text: String| Ok(Some(Err(code.error(text))));
        let (message, dedup) = match decoded {
            Ok(decoded) => decoded,
            Err(e) => return refused(Code::InvalidMessage, e.to_string()),
        };
        if message.subject.is_internal() {
            let text = format!("subject `{}`: subjects that begin with `$` are the router's own", message.subject);
            return refused(Code::InvalidMessage, text);
        }
        if let Some(property) = not_offered(&message) {
            return refused(Code::Unsupported, format!("{property} is not offered by this router"));
        }
        let published = Published::new(&message, dedup);
        let most = self.services.store.message_bytes_max();
        if published.size() > most {
            let text = format!("a message of {} bytes; this router's journal takes {most}", published.size());
            return refused(Code::TooLarge, text);
        }
        Ok(Some(Ok(published)))
    }
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

    /// Grants a window beyond what was answered.
    fn raise(&self, messages: u64, bytes: u64) -> proto::Credit {
        let credit = proto::Credit { messages: messages + WINDOW_MESSAGES, bytes: bytes + WINDOW_BYTES };
        self.messages.store(credit.messages, Ordering::Release);
        self.bytes.store(credit.bytes, Ordering::Release);
        credit
    }
}

async fn write_receipts(mut writer: FrameWriter, mut said: mpsc::Receiver<Said>, granted: Arc<Granted>) {
    match receipts(&mut writer, &mut said, &granted).await {
        Ok(Some(Said::Fail(error))) => writer.fail(error).await,
        Ok(Some(_)) => {
            if writer.send(proto::End {}).await.is_ok() {
                writer.finish();
            }
        }
        // The client reset the stream, or is gone.
        Ok(None) | Err(_) => {}
    }
}

/// Answers batches in order until something else is said.
async fn receipts(
    writer: &mut FrameWriter,
    said: &mut mpsc::Receiver<Said>,
    granted: &Granted,
) -> Result<Option<Said>, WriteError> {
    let (mut messages, mut bytes) = (0, 0);
    let mut next = None;
    loop {
        let said_now = match next.take() {
            Some(next) => Some(next),
            None => said.recv().await,
        };
        let Some(Said::Batch(mut batch)) = said_now else { return Ok(said_now) };
        let mut results = batch.results().await;
        loop {
            messages += batch.taken.len() as u64;
            bytes += batch.bytes;
            put_receipts(writer, batch, results);
            // What is answered already goes out with the same write; what is not must not hold it up.
            match said.try_recv() {
                Ok(Said::Batch(mut ready)) if writer.waiting() < WRITE_BYTES => match ready.results_now() {
                    Some(answered) => (batch, results) = (ready, answered),
                    None => {
                        next = Some(Said::Batch(ready));
                        break;
                    }
                },
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        writer.put(granted.raise(messages, bytes));
        writer.flush().await?;
    }
}

impl Batch {
    /// The store's answer; none where it stopped without one.
    async fn results(&mut self) -> Results {
        match self.answer.take() {
            Some(answer) => answer.await.ok(),
            None => None,
        }
    }

    /// The store's answer, where it is there.
    fn results_now(&mut self) -> Option<Results> {
        match self.answer.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(results)) => Some(Some(results)),
            Some(Err(oneshot::error::TryRecvError::Empty)) => None,
            Some(Err(oneshot::error::TryRecvError::Closed)) | None => Some(None),
        }
    }
}

fn put_receipts(writer: &mut FrameWriter, batch: Batch, results: Results) {
    let failed = |e: StoreFailed| Code::Unavailable.error(e.to_string());
    let mut stored = match results {
        Some(Ok(results)) => Ok(results.into_iter()),
        Some(Err(e)) => Err(failed(e)),
        None => Err(Code::Unavailable.error("the store has stopped")),
    };
    let mut next = || match &mut stored {
        Ok(results) => match results.next() {
            Some(Ok(receipt)) => result_of(receipt),
            Some(Err(e)) => refusal(&e),
            None => error_result(Code::Internal.error("the store gave no answer")),
        },
        Err(error) => error_result(error.clone()),
    };
    let results: Vec<proto::Result> =
        batch.taken.into_iter().map(|taken| taken.map_or_else(error_result, |()| next())).collect();
    let mut first = batch.first;
    let mut rest = results.into_iter().peekable();
    while rest.peek().is_some() {
        let (mut elements, mut bytes, mut chunk) = (0, 0, Vec::new());
        while let Some(result) = rest.next_if(|result| {
            elements += elements_of(result);
            bytes += result.encoded_len() + 8;
            chunk.is_empty() || (elements <= RECEIPT_ELEMENTS && bytes <= RECEIPT_BYTES)
        }) {
            chunk.push(result);
            if chunk.len() >= RECEIPT_RESULTS_MAX {
                break;
            }
        }
        let last = first + chunk.len() as u64 - 1;
        writer.put(proto::Receipt { first, last, results: chunk });
        first = last + 1;
    }
}

/// What a result counts against the limit of a frame's elements.
fn elements_of(result: &proto::Result) -> usize {
    use proto::result::Kind;
    match &result.kind {
        Some(Kind::Stored(stored) | Kind::Duplicate(stored)) => 2 + stored.positions.len(),
        _ => 2,
    }
}

fn result_of(receipt: Receipt) -> proto::Result {
    use proto::result::Kind;
    let positions = |places: Vec<(Arc<str>, quipu_queue::Offset)>| proto::Stored {
        positions: places
            .into_iter()
            .map(|(queue, offset)| proto::Position { queue: queue.to_string(), offset: offset.0 })
            .collect(),
    };
    let kind = match receipt {
        Receipt::Stored(places) => Kind::Stored(positions(places)),
        Receipt::Duplicate(places) => Kind::Duplicate(positions(places)),
    };
    proto::Result { kind: Some(kind) }
}

fn refusal(error: &PublishError) -> proto::Result {
    let code = match error {
        PublishError::NoQueue(_) => Code::NoQueue,
        PublishError::TooLarge(_) => Code::TooLarge,
    };
    error_result(code.error(error.to_string()))
}

fn error_result(error: proto::Error) -> proto::Result {
    proto::Result { kind: Some(proto::result::Kind::Error(error)) }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
