//! `swap`: two versions of a plugin take each other's place a thousand times in a route at work; then the configuration
//! becomes another one a thousand times.
//!
//! Messages come at a fixed rate all the while, numbered for each key. Who consumes them knows what is lost, twice, or
//! out of order.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use quipu_client::{Client, OutgoingMessage, PendingReceipt, PublisherOptions, Receipt, Subscribe, Subscriber};
use quipu_plugin_artifacts::StockPlugin;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::load::{self, float};
use crate::measures::mib;
use crate::report::Figures;
use crate::router::Router;
use crate::{Outcome, Plan, admin, process};

/// Messages a second.
const RATE: u32 = 2_000;
const KEYS: usize = 64;
/// Times of each that memory gets to settle, before it is measured.
const WARM_UP: u32 = 50;
/// For the last messages to come through.
const END_WAIT: Duration = Duration::from_secs(20);
/// Between two looks at a queue.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Publishes without a confirm.
const IN_FLIGHT: usize = 10_000;
const PLUGIN: &str = "filter-json";
const ROUTE: &str = "work";

/// What a message says of itself.
#[derive(Deserialize)]
struct Numbered {
    key: usize,
    number: usize,
    /// When it was due, in nanoseconds since the begin.
    due: u64,
}

/// How long messages took since this was emptied last.
type Times = Arc<Mutex<Histogram<u64>>>;

/// Messages at a fixed rate, and who takes them behind the route.
struct Stream {
    stop: Arc<AtomicBool>,
    times: Times,
    publishing: JoinHandle<Result<Vec<usize>>>,
    consuming: JoinHandle<Result<Seen>>,
    expected: watch::Sender<Option<u64>>,
}

/// What came.
struct Seen {
    /// For each key, how often each number came.
    counts: Vec<Vec<u32>>,
    deliveries: u64,
    out_of_order: u64,
}

/// What was asked of the router, time after time.
struct Asked {
    rate: f64,
    /// Of each, in nanoseconds.
    took: Histogram<u64>,
}

/// `swap`.
pub(crate) async fn swap(plan: &Plan) -> Result<Outcome> {
    let mut figures = Figures::default();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        measure(plan, &mut figures).await?;
    }
    Ok((&figures).into())
}

async fn measure(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let router = Router::start(&plan.place, &config(2.5))?;
    let (client, publishing, consuming) = (router.client().await?, router.client().await?, router.client().await?);
    let versions = push_versions(&client).await?;
    let stream = Stream::open(&publishing, &consuming).await?;
    deployments(&client, &versions, WARM_UP).await?;
    reloads(&router, &client, WARM_UP).await?;
    stream.times()?;
    tokio::time::sleep(plan.time(10.0) / 2).await;
    let mut without = stream.times()?;
    let resident = || process::resident_bytes(router.pid()).map(mib);
    figures.add("rss_mib_before", resident()?);
    eprintln!("{} deployments", plan.swaps);
    let swaps = deployments(&client, &versions, plan.swaps).await?;
    let during_swaps = stream.times()?;
    figures.add("rss_mib_after_swaps", resident()?);
    eprintln!("{} reloads", plan.swaps);
    let reloads = reloads(&router, &client, plan.swaps).await?;
    let during_reloads = stream.times()?;
    figures.add("rss_mib_after_reloads", resident()?);
    tokio::time::sleep(plan.time(10.0) / 2).await;
    without.add(&stream.times()?)?;
    let (sent, seen) = stream.end(&client).await?;
    add_counts(figures, plan.swaps, &sent, &seen);
    add_times(figures, &without, &during_swaps, &during_reloads);
    add_asked(figures, "swap", &swaps);
    add_asked(figures, "reload", &reloads);
    for client in [client, publishing, consuming] {
        client.close().await;
    }
    Ok(())
}

fn config(at_least: f64) -> String {
    format!(
        "[queue.in]\n[queue.out]\n[[route]]\nname = \"{ROUTE}\"\nfrom = \"in\"\nparallel = 2\nto = [\"out\"]\n\
         plugins = [{{ name = \"{PLUGIN}\", config = {{ field = \"mag\", at_least = {at_least:.1} }} }}]\n"
    )
}

