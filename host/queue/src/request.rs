//! What the owner is asked, and how far it has come with it: a request is gathered, planned into one commit or several
//! where it is large, and answered once all of it is as durable as promised.

use std::collections::HashSet;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::Bytes;
use quipu_protocol::Subject;
use tokio::sync::{mpsc, oneshot};

use crate::checkpoint::Checkpoints;
use crate::commit::{DedupKey, Mode, Offset, Outcome, QueueId, SubscriptionId};
use crate::delivery::{ConsumerId, Token};
use crate::inbox::InboxMessage;
use crate::plan::{
    Attempted, Change, ChangeError, Changed, DefineQueueError, Finish, NewEpoch, Output, Plan, PublishError, Published,
    QueueSettings, Receipt, Redrive, Redriven, Run, Settle, SettleError, Settlement, Settler,
};
use crate::store::{Delivery, Notice, Page, PageFrom, ROUTE_PREFIX, Start, StoreFailed, StoreInfo, SubscribeError};

/// What the owner is asked.
#[allow(clippy::large_enum_variant, reason = "requests are moved once, into the channel")]
pub(crate) enum Request {
    DefineQueue {
        settings: QueueSettings,
        reply: Reply<DefineAnswer>,
    },
    OpenPublisher {
        name: Arc<str>,
        epoch: u64,
        reply: Reply<OpenAnswer>,
    },
    Publish {
        messages: Vec<Published>,
        source: Source,
        reply: Reply<PublishAnswer>,
    },
    Settle {
        consumer: ConsumerId,
        items: Vec<Settle>,
        credit: Option<Credit>,
        reply: Reply<SettleAnswer>,
    },
    Subscribe {
        subscribe: Subscribe,
        sink: Sink,
        reply: Reply<Result<Joined, SubscribeError>>,
    },
    DefineSubscription {
        subscribe: Subscribe,
        reply: Reply<Result<bool, SubscribeError>>,
    },
    Change {
        change: Change,
        reply: Reply<ChangeAnswer>,
    },
    Records {
        prefix: String,
        reply: Reply<Result<Vec<(String, Bytes)>, StoreFailed>>,
    },
    Known {
        ids: Vec<DedupKey>,
        reply: Reply<Result<Vec<Option<Positions>>, StoreFailed>>,
    },
    /// Messages of a queue, to be looked at.
    Page {
        queue: String,
        from: PageFrom,
        /// Messages, and bytes; one at least.
        most: (usize, u64),
        reply: Reply<Result<Option<Page>, StoreFailed>>,
    },
    Credit {
        consumer: ConsumerId,
        credit: Credit,
    },
    Leave {
        consumer: ConsumerId,
    },
    /// An inbox that takes so many replies.
    OpenInbox {
        subject: Subject,
        most: u32,
        reply: Reply<Result<mpsc::Receiver<InboxMessage>, StoreFailed>>,
    },
    CloseInbox {
        subject: Subject,
    },
    Redrive {
        redrive: Redrive,
        reply: Reply<RedriveAnswer>,
    },
    Describe {
        reply: Reply<Result<StoreInfo, StoreFailed>>,
    },
    Checkpoint {
        /// Whether room is given back to the file system.
        shrink: bool,
        reply: Reply<Result<Checkpoints, StoreFailed>>,
    },
    Stop {
        reply: Reply<Result<(), StoreFailed>>,
    },
}

pub(crate) type DefineAnswer = Result<Result<(), DefineQueueError>, StoreFailed>;
pub(crate) type OpenAnswer = Result<Result<Opened, PublishError>, StoreFailed>;
pub(crate) type PublishAnswer = Result<Vec<Result<Receipt, PublishError>>, StoreFailed>;
pub(crate) type SettleResults = Vec<Result<(), SettleError>>;
pub(crate) type SettleAnswer = Result<SettleResults, StoreFailed>;
pub(crate) type RedriveAnswer = Result<Option<Redriven>, StoreFailed>;
pub(crate) type ChangeAnswer = Result<Result<Changed, ChangeError>, StoreFailed>;
pub(crate) type Positions = Vec<(Arc<str>, Offset)>;

