//! The same work for other brokers, side by side: each starts alone, on an empty directory of the same disk.

mod jetstream;
mod rabbitmq;
mod redis_streams;
mod server;

use std::future::Future;

use anyhow::{Result, ensure};
use serde_json::{Map, Value};

use crate::conditions::{Conditions, version};
use crate::load::{self, Consume, Publish};
use crate::measures::{LATENCY_RATE, add_confirm, add_e2e, cpu_s_per_million, saturate};
use crate::process::Usage;
use crate::quipu;
use crate::report::Figures;
use crate::router::Router;
use crate::{Outcome, Plan};
use jetstream::JetStream;
use rabbitmq::RabbitMq;
use redis_streams::RedisStreams;
use server::{SCRIPT, Server};

/// Of the rate asked for, what must be reached for a latency to count.
const HELD: f64 = 0.98;

/// As `peers.sh` knows them, but for Quipu.
const PEERS: [&str; 6] =
    ["quipu", "jetstream_default", "jetstream_always", "rabbitmq_quorum", "redis_always", "redis_everysec"];

/// Each has a queue or stream of its own.
const WORKS: [&str; 3] = ["publish", "e2e", "latency"];

/// A broker that runs, as the work sees it.
trait Broker {
    type Publisher: Publish;
    type Consumer: Consume + 'static;

    /// Makes what takes the messages of this work.
    fn prepare(&self, work: &str) -> impl Future<Output = Result<()>>;
    /// On a connection of its own.
    fn publisher(&self, work: &str) -> impl Future<Output = Result<Self::Publisher>>;
    /// On a connection of its own; acks every message.
    fn consumer(&self, work: &str) -> impl Future<Output = Result<Self::Consumer>>;
    /// What the server has used so far.
    fn usage(&self) -> Result<Usage>;
}

/// `peers`.
pub(crate) async fn peers(plan: &Plan, conditions: &mut Conditions) -> Result<Outcome> {
    let unknown = plan.only.iter().find(|name| !PEERS.contains(&name.as_str()));
    ensure!(unknown.is_none(), "no peer {unknown:?}; there are {PEERS:?}");
    let chosen = |name: &&str| plan.only.is_empty() || plan.only.iter().any(|only| only == name);
    let mut systems: Vec<(&str, Figures)> =
        PEERS.into_iter().filter(chosen).map(|name| (name, Figures::default())).collect();
    server::install()?;
    for (name, _) in systems.iter().filter(|(name, _)| *name != "quipu") {
        conditions.add(name, version(SCRIPT, &["version", name]));
    }
    for round in 1..=plan.rounds {
        for (name, figures) in &mut systems {
            eprintln!("round {round} of {}: {name}", plan.rounds);
            run(plan, name, figures).await?;
        }
    }
    Ok(outcome(&systems))
}

async fn run(plan: &Plan, name: &str, figures: &mut Figures) -> Result<()> {
    if name == "quipu" {
        let config: String = WORKS.map(|work| format!("[queue.{work}]\n")).concat();
        return works(plan, &Router::start(&plan.place, &config)?, figures).await;
    }
    let server = Server::start(&plan.place, name)?;
    if name.starts_with("jetstream") {
        works(plan, &JetStream::new(server).await?, figures).await
    } else if name.starts_with("rabbitmq") {
        works(plan, &RabbitMq::new(server).await?, figures).await
    } else {
        works(plan, &RedisStreams::new(server).await?, figures).await
    }
}

async fn works(plan: &Plan, broker: &impl Broker, figures: &mut Figures) -> Result<()> {
    let [publish, e2e, latency] = WORKS;

    broker.prepare(publish).await?;
    let (run, used) = saturate(&mut broker.publisher(publish).await?, || broker.usage(), plan.time(2.0)).await?;
    figures.add("publish_msg_s", run.rate());
    add_confirm(figures, "publish_", &run);
    figures.add("publish_server_cpu_s_per_million", cpu_s_per_million(used, &run));

    broker.prepare(e2e).await?;
    let (mut publisher, consumer) = (broker.publisher(e2e).await?, broker.consumer(e2e).await?);
    let consumer = load::warm_up_both(&mut publisher, consumer).await?;
    let before = broker.usage()?;
    let (_, consumed) = load::end_to_end(&mut publisher, consumer, plan.time(2.0)).await?;
    let used = broker.usage()?.since(before);
    figures.add("e2e_msg_s", consumed.rate());
    add_e2e(figures, "", &consumed);
    figures.add("e2e_server_cpu_s_per_million", cpu_s_per_million(used, &consumed));

    broker.prepare(latency).await?;
    let (mut publisher, consumer) = (broker.publisher(latency).await?, broker.consumer(latency).await?);
    let consumer = load::warm_up_both(&mut publisher, consumer).await?;
    let (confirmed, consumed) = load::open_loop(&mut publisher, consumer, LATENCY_RATE, plan.time(3.0)).await?;
    figures.add("latency_held_rate", confirmed.rate());
    if confirmed.rate() >= HELD * f64::from(LATENCY_RATE) {
        add_confirm(figures, "latency_", &confirmed);
        add_e2e(figures, "latency_", &consumed);
    } else {
        figures.absent("latency_confirm_p50_us");
    }
    Ok(())
}

fn outcome(systems: &[(&str, Figures)]) -> Outcome {
    let mut fields: Map<String, Value> =
        systems.iter().map(|(name, figures)| ((*name).to_owned(), figures.json().into())).collect();
    let text: String = systems.iter().map(|(name, figures)| format!("{name}\n{}", figures.text())).collect();
    let ratios = ratios(systems);
    fields.extend(ratios.json());
    Outcome { text: format!("{text}quipu's rates by those of others, round by round\n{}", ratios.text()), fields }
}

fn ratios(systems: &[(&str, Figures)]) -> Figures {
    let mut ratios = Figures::default();
    let of = |name: &str| systems.iter().find(|(known, _)| *known == name).map(|(_, figures)| figures);
    for (prefix, figure) in [("", "publish_msg_s"), ("e2e_", "e2e_msg_s")] {
        for peer in PEERS.iter().filter(|name| **name != "quipu") {
            if let (Some(ours), Some(theirs)) = (of("quipu"), of(peer)) {
                ratios.add_ratio(&format!("{prefix}vs_{peer}"), ours, theirs, figure);
            }
        }
    }
    ratios
}

impl Broker for Router {
    type Publisher = quipu::Publisher;
    type Consumer = quipu::Subscriber;

    async fn prepare(&self, _: &str) -> Result<()> {
        // Its configuration has all of them.
        Ok(())
    }

    async fn publisher(&self, work: &str) -> Result<quipu::Publisher> {
        quipu::Publisher::open(&self.client().await?, vec![work.into()], false).await
    }

    async fn consumer(&self, work: &str) -> Result<quipu::Subscriber> {
        quipu::Subscriber::open(&self.client().await?, work).await
    }

    fn usage(&self) -> Result<Usage> {
        Router::usage(self)
    }
}
