//! What routes and plugins did so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quipu_runtime::{Fault, Plugin, Verdict};
use serde::Serialize;

/// Counts of one route since the router started.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct RouteInfo {
    pub name: String,
    /// Empty for an inline route.
    pub from: String,
    /// Of an inline route, the subjects that it runs on.
    pub on: Vec<String>,
    pub when: Option<String>,
    pub to: Vec<String>,
    /// `running`, `paused`, `held`, `broken`, `stopping` or `failed`.
    pub state: &'static str,
    /// Why, where it does not run by itself.
    pub state_reason: Option<String>,
    pub on_broken: &'static str,
    /// Messages that are worked on at once, at most.
    pub parallel: usize,
    pub order: &'static str,
    /// Time of workers that it used, in nanoseconds: plugins, conditions and what is around them.
    pub busy_ns: u64,
    /// A queue that is full, where messages wait for that.
    pub waiting_for: Option<String>,
    /// Times that a message was put off because a queue was full. These are no attempts that failed.
    pub held: u64,
    /// Attempts that were made, each delivery one.
    pub attempts: u64,
    pub forwarded: u64,
    /// Refused by `when`, settled or sent to `else`.
    pub filtered: u64,
    /// Those of `filtered` that went to `else`.
    pub set_aside: u64,
    /// `when` could not be evaluated; these are also in `filtered`.
    pub when_errors: u64,
    pub dropped: u64,
    /// What plugins said when they dropped messages.
    pub drop_reasons: Reasons,
    /// Attempts that failed and were not the last; inline, publishers that were told to try again later.
    pub retried: u64,
    pub dead_lettered: u64,
    /// Inline: publishers that were told that a plugin rejects their message.
    pub rejected: u64,
    /// Inline: publishers that were told that a plugin failed on their message.
    pub failed: u64,
    /// Messages sent, copies and emitted ones included.
    pub outputs: u64,
    pub plugins: Vec<PluginInfo>,
}

/// Counts of one use of a plugin, over the lanes of its route, since it was deployed there.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PluginInfo {
    pub name: Arc<str>,
    pub digest: Arc<str>,
    /// The first 16 digits of its configuration's digest.
    pub config: Arc<str>,
    pub calls: u64,
    pub verdicts: Verdicts,
    pub faults: u64,
    /// By their codes.
    pub faults_by: BTreeMap<&'static str, u64>,
    /// Messages that went past it because it was broken.
    pub bypassed: u64,
    pub time: TimesNs,
    /// Of all its instances together.
    pub memory_bytes: u64,
    /// Of the largest of its instances so far.
    pub memory_peak_bytes: u64,
    /// One for each lane.
    pub instances: u64,
    /// Those that were begun so far, the first ones included.
    pub instances_started: u64,
    /// Those that ended because they had grown or served enough.
    pub recycled: u64,
}

/// What a plugin said of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Verdicts {
    pub forward: u64,
    pub route: u64,
    pub drop: u64,
    pub retry: u64,
    pub reject: u64,
}

impl PluginInfo {
    pub(crate) fn new(plugin: &dyn Plugin) -> Self {
        let mut info = Self {
            name: plugin.name().into(),
            digest: plugin.digest().to_string().into(),
            config: plugin.config_digest().prefix().into(),
            ..Self::default()
        };
        info.measure(plugin);
        info
    }

    /// A call took so long and ended so.
    pub(crate) fn count(&mut self, time: Duration, made: &Result<Verdict, Fault>) {
        self.calls += 1;
        self.time.add(time);
        let said = &mut self.verdicts;
        match made {
            Ok(Verdict::Forward) => said.forward += 1,
            Ok(Verdict::Route(_)) => said.route += 1,
            Ok(Verdict::Drop(_)) => said.drop += 1,
            Ok(Verdict::Retry { .. }) => said.retry += 1,
            Ok(Verdict::Reject(_)) => said.reject += 1,
            Err(fault) => {
                self.faults += 1;
                *self.faults_by.entry(fault.kind.as_str()).or_default() += 1;
            }
        }
    }