/// What a consumer is told: what it gets, and what becomes of its subscription.
pub(crate) struct Sink {
    pub(crate) deliver: Box<dyn FnMut(Vec<Delivery>) + Send>,
    pub(crate) notice: Box<dyn FnMut(Notice) + Send>,
}

/// Who publishes: what it sends stays in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) id: u64,
    /// A run of a named publisher, and which stream of that run.
    pub(crate) named: Option<(Run, u64)>,
    /// Whether the rest of a request is refused behind a message that is.
    pub(crate) stops: bool,
}

/// A named publisher's stream that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) run: NewEpoch,
    pub(crate) session: u64,
}

/// What a consumer takes in total since it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Credit {
    pub(crate) messages: Option<u64>,
    pub(crate) bytes: Option<u64>,
}

/// A subscription, made where it is not there.
#[derive(Debug, Clone)]
pub(crate) struct Subscribe {
    pub(crate) queue: String,
    pub(crate) name: String,
    /// None: whatever it is; a new one is shared.
    pub(crate) mode: Option<Mode>,
    pub(crate) start: Start,
    /// Whether deliveries have a deadline, if the queue sets one.
    pub(crate) deadline: bool,
}

impl Subscribe {
    pub(crate) fn new(queue: &str, name: &str, mode: Option<Mode>, start: Start) -> Self {
        let deadline = !name.starts_with(ROUTE_PREFIX);
        Self { queue: queue.to_owned(), name: name.to_owned(), mode, start, deadline }
    }
}

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
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) consumer: ConsumerId,
    pub(crate) created: bool,
    pub(crate) floor: Offset,
    pub(crate) mode: Mode,
    pub(crate) ack_deadline_ms: u64,
    pub(crate) paused: bool,
}

/// How far a settlement came before it is planned.
pub(crate) enum Begun {
    /// Nothing needs to become durable.
    Done(Result<(), SettleError>),
    One(Settler),
    /// Acked through this delivery.
    Through(Vec<(Token, Settler)>),
}

/// A request that the next commit is made of, with the results of what earlier commits had of it.
#[allow(clippy::large_enum_variant, reason = "requests are moved once, into the channel")]
pub(crate) enum Gathered {
    DefineQueue {
        settings: QueueSettings,
        reply: Reply<DefineAnswer>,
    },
    OpenPublisher {
        name: Arc<str>,
        epoch: u64,
        reply: Reply<OpenAnswer>,
    },
    Publish {
        messages: IntoIter<Published>,
        source: Source,
        results: Vec<Result<Receipt, PublishError>>,
        reply: Reply<PublishAnswer>,
    },
    Settle {
        subscription: Option<SubscriptionId>,
        /// Begun when they came, so that a consumer which leaves does not take them back.
        items: IntoIter<(Settle, Begun)>,
        results: SettleResults,
        /// Keys of which one was refused: later ones of this request must not overtake it.
        refused: HashSet<u64>,
        reply: Reply<SettleAnswer>,
    },
    Expire {
        token: Token,
        settler: Settler,
    },
    Deliverable {
        subscription: SubscriptionId,
        through: Offset,
    },
    Isolate {
        subscription: SubscriptionId,
        offset: Offset,
    },
    Release {
        subscription: SubscriptionId,
    },
    /// Nothing but what each commit does: logs let go of what is too old.
    Retain,
    Subscribe {
        subscribe: Subscribe,
        sink: Sink,
        reply: Reply<Result<Joined, SubscribeError>>,
    },
    DefineSubscription {
        subscribe: Subscribe,
        reply: Reply<Result<bool, SubscribeError>>,
    },
    Redrive {
        redrive: Redrive,
        reply: Reply<RedriveAnswer>,
    },
    Change {
        change: Change,
        reply: Reply<ChangeAnswer>,
    },
}

