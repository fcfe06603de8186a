//! What a plugin takes: time, instructions and memory for each message, on the engine of a router.
//!
//! Plugins that are compared take turns, round by round, so that whatever else the machine does meets all of them. What
//! a route costs beside its plugins is not in the figures.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;
use quipu_runtime::{CapturedLog, Component, Fault, Guest, Hand, Plugin as _, Use};
use serde::Serialize;

/// How long one plugin's turn takes, at least one pass over the messages.
const TURN: Duration = Duration::from_millis(50);
/// Passes of one turn, however fast they are.
const PASSES_MAX: usize = 100_000;
/// Instances that are started to see how long that takes.
const STARTS: usize = 21;

/// A plugin that takes part.
pub(crate) struct Entrant {
    pub(crate) label: String,
    pub(crate) component: Component,
    /// On an engine that counts instructions.
    pub(crate) counting: Component,
    pub(crate) compile: Duration,
    pub(crate) r#use: Use,
}

/// What it took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) plugin: String,
    pub(crate) digest: String,
    pub(crate) size_bytes: usize,
    pub(crate) compile_ms: f64,
    pub(crate) start_us: f64,
    pub(crate) messages: u64,
    pub(crate) rounds: usize,
    pub(crate) mean_ns: f64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    /// Instructions for each message, on average.
    pub(crate) fuel: Option<u64>,
    pub(crate) memory_bytes: usize,
    /// By how much the memory grew, for each message.
    pub(crate) growth_bytes: f64,
    /// Messages of each verdict, in one pass.
    pub(crate) verdicts: BTreeMap<String, u64>,
    /// What a worker that does nothing else gets through, in messages a second.
    pub(crate) per_second: u64,
    /// The median of each round: what is compared.
    #[serde(skip)]
    rounds_ns: Vec<f64>,
}

/// Runs all plugins on all messages for so many rounds.
///
/// Blocks; takes a twentieth of a second for each round and plugin.
///
/// # Errors
///
/// A plugin does not start, or does nothing but fail.
pub(crate) fn run(entrants: &[Entrant], messages: &[Hand], rounds: usize) -> Result<Vec<Figures>> {
    ensure!(!messages.is_empty(), "no messages to run on");
    let mut running = Vec::new();
    for entrant in entrants {
        running.push(Running::start(entrant, messages)?);
    }
    for round in 0..rounds {
        // Each goes first as often as any other.
        for n in 0..running.len() {
            let at = (n + round) % running.len();
            running[at].turn(messages)?;
        }
    }
    Ok(running.into_iter().map(|running| running.figures(rounds)).collect())
}

/// How many times as long as the first one a plugin takes: the median over the rounds, which no single hiccup moves.
pub(crate) fn ratio(first: &Figures, other: &Figures) -> f64 {
    let ratios = first.rounds_ns.iter().zip(&other.rounds_ns).map(|(first, other)| other / first.max(1.0));
    median(ratios.collect())
}

struct Running<'a> {
    entrant: &'a Entrant,
    guest: Guest,
    /// Nobody looks at the lines, and they must not pile up.
    log: Arc<CapturedLog>,
    all: Histogram<u64>,
    start: Duration,
    fuel: Option<u64>,
    verdicts: BTreeMap<String, u64>,
    first_memory_bytes: usize,
    rounds_ns: Vec<f64>,
}

