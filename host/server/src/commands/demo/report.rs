//! What the demo found, as a table and as JSON.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use super::{Pass, swap};
use crate::commands::output::say;
use crate::commands::table::{self, count};

/// Everything that the report is made of.
pub(super) struct Report {
    pub(super) first: Pass,
    pub(super) second: Pass,
    /// From the first publish until the routes were done with the first pass.
    pub(super) took: Duration,
    /// What the router said of the change of the filter.
    pub(super) swap: Value,
    /// The answers to `queue.list` and `route.list` at the end.
    pub(super) queues: Value,
    pub(super) routes: Value,
    pub(super) alert_latency: Histogram<u64>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Counts {
    published: u64,
    duplicates: u64,
    set_aside: u64,
    dropped: u64,
    queues: BTreeMap<String, u64>,
    dead_lettered: u64,
    lost: u64,
    swap: Swap,
}

/// The change of the filter, as `--json` prints it.
#[derive(Serialize)]
struct Swap {
    route: String,
    queue: String,
    /// Of the first message that the new one got.
    offset: u64,
    drained: u64,
    took_ms: u64,
    before: Filtered,
    after: Filtered,
}

/// What a filter did.
#[derive(Serialize)]
struct Filtered {
    at_least: f64,
    calls: u64,
    forwarded: u64,
    dropped: u64,
}

impl Report {
    /// Messages that are in no queue, and of which no route says that it set them aside, dropped them or gave up.
    pub(super) fn lost(&self) -> u64 {
        let published = self.published();
        let regions: u64 = self.destinations().filter(|(name, _)| name.starts_with("region.")).map(|(_, n)| n).sum();
        let of = |route: &str, outcome: &str| self.outcome(route, outcome);
        let by_regions = regions + self.set_aside() + of("regions", "dropped") + of("regions", "dead_lettered");
        let alerts = appended(&self.queues, "alerts");
        let by_alerts = alerts + of("alerts", "filtered") + of("alerts", "dropped") + of("alerts", "dead_lettered");
        published.saturating_sub(by_regions) + published.saturating_sub(by_alerts)
    }