/// What is to be said and done once the commit is as durable as promised.
pub(crate) enum Answer {
    Defined(Result<(), DefineQueueError>, Reply<DefineAnswer>),
    Opened(Arc<str>, Result<NewEpoch, PublishError>, Reply<OpenAnswer>),
    Published(Vec<Result<Receipt, PublishError>>, Reply<PublishAnswer>),
    Settled {
        subscription: Option<SubscriptionId>,
        finishes: Vec<(Token, Result<Finish, SettleError>)>,
        /// None while the rest of the request waits for the next commit.
        reply: Option<(SettleResults, Reply<SettleAnswer>)>,
    },
    Isolated(SubscriptionId, Offset),
    Deliverable(SubscriptionId),
    Subscribed {
        queue: QueueId,
        subscription: SubscriptionId,
        subscribe: Subscribe,
        sink: Sink,
        reply: Reply<Result<Joined, SubscribeError>>,
    },
    SubscriptionDefined(SubscriptionId, Subscribe, Reply<Result<bool, SubscribeError>>),
    Redriven(Option<Redriven>, Reply<RedriveAnswer>),
    Changed(Result<Changed, ChangeError>, Reply<ChangeAnswer>),
}

/// What is left of a request that was planned.
pub(crate) enum Rest {
    Nothing,
    /// The commit is full.
    Next(Gathered),
    /// A queue is full, and the publisher waits.
    Blocked(QueueId, Gathered),
}

impl Gathered {
    /// Plans as much as the commit has room for: what to do once it is durable, and what is left.
    pub(crate) fn plan(self, plan: &mut Plan<'_>) -> (Option<Answer>, Rest) {
        let answer = match self {
            Self::DefineQueue { settings, reply } => Answer::Defined(plan.define_queue(&settings), reply),
            Self::OpenPublisher { name, epoch, reply } => {
                let opened = plan.open_publisher(&name, epoch);
                Answer::Opened(name, opened, reply)
            }
            Self::Publish { messages, source, results, reply } => {
                return plan_publish(plan, messages, source, results, reply);
            }
            Self::Settle { subscription, items, results, refused, reply } => {
                return plan_settle(plan, subscription, items, (results, refused), reply);
            }
            Self::Expire { token, settler } => {
                let finishes = vec![(token, plan.expire(settler))];
                Answer::Settled { subscription: Some(settler.subscription), finishes, reply: None }
            }
            Self::Deliverable { subscription, through } => {
                plan.deliverable(subscription, through);
                Answer::Deliverable(subscription)
            }
            Self::Isolate { subscription, offset } => {
                plan.isolate(subscription, offset);
                Answer::Isolated(subscription, offset)
            }
            Self::Release { subscription } => {
                plan.release(subscription);
                return (None, Rest::Nothing);
            }
            Self::Retain => return (None, Rest::Nothing),
            Self::Subscribe { subscribe, sink, reply } => {
                let Subscribe { queue, name, mode, start, .. } = &subscribe;
                match plan.subscribe(queue, name, mode.unwrap_or_default(), *start) {
                    Some((queue, subscription)) => Answer::Subscribed { queue, subscription, subscribe, sink, reply },
                    None => {
                        reply.give(Err(SubscribeError::UnknownQueue(subscribe.queue)));
                        return (None, Rest::Nothing);
                    }
                }
            }
            Self::DefineSubscription { subscribe, reply } => {
                let Subscribe { queue, name, mode, start, .. } = &subscribe;
                match plan.subscribe(queue, name, mode.unwrap_or_default(), *start) {
                    Some((_, subscription)) => Answer::SubscriptionDefined(subscription, subscribe, reply),
                    None => {
                        reply.give(Err(SubscribeError::UnknownQueue(subscribe.queue)));
                        return (None, Rest::Nothing);
                    }
                }
            }
            Self::Change { change, reply } => {
                // Alone in its commit, like a redrive.
                let is_alone = plan.is_empty();
                let changed = is_alone.then(|| plan.change(&change));
                plan.close();
                match changed {
                    Some(changed) => Answer::Changed(changed, reply),
                    None => return (None, Rest::Next(Self::Change { change, reply })),
                }
            }
            Self::Redrive { redrive, reply } => {
                // Alone in its commit: what others do to the same messages is in the state then.
                let is_alone = plan.is_empty();
                let redriven = is_alone.then(|| plan.redrive(&redrive));
                plan.close();
                match redriven {
                    Some(redriven) => Answer::Redriven(redriven, reply),
                    None => return (None, Rest::Next(Self::Redrive { redrive, reply })),
                }
            }
        };
        (Some(answer), Rest::Nothing)
    }

