//! The work that every system gets: so many publishes in flight, or so many a second. It knows no system, only how to
//! publish and how to consume.

use std::collections::VecDeque;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use hdrhistogram::Histogram;
use tokio::sync::mpsc;

/// Bytes of a message's payload.
pub(crate) const PAYLOAD_BYTES: usize = 1_024;
/// Publishes without a confirm, at the most.
pub(crate) const IN_FLIGHT: usize = 256;
/// The same at a fixed rate, where a stall must not slow the publisher down.
const IN_FLIGHT_OPEN: usize = 2_000;
/// What goes before that which is measured.
const WARM_UP: Duration = Duration::from_millis(300);

/// In place of a time: not measured, and the last one.
const STAMP_WARM_UP: u64 = u64::MAX - 1;
const STAMP_END: u64 = u64::MAX;

/// One connection that publishes.
pub(crate) trait Publish: Send {
    /// Ends when the message is confirmed.
    type Confirm: Future<Output = Result<()>> + Send + Unpin;

    /// Hands a message over. To be called again before the confirm is there.
    fn publish(&mut self, payload: Bytes) -> impl Future<Output = Result<Self::Confirm>> + Send;
}

/// One connection that consumes.
pub(crate) trait Consume: Send {
    /// Waits for at least one message, and acks each; their payloads.
    fn take(&mut self, payloads: &mut Vec<Bytes>) -> impl Future<Output = Result<()>> + Send;

    /// Waits until the acks are as safe as they get.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    /// Messages confirmed, or consumed and acked.
    pub(crate) messages: u64,
    /// Until the last of them.
    pub(crate) time: Duration,
    /// Of each, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Run {
    /// Messages a second.
    pub(crate) fn rate(&self) -> f64 {
        per_second(self.messages, self.time)
    }

    /// A quantile of the latency, in microseconds.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        float(self.latency.value_at_quantile(quantile)) / 1e3
    }
}

/// Payloads that do not compress, each with the time it is meant to be sent at.
pub(crate) struct Payloads {
    begun: Instant,
    random: Vec<u8>,
    next: usize,
}

impl Payloads {
    pub(crate) fn new() -> Self {
        let mut seed = 0x51_01_70_u64;
        let random = std::iter::repeat_with(|| split_mix(&mut seed).to_le_bytes()).take(32 << 10).flatten().collect();
        Self { begun: Instant::now(), random, next: 0 }
    }

    /// The next one, meant to be sent now.
    pub(crate) fn now(&mut self) -> Bytes {
        let stamp = self.clock();
        self.stamped(stamp)
    }

    fn stamped(&mut self, stamp: u64) -> Bytes {
        let length = PAYLOAD_BYTES - size_of::<u64>();
        self.next = (self.next + 509) % (self.random.len() - length);
        let mut payload = BytesMut::with_capacity(PAYLOAD_BYTES);
        payload.put_u64(stamp);
        payload.extend_from_slice(&self.random[self.next..self.next + length]);
        payload.freeze()
    }

    fn clock(&self) -> u64 {
        since(self.begun)
    }
}

/// Publishes for a while with so many in flight; the latency is that of the confirms.
pub(crate) async fn saturate(publisher: &mut impl Publish, in_flight: usize, time: Duration) -> Result<Run> {
    let mut payloads = Payloads::new();
    saturate_with(publisher, &mut payloads, in_flight, time).await
}

/// Brings connection and server up to speed.
pub(crate) async fn warm_up(publisher: &mut impl Publish) -> Result<()> {
    let mut payloads = Payloads::new();
    let mut pending = VecDeque::new();
    while payloads.begun.elapsed() < WARM_UP {
        if pending.len() == IN_FLIGHT {
            pending.pop_front().context("a confirm")?.await?;
        }
        pending.push_back(publisher.publish(payloads.stamped(STAMP_WARM_UP)).await?);
    }
    for confirm in pending {
        confirm.await?;
    }
    Ok(())
}

/// The same with a consumer, which has then consumed everything.
pub(crate) async fn warm_up_both<C: Consume + 'static>(publisher: &mut impl Publish, consumer: C) -> Result<C> {
    let mut payloads = Payloads::new();
    let consuming = tokio::spawn(consume(consumer, payloads.begun));
    warm_up(publisher).await?;
    publisher.publish(payloads.stamped(STAMP_END)).await?.await?;
    let (_, consumer) = consuming.await??;
    Ok(consumer)
}

/// Publishes and consumes for a while; the runs are that of the confirms and that from publish to delivery, whose time
/// is that until the last ack.
pub(crate) async fn end_to_end<C: Consume + 'static>(
    publisher: &mut impl Publish,
    consumer: C,
    time: Duration,
) -> Result<(Run, Run)> {
    let mut payloads = Payloads::new();
    let consuming = tokio::spawn(consume(consumer, payloads.begun));
    let confirmed = saturate_with(publisher, &mut payloads, IN_FLIGHT, time).await?;
    publisher.publish(payloads.stamped(STAMP_END)).await?.await?;
    let (consumed, _) = consuming.await??;
    Ok((confirmed, consumed))
}

