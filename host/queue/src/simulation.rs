//! A store under everything that may happen to one, by the seed: a model test.
//!
//! The [engine](crate::engine) runs over a disk that fails, with a clock of its own; producers, consumers and operators
//! ask at random, and the work of the store's other threads is done at random moments. A model of plain maps says what
//! must be there, and every answer, delivery, listing and restart is held against it.

mod answers;
mod ask;
mod changes;
mod crash;
mod deliveries;
mod finish;
mod jobs;
mod model;
mod random;
mod world;

use std::collections::BTreeMap;

/// How one simulation is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Things that happen, before everything comes to its end.
    pub steps: u64,
    /// Whether crashes, failing disks and full ones are among them.
    pub faults: bool,
    /// Whether syncs fail, too.
    pub failed_syncs: bool,
    /// Whether the disk says it has synced and has not, so that the simulation must fail.
    pub sync_lies: bool,
    /// Says what happens.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { steps: 250, faults: true, failed_syncs: true, sync_lies: false, verbose: false }
    }
}

/// Runs one simulation; how often what happened.
///
/// # Panics
///
/// Where the store does not do what it must.
#[must_use]
pub fn run(seed: u64, options: Options) -> BTreeMap<&'static str, u64> {
    let mut world = world::World::new(seed, options);
    world.run();
    world.coverage
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::sync::Mutex;

    use super::*;

    const SEEDS: u64 = 500;
    const STEPS: u64 = 120;
    /// What every run of all seeds must come across, or it no longer tries what it says.
    const COVERED: [&str; 39] = [
        "checkpoints",
        "checkpoints asked for",
        "checkpoints that fail",
        "checkpoints that shrink",
        "clean stops",
        "clocks that jump back",
        "consumers that leave",
        "consumers whose subscription is removed",
        "crashes before the engine was told",
        "crashes of the machine",
        "crashes of the process",
        "dead letters",
        "dead letters that go back",
        "deliveries after a crash",
        "deliveries that expire",
        "duplicates",
        "full disks",
        "journals that fail",
        "journals that are full",
        "looks",
        "messages handled alone",
        "messages of inline routes",
        "named publishers that send again",
        "openings that fail",
        "power lost during an operation",
        "publishers that are fenced",
        "publishers that wait",
        "publishes into full queues",
        "publishes onto full disks",
        "queues that are purged",
        "queues that are removed",
        "records that a crash takes",
        "redrives that only look",
        "settlements that a change made stale",
        "settlements that are stale",
        "subscriptions that are paused or go on",
        "subscriptions that are sought",
        "subscriptions without consumers",
        "windows that pass",
    ];

    /// The seeds, on two threads; how often what happened in all of them.
    fn run_all(options: Options) -> BTreeMap<&'static str, u64> {
        let all = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for first in 0..2 {
                let all = &all;
                scope.spawn(move || {
                    for seed in (first..SEEDS).step_by(2) {
                        let one = catch_unwind(|| run(seed, options));
                        let one = one.unwrap_or_else(|_| {
                            panic!(
                                "again: cargo run -p quipu-queue --features simulation --example simulate -- \
                                 --steps {STEPS} --seed {seed} --verbose"
                            )
                        });
                        let mut all = all.lock().expect("no other failed");
                        one.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
                    }
                });
            }
        });
        all.into_inner().expect("none failed")
    }

    #[test]
    fn a_store_keeps_its_promises_whatever_happens() {
        let covered = run_all(Options { steps: STEPS, ..Options::default() });
        for what in COVERED {
            assert!(covered.contains_key(what), "no {what}: {covered:#?}");
        }
    }

    #[test]
    fn a_disk_that_lies_is_found_out() {
        let options = Options { steps: STEPS, sync_lies: true, ..Options::default() };
        let is_found = |seed: &u64| catch_unwind(|| run(*seed, options)).is_err();
        let found = (0..40).filter(is_found).count();
        assert!(found > 0, "no seed of 40 fails on a disk that lies");
    }

    #[test]
    fn a_seed_runs_the_same_way_again() {
        for seed in 0..5 {
            let options = Options { steps: STEPS, ..Options::default() };
            assert_eq!(run(seed, options), run(seed, options), "seed {seed}");
        }
    }
}
