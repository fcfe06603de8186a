//! The measures of Quipu alone.

use std::time::{Duration, Instant};

use anyhow::Result;
use quipu_client::Client;

use crate::load::{self, IN_FLIGHT, PAYLOAD_BYTES, Publish, Run};
use crate::process::Usage;
use crate::quipu::{Publisher, Subscriber};
use crate::report::Figures;
use crate::router::Router;
use crate::{Outcome, Plan, baseline, process};

/// Messages a second at which latency is measured.
pub(crate) const LATENCY_RATE: u32 = 5_000;

const ONE_QUEUE: &str = "[queue.work]\n";
const ONE_MEMORY_QUEUE: &str = "[queue.work]\ndurability = \"memory\"\n";

impl From<&Figures> for Outcome {
    fn from(figures: &Figures) -> Self {
        Self { text: figures.text(), fields: figures.json() }
    }
}

/// `synced`.
pub(crate) async fn synced(plan: &Plan) -> Result<Outcome> {
    let mut figures = Figures::default();
    let time = plan.time(2.0);
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        if plan.only.is_empty() {
            figures.add("raw_msg_s", baseline::append_and_sync(&plan.place, time)?);
            figures.add("engine_msg_s", baseline::engine(&plan.place, time).await?);
        }
        let router = Router::start(&plan.place, ONE_QUEUE)?;
        let client = router.client().await?;
        let (run, used) = publish(&router, &client, vec!["work".into()], false, time).await?;
        figures.add("quipu_msg_s", run.rate());
        add_confirm(&mut figures, "", &run);
        figures.add("server_cpu_s_per_million", cpu_s_per_million(used, &run));
        figures.add(
            "write_amplification",
            load::float(used.written_bytes) / load::float(run.messages * PAYLOAD_BYTES as u64),
        );
        client.close().await;
    }
    Ok((&figures).into())
}

/// `e2e`.
pub(crate) async fn e2e(plan: &Plan) -> Result<Outcome> {
    let mut figures = Figures::default();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        let router = Router::start(&plan.place, ONE_QUEUE)?;
        end_to_end(plan, &router, &mut figures, "synced_", "").await?;
        drop(router);
        match Router::start(&plan.place, ONE_MEMORY_QUEUE) {
            Ok(router) => drop(end_to_end(plan, &router, &mut figures, "memory_", "memory_").await?),
            Err(e) if e.to_string().contains("durability") => figures.absent("memory_msg_s"),
            Err(e) => return Err(e),
        }
    }
    Ok((&figures).into())
}

/// Publishes, consumes and acks for a while; messages a second.
pub(crate) async fn end_to_end(
    plan: &Plan,
    router: &Router,
    figures: &mut Figures,
    rate: &str,
    other: &str,
) -> Result<f64> {
    let (publishing, consuming) = (router.client().await?, router.client().await?);
    let mut publisher = Publisher::open(&publishing, vec!["work".into()], false).await?;
    let subscriber = Subscriber::open(&consuming, "work").await?;
    let subscriber = load::warm_up_both(&mut publisher, subscriber).await?;
    let before = router.usage()?;
    let (confirmed, consumed) = load::end_to_end(&mut publisher, subscriber, plan.time(2.0)).await?;
    let used = router.usage()?.since(before);
    figures.add(&format!("{rate}msg_s"), consumed.rate());
    add_confirm(figures, other, &confirmed);
    add_e2e(figures, other, &consumed);
    figures.add(&format!("{other}server_cpu_s_per_million"), cpu_s_per_million(used, &consumed));
    publishing.close().await;
    consuming.close().await;
    Ok(consumed.rate())
}

/// `latency`.
pub(crate) async fn latency(plan: &Plan) -> Result<Outcome> {
    let mut figures = Figures::default();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        let router = Router::start(&plan.place, ONE_QUEUE)?;
        let (publishing, consuming) = (router.client().await?, router.client().await?);
        let mut publisher = Publisher::open(&publishing, vec!["work".into()], false).await?;
        let subscriber = Subscriber::open(&consuming, "work").await?;
        let subscriber = load::warm_up_both(&mut publisher, subscriber).await?;
        let before = router.usage()?;
        let (confirmed, consumed) = load::open_loop(&mut publisher, subscriber, LATENCY_RATE, plan.time(6.0)).await?;
        let used = router.usage()?.since(before);
        add_confirm(&mut figures, "", &confirmed);
        add_e2e(&mut figures, "", &consumed);
        figures.add("held_rate", confirmed.rate());
        figures.add("server_cpu_s_per_million", cpu_s_per_million(used, &consumed));
        publishing.close().await;
        consuming.close().await;
    }
    Ok((&figures).into())
}

