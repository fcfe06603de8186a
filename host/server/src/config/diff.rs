//! What would change between two configurations.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;

use quipu_queue::Retention;
use quipu_router::TraceMode;
use serde::Serialize;
use serde_json::Value;

use super::problem::join;
use super::units::ByteSize;
use super::{
    Config, OnError, PluginConfig, PluginUse, PluginsConfig, QueueConfig, Read, RouteConfig, Source, UserConfig,
};

/// What happens to one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// `queue`, `route`, `plugin`, or the table of the file.
    pub(crate) kind: &'static str,
    /// Its name; empty for a table that there is once.
    pub(crate) name: String,
    /// Whether it comes, goes or changes.
    pub(crate) change: Change,
    /// Which keys change, as `key: before → after`.
    pub(crate) keys: Vec<String>,
    /// Whether only a restart brings it about.
    pub(crate) needs_restart: bool,
}

/// Whether something comes, goes or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Change {
    /// It is new.
    Add,
    /// It is there and becomes something else.
    Update,
    /// It is not there any more.
    Remove,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.change {
            Change::Add => '+',
            Change::Update => '~',
            Change::Remove => '-',
        };
        write!(f, "{sign} {}", self.kind)?;
        if !self.name.is_empty() {
            write!(f, " {}", self.name)?;
        }
        if !self.keys.is_empty() {
            write!(f, ": {}", self.keys.join(", "))?;
        }
        f.write_str(if self.needs_restart { " (needs a restart)" } else { "" })
    }
}

/// Keys with their values, for people.
type Keys = BTreeMap<String, String>;

/// Everything that differs, by kind and name. Values that plugins are configured with are not shown: they may be secret.
pub(crate) fn diff(before: &Config, after: &Config) -> Vec<Difference> {
    let mut found = tables(before, after);
    let named = |config: &Config| -> BTreeMap<String, Keys> {
        config.queues.iter().map(|queue| (queue.name.to_string(), queue_keys(queue))).collect()
    };
    found.extend(each("queue", &named(before), &named(after)));
    let named = |config: &Config| -> BTreeMap<String, Keys> {
        config.plugin.iter().map(|(name, plugin)| (name.clone(), plugin_keys(plugin))).collect()
    };
    found.extend(each("plugin", &named(before), &named(after)));
    let named = |config: &Config| -> BTreeMap<String, Keys> {
        config.users.iter().map(|user| (user.name.clone(), user_keys(user))).collect()
    };
    found.extend(each("user", &named(before), &named(after)));
    found.extend(routes(before, after));
    found
}

fn each(kind: &'static str, before: &BTreeMap<String, Keys>, after: &BTreeMap<String, Keys>) -> Vec<Difference> {
    let difference =
        |name: &String, change, keys| Difference { kind, name: name.clone(), change, keys, needs_restart: false };
    let added =
        after.keys().filter(|name| !before.contains_key(*name)).map(|name| difference(name, Change::Add, Vec::new()));
    let others = before.iter().filter_map(|(name, keys)| match after.get(name) {
        None => Some(difference(name, Change::Remove, Vec::new())),
        Some(new) if new == keys => None,
        Some(new) => Some(difference(name, Change::Update, changed(keys, new))),
    });
    let mut all: Vec<Difference> = added.chain(others).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Routes in the file's order, since their configurations are compared by themselves.
fn routes(before: &Config, after: &Config) -> Vec<Difference> {
    let named = |config: &Config| -> BTreeMap<String, Keys> {
        config.routes.iter().map(|route| (route.name.clone(), route_keys(route))).collect()
    };
    let mut found = each("route", &named(before), &named(after));
    for route in &after.routes {
        let Some(old) = before.routes.iter().find(|old| old.name == route.name) else { continue };
        let mut keys = Vec::new();
        for (n, (old, new)) in old.plugins.iter().zip(&route.plugins).enumerate() {
            leaves(&format!("plugins[{n}].config"), &old.config, &new.config, &mut keys);
        }
        changes(&mut found, &route.name, keys);
    }
    found
}

/// Adds that so much of a route changes.
pub(crate) fn changes(found: &mut Vec<Difference>, route: &str, keys: Vec<String>) {
    let is_it = |difference: &&mut Difference| difference.kind == "route" && difference.name == route;
    match found.iter_mut().find(is_it) {
        Some(difference) => difference.keys.extend(keys),
        None if keys.is_empty() => {}
        None => {
            let (name, change) = (route.to_owned(), Change::Update);
            found.push(Difference { kind: "route", name, change, keys, needs_restart: false });
        }
    }
}

/// The keys of a plugin's configuration that differ, without their values.
fn leaves(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                leaves(&join(path, key), &value(before), &value(after), found);
            }
        }
        (before, after) if before != after => found.push(format!("{path} changes")),
        _ => {}
    }
}

