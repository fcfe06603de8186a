//! Which right each admin method needs.

use serde_json::Value;

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// `read = true`: it tells of the router as a whole.
    Read,
    /// `read` for the queue in its argument `queue`. Where it has none, it answers with a list of which each sees what it
    /// may; without such a list it needs [`Right::Read`].
    ReadQueue(Option<Listing>),
    /// `consume` for the queue in its argument `queue`, or `admin`: it shows messages.
    Consume,
    /// `admin`: it changes something.
    Admin,
}

/// A list in an answer, by field, and the field of its elements that names a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listing {
    list: &'static str,
    queue: &'static str,
}

/// A method that is not here needs [`Right::Admin`].
pub(super) const METHODS: &[(&str, Right)] = &[
    ("queue.list", Right::ReadQueue(Some(Listing { list: "queues", queue: "name" }))),
    ("queue.show", Right::ReadQueue(None)),
    ("queue.peek", Right::Consume),
    ("queue.create", Right::Admin),
    ("queue.change", Right::Admin),
    ("queue.delete", Right::Admin),
    ("queue.purge", Right::Admin),
    ("queue.redrive", Right::Admin),
    ("subscription.create", Right::Admin),
    ("subscription.change", Right::Admin),
    ("subscription.pause", Right::Admin),
    ("subscription.resume", Right::Admin),
    ("subscription.seek", Right::Admin),
    ("subscription.delete", Right::Admin),
    ("ledger", Right::ReadQueue(Some(Listing { list: "subscriptions", queue: "queue" }))),
    ("route.list", Right::Read),
    ("route.show", Right::Read),
    ("route.create", Right::Admin),
    ("route.change", Right::Admin),
    ("route.delete", Right::Admin),
    ("route.pause", Right::Admin),
    ("route.resume", Right::Admin),
    ("route.seek", Right::Admin),
    ("plugin.list", Right::Read),
    ("plugin.show", Right::Read),
    ("plugin.upload", Right::Admin),
    ("plugin.piece", Right::Admin),
    ("plugin.fetch", Right::Admin),
    ("plugin.push", Right::Admin),
    ("plugin.deploy", Right::Admin),
    ("plugin.rollback", Right::Admin),
    ("plugin.remove", Right::Admin),
    ("plugin.logs", Right::Admin),
    ("plugin.traps", Right::Admin),
    ("explain", Right::Admin),
    ("message.show", Right::Admin),
    ("message.capsule", Right::Admin),
    ("answer.part", Right::Admin),
    ("status", Right::Read),
    ("metrics", Right::Read),
    ("config.reload", Right::Admin),
    ("config.diff", Right::Admin),
    ("store.backup", Right::Admin),
    ("store.compact", Right::Admin),
];

impl Right {
    pub(super) fn of(method: &str) -> Self {
        METHODS.iter().find(|(known, _)| *known == method).map_or(Self::Admin, |(_, right)| *right)
    }
}

impl Listing {
    /// Leaves out what is of other queues.
    pub(super) fn keep(self, answer: &mut Value, may_read: impl Fn(&str) -> bool) {
        if let Some(list) = answer.get_mut(self.list).and_then(Value::as_array_mut) {
            list.retain(|element| element[self.queue].as_str().is_some_and(&may_read));
        }
    }
}