    pub(crate) fn refuse(self, failed: StoreFailed) {
        match self {
            Self::DefineQueue { reply, .. } => reply.give(Err(failed)),
            Self::OpenPublisher { reply, .. } => reply.give(Err(failed)),
            Self::Publish { reply, .. } => reply.give(Err(failed)),
            Self::Settle { reply, .. } => reply.give(Err(failed)),
            Self::Subscribe { reply, .. } => reply.give(Err(failed.into())),
            Self::DefineSubscription { reply, .. } => reply.give(Err(failed.into())),
            Self::Redrive { reply, .. } => reply.give(Err(failed)),
            Self::Change { reply, .. } => reply.give(Err(failed)),
            Self::Expire { .. }
            | Self::Deliverable { .. }
            | Self::Isolate { .. }
            | Self::Release { .. }
            | Self::Retain => {}
        }
    }

    /// Bytes that it takes while it waits, near enough.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Publish { messages, .. } => messages.as_slice().iter().map(Published::size).sum(),
            Self::Settle { items, .. } => {
                let outputs = items.as_slice().iter().flat_map(|(settle, _)| &settle.outputs);
                let bytes: usize = outputs.map(Output::size).sum();
                bytes + 32 * items.len()
            }
            Self::Change { change: Change::Records(records), .. } => {
                records.iter().map(|(key, value)| 64 + key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
            }
            _ => 256,
        }
    }
}

fn plan_publish(
    plan: &mut Plan<'_>,
    mut messages: IntoIter<Published>,
    source: Source,
    mut results: Vec<Result<Receipt, PublishError>>,
    reply: Reply<PublishAnswer>,
) -> (Option<Answer>, Rest) {
    let run = source.named.as_ref().map(|(run, _)| run);
    // Also by what earlier commits had of the request.
    let mut stopped = source.stops && results.iter().any(Result::is_err);
    while let Some(message) = messages.as_slice().first() {
        let attempted = if stopped { plan.stop(message, run) } else { plan.publish(message, run) };
        match attempted {
            Attempted::Done(result) => {
                stopped |= source.stops && result.is_err();
                results.push(result);
            }
            Attempted::Blocked(queue) => {
                return (None, Rest::Blocked(queue, Gathered::Publish { messages, source, results, reply }));
            }
        }
        messages.next();
        if plan.is_full() {
            break;
        }
    }
    match messages.len() {
        0 => (Some(Answer::Published(results, reply)), Rest::Nothing),
        _ => (None, Rest::Next(Gathered::Publish { messages, source, results, reply })),
    }
}

