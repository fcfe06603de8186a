//! `plugin`: what a plugin costs: the whole way through a queue's route, message by message, and what publishers notice
//! of an inline route and of one behind their queue.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use quipu_client::{Client, OutgoingMessage, PublisherOptions};
use serde_json::json;

use crate::load::{self, Publish, float};
use crate::measures;
use crate::quipu::Confirm;
use crate::report::Figures;
use crate::router::Router;
use crate::{Outcome, Plan, admin};

/// Bytes of a payload.
const SIZES: [usize; 6] = [64, 256, 1_024, 4_096, 16_384, 65_536];
/// The size that stands for all.
const SIZE: usize = 1_024;
/// What is filled into a queue, at most.
const FILL_MESSAGES: usize = 40_000;
const FILL_BYTES: usize = 64 << 20;
/// Between two looks at the queue.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
const FILTER: &str = "plugins = [{ name = \"filter-json\", config = { field = \"mag\", at_least = 2.5 } }]\n";
const IDENTITY: &str = "plugins = [{ name = \"identity\" }]\n";

/// Publishes the same message again and again.
struct Same {
    publisher: quipu_client::Publisher,
    subject: String,
    payload: Bytes,
}

impl Same {
    async fn open(client: &Client, subject: &str, bytes: usize) -> Result<Self> {
        let publisher = client.publisher(PublisherOptions { ids: false, ..Default::default() }).await?;
        Ok(Self { publisher, subject: subject.into(), payload: payload(bytes) })
    }
}

impl Publish for Same {
    type Confirm = Confirm;

    async fn publish(&mut self, _: Bytes) -> Result<Confirm> {
        let message = OutgoingMessage::new(&self.subject, self.payload.clone());
        Ok(Confirm::of(self.publisher.publish(message).await?))
    }
}

/// A JSON object of so many bytes that the filter lets through; the field stands at its end.
fn payload(bytes: usize) -> Bytes {
    let object = |padding: usize| json!({ "a": "x".repeat(padding), "mag": 5.5 }).to_string();
    object(bytes.saturating_sub(object(0).len())).into()
}

/// `plugin`.
pub(crate) async fn plugin(plan: &Plan) -> Result<Outcome> {
    let mut figures = Figures::default();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        if is_wanted(plan, "routes") {
            routes(plan, &mut figures).await?;
        }
        publishers(plan, &mut figures).await?;
        traces(plan, &mut figures).await?;
    }
    Ok((&figures).into())
}

/// A queue, a route and a queue for each plugin, all in memory.
async fn routes(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let identity = plan.place.directory()?;
    let file = identity.path().join("identity.wasm");
    std::fs::write(&file, wat::parse_str(include_str!("identity.wat"))?)?;
    let mut config = format!("[plugin.identity]\nfile = {:?}\n", file.display().to_string());
    for (name, plugins) in [("bare", ""), ("identity", IDENTITY), ("filter", FILTER)] {
        for queue in [format!("{name}-in"), format!("{name}-out")] {
            config += &format!("[queue.{queue}]\ndurability = \"memory\"\nmax_bytes = \"256MiB\"\n");
        }
        config += &format!("[[route]]\nname = \"{name}\"\nfrom = \"{name}-in\"\nto = [\"{name}-out\"]\n{plugins}");
    }
    let router = Router::start(&plan.place, &config)?;
    let client = router.client().await?;
    for name in ["bare", "identity", "filter"] {
        // Code and memory are touched for the first time.
        through(&client, name, SIZE).await?;
    }
    for bytes in SIZES {
        eprintln!("payloads of {bytes} bytes");
        let bare = through(&client, "bare", bytes).await?;
        add_ns(figures, "route", bytes, bare.0);
        for name in ["identity", "filter"] {
            let (whole, call) = through(&client, name, bytes).await?;
            add_ns(figures, name, bytes, whole);
            add_ns(figures, &format!("{name}_added"), bytes, whole - bare.0);
            add_ns(figures, &format!("{name}_call"), bytes, call);
        }
    }
    client.close().await;
    Ok(())
}

fn add_ns(figures: &mut Figures, name: &str, bytes: usize, ns: f64) {
    if bytes == SIZE {
        figures.add(&format!("{name}_ns"), ns);
    }
    figures.add(&format!("{name}_ns_{bytes}"), ns);
}