/// Two versions that do the same: the stock plugin, and the same with a section that nobody reads.
async fn push_versions(client: &Client) -> Result<[String; 2]> {
    let StockPlugin { wasm, .. } = quipu_plugin_artifacts::by_name(PLUGIN).context("it is a stock plugin")?;
    let section = b"\0\x06\x05other";
    let other = [wasm, &section[..]].concat();
    Ok([admin::push(client, PLUGIN, wasm).await?, admin::push(client, PLUGIN, &other).await?])
}

async fn deployments(client: &Client, versions: &[String; 2], times: u32) -> Result<Asked> {
    repeat(times, async |n| {
        let report = admin::deploy(client, PLUGIN, &versions[(n + 1) % 2], ROUTE).await?;
        let (lost, twice) = (&report["ledger"]["lost"], &report["ledger"]["twice"]);
        ensure!(*lost == 0 && *twice == 0, "the router's own ledger: {report}");
        Ok(())
    })
    .await
}

async fn reloads(router: &Router, client: &Client, times: u32) -> Result<Asked> {
    repeat(times, async |n| {
        router.configure(&config([2.0, 2.5][n % 2]))?;
        admin::reload(client).await
    })
    .await
}

async fn repeat(times: u32, ask: impl AsyncFn(usize) -> Result<()>) -> Result<Asked> {
    let (begun, mut took) = (Instant::now(), load::histogram()?);
    for n in 0..times as usize {
        let asked = Instant::now();
        ask(n).await?;
        took.record(load::since(asked))?;
    }
    Ok(Asked { rate: load::per_second(u64::from(times), begun.elapsed()), took })
}

impl Stream {
    async fn open(publishing: &Client, consuming: &Client) -> Result<Self> {
        let (begun, stop, times) =
            (Instant::now(), Arc::new(AtomicBool::new(false)), Times::new(load::histogram()?.into()));
        let publisher = publishing.publisher(PublisherOptions { ids: false, ..Default::default() }).await?;
        let subscriber = consuming.subscribe(Subscribe::new("out", "bench")).await?;
        let (expected, told) = watch::channel(None);
        let consuming = tokio::spawn(consume(subscriber, begun, times.clone(), told));
        let publishing = tokio::spawn(publish(publisher, begun, stop.clone()));
        Ok(Self { stop, times, publishing, consuming, expected })
    }

    /// How long messages took since the last time that this was asked.
    fn times(&self) -> Result<Histogram<u64>> {
        ensure!(!self.publishing.is_finished() && !self.consuming.is_finished(), "a client ended too soon");
        let empty = load::histogram()?;
        Ok(std::mem::replace(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner), empty))
    }

    /// Sends no more, and waits until all that is behind the route has come: how many numbers each key had, and what
    /// came.
    async fn end(self, client: &Client) -> Result<(Vec<usize>, Seen)> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.publishing.await??;
        let begun = Instant::now();
        while admin::queue(client, "in", "messages").await? > 0 && begun.elapsed() < END_WAIT {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.expected.send(Some(admin::queue(client, "out", "next_offset").await?))?;
        Ok((sent, self.consuming.await??))
    }
}

async fn publish(publisher: quipu_client::Publisher, begun: Instant, stop: Arc<AtomicBool>) -> Result<Vec<usize>> {
    let (ticks, mut due) = mpsc::channel(IN_FLIGHT);
    let pacer = std::thread::spawn(move || load::pace(begun, RATE, &ticks, |_| !stop.load(Ordering::Relaxed)));
    let (receipts, pending) = mpsc::channel(IN_FLIGHT);
    let confirming = tokio::spawn(confirm(pending));
    let (mut sent, padding) = (vec![0; KEYS], "x".repeat(512));
    let mut key = 0;
    while let Some(due) = due.recv().await {
        let payload = json!({ "key": key, "number": sent[key], "due": due, "mag": 5.5, "padding": padding });
        let message = OutgoingMessage::new("in", payload.to_string()).key(format!("key-{key}"));
        receipts.send(publisher.publish(message).await?).await.context("a message was refused")?;
        sent[key] += 1;
        key = (key + 1) % KEYS;
    }
    drop(receipts);
    confirming.await??;
    pacer.join().ok().context("the pacing thread failed")?;
    Ok(sent)
}