    /// The counts, one JSON object on one line.
    pub(super) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&Counts {
            published: self.published(),
            duplicates: self.duplicates(),
            set_aside: self.set_aside(),
            dropped: self.outcome("regions", "dropped"),
            queues: self.destinations().collect(),
            dead_lettered: self.dead_lettered(),
            lost: self.lost(),
            swap: self.swap(),
        })
    }

    fn swap(&self) -> Swap {
        let text = |field: &str| self.swap[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| self.swap[field].as_u64().unwrap_or(0);
        let now = self.routes["routes"].as_array().into_iter().flatten().find(|route| route["name"] == swap::ROUTE);
        let filtered = |plugins: Option<&Value>, at_least: f64| {
            let filter = plugins.and_then(|plugins| plugins.get(0));
            let number = |value: &Value| value.as_u64().unwrap_or(0);
            let verdicts = |verdict: &str| filter.map_or(0, |filter| number(&filter["verdicts"][verdict]));
            let calls = filter.map_or(0, |filter| number(&filter["calls"]));
            Filtered { at_least, calls, forwarded: verdicts("forward"), dropped: verdicts("drop") }
        };
        let [before, after] = swap::THRESHOLDS;
        Swap {
            route: text("route"),
            queue: text("queue"),
            offset: number("offset"),
            drained: number("drained"),
            took_ms: number("took_ms"),
            before: filtered(self.swap.get("served"), before),
            after: filtered(now.and_then(|route| route.get("plugins")), after),
        }
    }

    pub(super) fn print(&self) -> io::Result<()> {
        let rate = self.published() as f64 / self.took.as_secs_f64();
        say!("")?;
        let mut rows = vec![
            vec!["published".into(), count(self.published())],
            vec!["duplicates".into(), count(self.duplicates())],
            vec!["refused".into(), count(self.first.rejected + self.second.rejected)],
            vec!["set aside (no earthquake)".into(), count(self.set_aside())],
            vec!["dropped (below 2.5, then 4.5)".into(), count(self.outcome("regions", "dropped"))],
        ];
        rows.extend(self.destinations().map(|(name, n)| vec![format!("stored in {name}"), count(n)]));
        rows.push(vec!["dead-lettered".into(), count(self.dead_lettered())]);
        rows.push(vec!["lost".into(), count(self.lost())]);
        table::print(&["WHAT", "MESSAGES"], &rows, &[1])?;
        say!("")?;
        self.print_swap()?;
        say!("")?;
        self.print_plugins()?;
        say!("")?;
        let latency = |name: &str, times: &Histogram<u64>| {
            let at = |quantile| format!("{} µs", count(times.value_at_quantile(quantile)));
            vec![name.to_owned(), count(times.len()), at(0.5), at(0.9), at(0.99), at(1.0)]
        };
        let rows = [
            latency("publish to receipt, on disk", &self.first.latency),
            latency("publish to receipt, duplicates", &self.second.latency),
            latency("publish to alert in the consumer's hands", &self.alert_latency),
        ];
        table::print(&["LATENCY", "MESSAGES", "P50", "P90", "P99", "MAX"], &rows, &[1, 2, 3, 4, 5])?;
        say!("\nPublished, routed and stored in {:.2} s: {rate:.0} messages/s.", self.took.as_secs_f64())
    }

    fn print_swap(&self) -> io::Result<()> {
        let Swap { route, queue, offset, before, after, .. } = self.swap();
        let row = |when: String, filter: &Filtered| {
            let Filtered { at_least, calls, forwarded, dropped } = filter;
            vec![when, format!("{at_least:.1}"), count(*calls), count(*forwarded), count(*dropped)]
        };
        let rows = [
            row(format!("{route}, to {queue} offset {}", count(offset)), &before),
            row(format!("{route}, from there"), &after),
        ];
        table::print(&["FILTER", "AT LEAST", "CALLS", "FORWARDED", "DROPPED"], &rows, &[1, 2, 3, 4])
    }

    fn print_plugins(&self) -> io::Result<()> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut rows: Vec<Vec<String>> = Vec::new();
        let before = format!("{}, before", swap::ROUTE);
        rows.extend(list(&self.swap["served"]).iter().map(|plugin| plugin_row(&before, plugin)));
        for route in list(&self.routes["routes"]) {
            let name = route["name"].as_str().unwrap_or_default();
            rows.extend(list(&route["plugins"]).iter().map(|plugin| plugin_row(name, plugin)));
        }
        table::print(&["ROUTE", "PLUGIN", "CALLS", "MEAN", "MAX", "FAULTS"], &rows, &[2, 3, 4, 5])
    }

    fn published(&self) -> u64 {
        self.first.stored + self.second.stored
    }

    fn duplicates(&self) -> u64 {
        self.first.duplicates + self.second.duplicates
    }

    fn set_aside(&self) -> u64 {
        appended(&self.queues, "set-aside")
    }

    fn dead_lettered(&self) -> u64 {
        self.outcome("regions", "dead_lettered") + self.outcome("alerts", "dead_lettered")
    }

    /// What the subscription of a route counts, kept in the commits themselves.
    fn outcome(&self, route: &str, outcome: &str) -> u64 {
        let subscription = format!("route:{route}");
        let queues = self.queues["queues"].as_array().into_iter().flatten();
        let subscriptions = queues.flat_map(|queue| queue["subscriptions"].as_array().into_iter().flatten());
        let found = subscriptions.filter(|s| s["name"] == subscription.as_str());
        found.filter_map(|s| s[outcome].as_u64()).sum()
    }

    /// The queues that messages end in, by name.
    fn destinations(&self) -> impl Iterator<Item = (String, u64)> {
        let queues = self.queues["queues"].as_array().into_iter().flatten();
        let named = queues.filter_map(|queue| Some((queue["name"].as_str()?, queue["next_offset"].as_u64()?)));
        let ends = |name: &str| name == "alerts" || name.starts_with("region.");
        named.filter(move |(name, _)| ends(name)).map(|(name, n)| (name.to_owned(), n))
    }
}

fn plugin_row(route: &str, plugin: &Value) -> Vec<String> {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let calls = number(&plugin["calls"]);
    let mean = number(&plugin["time"]["total"]).checked_div(calls).unwrap_or(0);
    vec![
        route.to_owned(),
        plugin["name"].as_str().unwrap_or_default().to_owned(),
        count(calls),
        format!("{:.1} µs", mean as f64 / 1e3),
        format!("{:.1} µs", number(&plugin["time"]["max"]) as f64 / 1e3),
        count(number(&plugin["faults"])),
    ]
}

/// Messages that were ever appended to a queue.
pub(super) fn appended(queues: &Value, name: &str) -> u64 {
    let queues = queues["queues"].as_array().into_iter().flatten();
    queues.filter(|queue| queue["name"] == name).filter_map(|queue| queue["next_offset"].as_u64()).sum()
}

/// An alert in one line.
pub(super) fn alert(payload: &[u8]) -> String {
    let feature: Value = serde_json::from_slice(payload).unwrap_or_default();
    let properties = &feature["properties"];
    let magnitude = properties["mag"].as_f64().unwrap_or(f64::NAN);
    let place = properties["place"].as_str().unwrap_or("somewhere");
    // The feed is text from outside: nothing in it may steer the terminal.
    let place: String = place.chars().filter(|c| !c.is_control()).take(80).collect();
    format!("M {magnitude:.1}  {place}")
}
