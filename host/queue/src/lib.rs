//! Durable queues: what a router has promised to keep, and who gets it next.
//!
//! Every durable change is a [`Commit`](commit::Commit). One owner thread merges the waiting requests into one commit,
//! the [journal](journal) makes it durable with one sync, [`State::apply`](state::State::apply) takes it into memory,
//! and only then are the requests answered and messages handed out. A [checkpoint](checkpoint) writes the net effect to
//! redb now and then, so that the journal's segments can be used again.
//!
//! Deliberately not here: the network, plugins, and any clock or randomness inside `apply` or the
//! [delivery](delivery) logic.

mod backup;
pub mod bounds;
pub mod checkpoint;
mod chunk;
pub mod commit;
mod dedup;
pub mod delivery;
pub mod disk;
mod engine;
mod inbox;
mod inspect;
pub mod journal;
mod legacy;
mod offsets;
mod owner;
mod plan;
mod request;
mod salvage;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod state;
mod store;

pub use commit::{Durability, Mode, Offset, OnFull, Outcome, QueueLimits, Retention, Stored};
pub use delivery::{ConsumerId, Token, Why};
pub use inbox::{Inbox, InboxMessage};
pub use inspect::{InspectError, Problem, QueueReport, Report, inspect};
pub use owner::now_ms;
pub use plan::{
    DefineQueueError, LookupError, Output, PublishError, Published, QueueSettings, Receipt, RecordError, Redrive,
    Redriven, RemoveQueueError, Settle, SettleError, Settlement, Target, Wanted, backoff,
};
pub use salvage::{SalvageError, SalvageReport, salvage};
pub use store::{
    BackupError, Consumer, Delivery, Found, Notice, NoticeKind, OpenError, OpenPublisherError, PEEK_BYTES_MAX,
    PEEK_MESSAGES_MAX, PeekError, Publisher, QueueInfo, ROUTE_PREFIX, Start, Store, StoreConfig, StoreFailed,
    StoreInfo, SubscribeError, SubscriptionInfo,
};
