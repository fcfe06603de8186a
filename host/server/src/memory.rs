//! What a router takes of memory at most, by its configuration. The page `docs/memory.md` explains each line.

use quipu_protocol::limits::FRAME_HEADER_BYTES_MAX;
use quipu_queue::{Durability, bounds};
use quipu_router::{PREFETCH_BYTES, SLICE_BYTES, prefetch};
use serde::Serialize;

use crate::config::{ByteSize, Config, QueueConfig, RouteConfig};
use crate::listener::{
    BIDIRECTIONAL_STREAMS_MAX, CALLS_MAX, INCOMING_BYTES, READ_BYTES, UNANSWERED_MAX, WINDOW_BYTES, WINDOW_MESSAGES,
    WRITE_BYTES,
};
use crate::services::PluginListing;

/// Code, stacks, tables, and what libraries keep.
const PROCESS_BYTES: u64 = 96 << 20;
/// Stack of a thread.
const STACK_BYTES: u64 = 2 << 20;
/// A small message takes so many halves of what it takes in the journal …
const JOURNAL_HALVES: u64 = 5;
/// … and of what `store.memory` and `max_bytes` count it as.
const COUNTED_HALVES: u64 = 3;
/// QUIC keeps so many halves of what it has not given to a reader, before it makes copies.
const RECEIVED_HALVES: u64 = 5;
/// A connection with its streams, beside what waits in them.
const SESSION_BYTES: u64 = 128 << 10;
/// A message under way, beside its content: its place in a batch, its result, its receipt.
const UNDER_WAY_BYTES: u64 = 512;
/// What listings say of a queue with its subscriptions, or of a route.
const LISTED_BYTES: u64 = 4 << 10;
/// A queue or a route, beside its messages.
const DEFINED_BYTES: u64 = 16 << 10;
/// Compiled code for a byte of a module, near enough.
const COMPILED_FACTOR: u64 = 16;
/// What stays of an instance's memory for the next, with its tables and its stack.
const INSTANCE_BYTES: u64 = 1 << 20;
/// For the gaps that an allocator leaves: a quarter.
const GAPS_SHARE: u64 = 4;

/// One part of the sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    pub(crate) what: &'static str,
    /// How it comes about.
    pub(crate) how: String,
    pub(crate) bytes: u64,
}

/// Every part, largest things of the store first; the sum is the bound.
pub(crate) fn lines(config: &Config, plugins: &[PluginListing]) -> Vec<Line> {
    let mut lines = vec![process(config)];
    lines.extend(store(config));
    lines.extend(routes(config, plugins));
    lines.extend(clients(config));
    let sum: u64 = total(&lines);
    lines.push(Line { what: "gaps", how: "a quarter of the above".into(), bytes: sum / GAPS_SHARE });
    lines
}

/// The sum.
pub(crate) fn total(lines: &[Line]) -> u64 {
    lines.iter().fold(0, |sum, line| sum.saturating_add(line.bytes))
}

/// As a person reads it.
pub(crate) fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10).div_ceil(1 << 20);
    format!("{}.{} MiB", super::commands::table::count(tenths / 10), tenths % 10)
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

fn line(what: &'static str, bytes: u64, how: String) -> Line {
    Line { what, how, bytes }
}

/// A message with its header, at the largest.
fn message(config: &Config) -> u64 {
    config.limits.message_bytes as u64 + FRAME_HEADER_BYTES_MAX as u64
}

fn process(config: &Config) -> Line {
    let threads =
        4 + config.plugins.workers as u64 + std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let how = format!("{} and {threads} stacks of {}", size(PROCESS_BYTES), size(STACK_BYTES));
    line("the process", PROCESS_BYTES + threads * STACK_BYTES, how)
}

fn store(config: &Config) -> Vec<Line> {
    let segment = config.store.journal_segment_bytes as u64;
    let journal = segment * config.store.journal_segments as u64;
    let record = (bounds::COMMIT_BYTES as u64 + message(config)).min(segment);
    let kept = config.store.memory_bytes as u64;
    let chunk = message(config).max(bounds::CHUNK_BYTES as u64);
    let in_memory = |queue: &&QueueConfig| queue.durability == Durability::Memory;
    let held = |queue: &QueueConfig| queue.limits.bytes.unwrap_or(bounds::MEMORY_QUEUE_BYTES);
    let memory_queues: u64 = config.queues.iter().filter(in_memory).map(held).sum();
    let windows = 1 + u64::from(memory_queues > 0);
    let defined = (config.queues.len() * 2 + config.routes.len()) as u64;
    let (ids, id) = (bounds::DEDUP_IDS as u64, bounds::DEDUP_ID_BYTES as u64);
    vec![
        line(
            "messages in no checkpoint",
            journal * JOURNAL_HALVES / 2,
            format!("{} segments of {}, × 2.5 for small messages", config.store.journal_segments, size(segment)),
        ),
        line("commits being written", 3 * record, format!("3 buffers of {}", size(record))),
        line("messages kept", kept * COUNTED_HALVES / 2, format!("store.memory {}, × 1.5", size(kept))),
        line("redb's cache", bounds::REDB_CACHE_BYTES as u64, size(bounds::REDB_CACHE_BYTES as u64)),
        line(
            "old messages read last",
            bounds::CHUNKS_CACHED as u64 * chunk,
            format!("{} chunks of {}", bounds::CHUNKS_CACHED, size(chunk)),
        ),
        line("records", bounds::RECORDS_BYTES as u64, size(bounds::RECORDS_BYTES as u64)),
        line("message ids", windows * ids * id, format!("{windows} × {ids} ids of {id} bytes")),
        line(
            "queues in memory alone",
            memory_queues * COUNTED_HALVES / 2,
            format!("max_bytes, together {}, × 1.5", size(memory_queues)),
        ),
        line("queues and routes", defined * DEFINED_BYTES, format!("{defined}, dead-letter queues too")),
        in_flight(config),
    ]
}

