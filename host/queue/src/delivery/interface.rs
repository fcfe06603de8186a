//! What the delivery of a subscription is told, what it asks, and what it wants done.

use crate::commit::{Mode, Offset};
use crate::state::Mark;

/// Messages in flight at once per subscription, where nothing else is said.
pub const IN_FLIGHT_DEFAULT: usize = 10_000;
/// Most messages in flight at once that a subscription may have. Each takes 64 bytes at most, in flight or parked; where
/// keys keep order 72 in flight, and about 100 parked or set aside.
pub const IN_FLIGHT_MAX: usize = 1_000_000;
/// Most deliveries that one consumer may have credit for.
pub const CREDIT_MAX: u32 = 4_096;
/// The latest that a deadline may be, or be extended to, from now on, in milliseconds: 12 hours.
pub const DEADLINE_MAX_MS: u64 = 12 * 60 * 60 * 1_000;

/// A consumer of one subscription, for as long as it is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerId(pub u64);

/// Names one delivery; never used again within a run of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// How a subscription delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How messages are shared out. Stays as it is for the life of a delivery.
    pub mode: Mode,
    /// Messages in flight, parked or set aside at once, before a new one is begun: [`IN_FLIGHT_DEFAULT`] by default,
    /// [`IN_FLIGHT_MAX`] at most.
    pub in_flight_max: usize,
    /// How long a consumer may take, in milliseconds, [`DEADLINE_MAX_MS`] at most; none: for ever.
    pub ack_deadline_ms: Option<u64>,
    /// Whether it stands still: nothing is handed out, and what is in flight may be settled.
    pub paused: bool,
}

impl Terms {
    pub(super) fn within_limits(self) -> Self {
        Self {
            mode: self.mode,
            in_flight_max: self.in_flight_max.clamp(1, IN_FLIGHT_MAX),
            ack_deadline_ms: self.ack_deadline_ms.map(|ms| ms.min(DEADLINE_MAX_MS)),
            paused: self.paused,
        }
    }
}

/// What the state knows; asked, never copied.
pub trait View {
    /// The offset after the last message.
    fn end(&self) -> Offset;
    /// The first at or after this one that is neither settled nor removed; perhaps at or past the end.
    fn next_unsettled(&self, from: Offset) -> Offset;
    /// What went wrong with a message so far.
    fn mark(&self, offset: Offset) -> Mark;
    /// The hash of a message's key; none: it has no key. Only asked where keys keep order.
    fn key(&self, offset: Offset) -> Option<u64>;
    /// Nothing from here on may be handed out yet.
    fn delivered_through(&self) -> Offset;
    /// What is unsettled below this was perhaps handed out before an unclean stop.
    fn returned_below(&self) -> Offset;
    /// What is taken for the only one in flight, should the router stop uncleanly now.
    fn isolated(&self) -> Option<Offset>;
}

/// Why a message is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The first time.
    First,
    /// An attempt failed before.
    Nacked,
    /// A consumer went away with it, or gave it back.
    Returned,
    /// A consumer took too long.
    Expired,
    /// It was perhaps handed out before the router stopped uncleanly.
    Crashed,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The view shows more than before.
    Available,
    /// A consumer came, without credit, with a window that is always open.
    Join(ConsumerId),
    /// A consumer takes so many deliveries in total since it joined.
    Credit(ConsumerId, u64),
    /// A consumer takes so many bytes in total since it joined; the last message may go past it.
    Window(ConsumerId, u64),
    /// A consumer went. What it had in flight goes to the others at once.
    Leave(ConsumerId),
    /// A settlement that began is durable: the message is gone.
    Settled(Token),
    /// A settlement that began is durable: the attempt failed, the next one is not before this time.
    Parked {
        /// Of the failed attempt.
        token: Token,
        /// Unix milliseconds.
        until_ms: u64,
        /// [`Why::Nacked`] or [`Why::Expired`].
        why: Why,
    },
    /// What [`Action::Deliver`] said cannot be read and was handed to nobody: it costs no credit and no attempt, and is
    /// tried again.
    Unreadable {
        /// Of the delivery.
        token: Token,
        /// Not before this time, in Unix milliseconds.
        until_ms: u64,
    },
    /// A settlement that began came to nothing: the delivery stands.
    Refused(Token),
    /// A delivery is undone, settling or not: no attempt, and at once free again.
    GiveBack(Token),
    /// What [`Action::Isolate`] asked for is durable.
    Isolated(Offset),
    /// All below is gone, and their tokens are stale. Costs a look at everything in flight or set aside, so tell it only
    /// where unsettled messages went.
    Trimmed(Offset),
    /// It goes on at this offset, and all tokens are stale. Costs as much as [`Event::Trimmed`].
    Sought(Offset),
    /// It is shared so from now on, and begins anew at this offset; all tokens are stale. Costs as much as
    /// [`Event::Trimmed`].
    Shared(Mode, Offset),
    /// This message is gone, and its token is stale. Costs as much as [`Event::Trimmed`].
    Removed(Offset),
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Hand this message to this consumer, and say how large it is with [`Delivery::charge`](super::Delivery::charge).
    Deliver {
        /// To whom.
        consumer: ConsumerId,
        /// What settles it.
        token: Token,
        /// Which message.
        offset: Offset,
        /// 1 on the first try.
        attempt: u32,
        /// Unclean stops of the router while it was perhaps in flight.
        crashes: u32,
        /// Why.
        why: Why,
    },
    /// Make durable that messages below this are perhaps handed out.
    Advance {
        /// The new mark.
        through: Offset,
    },
    /// Make durable that this message is the only one in flight, then say [`Event::Isolated`].
    Isolate {
        /// Which message.
        offset: Offset,
    },
    /// Make durable that this message is not in flight any more, nor settled.
    Release {
        /// Which message.
        offset: Offset,
    },
    /// Settle this delivery as a failed attempt: its consumer took too long. The settlement has begun.
    Expire {
        /// Whose.
        consumer: ConsumerId,
        /// Which delivery.
        token: Token,
        /// Of which message.
        held: Held,
    },
}

/// A delivery whose settlement began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which message.
    pub offset: Offset,
    /// Which attempt.
    pub attempt: u32,
}
