//! Which mistakes plugins made: each under its fingerprint, with how often, since when, and in which versions.

use std::collections::HashMap;
use std::sync::Mutex;

use quipu_protocol::code::truncate;
use quipu_runtime::{Digest, Fault};
use serde::Serialize;

use crate::route::lock;

/// Different ones that are remembered; the one that was not seen for longest goes.
pub const TRAPS_MAX: usize = 1_000;
/// Of a fault's text, and of its trace, that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 10;
const TRACE_BYTES_MAX: usize = 4 << 10;

/// One mistake of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct TrapInfo {
    /// As in the header `quipu-dead-fingerprint`.
    pub fingerprint: String,
    pub plugin: String,
    /// The fault's code.
    pub kind: &'static str,
    /// What it said the last time.
    pub text: String,
    /// The route that it was in the last time.
    pub route: String,
    /// Attempts that ended so.
    pub count: u64,
    /// Unix milliseconds.
    pub first_ms: u64,
    pub last_ms: u64,
    /// Of the plugin's file.
    pub first_digest: String,
    pub last_digest: String,
    /// Of the last time.
    pub trace: Vec<String>,
}

/// The mistakes of all plugins since the router started.
#[derive(Debug, Default)]
pub(crate) struct Traps(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// By plugin and fingerprint, with when it was seen last.
    traps: HashMap<(String, String), (u64, TrapInfo)>,
    turn: u64,
}

impl Traps {
    pub(crate) fn add(&self, route: &str, (plugin, digest): (&str, &Digest), fault: &Fault, now_ms: u64) {
        let fingerprint = fault.fingerprint();
        let mut seen = lock(&self.0);
        seen.turn += 1;
        let turn = seen.turn;
        let key = (plugin.to_owned(), fingerprint.clone());
        if seen.traps.len() >= TRAPS_MAX && !seen.traps.contains_key(&key) {
            let oldest = seen.traps.iter().min_by_key(|(_, (turn, _))| *turn).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| seen.traps.remove(&oldest));
        }
        let (last, trap) = seen.traps.entry(key).or_insert_with(|| {
            let first = TrapInfo {
                fingerprint,
                plugin: plugin.to_owned(),
                kind: fault.kind.as_str(),
                text: String::new(),
                route: String::new(),
                count: 0,
                first_ms: now_ms,
                last_ms: now_ms,
                first_digest: digest.to_string(),
                last_digest: String::new(),
                trace: Vec::new(),
            };
            (turn, first)
        });
        *last = turn;
        trap.count += 1;
        trap.last_ms = now_ms;
        trap.last_digest = digest.to_string();
        route.clone_into(&mut trap.route);
        trap.text.clone_from(&fault.text);
        truncate(&mut trap.text, TEXT_BYTES_MAX);
        trap.trace = cut(&fault.trace);
    }

    /// The most frequent ones first.
    pub(crate) fn list(&self) -> Vec<TrapInfo> {
        let mut traps: Vec<TrapInfo> = lock(&self.0).traps.values().map(|(_, trap)| trap.clone()).collect();
        traps.sort_by(|a, b| (b.count, b.last_ms, &a.fingerprint).cmp(&(a.count, a.last_ms, &b.fingerprint)));
        traps
    }
}

fn cut(trace: &[String]) -> Vec<String> {
    let mut bytes = 0;
    let fits = |line: &&String| {
        bytes += line.len() + 1;
        bytes <= TRACE_BYTES_MAX
    };
    trace.iter().take_while(fits).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_runtime::FaultKind;

    #[test]
    fn one_that_comes_again_stays_and_of_too_many_the_oldest_goes() {
        let traps = Traps::default();
        let fault = |text: &str| Fault { kind: FaultKind::Said, text: text.into(), trace: vec!["x".repeat(3_000); 2] };
        let digests = [Digest::of(b"1"), Digest::of(b"2")];
        traps.add("r", ("p", &digests[0]), &fault("kept"), 5);
        for n in 0..TRAPS_MAX {
            let name = format!("plugin {n}");
            traps.add("r", (&name, &digests[0]), &fault("other"), 6);
            traps.add("s", ("p", &digests[1]), &fault("kept"), 7);
        }
        let list = traps.list();
        assert_eq!((list.len(), list[0].count), (TRAPS_MAX, 1 + TRAPS_MAX as u64));
        let TrapInfo { first_ms, last_ms, first_digest, last_digest, route, trace, .. } = &list[0];
        assert_eq!((*first_ms, *last_ms, route.as_str(), trace.len()), (5, 7, "s", 1));
        assert_eq!([first_digest, last_digest], [&digests[0].to_string(), &digests[1].to_string()]);
        let mut others: Vec<&str> = list[1..].iter().map(|trap| trap.plugin.as_str()).collect();
        others.sort_unstable();
        assert!(!others.contains(&"plugin 0") && others.contains(&"plugin 999"));
    }
}
