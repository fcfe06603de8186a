//! What the owner is asked, and how far it has come with it: a request is gathered, planned into one commit or several
//! where it is large, and answered once all of it is durable.

use std::vec::IntoIter;

use tokio::sync::oneshot;

use crate::commit::{Offset, QueueId, SubscriptionId};
use crate::delivery::{ConsumerId, Token};
use crate::plan::{Finish, Plan, PublishError, Published, QueueSettings, Receipt, Settle, SettleError, Settler};
use crate::store::{Delivery, QueueInfo, Start, StoreFailed, SubscribeError};

/// What the owner is asked.
#[allow(clippy::large_enum_variant, reason = "requests are moved once, into the channel")]
pub(crate) enum Request {
    DefineQueue {
        settings: QueueSettings,
        reply: Reply<Result<(), StoreFailed>>,
    },
    Publish {
        messages: Vec<Published>,
        reply: Reply<PublishAnswer>,
    },
    Settle {
        consumer: ConsumerId,
        items: Vec<Settle>,
        credit: Option<u64>,
        reply: Reply<SettleAnswer>,
    },
    Subscribe {
        queue: String,
        subscription: String,
        start: Start,
        sink: Sink,
        reply: Reply<Result<Joined, SubscribeError>>,
    },
    Credit {
        consumer: ConsumerId,
        total: u64,
    },
    Leave {
        consumer: ConsumerId,
    },
    Describe {
        reply: Reply<Result<Vec<QueueInfo>, StoreFailed>>,
    },
    Stop {
        reply: Reply<Result<(), StoreFailed>>,
    },
}

pub(crate) type PublishAnswer = Result<Vec<Result<Receipt, PublishError>>, StoreFailed>;
pub(crate) type SettleResults = Vec<Result<(), SettleError>>;
pub(crate) type SettleAnswer = Result<SettleResults, StoreFailed>;
pub(crate) type Sink = Box<dyn FnMut(Vec<Delivery>) + Send>;

/// How an answer gets back.
pub(crate) enum Reply<T> {
    Once(oneshot::Sender<T>),
    Call(Box<dyn FnOnce(T) + Send>),
}

impl<T> Reply<T> {
    pub(crate) fn give(self, answer: T) {
        match self {
            // Who asked may be gone; what was done stays done.
            Self::Once(sender) => drop(sender.send(answer)),
            Self::Call(call) => call(answer),
        }
    }
}

/// A consumer that was let in.
pub(crate) struct Joined {
    pub(crate) consumer: ConsumerId,
    pub(crate) created: bool,
    pub(crate) floor: Offset,
}

/// A request that the next commit is made of, with the results of what earlier commits had of it.
#[allow(clippy::large_enum_variant, reason = "requests are moved once, into the channel")]
pub(crate) enum Gathered {
    DefineQueue {
        settings: QueueSettings,
        reply: Reply<Result<(), StoreFailed>>,
    },
    Publish {
        messages: IntoIter<Published>,
        results: Vec<Result<Receipt, PublishError>>,
        reply: Reply<PublishAnswer>,
    },
    Settle {
        subscription: Option<SubscriptionId>,
        /// Begun when they came, so that a consumer which leaves does not take them back.
        items: IntoIter<(Settle, Result<Settler, SettleError>)>,
        results: SettleResults,
        reply: Reply<SettleAnswer>,
    },
    Subscribe {
        queue: String,
        subscription: String,
        start: Start,
        sink: Sink,
        reply: Reply<Result<Joined, SubscribeError>>,
    },
}

/// What is to be said and done once the commit is durable.
pub(crate) enum Answer {
    Defined(Reply<Result<(), StoreFailed>>),
    Published(Vec<Result<Receipt, PublishError>>, Reply<PublishAnswer>),
    Settled {
        subscription: Option<SubscriptionId>,
        finishes: Vec<(Token, Result<Finish, SettleError>)>,
        /// None while the rest of the request waits for the next commit.
        reply: Option<(SettleResults, Reply<SettleAnswer>)>,
    },
    Subscribed {
        queue: QueueId,
        subscription: SubscriptionId,
        sink: Sink,
        reply: Reply<Result<Joined, SubscribeError>>,
    },
}

