//! Publishers: sources whose messages stay in order.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{StoreFailed, answer, stopped};
use crate::plan::{NewEpoch, PublishError, Published, Run};
use crate::request::{PublishAnswer, Reply, Request, Source};

/// A source of messages. Its messages are stored in the order in which they are handed over.
#[derive(Debug)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
    source: Source,
    /// Of a named publisher, its run; else 0.
    pub epoch: u64,
    /// Of a named publisher, the last sequence of this run that is known; else 0.
    pub last_sequence: u64,
    /// Of those up to there, the ones that were refused: sent again, they are tried again.
    pub refused: BTreeSet<u64>,
}

/// Why a named publisher cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenPublisherError {
    /// The run is over: a later one was begun.
    #[error("fenced: a later run of publisher {0:?} was opened; begin a new one with epoch 0")]
    Fenced(String),
    /// All names are in use.
    #[error("10,000 named publishers were used within a day; no new name is taken")]
    TooMany,
    /// See [`StoreFailed`].
    #[error(transparent)]
    Failed(#[from] StoreFailed),
}

impl Publisher {
    pub(super) fn new(requests: mpsc::Sender<Request>, source: Source, run: Option<(u64, u64)>) -> Self {
        let (epoch, last_sequence) = run.unwrap_or_default();
        Self { requests, source, epoch, last_sequence, refused: BTreeSet::new() }
    }

    /// From now on, whatever is handed over together is stored up to the first message that is refused: those behind it
    /// are [`PublishError::Stopped`].
    #[must_use]
    pub fn stopping(self) -> Self {
        Self { source: Source { stops: true, ..self.source }, ..self }
    }

    /// Hands messages over in order and returns at once; the answer comes through the receiver.
    ///
    /// # Errors
    ///
    /// [`StoreFailed`].
    pub async fn submit(&self, messages: Vec<Published>) -> Result<oneshot::Receiver<PublishAnswer>, StoreFailed> {
        let (reply, receiver) = oneshot::channel();
        let request = Request::Publish { messages, source: self.source.clone(), reply: Reply::Once(reply) };
        self.requests.send(request).await.map_err(|_| stopped())?;
        Ok(receiver)
    }
}

pub(super) async fn open(
    requests: mpsc::Sender<Request>,
    source: Source,
    name: &str,
    epoch: u64,
) -> Result<Publisher, OpenPublisherError> {
    let (reply, receiver) = oneshot::channel();
    let name: Arc<str> = name.into();
    let request = Request::OpenPublisher { name: name.clone(), epoch, reply: Reply::Once(reply) };
    requests.send(request).await.map_err(|_| stopped())?;
    let opened = answer(receiver).await??.map_err(|e| match e {
        PublishError::Fenced(name) => OpenPublisherError::Fenced(name.as_ref().to_owned()),
        _ => OpenPublisherError::TooMany,
    })?;
    let run = Run { name, epoch: opened.run.epoch };
    let source = Source { named: Some((run, opened.session)), ..source };
    let NewEpoch { epoch, last_sequence, refused } = opened.run;
    Ok(Publisher { refused, ..Publisher::new(requests, source, Some((epoch, last_sequence))) })
}
