//! Runs the simulation of a store over many seeds: `simulate --seeds 20000`, or one of them again: `simulate --seed 7
//! --verbose`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use quipu_queue::simulation::{Options, run};

/// Failing seeds after which it ends.
const FAILURES_MAX: usize = 20;

struct Arguments {
    first: u64,
    seeds: u64,
    threads: usize,
    options: Options,
}

fn main() -> ExitCode {
    let Some(arguments) = read_arguments() else {
        eprintln!(
            "usage: simulate [--seeds N] [--first N] [--threads N] | [--seed N] [--verbose]\n       \
             [--steps N] [--sync-lies] [--no-faults] [--no-failed-syncs]"
        );
        return ExitCode::FAILURE;
    };
    let began = Instant::now();
    let next = AtomicU64::new(arguments.first);
    let failures = Mutex::new(Vec::new());
    let coverage = Mutex::new(BTreeMap::new());
    if !arguments.options.verbose && arguments.seeds > 1 {
        std::panic::set_hook(Box::new(|_| {}));
    }
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| work(&arguments, &next, &failures, &coverage));
        }
    });
    let seeds = next.load(Ordering::Relaxed).min(arguments.first + arguments.seeds) - arguments.first;
    let coverage: BTreeMap<&str, u64> = coverage.into_inner().unwrap_or_else(PoisonError::into_inner);
    for (what, count) in coverage {
        println!("{count:>10} {what}");
    }
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    for (seed, why) in &failures {
        println!(
            "seed {seed}: {why}\n  again: cargo run --release -p quipu-queue --features simulation --example simulate -- --seed {seed}{} --verbose",
            arguments.flags()
        );
    }
    println!("{seeds} seeds in {:.1} s, {} failed", began.elapsed().as_secs_f64(), failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(
    arguments: &Arguments,
    next: &AtomicU64,
    failures: &Mutex<Vec<(u64, String)>>,
    coverage: &Mutex<BTreeMap<&'static str, u64>>,
) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let failed = failures.lock().unwrap_or_else(PoisonError::into_inner).len();
        if seed >= arguments.first + arguments.seeds || failed >= FAILURES_MAX {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| run(seed, arguments.options))) {
            Ok(one) => {
                let mut all = coverage.lock().unwrap_or_else(PoisonError::into_inner);
                one.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
            }
            Err(why) => {
                let text = why.downcast_ref::<String>().cloned();
                let text = text.or_else(|| why.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push((seed, text.unwrap_or_default()));
            }
        }
    }
}

impl Arguments {
    /// What the same seed needs to run the same way.
    fn flags(&self) -> String {
        let (is, usual) = (self.options, Options::default());
        let mut flags = String::new();
        if is.steps != usual.steps {
            flags += &format!(" --steps {}", is.steps);
        }
        for (set, flag) in
            [(is.sync_lies, " --sync-lies"), (!is.faults, " --no-faults"), (!is.failed_syncs, " --no-failed-syncs")]
        {
            flags += if set { flag } else { "" };
        }
        flags
    }
}

fn read_arguments() -> Option<Arguments> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut read = Arguments { first: 0, seeds: 1_000, threads, options: Options::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seeds" => read.seeds = number()?,
            "--first" => read.first = number()?,
            "--seed" => (read.first, read.seeds, read.threads) = (number()?, 1, 1),
            "--threads" => read.threads = usize::try_from(number()?).ok()?,
            "--steps" => read.options.steps = number()?,
            "--sync-lies" => read.options.sync_lies = true,
            "--no-faults" => read.options.faults = false,
            "--no-failed-syncs" => read.options.failed_syncs = false,
            "--verbose" => read.options.verbose = true,
            _ => return None,
        }
    }
    Some(read)
}
