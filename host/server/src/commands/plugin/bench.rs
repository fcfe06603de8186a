//! `quipu plugin bench`: what a plugin takes, alone or beside another.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu_protocol::{Message, MessageId, Subject};
use quipu_runtime::{FILE_BYTES_MAX, Hand, RuntimeConfig};
use serde_json::{Value, json};

use super::run::pair;
use super::shown::{duration, padded, size};
use super::{build, text};
use crate::author::bench::{self, Entrant, Figures};
use crate::author::candidate::Candidate;
use crate::commands::connect::ServerArgs;
use crate::commands::output::say;
use crate::commands::table::count;
use crate::files;
use crate::plugins::cases::{CaseMessage, file};
use crate::plugins::offline;
use crate::plugins::version::{Reference, STOCK, unix_ms};

/// Most messages of the input, and their bytes.
const MESSAGES_MAX: usize = 10_000;
const INPUT_BYTES_MAX: u64 = 64 << 20;
/// How wide a column of figures is, in characters.
const COLUMN: usize = 22;

/// Measures a plugin: time, instructions and memory for each message, and what one worker gets through.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quipu plugin bench\n  quipu plugin bench big-quakes.wasm --input sample.ndjson -c at_least=4.5\n  \
    quipu plugin bench . --against big-quakes@1.4.2\n  quipu plugin bench new.wasm --against old.wasm --rounds 100"
)]
pub(crate) struct Args {
    /// A project, which is built first; or a module or component.
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    path: PathBuf,
    /// Messages: payloads, a line each. Without it a project's `sample.ndjson`, or else the messages of its cases.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Each line of the input is a whole message, as a case has it.
    #[arg(long, requires = "input")]
    messages: bool,
    /// Another plugin to measure beside it: a file, a version in the router's store, or NAME@stock.
    #[arg(long, value_name = "NAME@V|FILE")]
    against: Option<String>,
    /// A key of its configuration; the value is JSON, or else a text. May be repeated.
    #[arg(short = 'c', value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, Value)>,
    /// How often each is measured; 20 rounds take about a second for each plugin.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rounds: u16,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let candidate = build::candidate(&args.path, None, !args.json).await?;
    let Some(mut candidate) = candidate else { return Ok(ExitCode::FAILURE) };
    candidate.config.extend(args.config.iter().cloned());
    let messages = messages(&args, &candidate)?;
    let mut entrants = vec![entrant(&candidate).await?];
    // Gone with the last use of the file.
    let scratch = tempfile::tempdir()?;
    if let Some(against) = &args.against {
        let file = other(against, scratch.path(), &args.server).await?;
        entrants.push(entrant(&candidate.with_file(against, file)).await?);
    }
    let rounds = usize::from(args.rounds);
    let figures = tokio::task::spawn_blocking(move || bench::run(&entrants, &messages, rounds)).await??;
    if args.json {
        let ratio = figures.get(1).map(|other| bench::ratio(&figures[0], other));
        say!("{}", json!({ "plugins": figures, "ratio": ratio }))?;
    } else {
        print(&figures)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn entrant(candidate: &Candidate) -> Result<Entrant> {
    let Candidate { name, file, limits, .. } = candidate;
    let (component, compile) = candidate.load().await?;
    let counting = RuntimeConfig { count_fuel: true, ..Candidate::runtime(limits) };
    let (counting, _) = offline::load_as(name, file, counting).await?;
    Ok(Entrant { label: name.clone(), component, counting, compile, r#use: candidate.r#use() })
}

/// The file of what is compared with: as it is, of the stock, or from the router.
async fn other(against: &str, scratch: &Path, server: &ServerArgs) -> Result<PathBuf> {
    let file = Path::new(against);
    if file.exists() {
        return Ok(file.to_owned());
    }
    let Reference { name, version } = against.parse().with_context(|| format!("there is no file {against}"))?;
    let bytes = match quipu_plugin_artifacts::by_name(&name).filter(|_| version == STOCK) {
        Some(stock) => stock.wasm.to_vec(),
        None => fetch(&name, &version, server).await?,
    };
    let file = scratch.join("against.wasm");
    std::fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// A version's file from the router's store, piece by piece.
async fn fetch(name: &str, version: &str, server: &ServerArgs) -> Result<Vec<u8>> {
    let client = server.connect().await?;
    let mut bytes = Vec::new();
    loop {
        let call = json!({ "name": name, "version": version, "offset": bytes.len() });
        let answer = client.call("plugin.fetch", call).await.context("plugin.fetch")?;
        let piece = STANDARD.decode(text(&answer["data"])).context("plugin.fetch")?;
        bytes.extend_from_slice(&piece);
        ensure!(bytes.len() <= FILE_BYTES_MAX, "plugin.fetch: more than {FILE_BYTES_MAX} bytes");
        if piece.is_empty() || answer["size"].as_u64() == Some(bytes.len() as u64) {
            break;
        }
    }
    client.close().await;
    Ok(bytes)
}

fn messages(args: &Args, candidate: &Candidate) -> Result<Vec<Hand>> {
    let sample = candidate.dir.join("sample.ndjson");
    let file = args.input.clone().or_else(|| sample.exists().then_some(sample));
    let Some(path) = file else {
        let files = file::read_all(&candidate.dir).context("no --input, no sample.ndjson")?;
        let cases = files.iter().flat_map(|file| &file.cases).filter(|placed| placed.case.expect.error.is_none());
        return cases.map(|placed| placed.case.message.hand(unix_ms(), 0)).collect();
    };
    let text = files::read_text(&path, INPUT_BYTES_MAX)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let messages: Result<Vec<Hand>> = lines.take(MESSAGES_MAX + 1).map(|(n, line)| hand(args, n + 1, line)).collect();
    let messages = messages.with_context(|| path.display().to_string())?;
    ensure!(messages.len() <= MESSAGES_MAX, "{} has more than {MESSAGES_MAX} messages", path.display());
    ensure!(!messages.is_empty(), "{} has no messages", path.display());
    Ok(messages)
}

fn hand(args: &Args, number: usize, line: &str) -> Result<Hand> {
    if args.messages {
        let message: CaseMessage = serde_json::from_str(line).with_context(|| format!("line {number}"))?;
        return message.hand(unix_ms(), number as u64).with_context(|| format!("line {number}"));
    }
    let id = MessageId::new(&format!("line-{number}"))?;
    let mut message = Message::new(id, Subject::new("test")?, line.as_bytes().to_vec());
    message.published_ms = unix_ms();
    Ok(Hand::new(message, 1, unix_ms(), number as u64))
}

fn print(figures: &[Figures]) -> std::io::Result<()> {
    let row = |name: &str, cell: fn(&Figures) -> String| {
        let cells: String = figures.iter().map(|figures| padded(&cell(figures), COLUMN)).collect();
        format!("{}{cells}", padded(name, 12))
    };
    let ns = |ns: f64| duration(Duration::from_secs_f64(ns / 1e9));
    if figures.len() > 1 {
        say!("{}", row("", |figures| figures.plugin.clone()).trim_end())?;
    }
    say!("{}", row("file", |f| format!("{}  {}", &f.digest[..8], size(f.size_bytes))).trim_end())?;
    say!("{}", row("compile", |f| duration(Duration::from_secs_f64(f.compile_ms / 1e3))).trim_end())?;
    say!("{}", row("start", |f| duration(Duration::from_secs_f64(f.start_us / 1e6))).trim_end())?;
    let ratio = figures.get(1).map(|other| bench::ratio(&figures[0], other));
    let ratio = ratio.map(|ratio| format!("× {ratio:.2}")).unwrap_or_default();
    let times: String = figures
        .iter()
        .map(|f| padded(&format!("p50 {}  p99 {}", ns(f.p50_ns as f64), ns(f.p99_ns as f64)), COLUMN))
        .collect();
    say!("{}", format!("{}{times}{ratio}", padded("time", 12)).trim_end())?;
    let fuel = match figures {
        [first, other] => match (first.fuel, other.fuel) {
            (Some(first @ 1..), Some(other)) => format!("× {:.2}", other as f64 / first as f64),
            _ => String::new(),
        },
        _ => "instructions a message".into(),
    };
    let counted = row("fuel", |f| f.fuel.map_or("not counted".into(), count));
    say!("{}", format!("{counted}{fuel}").trim_end())?;
    say!("{}", row("memory", |f| format!("{}  +{:.0} a message", size(f.memory_bytes), f.growth_bytes)).trim_end())?;
    say!("{}", row("verdicts", verdicts).trim_end())?;
    say!("{}", row("one worker", |f| format!("{} messages/s", count(f.per_second))).trim_end())?;
    let first = &figures[0];
    say!("{} messages in {} rounds; of a route, its plugin alone", count(first.messages), first.rounds)
}

fn verdicts(figures: &Figures) -> String {
    figures.verdicts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}
