//! Random modules and components through load and call, for as long as you like:
//! `cargo run --release -p quipu-runtime --example smith -- --minutes 10`.
//!
//! `--from SEED` begins with this seed; one that fails says so, and is tried again alone by `--from SEED --seeds 1`.

#[path = "../tests/smith/forge.rs"]
mod forge;

use std::time::{Duration, Instant};

use forge::{Tally, runtime, try_seed};

/// Seeds between two lines that say how far it is.
const REPORT_EVERY: u64 = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        let value = at.and_then(|at| arguments.get(at + 1));
        value.map_or(default, |value| value.parse().unwrap_or_else(|e| panic!("{name} {value}: {e}")))
    };
    let (minutes, from) = (number("--minutes", 10), number("--from", 1_000_000));
    let (seeds, time) = (number("--seeds", u64::MAX), Duration::from_secs(60 * minutes));
    let (runtime, begun) = (runtime(), Instant::now());
    let mut tally = Tally::default();
    for seed in (from..).take_while(|seed| seed - from < seeds && begun.elapsed() < time) {
        try_seed(&runtime, seed, &mut tally);
        if tally.tried.is_multiple_of(REPORT_EVERY) {
            println!("{:4} s: up to seed {seed}: {tally:?}", begun.elapsed().as_secs());
        }
    }
    println!("{tally:?}");
}
