//! What listings say of a store.

use serde::Serialize;

use crate::state::Counts;

/// How a store is, and what is in it.
#[derive(Debug, Clone, Serialize)]
pub struct StoreInfo {
    /// By name.
    pub queues: Vec<QueueInfo>,
    /// Why it acknowledges nothing any more, if so: the journal failed.
    pub failed: Option<String>,
    /// Why the last checkpoint failed, until one succeeds.
    pub checkpoint_failed: Option<String>,
    /// Whether publishes are refused, since the disk has no room.
    pub refuses_publishes: bool,
    /// Bytes of the journal that no checkpoint has yet.
    pub journal_used_bytes: u64,
    /// Of the state file; 0 before the first checkpoint.
    pub state_file_bytes: u64,
    /// Of messages in memory.
    pub memory_bytes: u64,
    /// Message ids remembered.
    pub dedup_ids: u64,
    /// Bytes of memory that these take.
    pub dedup_bytes: u64,
    /// Small facts of the router that are kept beside the queues.
    pub records: u64,
    /// Bytes that these take.
    pub records_bytes: u64,
    /// Publishers that wait for room in a queue.
    pub blocked_publishers: u64,
}

impl StoreInfo {
    /// Whether it takes publishes and settlements.
    pub fn is_ready(&self) -> bool {
        self.failed.is_none() && !self.refuses_publishes
    }
}

/// What a listing says of a queue.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct QueueInfo {
    pub name: String,
    pub subjects: Vec<String>,
    pub durability: &'static str,
    pub retention: &'static str,
    /// Messages that are still needed.
    pub messages: u64,
    /// Their bytes, near enough.
    pub bytes: u64,
    pub messages_max: Option<u64>,
    pub bytes_max: Option<u64>,
    pub on_full: &'static str,
    pub retention_age_ms: Option<u64>,
    /// The oldest message that is still needed.
    pub first_offset: u64,
    /// Messages ever appended.
    pub next_offset: u64,
    pub attempts_max: u32,
    pub ack_deadline_ms: u64,
    pub in_flight_max: u32,
    pub dead_letter: Option<String>,
    /// A subscription that still needs the oldest message.
    pub pinned_by: Option<String>,
    pub subscriptions: Vec<SubscriptionInfo>,
}

/// What a listing says of a subscription.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct SubscriptionInfo {
    pub name: String,
    pub mode: &'static str,
    /// It hands out nothing until it is resumed.
    pub paused: bool,
    pub floor: u64,
    pub consumers: usize,
    pub waiting: u64,
    pub in_flight: u64,
    pub parked: u64,
    #[serde(flatten)]
    pub counts: Counts,
}

impl SubscriptionInfo {
    /// Both sides of its ledger: what came, and what is done with or outstanding. They are the same, or the router has
    /// lost count.
    pub fn ledger(&self) -> (u64, u64) {
        (self.counts.came(), self.counts.gone() + self.waiting + self.in_flight + self.parked)
    }
}
