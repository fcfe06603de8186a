//! Durable queues: what a router has promised to keep, and who gets it next.
//!
//! Every durable change is a [`Commit`](commit::Commit). One owner thread merges the waiting requests into one commit,
//! the [journal](journal) makes it durable with one sync, [`State::apply`](state::State::apply) takes it into memory,
//! and only then are the requests answered and messages handed out. A [checkpoint](checkpoint) writes the net effect to
//! redb now and then, so that the journal's segments can be used again.
//!
//! Deliberately not here: the network, plugins, and any clock or randomness inside `apply` or the
//! [delivery](delivery) logic.

pub mod checkpoint;
mod chunk;
pub mod commit;
mod dedup;
pub mod delivery;
pub mod journal;
mod offsets;
mod owner;
mod plan;
mod request;
pub mod state;
mod store;

pub use commit::{Offset, Outcome, Stored};
pub use delivery::{ConsumerId, Token, Why};
pub use plan::{
    Output, PublishError, Published, QueueSettings, Receipt, Settle, SettleError, Settlement, Target, backoff,
};
pub use store::{
    Consumer, Delivery, OpenError, QueueInfo, Start, Store, StoreConfig, StoreFailed, SubscribeError, SubscriptionInfo,
};