/// Fills the queue of a route that is paused, and lets it go: nanoseconds for each message, and of each call of its plugin.
async fn through(client: &Client, name: &str, bytes: usize) -> Result<(f64, f64)> {
    let messages = FILL_MESSAGES.min(FILL_BYTES / bytes) as u64;
    let (input, output, route) = (format!("{name}-in"), format!("{name}-out"), json!({ "name": name }));
    client.call("route.pause", route.clone()).await?;
    load::fill(&mut Same::open(client, &input, bytes).await?, messages).await?;
    let (calls, ns) = calls(client, name).await?;
    let begun = Instant::now();
    client.call("route.resume", route).await?;
    while admin::queue(client, &input, "messages").await? > 0 {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let took = begun.elapsed();
    ensure!(admin::queue(client, &output, "messages").await? == messages, "not all of {messages} came through {name}");
    client.call("queue.purge", json!({ "name": output })).await?;
    let (calls_after, ns_after) = self::calls(client, name).await?;
    let call = float(ns_after - ns) / float((calls_after - calls).max(1));
    Ok((took.as_secs_f64() * 1e9 / float(messages), call))
}

/// How often a route's plugin was called, and for how long in all.
async fn calls(client: &Client, name: &str) -> Result<(u64, u64)> {
    let route = admin::route(client, name).await?;
    let Some(plugin) = route["plugins"].get(0) else { return Ok((0, 0)) };
    let number = |value: &serde_json::Value| value.as_u64().context("a number of a plugin");
    Ok((number(&plugin["calls"])?, number(&plugin["time"]["total"])?))
}

/// Publishing to a synced queue: alone, past an inline route, and with a route that works it off.
async fn publishers(plan: &Plan, figures: &mut Figures) -> Result<()> {
    let inline = format!("[queue.work]\n[[route]]\nname = \"check\"\non = \"work\"\n{FILTER}");
    let queued = format!(
        "[queue.work]\n[queue.rest]\ndurability = \"memory\"\nmax_messages = 1000\non_full = \"drop-oldest\"\n\
         [[route]]\nname = \"check\"\nfrom = \"work\"\nto = [\"rest\"]\n{FILTER}"
    );
    let mut rates = Vec::new();
    let all = [("plain", "[queue.work]\n"), ("inline", &inline), ("queue_route", &queued)];
    for (name, config) in all.into_iter().filter(|(name, _)| is_wanted(plan, name)) {
        let router = Router::start(&plan.place, config)?;
        let client = router.client().await?;
        let mut publisher = Same::open(&client, "work", SIZE).await?;
        let (run, used) = measures::saturate(&mut publisher, || router.usage(), plan.time(3.0)).await?;
        figures.add(&format!("{name}_msg_s"), run.rate());
        figures.add(&format!("{name}_confirm_p99_us"), run.latency_us(0.99));
        figures.add(&format!("{name}_server_cpu_s_per_million"), measures::cpu_s_per_million(used, &run));
        rates.push(run.rate());
        client.close().await;
    }
    if let [plain, inline, queued] = rates[..] {
        figures.add("throughput_ratio", inline / plain);
        figures.add("queue_route_ratio", queued / plain);
    }
    Ok(())
}

/// Publishing, consuming and acking, with what is remembered of messages for `message show`: nothing, some, all.
async fn traces(plan: &Plan, figures: &mut Figures) -> Result<()> {
    if !is_wanted(plan, "trace") {
        return Ok(());
    }
    let mut rates = Vec::new();
    for mode in ["off", "sampled", "all"] {
        let router = Router::start(&plan.place, &format!("[trace]\nmode = \"{mode}\"\n[queue.work]\n"))?;
        let name = format!("trace_{mode}_");
        rates.push(measures::end_to_end(plan, &router, figures, &name, &name).await?);
    }
    if let [off, sampled, all] = rates[..] {
        figures.add("trace_sampled_ratio", sampled / off);
        figures.add("trace_ratio", all / off);
    }
    Ok(())
}

/// Of `--only`: `routes`, `plain`, `inline`, `queue_route`, `trace`; all, unless said.
fn is_wanted(plan: &Plan, name: &str) -> bool {
    plan.only.is_empty() || plan.only.iter().any(|only| only == name)
}