impl<'a> Running<'a> {
    fn start(entrant: &'a Entrant, messages: &[Hand]) -> Result<Self> {
        let log = Arc::new(CapturedLog::default());
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            let begun = Instant::now();
            let guest = entrant.component.plugin_with(entrant.r#use.clone(), log.clone())?;
            starts.push(begun.elapsed().as_secs_f64());
            drop(guest);
        }
        let (fuel, verdicts) = count(entrant, messages)?;
        let mut guest = entrant.component.plugin_with(entrant.r#use.clone(), log.clone())?;
        // Warm, before anything is measured.
        for hand in messages {
            guest.process(&mut hand.clone()).ok();
        }
        log.take();
        let (start, first_memory_bytes) = (Duration::from_secs_f64(median(starts)), memory(&guest));
        let (all, rounds_ns) = (histogram()?, Vec::new());
        Ok(Self { entrant, guest, log, all, start, fuel, verdicts, first_memory_bytes, rounds_ns })
    }

    fn turn(&mut self, messages: &[Hand]) -> Result<()> {
        let (begun, mut passes, mut round) = (Instant::now(), 0, histogram()?);
        while passes == 0 || (begun.elapsed() < TURN && passes < PASSES_MAX) {
            passes += 1;
            for hand in messages {
                let mut hand = hand.clone();
                let begun = Instant::now();
                let verdict = self.guest.process(&mut hand);
                let ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                drop(verdict);
                round.saturating_record(ns);
            }
            self.log.take();
        }
        self.all.add(&round)?;
        self.rounds_ns.push(round.value_at_quantile(0.5).max(1) as f64);
        Ok(())
    }

    fn figures(self, rounds: usize) -> Figures {
        let component = &self.entrant.component;
        let (mean_ns, messages) = (self.all.mean().max(1.0), self.all.len());
        let grown = memory(&self.guest).saturating_sub(self.first_memory_bytes);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of at least 1 ns")]
        let per_second = (1e9 / mean_ns) as u64;
        Figures {
            plugin: self.entrant.label.clone(),
            digest: component.digest().to_string(),
            size_bytes: component.size_bytes(),
            compile_ms: self.entrant.compile.as_secs_f64() * 1e3,
            start_us: self.start.as_secs_f64() * 1e6,
            messages,
            rounds,
            mean_ns,
            p50_ns: self.all.value_at_quantile(0.5),
            p99_ns: self.all.value_at_quantile(0.99),
            fuel: self.fuel,
            memory_bytes: memory(&self.guest),
            growth_bytes: grown as f64 / messages.max(1) as f64,
            verdicts: self.verdicts,
            per_second,
            rounds_ns: self.rounds_ns,
        }
    }
}

/// Instructions of one pass for each message, once it is warm, and what becomes of the messages.
fn count(entrant: &Entrant, messages: &[Hand]) -> Result<(Option<u64>, BTreeMap<String, u64>)> {
    let log = Arc::new(CapturedLog::default());
    let mut guest = entrant.counting.plugin_with(entrant.r#use.clone(), log.clone())?;
    let (mut verdicts, mut fuel, mut last) = (BTreeMap::new(), None, None::<Fault>);
    for pass in 0..2 {
        for hand in messages {
            let verdict = guest.process(&mut hand.clone());
            if pass > 0 {
                fuel = guest.fuel_used().map(|used| fuel.unwrap_or(0) + used);
                let name = verdict.as_ref().map_or("fault", |verdict| verdict.name());
                *verdicts.entry(name.to_owned()).or_insert(0) += 1;
            }
            last = verdict.err().or(last);
        }
        log.take();
    }
    match (verdicts.get("fault").copied(), last) {
        (Some(faults), Some(fault)) if faults == messages.len() as u64 => {
            bail!("{} fails on every message: {fault}; quipu plugin run shows where", entrant.label)
        }
        _ => Ok((fuel.map(|fuel| fuel / messages.len().max(1) as u64), verdicts)),
    }
}

fn memory(guest: &Guest) -> usize {
    guest.usage().memory_bytes.max(guest.usage().memory_peak_bytes)
}

/// 1 ns to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_protocol::{Message, MessageId, Subject};
    use quipu_runtime::{Runtime, RuntimeConfig};

    fn entrant(label: &str, process: &str) -> Entrant {
        let text = format!(
            "(module (memory (export \"memory\") 1)
              (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
              (func (export \"quipu:plugin/handler@0.1.0#configure\") (result i32) (i32.const 0))
              (func (export \"quipu:plugin/handler@0.1.0#process\") (result i32) (local $n i32) {process}))"
        );
        let bytes = wat::parse_str(text).expect("valid WAT");
        let load = |count_fuel| {
            let config = RuntimeConfig { memories_max: 8, instances_max: 4, count_fuel, ..RuntimeConfig::default() };
            Runtime::new(config).expect("a runtime").load(label, label, &bytes).expect("a plugin")
        };
        let r#use = Use { config_json: "{}".into(), ..Use::default() };
        Entrant { label: label.into(), component: load(false), counting: load(true), compile: Duration::ZERO, r#use }
    }

    fn hand() -> Hand {
        let id = MessageId::new("a").expect("an id");
        Hand::new(Message::new(id, Subject::new("t").expect("a subject"), bytes::Bytes::new()), 1, 0, 0)
    }

    const LOOP: &str = "(loop $l (local.set $n (i32.add (local.get $n) (i32.const 1)))
                          (br_if $l (i32.lt_u (local.get $n) (i32.const 20000)))) (i32.const 0)";

    #[test]
    fn more_work_takes_more_of_everything() {
        let entrants = [entrant("little", "(i32.const 0)"), entrant("much", LOOP)];
        let figures = run(&entrants, &[hand(), hand()], 3).expect("figures");
        let [little, much] = figures.as_slice() else { panic!("two") };
        assert!(little.fuel < Some(100) && much.fuel > Some(100_000), "{little:?} {much:?}");
        assert_eq!((much.verdicts.get("forward"), much.memory_bytes, much.growth_bytes), (Some(&2), 65_536, 0.0));
        assert!(little.p50_ns <= little.p99_ns && little.per_second > much.per_second, "{little:?} {much:?}");
        assert!(ratio(little, much) > 2.0, "{}", ratio(little, much));
    }

    #[test]
    fn what_only_fails_has_no_figures() {
        let error = run(&[entrant("bad", "(unreachable)")], &[hand()], 1).err().map(|e| e.to_string());
        assert!(
            error.as_ref().is_some_and(|e| e.starts_with("bad fails on every message: plugin trapped")),
            "{error:?}"
        );
    }
}
