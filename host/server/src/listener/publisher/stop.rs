//! Publishers that stop at a failure: everything behind a refused message is refused, until one takes up again.
//!
//! Every message of such a publisher goes through this task, also one that is refused as it comes. A batch is handed to
//! the store once the one before it is answered, and the store stops within it.

use std::sync::Arc;

use quipu_protocol::code::Code;
use quipu_protocol::proto;
use quipu_queue::{PublishError, Published, Receipt, StoreFailed};
use tokio::sync::{mpsc, oneshot};

use super::stage::{Admitted, Gate, Ready, Staged};

pub(super) struct Stop {
    source: Arc<quipu_queue::Publisher>,
    gate: Gate,
    /// The sequence that failed; none: it goes on.
    failed: Option<u64>,
}

/// What becomes of a message: why it is refused before the store, or what that says.
type Outcome = Result<Result<Receipt, PublishError>, proto::Error>;

impl Stop {
    pub(super) fn new(source: Arc<quipu_queue::Publisher>, gate: Gate) -> Self {
        Self { source, gate, failed: None }
    }

    pub(super) async fn run(mut self, mut staged: mpsc::Receiver<Staged>) {
        while let Some(Staged { first, messages, resumes, reply }) = staged.recv().await {
            let outcomes = self.take(first, messages, resumes).await;
            let (mut refused, mut results) = (Vec::with_capacity(outcomes.len()), Vec::with_capacity(outcomes.len()));
            for outcome in outcomes {
                match outcome {
                    Ok(result) => {
                        results.push(result);
                        refused.push(None);
                    }
                    Err(error) => refused.push(Some(error)),
                }
            }
            let (sender, answer) = oneshot::channel();
            // Neither fails while both ends are here; the publisher may be gone.
            sender.send(Ok(results)).ok();
            reply.send(Admitted { refused, answer: Some(answer), room: self.gate.room.take() }).ok();
        }
    }

    /// A batch: what is left of the go before, and one for each message that takes up again.
    async fn take(&mut self, first: u64, messages: Vec<Ready>, resumes: Vec<usize>) -> Vec<Outcome> {
        let (count, mut begin) = (messages.len(), 0);
        let mut messages = messages.into_iter();
        let mut outcomes = Vec::with_capacity(count);
        for end in resumes.into_iter().chain([count]) {
            let go = messages.by_ref().take(end - begin).collect();
            outcomes.extend(self.go(first + begin as u64, go).await);
            if end < count {
                self.failed = None;
            }
            begin = end;
        }
        outcomes
    }

    /// Messages of one go, in order, the first with this sequence.
    async fn go(&mut self, first: u64, mut messages: Vec<Ready>) -> Vec<Outcome> {
        let count = messages.len();
        if self.failed.is_some() {
            messages.clear();
        }
        // What is behind that is not looked at.
        if let Some(refused) = messages.iter().position(|message| matches!(message, Ready::Refused(_))) {
            messages.truncate(refused + 1);
        }
        let (passed, refused) = self.gate.admit(messages).await;
        let stored = self.store(passed).await;
        let mut outcomes = stored.into_iter().chain(refused.into_iter().flatten().map(Err));
        (first..).take(count).map(|sequence| self.outcome(sequence, outcomes.next())).collect()
    }

    /// Remembers the first failure; what comes behind it says so.
    fn outcome(&mut self, sequence: u64, outcome: Option<Outcome>) -> Outcome {
        let stopped = |failed: u64| {
            let text = format!("sequence {failed} was refused, and this publisher stops at that until it resumes");
            Err(Code::Stopped.error(text))
        };
        match (outcome, self.failed) {
            // Not refused though it is behind: a named publisher had it stored before. Or the store failed, and what
            // became of the message is not known.
            (Some(Ok(Ok(receipt))), _) => Ok(Ok(receipt)),
            (Some(Err(error)), Some(_)) if error.code == Code::Unavailable as u32 => Err(error),
            (_, Some(failed)) => stopped(failed),
            (failure, None) => {
                self.failed = Some(sequence);
                failure.unwrap_or_else(|| Err(Code::Internal.error("the store gave no answer")))
            }
        }
    }

    /// What the store says, once it does.
    async fn store(&self, messages: Vec<Published>) -> Vec<Outcome> {
        let count = messages.len();
        if count == 0 {
            return Vec::new();
        }
        let answer = match self.source.submit(messages).await {
            Ok(answer) => answer.await.unwrap_or_else(|_| Err(StoreFailed("it has stopped".into()))),
            Err(failed) => Err(failed),
        };
        match answer {
            Ok(results) => results.into_iter().map(Ok).collect(),
            Err(failed) => vec![Err(Code::Unavailable.error(failed.to_string())); count],
        }
    }
}