fn changed(before: &Keys, after: &Keys) -> Vec<String> {
    let none = "none".to_owned();
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = keys.into_iter().filter_map(|key| {
        let (old, new) = (before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none));
        (old != new).then(|| format!("{key}: {old} → {new}"))
    });
    changed.collect()
}

/// The tables that there are once.
fn tables(before: &Config, after: &Config) -> Vec<Difference> {
    let (old, new) = (table_keys(before), table_keys(after));
    let mut found = Vec::new();
    for (kind, needs_restart, keys) in new {
        let before = old.iter().find(|(name, ..)| *name == kind).map(|(.., keys)| keys.clone()).unwrap_or_default();
        let keys = changed(&before, &keys);
        if !keys.is_empty() {
            let (name, change) = (String::new(), Change::Update);
            found.push(Difference { kind, name, change, keys, needs_restart });
        }
    }
    found
}

/// Each table, whether only a restart changes it, and its keys.
fn table_keys(config: &Config) -> Vec<(&'static str, bool, Keys)> {
    // All tables are named here, so that a new one is not forgotten.
    let Config { listen, tls, users: _, limits, store, plugins, trace, plugin: _, queues: _, routes: _ } = config;
    let PluginsConfig { dir, workers, watch, store_bytes_max, instances, memories, compile_time, compile_memory_bytes } =
        plugins;
    let path = |path: &Option<PathBuf>| path.as_ref().map_or("none".into(), |path| path.display().to_string());
    let number = |number: Option<u32>| number.map_or("none".into(), |number| number.to_string());
    let tls = tls.as_ref().map(|tls| {
        keys([
            ("certificate", tls.certificate.display().to_string()),
            ("key", tls.key.display().to_string()),
            ("client_ca", path(&tls.client_ca)),
        ])
    });
    let mode = match trace.mode {
        TraceMode::Off => "off".to_owned(),
        TraceMode::Sampled(one_in) => format!("sampled, one in {one_in}"),
        TraceMode::All => "all".to_owned(),
    };
    vec![
        ("trace", false, keys([("mode", mode), ("memory", size(trace.memory_bytes))])),
        ("listen", true, keys([("quic", listen.quic.to_string()), ("grace", time(listen.grace))])),
        ("tls", false, tls.unwrap_or_default()),
        ("limits", true, keys([("all", format!("{limits:?}"))])),
        (
            "store",
            true,
            keys([
                ("path", store.path.display().to_string()),
                ("journal_segments", store.journal_segments.to_string()),
                ("journal_segment", size(store.journal_segment_bytes)),
                ("memory", size(store.memory_bytes)),
                ("disk_reserve", ByteSize(store.disk_reserve_bytes).to_string()),
            ]),
        ),
        (
            "plugins",
            true,
            keys([
                ("dir", path(dir)),
                ("workers", workers.to_string()),
                ("watch", path(watch)),
                ("store_max", ByteSize(*store_bytes_max).to_string()),
                ("instances", number(*instances)),
                ("memories", number(*memories)),
                ("compile_time", time(*compile_time)),
                ("compile_memory", ByteSize(*compile_memory_bytes).to_string()),
            ]),
        ),
    ]
}

fn queue_keys(queue: &QueueConfig) -> Keys {
    let QueueConfig {
        name: _,
        subjects,
        attempts_max,
        backoff,
        dead_letter,
        durability,
        retention,
        limits,
        in_flight_max,
        ack_deadline,
    } = queue;
    let (age, bytes, messages) = match *retention {
        Retention::Work => (None, None, None),
        Retention::Log { age_ms, bytes, messages } => (age_ms, bytes, messages),
    };
    keys([
        ("subjects", list(subjects)),
        ("max_attempts", attempts_max.to_string()),
        ("backoff", times(backoff)),
        ("dead_letter", dead_letter.as_ref().map_or("none".into(), ToString::to_string)),
        ("durability", durability.as_str().into()),
        ("retention", retention.as_str().into()),
        ("retention_age", age.map_or("none".into(), |ms| time(Duration::from_millis(ms)))),
        ("retention_bytes", bytes.map_or("none".into(), |bytes| ByteSize(bytes).to_string())),
        ("retention_messages", messages.map_or("none".into(), |most| most.to_string())),
        ("max_messages", limits.messages.map_or("none".into(), |most| most.to_string())),
        ("max_bytes", limits.bytes.map_or("none".into(), |most| ByteSize(most).to_string())),
        ("on_full", limits.on_full.as_str().into()),
        ("max_in_flight", in_flight_max.to_string()),
        ("ack_deadline", time(*ack_deadline)),
    ])
}

fn plugin_keys(plugin: &PluginConfig) -> Keys {
    let PluginConfig { file, deadline, memory_bytes, output_bytes, isolation, recycle_memory_bytes, recycle_messages } =
        plugin;
    keys([
        ("file", file.as_ref().map_or("none".into(), |file| file.display().to_string())),
        ("deadline", time(*deadline)),
        ("memory", size(*memory_bytes)),
        ("output", size(*output_bytes)),
        ("isolation", format!("{isolation:?}").to_lowercase()),
        ("recycle_memory", recycle_memory_bytes.map_or("none".into(), size)),
        ("recycle_messages", recycle_messages.map_or("none".into(), |most| most.to_string())),
    ])
}

