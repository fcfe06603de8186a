//! Whose turn it is: deficit round robin over measured time.
//!
//! Each flow (a route) may use a quantum of time a round. What a slice takes is known only when it is over, so it is
//! charged as a guess when it begins and put right when it ends; a flow that used more than it had waits as many rounds
//! longer. Without threads and clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Time that a flow may use in each round, in nanoseconds.
const QUANTUM_NS: i64 = 5_000_000;

/// A slice counts as so much at least: no turn lasts for ever.
const SLICE_NS_MIN: i64 = 1_000;

/// Flows that take turns, each with what it waits for a worker with.
pub(super) struct Turns<J> {
    flows: BTreeMap<u64, Flow<J>>,
    /// Those that have something and may have another worker, each once.
    round: VecDeque<u64>,
    /// Workers that one flow may hold.
    most: usize,
    next: u64,
}

struct Flow<J> {
    jobs: VecDeque<J>,
    running: usize,
    /// Time that it may still use in this round; below zero, what it used too much.
    deficit_ns: i64,
    /// What its last slice took.
    guess_ns: i64,
    used_ns: u64,
    in_round: bool,
}

/// A job that a worker has.
pub(super) struct Taken<J> {
    pub(super) job: J,
    flow: u64,
    charged_ns: i64,
}

impl<J> Turns<J> {
    pub(super) fn new(most: usize) -> Self {
        Self { flows: BTreeMap::new(), round: VecDeque::new(), most, next: 0 }
    }

    pub(super) fn join(&mut self) -> u64 {
        let (jobs, id) = (VecDeque::new(), self.next);
        self.next += 1;
        let flow = Flow { jobs, running: 0, deficit_ns: 0, guess_ns: QUANTUM_NS, used_ns: 0, in_round: false };
        self.flows.insert(id, flow);
        id
    }

    /// It has nothing left and comes with nothing more.
    pub(super) fn leave(&mut self, flow: u64) {
        self.flows.remove(&flow);
        self.round.retain(|other| *other != flow);
    }

