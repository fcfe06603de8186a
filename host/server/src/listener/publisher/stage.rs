//! The way from a publisher's stream to the store: through the inline routes, where there are any for a message.
//!
//! Reading never waits for a plugin. From the first message that an inline route is for, a task of the publisher's own
//! takes its batches, one after the other: they stay in order, and as many wait as credit lets a client have under way.

use std::collections::VecDeque;
use std::sync::Arc;

use quipu_protocol::code::Code;
use quipu_protocol::{Message, MessageId, Subject, proto};
use quipu_queue::{Output, Published, Store};
use quipu_router::{Admission, Inline, Refusal};
use tokio::sync::{mpsc, oneshot};

use super::super::ingest::{Ingest, Room};
use super::stop::Stop;
use super::{Answer, Batch, WINDOW_MESSAGES};
use crate::services::Services;

/// The way to the store.
pub(super) struct Stage {
    source: Arc<quipu_queue::Publisher>,
    inline: Arc<Inline>,
    store: Store,
    ingest: Arc<Ingest>,
    terms: Terms,
    /// Where it goes by the task.
    staged: Option<mpsc::Sender<Staged>>,
}

/// A message that may be stored, if an inline route that is for it agrees.
#[allow(clippy::large_enum_variant, reason = "moved twice")]
pub(super) enum Ready {
    Stored(Published),
    Asked(Asked),
    /// It may not be, and its publisher stops at that.
    Refused(proto::Error),
}

pub(super) struct Asked {
    message: Message,
    /// Given by the client.
    has_id: bool,
    sequence: u64,
}

/// What makes a message one for the store.
#[derive(Clone, Copy)]
struct Terms {
    is_named: bool,
    /// Whether its publisher stops at a failure.
    stops: bool,
    /// What the journal takes.
    bytes_max: usize,
}

pub(super) struct Staged {
    /// The sequence of the first.
    pub(super) first: u64,
    pub(super) messages: Vec<Ready>,
    /// Which of them take up again.
    pub(super) resumes: Vec<usize>,
    pub(super) reply: oneshot::Sender<Admitted>,
}

/// What inline routes made of a batch.
pub(super) struct Admitted {
    /// One for each message: why it is refused, if it is.
    pub(super) refused: Vec<Option<proto::Error>>,
    /// The store's, of the others.
    pub(super) answer: Option<Answer>,
    /// What their outputs take until they are answered.
    pub(super) room: Option<Room>,
}

impl Stage {
    pub(super) fn new(services: &Services, source: quipu_queue::Publisher, (is_named, stops): (bool, bool)) -> Self {
        let (inline, store) = (services.router.inline(), services.store.clone());
        let terms = Terms { is_named, stops, bytes_max: store.message_bytes_max() };
        let source = if stops { source.stopping() } else { source };
        let ingest = services.ingest.clone();
        Self { source: Arc::new(source), inline, store, ingest, terms, staged: None }
    }

    /// A message on its way, or why it is refused.
    pub(super) fn ready(&self, message: Message, has_id: bool, sequence: u64) -> Result<Ready, proto::Error> {
        let asked = Asked { message, has_id, sequence };
        // What a named publisher sends again was stored before, unless it was refused.
        let source = &self.source;
        let is_again = self.terms.is_named && sequence <= source.last_sequence && !source.refused.contains(&sequence);
        match !is_again && self.inline.is_for(&asked.message.subject) {
            true => Ok(Ready::Asked(asked)),
            false => self.terms.published(&asked).map(Ready::Stored),
        }
    }

    /// Where a publisher stops at a failure, what is refused goes the way of the others: it is in order there.
    pub(super) fn keep(&self, ready: Result<Ready, proto::Error>) -> Result<Ready, proto::Error> {
        if self.terms.stops { ready.or_else(|error| Ok(Ready::Refused(error))) } else { ready }
    }

    /// Hands messages on, behind those before them.
    pub(super) async fn submit(&mut self, messages: Vec<Ready>, batch: &mut Batch) {
        let is_direct = self.staged.is_none() && !self.terms.stops;
        if is_direct && messages.iter().all(|message| matches!(message, Ready::Stored(_))) {
            let stored = |message| if let Ready::Stored(published) = message { Some(published) } else { None };
            let messages = messages.into_iter().filter_map(stored).collect();
            // An error here is the same as an answer that never comes.
            batch.answer = self.source.submit(messages).await.ok();
            return;
        }
        let (inline, store, ingest, terms) = (&self.inline, &self.store, &self.ingest, self.terms);
        let gate = || Gate { inline: inline.clone(), store: store.clone(), ingest: ingest.clone(), terms, room: None };
        let source = &self.source;
        let staged = self.staged.get_or_insert_with(|| {
            // Every batch holds at least one message, so there is always room.
            let capacity = usize::try_from(WINDOW_MESSAGES).unwrap_or(usize::MAX) + 2;
            let (sender, receiver) = mpsc::channel(capacity);
            match terms.stops {
                true => tokio::spawn(Stop::new(source.clone(), gate()).run(receiver)),
                false => tokio::spawn(run(receiver, source.clone(), gate())),
            };
            sender
        });
        let (reply, admitted) = oneshot::channel();
        batch.staged = Some(admitted);
        // An error here is the same as an answer that never comes.
        let (first, resumes) = (batch.first, std::mem::take(&mut batch.resumes));
        staged.send(Staged { first, messages, resumes, reply }).await.ok();
    }
}

