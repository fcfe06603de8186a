//! The way from a publisher's stream to the store: through the inline routes, where there are any for a message.
//!
//! Reading never waits for a plugin. From the first message that an inline route is for, a task of the publisher's own
//! takes its batches, one after the other: they stay in order, and as many wait as credit lets a client have under way.
//! The routes are asked of what waits behind a batch along with it: the way to the workers and back costs several times
//! what a small plugin does with a message.

use std::collections::VecDeque;
use std::sync::Arc;

use quipu_protocol::code::Code;
use quipu_protocol::{Message, MessageId, Subject, proto};
use quipu_queue::{Output, Published, Store};
use quipu_router::{Asking, Inline, Refusal};
use tokio::sync::{mpsc, oneshot};

use super::super::ingest::{Ingest, Room};
use super::stop::Stop;
use super::{Answer, BATCH_MESSAGES, Batch, WINDOW_MESSAGES};
use crate::services::Services;

/// Batches taken at once.
const BATCHES_AT_ONCE: usize = 64;

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
        let gate = || Gate {
            inline: inline.clone(),
            store: store.clone(),
            ingest: ingest.clone(),
            terms,
            asking: None,
            said: VecDeque::new(),
            room: None,
        };
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
    /// Messages behind those that the inline routes spoke of.
    asking: Option<Asking>,
    /// What the inline routes said of the messages that come next.
    said: VecDeque<quipu_router::Admitted>,
    /// What outputs of the batch in hand take.
    pub(super) room: Option<Room>,
}

async fn run(mut staged: mpsc::Receiver<Staged>, source: Arc<quipu_queue::Publisher>, mut gate: Gate) {
    let mut came = Vec::new();
    while staged.recv_many(&mut came, BATCHES_AT_ONCE).await > 0 {
        for batch in &mut came {
            gate.recognise(&mut batch.messages).await;
        }
        let mut waiting: VecDeque<Staged> = came.drain(..).collect();
        while let Some(Staged { messages, reply, .. }) = waiting.pop_front() {
            let (messages, refused) = gate.admit_before(messages, &waiting).await;
            let answer = if messages.is_empty() { None } else { source.submit(messages).await.ok() };
            // The publisher may be gone.
            reply.send(Admitted { refused, answer, room: gate.room.take() }).ok();
        }
    }
}

impl Gate {
    /// What of the messages is stored, with its outputs; and why the others are refused. Where the publisher stops at a
    /// failure, no further than to the first of these.
    pub(super) async fn admit(&mut self, mut messages: Vec<Ready>) -> (Vec<Published>, Vec<Option<proto::Error>>) {
        self.recognise(&mut messages).await;
        self.admit_before(messages, &VecDeque::new()).await
    }

    /// As `admit`, of messages that are recognised, with other batches behind them.
    async fn admit_before(
        &mut self,
        messages: Vec<Ready>,
        behind: &VecDeque<Staged>,
    ) -> (Vec<Published>, Vec<Option<proto::Error>>) {
        let (mut stored, mut refused) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        let mut messages = messages.into_iter();
        while let Some(message) = messages.next() {
            let decided = match message {
                Ready::Stored(published) => Ok(published),
                Ready::Refused(error) => Err(error),
                Ready::Asked(asked) => {
                    let said = self.ask(&asked.message, messages.as_slice(), behind).await;
                    self.decided(&asked, said)
                }
            };
            match decided {
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

    /// What the inline routes say of a message. They are asked of those behind it as well, unless no plugin is to see
    /// what comes behind a failure; the answer may be for the first of them alone.
    async fn ask(
        &mut self,
        message: &Message,
        rest: &[Ready],
        behind: &VecDeque<Staged>,
    ) -> Option<quipu_router::Admitted> {
        if self.said.is_empty() {
            let others = rest.iter().chain(behind.iter().flat_map(|batch| &batch.messages));
            let others =
                others.filter_map(|other| if let Ready::Asked(asked) = other { Some(&asked.message) } else { None });
            let at_once = if self.terms.stops { 1 } else { BATCH_MESSAGES };
            let asked = || std::iter::once(message).chain(others).take(at_once).cloned().collect();
            let asking = self.asking.get_or_insert_with(|| self.inline.ask(asked()));
            self.said = asking.next(&self.inline).await.into();
            // Without an answer, what comes next is asked anew.
            let is_over = self.said.is_empty() || asking.is_over();
            self.asking.take_if(|_| is_over);
        }
        self.said.pop_front()
    }

    /// What comes of what the inline routes said of a message.
    fn decided(&mut self, asked: &Asked, said: Option<quipu_router::Admitted>) -> Result<Published, proto::Error> {
        let said = said.ok_or_else(|| Code::Internal.error("the inline routes gave no answer"))?;
        let admission = said.map_err(error)?;
        let published = self.terms.published(asked)?;
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

    /// Those that were published before are answered as then, and no plugin sees them again.
    async fn recognise(&self, messages: &mut [Ready]) {
        let id = |message: &Ready| match message {
            Ready::Asked(Asked { message, has_id: true, .. }) if !self.terms.is_named => {
                Some((message.subject.clone(), message.id.clone()))
            }
            _ => None,
        };
        let ids: Vec<(usize, (Subject, MessageId))> =
            messages.iter().enumerate().filter_map(|(n, message)| Some((n, id(message)?))).collect();
        if ids.is_empty() {
            return;
        }
        let (places, ids): (Vec<usize>, Vec<_>) = ids.into_iter().unzip();
        // A store that has failed says so itself.
        let known = self.store.known(ids).await.unwrap_or_default();
        for (place, _) in places.into_iter().zip(known).filter(|(_, known)| known.is_some()) {
            if let Ready::Asked(asked) = &messages[place] {
                messages[place] = self.terms.published(asked).map_or_else(Ready::Refused, Ready::Stored);
            }
        }
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
