//! What routes and plugins did so far.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Counts of one route since the router started.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct RouteInfo {
    pub name: String,
    pub from: String,
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
    pub retried: u64,
    pub dead_lettered: u64,
    /// Messages sent, copies and emitted ones included.
    pub outputs: u64,
    pub plugins: Vec<PluginInfo>,
}

/// Counts of one use of a plugin since the router started.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PluginInfo {
    pub name: String,
    pub digest: String,
    pub calls: u64,
    pub faults: u64,
    pub time: TimesNs,
}

impl PluginInfo {
    pub(crate) fn new(plugin: &dyn quipu_runtime::Plugin) -> Self {
        Self { name: plugin.name().to_owned(), digest: plugin.digest().to_string(), ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.faults += other.faults;
        self.time.total = self.time.total.saturating_add(other.time.total);
        self.time.max = self.time.max.max(other.time.max);
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

/// Times of calls, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TimesNs {
    pub total: u64,
    pub max: u64,
}

impl TimesNs {
    pub(crate) fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.total = self.total.saturating_add(ns);
        self.max = self.max.max(ns);
    }
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
}
