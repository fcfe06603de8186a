//! The way from a publisher's stream to the store: through the inline routes, where there are any for a message.
//!
//! Reading never waits for a plugin. From the first message that an inline route is for, a task of the publisher's own
//! takes its batches, one after the other: they stay in order, and as many wait as credit lets a client have under way.

use std::sync::Arc;

use quipu_protocol::code::Code;
use quipu_protocol::{Message, proto};
use quipu_queue::{Published, Store};
use quipu_router::{Inline, Refusal};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Batch, WINDOW_MESSAGES};
use crate::services::Services;

/// The way to the store.
pub(super) struct Stage {
    source: Arc<quipu_queue::Publisher>,
    inline: Arc<Inline>,
    store: Store,
    is_named: bool,
    /// Where it goes by the task.
    staged: Option<mpsc::Sender<Staged>>,
}

/// A message that may be stored.
pub(super) struct Ready {
    published: Published,
    /// For inline routes, where there are some.
    inline: Option<Asked>,
}

struct Asked {
    message: Message,
    /// Whether it may be one that was published before, known by its id.
    has_id: bool,
}

struct Staged {
    messages: Vec<Ready>,
    reply: oneshot::Sender<Admitted>,
}

/// What inline routes made of a batch.
pub(super) struct Admitted {
    /// One for each message: why it is refused, if it is.
    pub(super) refused: Vec<Option<proto::Error>>,
    /// The store's, of the others.
    pub(super) answer: Option<Answer>,
}

impl Stage {
    pub(super) fn new(services: &Services, source: quipu_queue::Publisher, is_named: bool) -> Self {
        let (inline, store) = (services.router.inline(), services.store.clone());
        Self { source: Arc::new(source), inline, store, is_named, staged: None }
    }

    /// A message on its way, with what inline routes need of it.
    pub(super) fn ready(&self, published: Published, message: Message, (has_id, sequence): (bool, u64)) -> Ready {
        // What a named publisher sends again was stored, or refused, before.
        let is_again = self.is_named && sequence <= self.source.last_sequence;
        let is_for = !is_again && self.inline.is_for(&message.subject);
        let has_id = has_id && !self.is_named;
        Ready { published, inline: is_for.then_some(Asked { message, has_id }) }
    }

    /// Hands messages on, behind those before them.
    pub(super) async fn submit(&mut self, messages: Vec<Ready>, batch: &mut Batch) {
        if self.staged.is_none() && messages.iter().all(|message| message.inline.is_none()) {
            let messages = messages.into_iter().map(|message| message.published).collect();
            // An error here is the same as an answer that never comes.
            batch.answer = self.source.submit(messages).await.ok();
            return;
        }
        let (source, inline, store) = (&self.source, &self.inline, &self.store);
        let staged = self.staged.get_or_insert_with(|| {
            // Every batch holds at least one message, so there is always room.
            let capacity = usize::try_from(WINDOW_MESSAGES).unwrap_or(usize::MAX) + 2;
            let (sender, receiver) = mpsc::channel(capacity);
            tokio::spawn(run(receiver, source.clone(), inline.clone(), store.clone()));
            sender
        });
        let (reply, admitted) = oneshot::channel();
        batch.staged = Some(admitted);
        // An error here is the same as an answer that never comes.
        staged.send(Staged { messages, reply }).await.ok();
    }
}

async fn run(
    mut staged: mpsc::Receiver<Staged>,
    source: Arc<quipu_queue::Publisher>,
    inline: Arc<Inline>,
    store: Store,
) {
    while let Some(Staged { messages, reply }) = staged.recv().await {
        let (messages, refused) = admit(messages, &inline, &store).await;
        let answer = if messages.is_empty() { None } else { source.submit(messages).await.ok() };
        // The publisher may be gone.
        reply.send(Admitted { refused, answer }).ok();
    }
}

/// What of the messages is stored, with its outputs; and why the others are refused.
async fn admit(
    mut messages: Vec<Ready>,
    inline: &Inline,
    store: &Store,
) -> (Vec<Published>, Vec<Option<proto::Error>>) {
    let is_known = known(&messages, store).await;
    let is_asked = |(message, known): (&mut Ready, bool)| if known { None } else { message.inline.take() };
    let asked: Vec<Option<Asked>> = messages.iter_mut().zip(is_known).map(is_asked).collect();
    let wanted: Vec<bool> = asked.iter().map(Option::is_some).collect();
    let mut admitted = inline.admit(asked.into_iter().flatten().map(|asked| asked.message).collect()).await.into_iter();
    let (mut stored, mut refused) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
    for (Ready { published, .. }, is_asked) in messages.into_iter().zip(wanted) {
        let admission = if is_asked { admitted.next() } else { None };
        let (published, refusal) = match admission {
            None => (Some(published), None),
            Some(Ok(admission)) => {
                let published = published.with_outputs(admission.outputs);
                (Some(if admission.taken { published.taken() } else { published }), None)
            }
            Some(Err(refusal)) => (None, Some(error(refusal))),
        };
        stored.extend(published);
        refused.push(refusal);
    }
    (stored, refused)
}

/// Which of them were published before: they are answered as then, and no plugin sees them again.
async fn known(messages: &[Ready], store: &Store) -> Vec<bool> {
    let has_id = |message: &Ready| message.inline.as_ref().is_some_and(|asked| asked.has_id);
    let of = |asked: &Asked| (asked.message.subject.clone(), asked.message.id.clone());
    let ids: Vec<_> =
        messages.iter().filter(|message| has_id(message)).filter_map(|m| m.inline.as_ref().map(of)).collect();
    if ids.is_empty() {
        return vec![false; messages.len()];
    }
    // A store that has failed says so itself.
    let mut known = store.known(ids).await.unwrap_or_default().into_iter();
    messages.iter().map(|message| has_id(message) && known.next().flatten().is_some()).collect()
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
