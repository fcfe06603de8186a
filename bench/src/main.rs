//! Measures Quipu: `cargo run --release -p bench -- MEASURE [--json]`. What each measure does stands in the README.
//!
//! Progress goes to standard error; the figures, and with `--json` one object on the last line, to standard output.

mod admin;
mod baseline;
mod conditions;
mod load;
mod measures;
mod peers;
mod plugin;
mod process;
mod quipu;
mod report;
mod router;
mod swap;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value};

use conditions::Conditions;
use router::Place;

/// Measures Quipu over real QUIC and a real disk.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 120)]
struct Args {
    /// What to measure.
    #[arg(value_enum)]
    measure: Measure,
    /// One JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// A built router. Default: builds one.
    #[arg(long, value_name = "FILE")]
    quipu: Option<PathBuf>,
    /// How often everything is measured; medians are shown. `ready` is measured once.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each run takes. Default: what suits the measure.
    #[arg(long)]
    seconds: Option<f64>,
    /// Messages that wait, for `ready`.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Deployments, and reloads after them, for `swap`.
    #[arg(long, default_value_t = 1_000)]
    swaps: u32,
    /// Only these systems, by name, separated by commas: for `peers`; for `synced`, where `quipu` leaves out the disk
    /// alone and the engine alone; and for `plugin`, of `routes`, `plain`, `inline` and `queue_route`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Publishes, each on disk when it is confirmed, beside the disk alone and the engine alone.
    Synced,
    /// Publish, consume, ack, with each durability.
    E2e,
    /// Latency at 5,000 messages a second.
    Latency,
    /// One queue and a thousand, with ids and without.
    Queues,
    /// A killed router's way back with many messages, and the way out for them.
    Ready,
    /// The same work for other brokers.
    Peers,
    /// A route's plugin is replaced under load, and its configuration: what is lost, and how long messages take.
    Swap,
    /// What a plugin costs, on a queue's route and inline.
    Plugin,
}

/// What every measure is told.
pub(crate) struct Plan {
    place: Place,
    rounds: u32,
    seconds: Option<f64>,
    messages: u64,
    swaps: u32,
    only: Vec<String>,
}

/// What a measure came to: text for people, and fields.
pub(crate) struct Outcome {
    text: String,
    fields: Map<String, Value>,
}

impl Plan {
    /// How long a run takes.
    fn time(&self, default_s: f64) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(default_s))
    }
}

/// The one of the router: the clients of all systems are measured with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0, "at least one round");
    // One thread for every client: the servers need the other core.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(args))
}

async fn measure(args: Args) -> Result<()> {
    let Args { measure, json, quipu, rounds, seconds, messages, swaps, only } = args;
    let plan = Plan { place: Place::find(quipu)?, rounds, seconds, messages, swaps, only };
    let mut conditions = Conditions::begin(&plan.place)?;
    conditions.add("rounds", if measure == Measure::Ready { 1 } else { rounds });
    let Outcome { text, mut fields } = match measure {
        Measure::Synced => measures::synced(&plan).await?,
        Measure::E2e => measures::e2e(&plan).await?,
        Measure::Latency => measures::latency(&plan).await?,
        Measure::Queues => measures::queues(&plan).await?,
        Measure::Ready => measures::ready(&plan).await?,
        Measure::Peers => peers::peers(&plan, &mut conditions).await?,
        Measure::Swap => swap::swap(&plan).await?,
        Measure::Plugin => plugin::plugin(&plan).await?,
    };
    let name = measure.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let conditions = conditions.end()?;
    println!("{name}\n{text}");
    println!("conditions: {conditions}");
    if json {
        fields.insert("conditions".into(), conditions);
        let mut all = Map::from_iter([("measure".to_owned(), Value::from(name))]);
        all.extend(fields);
        println!("{}", Value::from(all));
    }
    Ok(())
}
