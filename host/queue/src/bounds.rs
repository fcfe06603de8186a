//! What a store takes of memory at most, for who adds it up.

/// redb's cache, what it writes included.
pub const REDB_CACHE_BYTES: usize = crate::checkpoint::CACHE_BYTES;
/// Chunks of old messages that were read last; each holds messages up to [`CHUNK_BYTES`], or one larger message.
pub const CHUNKS_CACHED: usize = crate::checkpoint::CHUNKS_CACHED_MAX;
/// See [`CHUNKS_CACHED`].
pub const CHUNK_BYTES: usize = crate::chunk::CHUNK_BYTES_MAX;
/// What a commit is gathered to, and the request that passes it.
pub const COMMIT_BYTES: usize = crate::plan::COMMIT_BYTES;
/// Message ids that are remembered: one window for all queues on disk, and one for all in memory alone.
pub const DEDUP_IDS: usize = crate::dedup::IDS_MAX;
/// What an id takes, its place in the index included.
pub const DEDUP_ID_BYTES: usize = crate::dedup::ENTRY_LEN + 12;
/// What a message in flight, parked or set aside takes, where keys keep order; 64 where they do not.
pub const FLIGHT_BYTES: usize = 100;
/// What a queue in memory alone holds where nothing else is said.
pub const MEMORY_QUEUE_BYTES: u64 = crate::plan::MEMORY_QUEUE_BYTES;
/// Replies that wait for who asked, in all inboxes.
pub const INBOX_BYTES: u64 = crate::inbox::ALL_BYTES;
/// All records of the router together, with their keys and 64 bytes each.
pub const RECORDS_BYTES: usize = 64 << 20;
/// One record.
pub const RECORD_BYTES_MAX: usize = 256 << 10;
/// A record's key.
pub const RECORD_KEY_BYTES_MAX: usize = 512;