fn user_keys(user: &UserConfig) -> Keys {
    let UserConfig { name: _, token, certificate, certificate_name, revoked, publish, consume, read, admin } = user;
    keys([
        ("token", token.map_or("none".into(), |hash| format!("blake3:{}…", &hash.to_hex()[..8]))),
        ("certificate", certificate.map_or("none".into(), |fingerprint| fingerprint.to_string())),
        ("certificate_name", certificate_name.clone().unwrap_or_else(|| "none".into())),
        ("revoked", revoked.to_string()),
        ("publish", list(publish)),
        ("consume", list(consume)),
        (
            "read",
            match read {
                Read::All => "all".into(),
                Read::Queues(patterns) => list(patterns),
            },
        ),
        ("admin", admin.to_string()),
    ])
}

fn route_keys(route: &RouteConfig) -> Keys {
    // The plugins' own configuration is compared elsewhere.
    let RouteConfig {
        name: _,
        source,
        start,
        when,
        otherwise,
        plugins,
        to,
        parallel,
        order,
        on_error,
        on_broken,
        broken_after,
    } = route;
    let (from, on) = match source {
        Source::Queue(from) => (from.to_string(), "none".to_owned()),
        Source::Inline(on) => ("none".to_owned(), list(on)),
    };
    let OnError { attempts_max, backoff, then } = on_error;
    let named = |plugin: &PluginUse| match &plugin.version {
        Some(version) => format!("{}@{version}", plugin.name),
        None => plugin.name.clone(),
    };
    let chain: Vec<String> = plugins.iter().map(named).collect();
    keys([
        ("from", from),
        ("on", on),
        ("start", format!("{start:?}").to_lowercase()),
        ("when", when.clone().unwrap_or_else(|| "none".into())),
        ("else", list(otherwise)),
        ("plugins", list(&chain)),
        ("to", list(to)),
        ("parallel", parallel.to_string()),
        ("on_broken", on_broken.as_str().into()),
        ("broken_after", broken_after.to_string()),
        ("order", format!("{order:?}").to_lowercase()),
        ("on_error.attempts", attempts_max.to_string()),
        ("on_error.backoff", times(backoff)),
        ("on_error.then", then.as_ref().map_or("none".into(), ToString::to_string)),
    ])
}

fn keys<const N: usize>(pairs: [(&str, String); N]) -> Keys {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(" "))
}

fn times(steps: &[Duration]) -> String {
    let steps: Vec<String> = steps.iter().map(|step| time(*step)).collect();
    list(&steps)
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn size(bytes: usize) -> String {
    ByteSize(bytes as u64).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEFORE: &str = r#"
[queue.a]
[queue.b]
max_attempts = 3
[[route]]
name = "r"
from = "a"
plugins = [{ name = "filter-json", config = { field = "mag", at_least = 2.5, secret = "before" } }]
to = ["b"]
"#;

    fn lines(before: &str, after: &str) -> Vec<String> {
        let read = |text: &str| Config::parse(text, "quipu.toml", Path::new("/etc")).expect("fine");
        diff(&read(before), &read(after)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_is_no_difference() {
        assert_eq!(lines(BEFORE, BEFORE), Vec::<String>::new());
    }

    #[test]
    fn each_change_is_named_with_its_values_but_those_for_plugins() {
        let after = BEFORE.replace("2.5", "4.5").replace("\"before\"", "\"after\"").replace("max_attempts = 3", "");
        assert_eq!(
            lines(BEFORE, &after),
            [
                "~ queue b: max_attempts: 3 → 5",
                "~ route r: plugins[0].config.at_least changes, plugins[0].config.secret changes",
            ]
        );
    }

    #[test]
    fn a_pinned_version_is_named() {
        let pinned = BEFORE.replace("\"filter-json\"", "\"filter-json@1\"");
        let expected = |before: &str, after: &str| [format!("~ route r: plugins: [{before}] → [{after}]")];
        assert_eq!(lines(BEFORE, &pinned), expected("filter-json", "filter-json@1"));
        assert_eq!(lines(&pinned, &pinned.replace("@1", "@2")), expected("filter-json@1", "filter-json@2"));
    }

    #[test]
    fn what_comes_and_goes_is_named_and_what_needs_a_restart() {
        let after = format!(
            "[listen]\ngrace = \"2s\"\n{}[queue.c]\nmax_messages = 7\n",
            &BEFORE[..BEFORE.find("[[route").expect("there")]
        );
        assert_eq!(lines(BEFORE, &after), ["~ listen: grace: 8s → 2s (needs a restart)", "+ queue c", "- route r"]);
    }
}