    /// Looks at what it takes.
    pub(crate) fn measure(&mut self, plugin: &dyn Plugin) {
        let usage = plugin.usage();
        self.instances = 1;
        self.memory_bytes = usage.memory_bytes as u64;
        self.memory_peak_bytes = usage.memory_peak_bytes as u64;
        self.instances_started = usage.instances_started;
        self.recycled = usage.recycled;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.verdicts.add(other.verdicts);
        self.faults += other.faults;
        for (code, count) in &other.faults_by {
            *self.faults_by.entry(code).or_default() += count;
        }
        self.bypassed += other.bypassed;
        self.time.add_all(&other.time);
        self.memory_bytes += other.memory_bytes;
        self.memory_peak_bytes = self.memory_peak_bytes.max(other.memory_peak_bytes);
        self.instances += other.instances;
        self.instances_started += other.instances_started;
        self.recycled += other.recycled;
    }
}

impl Verdicts {
    fn add(&mut self, other: Self) {
        self.forward += other.forward;
        self.route += other.route;
        self.drop += other.drop;
        self.retry += other.retry;
        self.reject += other.reject;
    }
}

/// Adds the counts of one chain's uses to a sum, which is empty or of the same chain.
pub(crate) fn add_all(sum: &mut Vec<PluginInfo>, plugins: &[PluginInfo]) {
    if sum.is_empty() {
        sum.extend_from_slice(plugins);
    } else {
        sum.iter_mut().zip(plugins).for_each(|(sum, plugin)| sum.add(plugin));
    }
}

/// Messages by reason: the first 64 reasons by themselves, all others together as `other`.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Reasons(BTreeMap<String, u64>);

impl Reasons {
    const DISTINCT_MAX: usize = 64;
    const BYTES_MAX: usize = 128;

    pub(crate) fn count(&mut self, reason: &str) {
        let mut reason = reason.to_owned();
        quipu_protocol::code::truncate(&mut reason, Self::BYTES_MAX);
        if self.0.len() >= Self::DISTINCT_MAX && !self.0.contains_key(&reason) {
            reason = "other".into();
        }
        *self.0.entry(reason).or_default() += 1;
    }
}

/// Buckets of [`TimesNs`]: calls of at most 1 µs, 2 µs, 4 µs, … 2^24 µs (16.8 s), and longer ones.
pub const TIME_BUCKETS: usize = 26;

/// Times of calls, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TimesNs {
    pub total: u64,
    pub max: u64,
    /// How many calls took at most `2^n` microseconds and more than half of that, by `n`; the last one has no end.
    pub buckets: [u64; TIME_BUCKETS],
}

impl TimesNs {
    pub(crate) fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(ns);
        self.max = self.max.max(ns);
        self.buckets[bucket(ns)] += 1;
    }

    fn add_all(&mut self, other: &Self) {
        self.total = self.total.saturating_add(other.total);
        self.max = self.max.max(other.max);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| *sum += count);
    }

    /// A time that this share of the calls (0 to 1) did not exceed: the end of its bucket, or the longest call.
    pub fn quantile(&self, share: f64) -> u64 {
        let all: u64 = self.buckets.iter().sum();
        let mut seen = 0;
        for (n, count) in self.buckets.iter().enumerate() {
            seen += count;
            // Counts stay far below where this loses anything.
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            if all > 0 && seen as f64 >= share * all as f64 {
                return (1_000_u64 << n).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(ns: u64) -> usize {
    let us = ns.div_ceil(1_000).max(1);
    let n = u64::BITS - (us - 1).leading_zeros();
    usize::try_from(n).unwrap_or(TIME_BUCKETS).min(TIME_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_without_end_are_counted_together() {
        let mut reasons = Reasons::default();
        for n in 0..100 {
            reasons.count(&format!("reason {}", n % 80));
        }
        assert_eq!(reasons.0.len(), Reasons::DISTINCT_MAX + 1);
        assert_eq!((reasons.0["reason 0"], reasons.0["other"]), (2, 16));
    }
    #[test]
    fn times_fall_into_buckets_that_double() {
        let cases = [(0, 0), (1_000, 0), (1_001, 1), (2_000, 1), (2_001, 2), (50_000_000, 16), (16_777_216_000, 24)];
        for (ns, expected) in cases {
            assert_eq!(bucket(ns), expected, "{ns}");
        }
        assert_eq!([bucket(16_777_216_001), bucket(u64::MAX)], [25, 25]);
        let mut times = TimesNs::default();
        (0..98).for_each(|_| times.add(Duration::from_micros(3)));
        (0..2).for_each(|_| times.add(Duration::from_millis(50)));
        assert_eq!([0.5, 0.98, 0.99, 1.0].map(|share| times.quantile(share)), [4_000, 4_000, 50_000_000, 50_000_000]);
        assert_eq!((times.buckets.iter().sum::<u64>(), TimesNs::default().quantile(0.5)), (100, 0));
    }
}