fn in_flight(config: &Config) -> Line {
    let read = |route: &RouteConfig| config.queues.iter().find(|queue| Some(&queue.name) == route.queue());
    let of = |route: &RouteConfig| read(route).map_or(0, |queue| queue.in_flight_max);
    let of_routes: u64 = config.routes.iter().map(|route| u64::from(of(route))).sum();
    let largest = config.queues.iter().map(|queue| queue.in_flight_max).max().unwrap_or(0);
    let messages = of_routes + u64::from(largest) * config.limits.consumers as u64;
    let flight = bounds::FLIGHT_BYTES as u64;
    let (routes, consumers) = (config.routes.len(), config.limits.consumers);
    let how = format!("max_in_flight for each route ({routes}) and consumer ({consumers}), {flight} bytes each");
    line("in flight and parked", messages * flight, how)
}

fn routes(config: &Config, plugins: &[PluginListing]) -> Vec<Line> {
    let count = config.routes.len() as u64;
    let lanes: u64 = config.routes.iter().map(|route| route.parallel as u64).sum();
    let limits = |name: &str| config.plugin.get(name).cloned().unwrap_or_default();
    let of_route = |route: &RouteConfig| {
        let largest = route.plugins.iter().map(|plugin| limits(&plugin.name).output_bytes as u64).max().unwrap_or(0);
        largest * prefetch(route.parallel as u64)
    };
    let instances: u64 = config.routes.iter().map(|route| (route.plugins.len() * route.parallel) as u64).sum();
    let memory = |route: &RouteConfig| {
        let each = route.plugins.iter().map(|plugin| limits(&plugin.name).memory_bytes as u64 + INSTANCE_BYTES);
        each.sum::<u64>() * route.parallel as u64
    };
    let code: u64 = plugins.iter().map(|plugin| plugin.size_bytes as u64).sum();
    vec![
        line(
            "inputs of routes",
            count * (PREFETCH_BYTES + message(config)) + lanes * SLICE_BYTES as u64,
            format!("{count} × {} and a message, {lanes} × {}", size(PREFETCH_BYTES), size(SLICE_BYTES as u64)),
        ),
        line(
            "outputs of plugins",
            config.routes.iter().map(of_route).sum(),
            "plugin.output for each message that a route holds".into(),
        ),
        line(
            "plugin instances",
            config.routes.iter().map(memory).sum(),
            format!("{instances} with plugin.memory and {}", size(INSTANCE_BYTES)),
        ),
        line("compiled plugins", code * COMPILED_FACTOR, format!("{} of modules, × {COMPILED_FACTOR}", size(code))),
    ]
}

fn clients(config: &Config) -> Vec<Line> {
    let limits = &config.limits;
    let (sessions, window) = (limits.sessions as u64, u64::from(limits.connection_window_bytes));
    let streams = u64::from(BIDIRECTIONAL_STREAMS_MAX) * 4 * READ_BYTES as u64;
    let session = window * RECEIVED_HALVES / 2 + window + streams + SESSION_BYTES;
    let publisher = WINDOW_MESSAGES * UNDER_WAY_BYTES + 2 * WRITE_BYTES as u64;
    let unanswered = UNANSWERED_MAX as u64 * UNDER_WAY_BYTES;
    let consumer = WINDOW_BYTES + 2 * message(config) + 2 * WRITE_BYTES as u64 + unanswered;
    let call = (config.queues.len() * 2 + config.routes.len() + limits.consumers) as u64 * LISTED_BYTES;
    vec![
        line(
            "publishes under way",
            limits.ingest_bytes + 4 * message(config),
            format!("limits.ingest {}, and 4 messages being copied", size(limits.ingest_bytes)),
        ),
        line(
            "sessions",
            sessions * session + INCOMING_BYTES,
            format!(
                "{sessions}, limits.connection_window {} × 3.5 and {} each",
                size(window),
                size(streams + SESSION_BYTES)
            ),
        ),
        line(
            "publishers",
            limits.publishers as u64 * publisher,
            format!("{} of {}", limits.publishers, size(publisher)),
        ),
        line(
            "consumers",
            limits.consumers as u64 * consumer,
            format!(
                "{}, {}, 2 messages and {} each",
                limits.consumers,
                size(WINDOW_BYTES),
                size(2 * WRITE_BYTES as u64 + unanswered)
            ),
        ),
        line(
            "requests",
            limits.requests as u64 * (message(config) + SESSION_BYTES) + bounds::INBOX_BYTES,
            format!(
                "{}, a reply and {} each; replies that wait {}",
                limits.requests,
                size(SESSION_BYTES),
                size(bounds::INBOX_BYTES)
            ),
        ),
        line("admin calls", CALLS_MAX as u64 * call, format!("{CALLS_MAX} listings of {}", size(call))),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_page_explains_every_line() {
        let page = include_str!("../../../docs/memory.md");
        let config = Config::parse("", "quipu.toml", Path::new("")).expect("a configuration");
        let lines = lines(&config, &[]);
        for line in &lines {
            assert!(page.contains(&format!("\n| {} | ", line.what)), "docs/memory.md says nothing of {:?}", line.what);
        }
        assert_eq!(total(&lines), lines.iter().map(|line| line.bytes).sum::<u64>());
    }

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!([0, 1, 1 << 20, 1_234 << 20].map(mebibytes), ["0.0 MiB", "0.1 MiB", "1.0 MiB", "1,234.0 MiB"]);
    }
}
