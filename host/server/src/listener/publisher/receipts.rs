//! Receipts: the store's answers in order, and the credit that comes with them.

use std::sync::Arc;

use prost::Message as _;
use quinn::WriteError;
use quipu_protocol::code::Code;
use quipu_protocol::limits::{FRAME_ELEMENTS_MAX, RECEIPT_RESULTS_MAX};
use quipu_protocol::proto;
use quipu_queue::{PublishError, Receipt, StoreFailed};
use quipu_router::{TraceLog, What};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::super::frames::FrameWriter;
use super::{Admitted, Batch, Granted, Results, Said};

/// Bytes of receipts written at once, near enough.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes of results in one receipt, near enough: a frame's header holds more.
const RECEIPT_BYTES: usize = 256 << 10;
/// Elements in one receipt, with room for its own fields.
const RECEIPT_ELEMENTS: usize = FRAME_ELEMENTS_MAX - 16;

/// Where it is told what messages that are followed were answered.
pub(super) struct Told {
    pub(super) trace: Arc<TraceLog>,
    /// The publisher's name, if it has one.
    pub(super) publisher: String,
}

pub(super) async fn write(mut writer: FrameWriter, mut said: mpsc::Receiver<Said>, granted: Arc<Granted>, told: Told) {
    match receipts(&mut writer, &mut said, &granted, &told).await {
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
    told: &Told,
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
            let fenced = put_receipts(writer, &mut batch, results, told);
            drop(batch);
            if let Some(error) = fenced {
                return Ok(Some(Said::Fail(error)));
            }
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

impl Told {
    pub(super) fn published(&self, id: &str, subject: &str, result: &proto::Result) {
        use proto::result::Kind;
        let (outcome, positions): (&str, &[proto::Position]) = match &result.kind {
            Some(Kind::Stored(stored)) => ("stored", &stored.positions),
            Some(Kind::Duplicate(stored)) => ("duplicate", &stored.positions),
            Some(Kind::Routed(_)) => ("routed", &[]),
            Some(Kind::Error(error)) => (&error.text, &[]),
            None => ("", &[]),
        };
        let places = positions.iter().map(|position| (position.queue.clone(), position.offset)).collect();
        let (subject, publisher) = (subject.to_owned(), self.publisher.clone());
        self.trace.add(id, What::Published { subject, publisher, outcome: outcome.to_owned(), places });
    }
}

impl Batch {
    /// What became of the only message that it has.
    pub(super) async fn result(mut self) -> proto::Result {
        let results = self.results().await;
        let (mut answers, fenced) = answers(std::mem::take(&mut self.taken), results);
        let none = || error_result(fenced.unwrap_or_else(|| Code::Internal.error("the store gave no answer")));
        answers.pop().unwrap_or_else(none)
    }

    /// The store's answer; none where it stopped without one.
    async fn results(&mut self) -> Results {
        if let Some(staged) = self.staged.as_mut() {
            let admitted = staged.await.ok();
            self.admitted(admitted);
        }
        let results = self.answer.as_mut()?.await.ok();
        self.answer = None;
        results
    }

    /// The store's answer, where it is there.
    fn results_now(&mut self) -> Option<Results> {
        match self.staged.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Err(oneshot::error::TryRecvError::Empty)) => return None,
            Some(admitted) => self.admitted(admitted.ok()),
            None => {}
        }
        let results = match self.answer.as_mut().map(oneshot::Receiver::try_recv) {
            Some(Ok(results)) => Some(results),
            Some(Err(oneshot::error::TryRecvError::Empty)) => return None,
            Some(Err(oneshot::error::TryRecvError::Closed)) | None => None,
        };
        self.answer = None;
        Some(results)
    }

    /// The inline routes have looked at it; none: they stopped.
    fn admitted(&mut self, admitted: Option<Admitted>) {
        self.staged = None;
        let Some(Admitted { refused, answer, room }) = admitted else { return };
        let went_on = self.taken.iter_mut().filter(|taken| taken.is_ok());
        for (taken, refused) in went_on.zip(refused) {
            if let Some(error) = refused {
                *taken = Err(error);
            }
        }
        self.answer = answer;
        if let (Some(all), Some(room)) = (&mut self.room, room) {
            all.add(room);
        }
    }
}

/// The store keeps what it has not answered, also of a publisher that is gone: so long it takes its room.
impl Drop for Batch {
    fn drop(&mut self) {
        let (staged, answer) = (self.staged.take(), self.answer.take());
        if (staged.is_some() || answer.is_some())
            && let Some(room) = self.room.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let admitted = match staged {
                    Some(staged) => staged.await.ok(),
                    None => None,
                };
                let (later, outputs) = admitted.map_or((None, None), |admitted| (admitted.answer, admitted.room));
                if let Some(answer) = answer.or(later) {
                    answer.await.ok();
                }
                drop((room, outputs));
            });
        }
    }
}

/// Puts the receipts of a batch; what the stream ends with, where the publisher was fenced in the middle of it.
fn put_receipts(writer: &mut FrameWriter, batch: &mut Batch, results: Results, told: &Told) -> Option<proto::Error> {
    let (results, fenced) = answers(std::mem::take(&mut batch.taken), results);
    for (n, id, subject) in batch.followed.drain(..) {
        if let Some(result) = results.get(n) {
            told.published(id.as_str(), subject.as_str(), result);
        }
    }
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
    fenced
}

/// One for each message, up to the first that found the publisher fenced.
fn answers(taken: Vec<Result<(), proto::Error>>, results: Results) -> (Vec<proto::Result>, Option<proto::Error>) {
    let failed = |e: StoreFailed| Code::Unavailable.error(e.to_string());
    let mut stored = match results {
        Some(Ok(results)) => Ok(results.into_iter()),
        Some(Err(e)) => Err(failed(e)),
        None => Err(Code::Unavailable.error("the store has stopped")),
    };
    let mut answers = Vec::with_capacity(taken.len());
    for taken in taken {
        let answer = match (taken, &mut stored) {
            (Err(refused), _) => error_result(refused),
            (Ok(()), Err(error)) => error_result(error.clone()),
            (Ok(()), Ok(results)) => match results.next() {
                Some(Ok(receipt)) => result_of(receipt),
                Some(Err(e @ PublishError::Fenced(_))) => return (answers, Some(refusal(&e))),
                Some(Err(e)) => error_result(refusal(&e)),
                None => error_result(Code::Internal.error("the store gave no answer")),
            },
        };
        answers.push(answer);
    }
    (answers, None)
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
        Receipt::Stored(places) if places.is_empty() => Kind::Routed(proto::Routed {}),
        Receipt::Stored(places) => Kind::Stored(positions(places)),
        Receipt::Duplicate(places) => Kind::Duplicate(positions(places)),
    };
    proto::Result { kind: Some(kind) }
}

fn refusal(error: &PublishError) -> proto::Error {
    let code = match error {
        PublishError::NoQueue(_) => Code::NoQueue,
        PublishError::NoInbox(_) => Code::NoInbox,
        PublishError::TooLarge(_) => Code::TooLarge,
        PublishError::Full(_) => Code::QueueFull,
        PublishError::DiskFull => Code::DiskFull,
        PublishError::Fenced(_) => Code::Fenced,
        PublishError::Stopped => Code::Stopped,
    };
    code.error(error.to_string())
}

fn error_result(error: proto::Error) -> proto::Result {
    proto::Result { kind: Some(proto::result::Kind::Error(error)) }
}