/// `queues`.
pub(crate) async fn queues(plan: &Plan) -> Result<Outcome> {
    let mut figures = Figures::default();
    for round in 1..=plan.rounds {
        eprintln!("round {round} of {}", plan.rounds);
        for (name, queues) in [("one", 1), ("thousand", 1_000)] {
            for (suffix, ids) in [("", false), ("_id", true)] {
                let subjects: Vec<String> = (0..queues).map(|n| format!("queue-{n}")).collect();
                let config: String = subjects.iter().map(|subject| format!("[queue.{subject}]\n")).collect();
                let router = Router::start(&plan.place, &config)?;
                let client = router.client().await?;
                let (run, _) = publish(&router, &client, subjects, ids, plan.time(2.0)).await?;
                figures.add(&format!("{name}{suffix}_msg_s"), run.rate());
                client.close().await;
            }
        }
    }
    Ok((&figures).into())
}

/// `ready`. Once: it takes its time.
pub(crate) async fn ready(plan: &Plan) -> Result<Outcome> {
    let mut figures = Figures::default();
    let mut router = Router::start(&plan.place, ONE_QUEUE)?;
    let client = router.client().await?;
    let mut publisher = Publisher::open(&client, vec!["work".into()], false).await?;
    eprintln!("publishing {} messages", plan.messages);
    let filled = load::fill(&mut publisher, plan.messages).await?;
    figures.add("messages", load::float(filled.messages));
    figures.add("fill_msg_s", filled.rate());
    drop((publisher, client));
    eprintln!("killing and starting again");
    let begun = Instant::now();
    let listening = router.kill_and_restart()?;
    let client = router.client().await?;
    figures.add("listening_s", listening.as_secs_f64());
    figures.add("ready_s", begun.elapsed().as_secs_f64());
    figures.add("rss_ready_mib", mib(process::resident_bytes(router.pid())?));
    eprintln!("draining");
    let watch = watch_memory(router.pid());
    let before = router.usage()?;
    let drained = load::drain(Subscriber::open(&client, "work").await?, plan.messages).await?;
    let used = router.usage()?.since(before);
    figures.add("drain_msg_s", drained.rate());
    figures.add("drain_server_cpu_s_per_million", cpu_s_per_million(used, &drained));
    figures.add("rss_max_mib", mib(watch()));
    client.close().await;
    Ok((&figures).into())
}

/// Looks at a process's memory every 20 ms until it is called; the most there was, in bytes.
fn watch_memory(pid: u32) -> impl FnOnce() -> u64 {
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
    let watching = std::thread::spawn(move || {
        let mut most = 0;
        loop {
            most = most.max(process::resident_bytes(pid).unwrap_or(0));
            if stopped.recv_timeout(Duration::from_millis(20)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return most;
            }
        }
    });
    move || {
        drop(stop);
        watching.join().unwrap_or(0)
    }
}

/// Publishes for a while, after a warm-up.
async fn publish(
    router: &Router,
    client: &Client,
    subjects: Vec<String>,
    ids: bool,
    time: Duration,
) -> Result<(Run, Usage)> {
    let mut publisher = Publisher::open(client, subjects, ids).await?;
    let (run, used) = saturate(&mut publisher, || router.usage(), time).await?;
    Ok((run, used))
}

/// Publishes for a while, after a warm-up, and what the server used meanwhile.
pub(crate) async fn saturate(
    publisher: &mut impl Publish,
    usage: impl Fn() -> Result<Usage>,
    time: Duration,
) -> Result<(Run, Usage)> {
    load::warm_up(publisher).await?;
    let before = usage()?;
    let run = load::saturate(publisher, IN_FLIGHT, time).await?;
    Ok((run, usage()?.since(before)))
}

/// The latencies of confirms, under these names.
pub(crate) fn add_confirm(figures: &mut Figures, prefix: &str, run: &Run) {
    add_latency(figures, &format!("{prefix}confirm"), run);
}

/// The latencies from publish to delivery, under these names.
pub(crate) fn add_e2e(figures: &mut Figures, prefix: &str, run: &Run) {
    add_latency(figures, &format!("{prefix}e2e"), run);
}

fn add_latency(figures: &mut Figures, name: &str, run: &Run) {
    for (suffix, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        figures.add(&format!("{name}_{suffix}_us"), run.latency_us(quantile));
    }
}

/// CPU seconds of the server for each million messages.
pub(crate) fn cpu_s_per_million(used: Usage, run: &Run) -> f64 {
    used.cpu_s * 1e6 / load::float(run.messages)
}

pub(crate) fn mib(bytes: u64) -> f64 {
    load::float(bytes) / load::float(1 << 20)
}