    pub(super) fn push(&mut self, id: u64, job: J) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.jobs.push_back(job);
            self.enter(id);
        }
    }

    /// The next job; none where no flow has one for which it may have a worker.
    pub(super) fn take(&mut self) -> Option<Taken<J>> {
        let mut looked_at = 0;
        loop {
            let id = *self.round.front()?;
            let flow = self.flows.get_mut(&id)?;
            if flow.deficit_ns <= 0 {
                flow.deficit_ns += QUANTUM_NS;
            }
            if flow.deficit_ns > 0 {
                return self.begin(id);
            }
            self.round.rotate_left(1);
            looked_at += 1;
            if looked_at >= self.round.len() {
                self.skip_rounds();
            }
        }
    }

    fn begin(&mut self, id: u64) -> Option<Taken<J>> {
        let flow = self.flows.get_mut(&id)?;
        let job = flow.jobs.pop_front()?;
        let charged_ns = flow.guess_ns;
        flow.running += 1;
        flow.deficit_ns -= charged_ns;
        if flow.jobs.is_empty() || flow.running >= self.most {
            flow.in_round = false;
            self.round.pop_front();
        } else if flow.deficit_ns <= 0 {
            self.round.rotate_left(1);
        }
        Some(Taken { job, flow: id, charged_ns })
    }

    /// A slice is over. The job comes back where there is nothing more for it.
    pub(super) fn done(&mut self, taken: Taken<J>, time: Duration, has_more: bool) -> Option<J> {
        let Taken { job, flow: id, charged_ns } = taken;
        let time_ns = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX / 2).max(SLICE_NS_MIN);
        let Some(flow) = self.flows.get_mut(&id) else { return Some(job) };
        flow.running -= 1;
        flow.deficit_ns = flow.deficit_ns.saturating_add(charged_ns).saturating_sub(time_ns);
        flow.guess_ns = time_ns;
        flow.used_ns = flow.used_ns.saturating_add(time_ns.unsigned_abs());
        let over = match has_more {
            true => {
                flow.jobs.push_back(job);
                None
            }
            false => Some(job),
        };
        if flow.jobs.is_empty() && flow.running == 0 {
            // What it did not use is not saved for later; what it used too much is not forgotten.
            flow.deficit_ns = flow.deficit_ns.min(0);
        }
        self.enter(id);
        over
    }

    /// Time that a flow has used.
    pub(super) fn used(&self, flow: u64) -> Duration {
        Duration::from_nanos(self.flows.get(&flow).map_or(0, |flow| flow.used_ns))
    }

    /// Where it has something and may have another worker: at the end of the round, or at once while its turn lasts.
    fn enter(&mut self, id: u64) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        if !flow.in_round && !flow.jobs.is_empty() && flow.running < self.most {
            flow.in_round = true;
            match flow.deficit_ns > 0 {
                true => self.round.push_front(id),
                false => self.round.push_back(id),
            }
        }
    }

    /// Nobody may go on in this round: as many rounds at once as the nearest of them needs.
    fn skip_rounds(&mut self) {
        let deficits = self.round.iter().filter_map(|id| self.flows.get(id)).map(|flow| flow.deficit_ns);
        let rounds = deficits.max().map_or(0, |most| -most / QUANTUM_NS);
        for id in &self.round {
            if let Some(flow) = self.flows.get_mut(id) {
                flow.deficit_ns += rounds * QUANTUM_NS;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: i64 = 1_000;

    /// Runs flows with a job each that never ends, on so many workers, for so many slices; a flow's slices take so many
    /// microseconds. What share of the time each flow had, in percent.
    fn shares(workers: usize, flows: &[(usize, i64)], slices: usize) -> Vec<u64> {
        let mut turns = Turns::new(workers - 1);
        let ids: Vec<u64> = flows.iter().map(|_| turns.join()).collect();
        for (id, (lanes, slice)) in ids.iter().zip(flows) {
            (0..*lanes).for_each(|_| turns.push(*id, slice * US));
        }
        let (mut now, mut busy) = (0, Vec::new());
        for _ in 0..slices {
            while busy.len() < workers
                && let Some(taken) = turns.take()
            {
                busy.push((now + taken.job, taken));
            }
            busy.sort_by_key(|(until, taken)| (*until, taken.flow));
            let (until, taken) = busy.remove(0);
            now = until;
            let time = Duration::from_nanos(taken.job.unsigned_abs());
            assert!(turns.done(taken, time, true).is_none());
        }
        let used: Vec<u128> = ids.iter().map(|id| turns.used(*id).as_nanos()).collect();
        let all: u128 = used.iter().sum();
        used.into_iter().map(|used| u64::try_from(used * 100 / all).expect("a share")).collect()
    }

    #[test]
    fn flows_share_the_time_however_long_their_slices_are() {
        let near = |shares: &[u64], expected: &[u64]| {
            assert!(shares.iter().zip(expected).all(|(share, expected)| share.abs_diff(*expected) <= 3), "{shares:?}");
        };
        // One spins up to its deadline, one is held up by its outputs, one has nothing to do but little messages.
        near(&shares(2, &[(1, 55_000), (1, 5_000), (1, 100)], 60_000), &[33, 33, 33]);
        // Many lanes give no more of it, where others want it.
        near(&shares(4, &[(64, 5_000), (3, 5_000), (3, 200), (3, 40_000)], 60_000), &[25, 25, 25, 25]);
        // One that has a lane alone cannot use more than a worker.
        near(&shares(5, &[(8, 5_000), (1, 5_000)], 20_000), &[80, 20]);
    }

    #[test]
    fn no_flow_holds_every_worker() {
        let mut turns = Turns::new(3);
        let (one, other) = (turns.join(), turns.join());
        (0..8).for_each(|n| turns.push(one, n));
        let mut taken: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert_eq!(taken.iter().map(|taken| taken.job).collect::<Vec<_>>(), [0, 1, 2]);
        turns.push(other, 100);
        assert_eq!(turns.take().map(|taken| taken.job), Some(100));
        let ended = taken.remove(1);
        assert_eq!(turns.done(ended, Duration::from_millis(1), false), Some(1));
        assert_eq!(turns.take().map(|taken| taken.job), Some(3));
        assert!(turns.take().is_none());
    }

    #[test]
    fn a_debt_is_paid_by_waiting_and_costs_nothing_where_nobody_else_waits() {
        let mut turns = Turns::new(1);
        let (slow, quick) = (turns.join(), turns.join());
        turns.push(slow, "slow");
        let taken = turns.take().expect("a job");
        assert!(turns.done(taken, Duration::from_secs(60), true).is_none());
        // Alone: at once.
        let taken = turns.take().expect("a job");
        assert!(turns.done(taken, Duration::from_millis(52), true).is_none());
        turns.push(quick, "quick");
        let mut order = String::new();
        for _ in 0..14 {
            let taken = turns.take().expect("a job");
            order.push_str(if taken.job == "slow" { "s" } else { "q" });
            assert!(turns.done(taken, Duration::from_millis(5), true).is_none());
        }
        assert!(order.starts_with("qqqqqqqqq") && order.contains('s'), "{order}");
    }

    #[test]
    fn a_flow_that_left_is_forgotten_and_one_that_idles_saves_nothing() {
        let mut turns = Turns::new(1);
        let (gone, idle) = (turns.join(), turns.join());
        turns.push(gone, 0);
        turns.leave(gone);
        assert!(turns.take().is_none());
        for _ in 0..100 {
            turns.push(idle, 1);
            let taken = turns.take().expect("a job");
            assert_eq!(turns.done(taken, Duration::from_micros(1), false), Some(1));
        }
        assert!(turns.flows[&idle].deficit_ns <= 0 && turns.flows.len() == 1);
        assert_eq!(turns.used(idle), Duration::from_micros(100));
    }
}