/// What the task has.
pub(super) struct Gate {
    inline: Arc<Inline>,
    store: Store,
    ingest: Arc<Ingest>,
    terms: Terms,
    /// What outputs of the batch in hand take.
    pub(super) room: Option<Room>,
}

async fn run(mut staged: mpsc::Receiver<Staged>, source: Arc<quipu_queue::Publisher>, mut gate: Gate) {
    while let Some(Staged { messages, reply, .. }) = staged.recv().await {
        let (messages, refused) = gate.admit(messages).await;
        let answer = if messages.is_empty() { None } else { source.submit(messages).await.ok() };
        // The publisher may be gone.
        reply.send(Admitted { refused, answer, room: gate.room.take() }).ok();
    }
}

impl Gate {
    /// What of the messages is stored, with its outputs; and why the others are refused. Where the publisher stops at a
    /// failure, no further than to the first of these.
    pub(super) async fn admit(&mut self, messages: Vec<Ready>) -> (Vec<Published>, Vec<Option<proto::Error>>) {
        let is_known = self.known(&messages).await;
        let asks = |(message, known): (&Ready, &bool)| match message {
            Ready::Asked(asked) if !known => Some(asked.message.clone()),
            _ => None,
        };
        let mut asked: VecDeque<Message> = messages.iter().zip(&is_known).filter_map(asks).collect();
        let mut said = VecDeque::new();
        let (mut stored, mut refused) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        for (message, is_known) in messages.into_iter().zip(is_known) {
            let admission = match message {
                Ready::Asked(_) if !is_known => {
                    if said.is_empty() {
                        // Of all that is left; the answer may be for the first of them alone. No plugin is to see what
                        // comes behind a failure.
                        let at_once = if self.terms.stops { 1 } else { asked.len() };
                        said = self.inline.admit(asked.iter().take(at_once).cloned().collect()).await.into();
                    }
                    asked.pop_front();
                    said.pop_front()
                }
                _ => None,
            };
            match self.decided(message, admission) {
                Ok(published) => {
                    stored.push(published);
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
            if self.terms.stops && matches!(refused.last(), Some(Some(_))) {
                break;
            }
        }
        (stored, refused)
    }

    /// What the inline routes said of a message, if they were asked.
    fn decided(&mut self, message: Ready, said: Option<quipu_router::Admitted>) -> Result<Published, proto::Error> {
        let admission = said.unwrap_or_else(|| Ok(Admission::default())).map_err(error)?;
        let published = match message {
            Ready::Stored(published) => published,
            Ready::Asked(asked) => self.terms.published(&asked)?,
            Ready::Refused(error) => return Err(error),
        };
        let bytes = admission.outputs.iter().map(Output::size).sum::<usize>();
        if bytes > 0 {
            let overloaded =
                || Code::Overloaded.error("plugins make more of what is published than the router can take in");
            let room = self.ingest.reserve(bytes as u64).ok_or_else(overloaded)?;
            match &mut self.room {
                Some(all) => all.add(room),
                none => *none = Some(room),
            }
        }
        let published = published.with_outputs(admission.outputs);
        Ok(if admission.taken { published.taken() } else { published })
    }

    /// Which of them were published before: they are answered as then, and no plugin sees them again.
    async fn known(&self, messages: &[Ready]) -> Vec<bool> {
        let id = |message: &Ready| match message {
            Ready::Asked(Asked { message, has_id: true, .. }) if !self.terms.is_named => {
                Some((message.subject.clone(), message.id.clone()))
            }
            _ => None,
        };
        let ids: Vec<Option<(Subject, MessageId)>> = messages.iter().map(id).collect();
        if ids.iter().all(Option::is_none) {
            return vec![false; messages.len()];
        }
        let has_id: Vec<bool> = ids.iter().map(Option::is_some).collect();
        // A store that has failed says so itself.
        let mut known = self.store.known(ids.into_iter().flatten().collect()).await.unwrap_or_default().into_iter();
        has_id.into_iter().map(|has_id| has_id && known.next().flatten().is_some()).collect()
    }
}

impl Terms {
    fn published(self, asked: &Asked) -> Result<Published, proto::Error> {
        let Asked { message, has_id, sequence } = asked;
        // Sequences say of a named publisher what ids say of others.
        let published = Published::new(message, *has_id && !self.is_named);
        if published.size() > self.bytes_max {
            let most = self.bytes_max;
            let text = format!("a message of {} bytes; this router's journal takes {most}", published.size());
            return Err(Code::TooLarge.error(text));
        }
        Ok(if self.is_named { published.with_sequence(*sequence) } else { published })
    }
}

fn error(refusal: Refusal) -> proto::Error {
    match refusal {
        Refusal::Reject { route, reason } => Code::Rejected.error(format!("route {route:?} rejects it: {reason}")),
        Refusal::RetryLater { route, ms, reason } => {
            let text = format!("route {route:?} asks for it in {ms} ms: {reason}");
            proto::Error { after_ms: ms, ..Code::RetryLater.error(text) }
        }
        Refusal::Failed { route, plugin, fault } => {
            let text = format!("route {route:?}, plugin {plugin} failed: {}: {}", fault.kind, fault.text);
            Code::PluginFailed.error(text)
        }
    }
}
