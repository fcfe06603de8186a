//! Damages a store in many ways, one after the other, and tells what became of each.
//!
//! `cargo run --release -p quipu-queue --example damage -- --count 20000 [--seed 1] [--case 17]`

#[path = "../tests/damage/harness.rs"]
#[allow(dead_code, reason = "the tests look at more of it")]
mod harness;

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let seed = number("--seed").unwrap_or(1);
    let cases = match number("--case") {
        Some(case) => case..case + 1,
        None => 0..number("--count").unwrap_or(1_000),
    };
    let store = harness::Damaged::build(harness::Panics::collect());
    let mut counts = harness::Counts::default();
    let began = Instant::now();
    let mut failed = 0;
    for case in cases {
        if let Err(why) = store.case(seed, case, &mut counts) {
            failed += 1;
            println!("{why}\n");
        }
        if counts.cases.is_multiple_of(1_000) {
            println!("{counts:?} after {} s", began.elapsed().as_secs());
        }
    }
    println!("{counts:?}\n{failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