impl Gathered {
    /// Plans as much as the commit has room for: what to do once it is durable, and what is left for the next one.
    pub(crate) fn plan(self, plan: &mut Plan<'_>) -> (Option<Answer>, Option<Self>) {
        match self {
            Self::DefineQueue { settings, reply } => {
                plan.define_queue(&settings);
                (Some(Answer::Defined(reply)), None)
            }
            Self::Publish { mut messages, mut results, reply } => {
                for message in messages.by_ref() {
                    results.push(plan.publish(&message));
                    if plan.is_full() {
                        break;
                    }
                }
                match messages.len() {
                    0 => (Some(Answer::Published(results, reply)), None),
                    _ => (None, Some(Self::Publish { messages, results, reply })),
                }
            }
            Self::Settle { subscription, mut items, mut results, reply } => {
                let mut finishes = Vec::with_capacity(items.len());
                for (settle, settler) in items.by_ref() {
                    let finish = settler.and_then(|settler| plan.settle(settler, &settle));
                    results.push(finish.clone().map(drop));
                    finishes.push((settle.token, finish));
                    if plan.is_full() {
                        break;
                    }
                }
                if items.len() == 0 {
                    return (Some(Answer::Settled { subscription, finishes, reply: Some((results, reply)) }), None);
                }
                let rest = Self::Settle { subscription, items, results, reply };
                (Some(Answer::Settled { subscription, finishes, reply: None }), Some(rest))
            }
            Self::Subscribe { queue, subscription, start, sink, reply } => {
                match plan.subscription(&queue, &subscription, start == Start::New) {
                    Some((queue, subscription)) => {
                        (Some(Answer::Subscribed { queue, subscription, sink, reply }), None)
                    }
                    None => {
                        reply.give(Err(SubscribeError::UnknownQueue(queue)));
                        (None, None)
                    }
                }
            }
        }
    }

    pub(crate) fn refuse(self, failed: StoreFailed) {
        match self {
            Self::DefineQueue { reply, .. } => reply.give(Err(failed)),
            Self::Publish { reply, .. } => reply.give(Err(failed)),
            Self::Settle { reply, .. } => reply.give(Err(failed)),
            Self::Subscribe { reply, .. } => reply.give(Err(failed.into())),
        }
    }

    /// Bytes that it takes while it waits, near enough.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Publish { messages, .. } => messages.as_slice().iter().map(Published::size).sum(),
            Self::Settle { items, .. } => {
                let outputs = items.as_slice().iter().flat_map(|(settle, _)| &settle.outputs);
                let bytes: usize =
                    outputs.map(|o| 64 + o.header.len() + o.payload.as_ref().map_or(0, bytes::Bytes::len)).sum();
                bytes + 32 * items.len()
            }
            Self::DefineQueue { .. } | Self::Subscribe { .. } => 256,
        }
    }
}

impl Answer {
    pub(crate) fn refuse(self, failed: StoreFailed) {
        match self {
            Self::Defined(reply) => reply.give(Err(failed)),
            Self::Published(_, reply) => reply.give(Err(failed)),
            Self::Settled { reply: Some((_, reply)), .. } => reply.give(Err(failed)),
            // Its request is gathered still and answers for it.
            Self::Settled { reply: None, .. } => {}
            Self::Subscribed { reply, .. } => reply.give(Err(failed.into())),
        }
    }
}

impl Request {
    pub(crate) fn refuse(self, failed: StoreFailed) {
        match self {
            Self::DefineQueue { reply, .. } | Self::Stop { reply } => reply.give(Err(failed)),
            Self::Publish { reply, .. } => reply.give(Err(failed)),
            Self::Settle { reply, .. } => reply.give(Err(failed)),
            Self::Subscribe { reply, .. } => reply.give(Err(failed.into())),
            Self::Describe { reply } => reply.give(Err(failed)),
            Self::Credit { .. } | Self::Leave { .. } => {}
        }
    }
}
