//! `quipu demo`: the main job on real input, in one command.
//!
//! Starts a router on a temporary store with the configuration of `examples/earthquakes`, publishes the feed twice over
//! QUIC, changes a filter halfway, and accounts for every message.

mod report;
mod swap;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use quipu_client::{Client, ClientConfig, Publisher, PublisherOptions, Receipt, Subscribe, Trust};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::output::say;
use super::publish::Mapping;
use crate::access::Access;
use crate::app::App;
use crate::config::Config;
use report::Report;
use swap::Meeting;

const CONFIG: &str = include_str!("../../../../examples/earthquakes/quipu.toml");
const CONFIG_NAME: &str = "examples/earthquakes/quipu.toml";
/// Of that configuration. The demo takes a free port.
const ADDRESS: &str = "127.0.0.1:4433";
const FEED: &[u8] = include_bytes!("../../../../examples/earthquakes/earthquakes.ndjson");
/// Where the feed is published.
const SUBJECT: &str = "quakes.raw";
/// Messages of the feed whose receipts are not there yet.
const IN_FLIGHT_MAX: usize = 1_024;
/// For the routes to work off what was published.
const ROUTES_WAIT: Duration = Duration::from_secs(120);
/// Between two looks at the queues.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Routes a week of earthquakes on a router of its own, and accounts for each.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu demo\n  quipu demo --json")]
pub(crate) struct Args {
    /// Another feed of the same form: GeoJSON features, one a line.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Prints the counts as a JSON object on the last line, in place of the table.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let feed = match &args.input {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => FEED.to_vec(),
    };
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let (file, text) = (directory.path().join("quipu.toml"), CONFIG.replace(ADDRESS, "127.0.0.1:0"));
    std::fs::write(&file, &text).context("cannot write the configuration")?;
    let config = Config::parse(&text, CONFIG_NAME, directory.path())?;
    let certificate = directory.path().join("certificate.pem");
    let access = Access::development(config.listen.quic, &certificate)?;
    let app = App::start(config, Some(file.clone()), access).await?;
    let server = app.address()?.to_string();
    if !args.json {
        say!("A router listens on {server}, its store in {}.\n", directory.path().display())?;
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn(app.run(stop.clone()));
    let report = observe(&server, &certificate, &feed, file, !args.json).await;
    stop.cancel();
    running.await??;
    let report = report?;
    if args.json {
        say!("{}", report.json()?)?;
    } else {
        report.print()?;
    }
    ensure!(report.lost() == 0, "{} messages are lost", report.lost());
    Ok(ExitCode::SUCCESS)
}

/// When messages were sent, by id, for the time until they are alerts.
type SentAt = Arc<Mutex<HashMap<String, Instant>>>;

async fn observe(server: &str, certificate: &Path, feed: &[u8], file: PathBuf, aloud: bool) -> Result<Report> {
    let trust = Trust::CertificateFile(certificate.to_owned());
    let config = ClientConfig { server: server.to_owned(), trust, name: "demo".into(), ..ClientConfig::default() };
    let client = Client::connect(config).await?;
    let sent_at = SentAt::default();
    let (enough, wanted) = oneshot::channel();
    let alerts = tokio::spawn(watch_alerts(client.clone(), sent_at.clone(), wanted, aloud));
    let lines = feed.split(|byte| *byte == b'\n').count() as u64;
    let (meeting, swapping) = swap::prepare(lines, client.clone(), file, aloud);
    let begun = Instant::now();
    let first = publish(&client, feed, Some((sent_at, meeting))).await.context("the first time")?;
    let swap = swapping.await?.context("the change of the filter")?;
    wait_for_routes(&client).await?;
    let took = begun.elapsed();
    let second = publish(&client, feed, None).await.context("the second time")?;
    wait_for_routes(&client).await?;
    let queues = client.call("queue.list", json!({})).await?;
    let routes = client.call("route.list", json!({})).await?;
    // Ignored: the watcher ended early, and says why below.
    enough.send(report::appended(&queues, "alerts")).ok();
    let alert_latency = alerts.await??;
    client.close().await;
    Ok(Report { first, second, took, swap, queues, routes, alert_latency })
}

/// What became of one pass over the feed.
pub(super) struct Pass {
    stored: u64,
    duplicates: u64,
    rejected: u64,
    /// From publish to receipt, in microseconds.
    latency: Histogram<u64>,
}

