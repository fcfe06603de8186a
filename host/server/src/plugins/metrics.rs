//! The figures of routes and plugins as OpenMetrics: a registry that gathers them when it is encoded, and keeps none itself.
//!
//! There is no endpoint yet. The admin method `metrics` answers with the text that one would serve.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use quipu_router::{RouteInfo, TIME_BUCKETS, TimesNs, Verdicts};

use super::figures::{Figures, UseFigures, uses_in};

/// What all names begin with.
const PREFIX: &str = "quipu";

type Labels = Vec<(&'static str, String)>;

/// A registry of what is gathered so.
pub(crate) fn registry(gather: impl Fn() -> Figures + Send + Sync + 'static) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Gathered(Box::new(gather))));
    registry
}

/// As an endpoint would serve it.
///
/// # Errors
///
/// Where a text cannot be written, which does not happen to one in memory.
pub(crate) fn encoded(registry: &Registry) -> Result<String, fmt::Error> {
    let mut encoded = String::new();
    text::encode(&mut encoded, registry)?;
    Ok(encoded)
}

struct Gathered(Box<dyn Fn() -> Figures + Send + Sync>);

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gathered").finish()
    }
}

impl Collector for Gathered {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Figures { routes } = (self.0)();
        encode_routes(&mut encoder, &routes)?;
        let uses: Vec<UseFigures> = routes.iter().flat_map(uses_in).collect();
        encode_uses(&mut encoder, &uses)
    }
}

fn encode_routes(encoder: &mut DescriptorEncoder<'_>, routes: &[RouteInfo]) -> fmt::Result {
    let named = |route: &RouteInfo| vec![("route", route.name.clone())];
    let with = |route: &RouteInfo, label, value: &str| [named(route), vec![(label, value.to_owned())]].concat();
    gauges(
        encoder,
        ("route_state", "How a route stands", None),
        routes.iter().map(|r| (with(r, "state", r.state), 1)),
    )?;
    let attempts = routes.iter().map(|route| (named(route), route.attempts));
    counters(encoder, ("route_attempts", "Attempts at messages"), attempts)?;
    let ends = routes.iter().flat_map(|route| {
        let ends = [
            ("forwarded", route.forwarded),
            ("filtered", route.filtered),
            ("dropped", route.dropped),
            ("retried", route.retried),
            ("rejected", route.rejected),
            ("failed", route.failed),
            ("dead-lettered", route.dead_lettered),
        ];
        ends.map(|(end, count)| (with(route, "end", end), count))
    });
    counters(encoder, ("route_ends", "What attempts came to"), ends)?;
    let outputs = routes.iter().map(|route| (named(route), route.outputs));
    counters(encoder, ("route_outputs", "Messages sent, copies and emitted ones included"), outputs)
}

fn encode_uses(encoder: &mut DescriptorEncoder<'_>, uses: &[UseFigures]) -> fmt::Result {
    let of = |get: fn(&UseFigures) -> u64| uses.iter().map(move |used| (labels(used), get(used)));
    let verdicts = uses.iter().flat_map(|used| {
        let Verdicts { forward, route, drop, retry, reject } = used.plugin.verdicts;
        let said = [("forward", forward), ("route", route), ("drop", drop), ("retry", retry), ("reject", reject)];
        said.map(|(verdict, count)| ([labels(used), vec![("verdict", verdict.to_owned())]].concat(), count))
    });
    counters(encoder, ("plugin_verdicts", "What plugins said of messages"), verdicts)?;
    let faults = uses.iter().flat_map(|used| {
        let by = used.plugin.faults_by.iter();
        by.map(|(code, count)| ([labels(used), vec![("code", (*code).to_owned())]].concat(), *count))
    });
    counters(encoder, ("plugin_faults", "Calls that failed, by code"), faults)?;
    times(encoder, uses)?;
    let bytes = Some(&Unit::Bytes);
    gauges(encoder, ("plugin_memory", "Memory of all instances", bytes), of(|used| used.plugin.memory_bytes))?;
    let peak = "Memory of the largest instance so far";
    gauges(encoder, ("plugin_memory_peak", peak, bytes), of(|used| used.plugin.memory_peak_bytes))?;
    gauges(encoder, ("plugin_instances", "Instances at work", None), of(|used| used.plugin.instances))?;
    let started = of(|used| used.plugin.instances_started);
    counters(encoder, ("plugin_instances_started", "Instances that were begun"), started)?;
    counters(encoder, ("plugin_recycled", "Instances made anew though well"), of(|used| used.plugin.recycled))
}

