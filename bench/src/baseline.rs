//! What Quipu is held against on the way down: the disk alone, and the queue engine without a network.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quipu_protocol::{Message, MessageId, Subject};
use quipu_queue::{Published, QueueSettings, Store, StoreConfig};

use crate::load::{IN_FLIGHT, PAYLOAD_BYTES, Payloads, per_second};
use crate::router::Place;

/// Messages in one request to the engine; several requests are under way, so that it need not wait for the disk.
const REQUEST_MESSAGES: usize = 64;

/// Appends 256 × 1 KiB to a file and syncs it, again and again; messages a second.
pub(crate) fn append_and_sync(place: &Place, time: Duration) -> Result<f64> {
    let directory = place.directory()?;
    let mut file = File::create_new(directory.path().join("raw"))?;
    let mut payloads = Payloads::new();
    let batch: Vec<u8> = (0..IN_FLIGHT).flat_map(|_| payloads.now()).collect();
    debug_assert_eq!(batch.len(), IN_FLIGHT * PAYLOAD_BYTES);
    let (begun, mut messages) = (Instant::now(), 0);
    while begun.elapsed() < time {
        file.write_all(&batch)?;
        file.sync_data()?;
        messages += IN_FLIGHT as u64;
    }
    Ok(per_second(messages, begun.elapsed()))
}

/// Publishes into a store in this process with 256 in flight; messages a second.
pub(crate) async fn engine(place: &Place, time: Duration) -> Result<f64> {
    let directory = place.directory()?;
    let config = StoreConfig::new(directory.path());
    let store = tokio::task::spawn_blocking(move || Store::open(&config)).await??;
    store.define_queue(QueueSettings::new(Subject::new("work")?)).await??;
    let message = Message::new(MessageId::new("plain")?, Subject::new("work")?, "");
    let mut payloads = Payloads::new();
    let mut request = || {
        let one = || {
            let mut one = message.clone();
            one.payload = payloads.now();
            Published::new(&one, false)
        };
        std::iter::repeat_with(one).take(REQUEST_MESSAGES).collect::<Vec<_>>()
    };
    let publisher = store.publisher();
    let mut pending = VecDeque::new();
    let (begun, mut messages) = (Instant::now(), 0);
    while begun.elapsed() < time || !pending.is_empty() {
        while pending.len() < IN_FLIGHT / REQUEST_MESSAGES && begun.elapsed() < time {
            pending.push_back(publisher.submit(request()).await?);
        }
        let Some(answer) = pending.pop_front() else { break };
        for receipt in answer.await.context("the store stopped")?? {
            receipt?;
            messages += 1;
        }
    }
    let rate = per_second(messages, begun.elapsed());
    store.stop().await?;
    Ok(rate)
}