fn plan_settle(
    plan: &mut Plan<'_>,
    subscription: Option<SubscriptionId>,
    mut items: IntoIter<(Settle, Begun)>,
    (mut results, mut refused): (SettleResults, HashSet<u64>),
    reply: Reply<SettleAnswer>,
) -> (Option<Answer>, Rest) {
    let mut finishes = Vec::with_capacity(items.len());
    let result = |finish: &Result<Finish, SettleError>| match finish {
        Ok(Finish::Stale) => Err(SettleError::Stale),
        Ok(_) => Ok(()),
        Err(e) => Err(e.clone()),
    };
    while let Some((settle, begun)) = items.next() {
        match begun {
            Begun::Done(done) => results.push(done),
            Begun::One(settler) => {
                let finish = plan.settle_in_order(settler, &settle, &mut refused);
                results.push(result(&finish));
                finishes.push((settle.token, finish));
            }
            Begun::Through(deliveries) => {
                let settlement = Settlement::Done(Outcome::Acked);
                let mut said = Ok(());
                let mut deliveries = deliveries.into_iter();
                while !plan.is_full()
                    && let Some((token, settler)) = deliveries.next()
                {
                    let one = Settle { token, settlement: settlement.clone(), outputs: Vec::new() };
                    let finish = plan.settle(settler, &one);
                    if token == settle.token {
                        said = result(&finish);
                    }
                    finishes.push((token, finish));
                }
                if deliveries.len() > 0 {
                    let rest = (settle, Begun::Through(deliveries.collect()));
                    items = std::iter::once(rest).chain(items).collect::<Vec<_>>().into_iter();
                    break;
                }
                results.push(said);
            }
        }
        if plan.is_full() {
            break;
        }
    }
    if items.len() == 0 {
        return (Some(Answer::Settled { subscription, finishes, reply: Some((results, reply)) }), Rest::Nothing);
    }
    let rest = Gathered::Settle { subscription, items, results, refused, reply };
    (Some(Answer::Settled { subscription, finishes, reply: None }), Rest::Next(rest))
}

impl Answer {
    pub(crate) fn refuse(self, failed: StoreFailed) {
        match self {
            Self::Defined(_, reply) => reply.give(Err(failed)),
            Self::Opened(_, _, reply) => reply.give(Err(failed)),
            Self::Published(_, reply) => reply.give(Err(failed)),
            Self::Settled { reply: Some((_, reply)), .. } => reply.give(Err(failed)),
            // Its request is gathered still and answers for it, or nobody asked.
            Self::Settled { reply: None, .. } | Self::Isolated(..) | Self::Deliverable(_) => {}
            Self::Subscribed { reply, .. } => reply.give(Err(failed.into())),
            Self::SubscriptionDefined(_, _, reply) => reply.give(Err(failed.into())),
            Self::Redriven(_, reply) => reply.give(Err(failed)),
            Self::Changed(_, reply) => reply.give(Err(failed)),
        }
    }
}

impl Request {
    pub(crate) fn refuse(self, failed: StoreFailed) {
        match self {
            Self::Stop { reply } => reply.give(Err(failed)),
            Self::Checkpoint { reply, .. } => reply.give(Err(failed)),
            Self::DefineQueue { reply, .. } => reply.give(Err(failed)),
            Self::OpenPublisher { reply, .. } => reply.give(Err(failed)),
            Self::Publish { reply, .. } => reply.give(Err(failed)),
            Self::Settle { reply, .. } => reply.give(Err(failed)),
            Self::Subscribe { reply, .. } => reply.give(Err(failed.into())),
            Self::DefineSubscription { reply, .. } => reply.give(Err(failed.into())),
            Self::Redrive { reply, .. } => reply.give(Err(failed)),
            Self::Change { reply, .. } => reply.give(Err(failed)),
            Self::Records { reply, .. } => reply.give(Err(failed)),
            Self::Known { reply, .. } => reply.give(Err(failed)),
            Self::Page { reply, .. } => reply.give(Err(failed)),
            Self::Describe { reply } => reply.give(Err(failed)),
            Self::OpenInbox { reply, .. } => reply.give(Err(failed)),
            Self::Credit { .. } | Self::Leave { .. } | Self::CloseInbox { .. } => {}
        }
    }
}