/// Publishes so many a second for a while, whatever becomes of them. Latencies count from when a message was due.
pub(crate) async fn open_loop<C: Consume + 'static>(
    publisher: &mut impl Publish,
    consumer: C,
    rate: u32,
    time: Duration,
) -> Result<(Run, Run)> {
    let mut payloads = Payloads::new();
    let consuming = tokio::spawn(consume(consumer, payloads.begun));
    let begun = payloads.begun;
    let (ticks, mut due) = mpsc::channel(rate as usize);
    let end = begun.elapsed() + time;
    let pacer = std::thread::spawn(move || pace(begun, rate, &ticks, |due| due < end));
    let mut latency = histogram()?;
    let mut pending = VecDeque::with_capacity(IN_FLIGHT_OPEN);
    let mut messages = 0;
    loop {
        tokio::select! {
            biased;
            stamp = due.recv(), if pending.len() < IN_FLIGHT_OPEN => {
                let Some(stamp) = stamp else { break };
                pending.push_back((stamp, publisher.publish(payloads.stamped(stamp)).await?));
            }
            Some(stamp) = first(&mut pending) => {
                let stamp: u64 = stamp?;
                latency.record(payloads.clock() - stamp)?;
                messages += 1;
            }
        }
    }
    while let Some(stamp) = first(&mut pending).await {
        latency.record(payloads.clock() - stamp?)?;
        messages += 1;
    }
    let confirmed = Run { messages, time: begun.elapsed(), latency };
    publisher.publish(payloads.stamped(STAMP_END)).await?.await?;
    let (consumed, _) = consuming.await??;
    pacer.join().ok().context("the pacing thread failed")?;
    Ok((confirmed, consumed))
}

/// Publishes so many, as fast as it goes.
pub(crate) async fn fill(publisher: &mut impl Publish, messages: u64) -> Result<Run> {
    let mut payloads = Payloads::new();
    let (begun, mut pending) = (Instant::now(), VecDeque::new());
    for _ in 0..messages {
        if pending.len() == IN_FLIGHT {
            pending.pop_front().context("a confirm")?.await?;
        }
        pending.push_back(publisher.publish(payloads.now()).await?);
    }
    for confirm in pending {
        confirm.await?;
    }
    Ok(Run { messages, time: begun.elapsed(), latency: histogram()? })
}

/// Consumes what is there, for which nobody measures a latency.
pub(crate) async fn drain(mut consumer: impl Consume, messages: u64) -> Result<Run> {
    let begun = Instant::now();
    let (mut taken, mut payloads) = (0, Vec::new());
    while taken < messages {
        consumer.take(&mut payloads).await?;
        taken += payloads.drain(..).len() as u64;
    }
    consumer.flush().await?;
    Ok(Run { messages: taken, time: begun.elapsed(), latency: histogram()? })
}

/// Messages a second.
pub(crate) fn per_second(messages: u64, time: Duration) -> f64 {
    float(messages) / time.as_secs_f64()
}

/// A count, to calculate with.
pub(crate) fn float(count: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "exact below 2⁵³")]
    let count = count as f64;
    count
}

async fn saturate_with(
    publisher: &mut impl Publish,
    payloads: &mut Payloads,
    in_flight: usize,
    time: Duration,
) -> Result<Run> {
    let mut latency = histogram()?;
    let mut pending = VecDeque::with_capacity(in_flight);
    let (begun, mut messages) = (Instant::now(), 0);
    loop {
        while pending.len() < in_flight && begun.elapsed() < time {
            let stamp = payloads.clock();
            pending.push_back((stamp, publisher.publish(payloads.stamped(stamp)).await?));
        }
        let Some(stamp) = first(&mut pending).await else { break };
        latency.record(payloads.clock() - stamp?)?;
        messages += 1;
    }
    Ok(Run { messages, time: begun.elapsed(), latency })
}

/// The oldest message's stamp, once it is confirmed. Cancelled, nothing is lost.
async fn first<C: Future<Output = Result<()>> + Unpin>(pending: &mut VecDeque<(u64, C)>) -> Option<Result<u64>> {
    let (stamp, confirm) = pending.front_mut()?;
    let (stamp, confirmed) = (*stamp, confirm.await);
    pending.pop_front();
    Some(confirmed.map(|()| stamp))
}

/// Consumes up to the message that says it is the last one, and gives the consumer back.
async fn consume<C: Consume>(mut consumer: C, begun: Instant) -> Result<(Run, C)> {
    let mut latency = histogram()?;
    let mut payloads = Vec::new();
    let mut messages = 0;
    loop {
        consumer.take(&mut payloads).await?;
        let now = since(begun);
        for payload in payloads.drain(..) {
            let stamp = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).context("a message of ours")?;
            match stamp {
                STAMP_WARM_UP => {}
                STAMP_END => {
                    consumer.flush().await?;
                    return Ok((Run { messages, time: begun.elapsed(), latency }, consumer));
                }
                _ => {
                    latency.record(now.saturating_sub(stamp))?;
                    messages += 1;
                }
            }
        }
    }
}

/// Says when each message is due, in nanoseconds since the begin, as long as it goes on. A thread, because the timers of
/// the async runtime have a grain of a millisecond.
pub(crate) fn pace(begun: Instant, rate: u32, ticks: &mpsc::Sender<u64>, goes_on: impl Fn(Duration) -> bool) {
    // The default is 50 µs late. Where it cannot be set, latencies show that.
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1)).ok();
    let step = Duration::from_secs(1) / rate;
    let mut due = begun.elapsed();
    while goes_on(due) {
        if let Some(wait) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(wait);
        }
        let stamp = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
        if ticks.blocking_send(stamp).is_err() {
            return;
        }
        due += step;
    }
}

/// For times of up to ten minutes, in nanoseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1_000, 600_000_000_000, 3)?)
}

/// Nanoseconds.
pub(crate) fn since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
fn split_mix(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