async fn confirm(mut pending: mpsc::Receiver<PendingReceipt>) -> Result<()> {
    while let Some(receipt) = pending.recv().await {
        let receipt = receipt.await?;
        ensure!(matches!(&receipt, Receipt::Stored(places) if places.len() == 1), "expected one place: {receipt:?}");
    }
    Ok(())
}

/// Takes what comes, until so many came as are told.
async fn consume(
    mut subscriber: Subscriber,
    begun: Instant,
    times: Times,
    mut told: watch::Receiver<Option<u64>>,
) -> Result<Seen> {
    let mut seen = Seen { counts: vec![Vec::new(); KEYS], deliveries: 0, out_of_order: 0 };
    let mut all = None;
    while all.is_none_or(|all| seen.deliveries < all) {
        tokio::select! {
            delivery = within(all, subscriber.next()) => {
                let Some(delivery) = delivery else { break };
                let delivery = delivery.context("the subscription ended")??;
                let numbered: Numbered = serde_json::from_slice(&delivery.message.payload)?;
                let took = load::since(begun).saturating_sub(numbered.due);
                times.lock().unwrap_or_else(PoisonError::into_inner).record(took)?;
                seen.add(&numbered);
                delivery.ack_later().await?;
            }
            changed = told.changed(), if all.is_none() => {
                changed?;
                all = *told.borrow();
            }
        }
    }
    subscriber.flush().await?;
    Ok(seen)
}

/// Once it is known how many are to come, one that does not come is not waited for without end.
async fn within<T>(all: Option<u64>, next: impl Future<Output = T>) -> Option<T> {
    match all {
        None => Some(next.await),
        Some(_) => tokio::time::timeout(END_WAIT, next).await.ok(),
    }
}

impl Seen {
    fn add(&mut self, &Numbered { key, number, .. }: &Numbered) {
        let counts = &mut self.counts[key];
        self.deliveries += 1;
        // The highest so far is the last of the list.
        if number + 1 < counts.len() && counts[number] == 0 {
            self.out_of_order += 1;
        }
        if counts.len() <= number {
            counts.resize(number + 1, 0);
        }
        counts[number] += 1;
    }
}

fn add_counts(figures: &mut Figures, swaps: u32, sent: &[usize], seen: &Seen) {
    let count = |key: usize, number: usize| seen.counts[key].get(number).copied().unwrap_or(0);
    let each = || sent.iter().enumerate().flat_map(|(key, sent)| (0..*sent).map(move |number| (key, number)));
    let lost = each().filter(|(key, number)| count(*key, *number) == 0).count();
    let twice: u32 = each().map(|(key, number)| count(key, number).saturating_sub(1)).sum();
    figures.add("swaps", f64::from(swaps));
    figures.add("reloads", f64::from(swaps));
    figures.add("messages", float(sent.iter().sum::<usize>() as u64));
    figures.add("lost", float(lost as u64));
    figures.add("twice", f64::from(twice));
    figures.add("out_of_order", float(seen.out_of_order));
}

fn add_times(
    figures: &mut Figures,
    without: &Histogram<u64>,
    during_swaps: &Histogram<u64>,
    during_reloads: &Histogram<u64>,
) {
    let ms = |times: &Histogram<u64>, quantile| float(times.value_at_quantile(quantile)) / 1e6;
    for (suffix, times) in [("", during_swaps), ("_without", without), ("_reloads", during_reloads)] {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            figures.add(&format!("{name}_ms{suffix}"), ms(times, quantile));
        }
    }
    figures.add("added_p99_ms", ms(during_swaps, 0.99) - ms(without, 0.99));
    figures.add("added_p99_ms_reloads", ms(during_reloads, 0.99) - ms(without, 0.99));
}

fn add_asked(figures: &mut Figures, name: &str, asked: &Asked) {
    figures.add(&format!("{name}s_per_s"), asked.rate);
    for (suffix, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        figures.add(&format!("{name}_ms_{suffix}"), float(asked.took.value_at_quantile(quantile)) / 1e6);
    }
}