/// The first time, with where to note when messages were sent, and what happens meanwhile.
async fn publish(client: &Client, feed: &[u8], first: Option<(SentAt, Meeting)>) -> Result<Pass> {
    let publisher = client.publisher(PublisherOptions::default()).await?;
    let (sender, mut receipts) = mpsc::channel::<(Instant, u64, quipu_client::PendingReceipt)>(IN_FLIGHT_MAX);
    let counting = tokio::spawn(async move {
        let mut pass = Pass { stored: 0, duplicates: 0, rejected: 0, latency: histogram()? };
        while let Some((begun, line, receipt)) = receipts.recv().await {
            match receipt.await {
                Ok(Receipt::Stored(_) | Receipt::Routed) => pass.stored += 1,
                Ok(Receipt::Duplicate(_)) => pass.duplicates += 1,
                Err(e) => {
                    pass.rejected += 1;
                    eprintln!("line {line}: {e}");
                }
            }
            pass.latency.saturating_record(micros(begun.elapsed()));
        }
        anyhow::Ok(pass)
    });
    let sent = send_feed(&publisher, feed, first, sender).await;
    let pass = counting.await??;
    publisher.close().await?;
    let unusable = sent?;
    Ok(Pass { rejected: pass.rejected + unusable, ..pass })
}

/// Publishes every line; how many were no feature with an id and a type.
async fn send_feed(
    publisher: &Publisher,
    feed: &[u8],
    mut first: Option<(SentAt, Meeting)>,
    receipts: mpsc::Sender<(Instant, u64, quipu_client::PendingReceipt)>,
) -> Result<u64> {
    let mapping = Mapping {
        id_field: Some("id".into()),
        header_from: vec![("type".into(), "properties.type".into())],
        ..Mapping::default()
    };
    let mut unusable = 0;
    for (line, number) in feed.split(|b| *b == b'\n').zip(1u64..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let message = match mapping.message(SUBJECT, line.to_vec()) {
            Ok(message) => message,
            Err(why) => {
                unusable += 1;
                eprintln!("line {number}: {why}");
                continue;
            }
        };
        if let Some((_, meeting)) = &mut first {
            meeting.before(number).await;
        }
        let begun = Instant::now();
        if let Some((sent_at, _)) = &first
            && let Ok(feature) = serde_json::from_slice::<Value>(line)
            && let Some(id) = feature["id"].as_str()
        {
            sent_at.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_insert(begun);
        }
        let receipt = publisher.publish(message).await?;
        receipts.send((begun, number, receipt)).await.context("the receipts are no longer counted")?;
    }
    Ok(unusable)
}

/// Prints alerts as they come, until as many came as `wanted` says; from publish to here in microseconds.
async fn watch_alerts(
    client: Client,
    sent_at: SentAt,
    mut wanted: oneshot::Receiver<u64>,
    aloud: bool,
) -> Result<Histogram<u64>> {
    let mut subscriber = client.subscribe(Subscribe::new("alerts", "demo")).await?;
    let mut latency = histogram()?;
    let (mut seen, mut all) = (0, None);
    while all.is_none_or(|all| seen < all) {
        tokio::select! {
            next = subscriber.next() => {
                let Some(delivery) = next else { bail!("the subscription of the alerts ended") };
                let delivery = delivery?;
                let root = delivery.message.headers.first("quipu-root").unwrap_or_default();
                let sent = sent_at.lock().unwrap_or_else(PoisonError::into_inner).get(root).copied();
                if let Some(sent) = sent {
                    latency.saturating_record(micros(sent.elapsed()));
                }
                if aloud {
                    say!("alert  {}", report::alert(&delivery.message.payload))?;
                }
                seen += 1;
                delivery.ack_later().await?;
            }
            told = &mut wanted, if all.is_none() => all = Some(told.unwrap_or(0)),
        }
    }
    subscriber.flush().await?;
    subscriber.close().await?;
    Ok(latency)
}

/// Waits until no route has anything left of what was published.
async fn wait_for_routes(client: &Client) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = client.call("queue.show", json!({ "queue": "quakes" })).await?;
        let left = answer["queue"]["messages"].as_u64().context("queue.show without messages")?;
        if left == 0 {
            return Ok(());
        }
        ensure!(begun.elapsed() < ROUTES_WAIT, "{left} messages wait in `quakes` after {ROUTES_WAIT:?}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn histogram() -> Result<Histogram<u64>> {
    // One microsecond to two minutes.
    Histogram::new_with_bounds(1, 120_000_000, 3).context("a histogram's bounds")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