/// Calls by how long they took.
fn times(encoder: &mut DescriptorEncoder<'_>, uses: &[UseFigures]) -> fmt::Result {
    let help = "Time of calls";
    let mut family = encoder.encode_descriptor("plugin_time", help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for used in uses {
        let TimesNs { total, buckets, .. } = used.plugin.time;
        let end = |n: usize| match n + 1 < TIME_BUCKETS {
            true => Duration::from_micros(1 << n).as_secs_f64(),
            false => f64::INFINITY,
        };
        let ends: Vec<(f64, u64)> = buckets.iter().enumerate().map(|(n, count)| (end(n), *count)).collect();
        let (sum, count) = (Duration::from_nanos(total).as_secs_f64(), buckets.iter().sum());
        family.encode_family(&labels(used))?.encode_histogram::<NoLabelSet>(sum, count, &ends, None)?;
    }
    Ok(())
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
    }
    Ok(())
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    values: impl Iterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in values {
        family.encode_family(&labels)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
    }
    Ok(())
}

/// Which use of a plugin.
fn labels(used: &UseFigures) -> Labels {
    vec![
        ("route", used.route.clone()),
        ("position", used.position.to_string()),
        ("plugin", used.plugin.name.as_ref().to_owned()),
        ("digest", super::version::short(&used.plugin.digest).to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use quipu_router::PluginInfo;

    use super::*;

    #[test]
    fn figures_are_families_with_labels() {
        let mut time = TimesNs { total: 2_500_000, ..TimesNs::default() };
        (time.buckets[0], time.buckets[1]) = (2, 1);
        let plugin = PluginInfo {
            name: "big".into(),
            digest: "0123456789abcdef".into(),
            verdicts: Verdicts { forward: 2, ..Verdicts::default() },
            faults_by: [("deadline", 1)].into(),
            time,
            memory_bytes: 1 << 16,
            instances: 1,
            ..PluginInfo::default()
        };
        let route = RouteInfo {
            name: "r".into(),
            state: "running",
            attempts: 3,
            forwarded: 2,
            plugins: vec![plugin],
            ..RouteInfo::default()
        };
        let text = encoded(&registry(move || Figures { routes: vec![route.clone()] })).expect("written");
        let of = "route=\"r\",position=\"1\",plugin=\"big\",digest=\"01234567\"";
        for line in [
            "# TYPE quipu_route_attempts counter".to_owned(),
            "quipu_route_state{route=\"r\",state=\"running\"} 1".to_owned(),
            "quipu_route_attempts_total{route=\"r\"} 3".to_owned(),
            "quipu_route_ends_total{route=\"r\",end=\"forwarded\"} 2".to_owned(),
            format!("quipu_plugin_verdicts_total{{{of},verdict=\"forward\"}} 2"),
            format!("quipu_plugin_faults_total{{{of},code=\"deadline\"}} 1"),
            format!("quipu_plugin_time_seconds_sum{{{of}}} 0.0025"),
            format!("quipu_plugin_time_seconds_count{{{of}}} 3"),
            format!("quipu_plugin_memory_bytes{{{of}}} 65536"),
            "# EOF".to_owned(),
        ] {
            assert!(text.lines().any(|written| written == line), "{line}:\n{text}");
        }
        let buckets: Vec<&str> = text.lines().filter(|line| line.contains("_seconds_bucket")).collect();
        assert_eq!(buckets.len(), TIME_BUCKETS, "{text}");
        assert!(buckets[1].ends_with(" 3") && buckets[TIME_BUCKETS - 1].contains("+Inf"), "{buckets:?}");
    }
}
