//! `quipu plugin list`, `show` and `traps`, for people.

use std::io;

use serde_json::Value;

use super::{digest, number, text, time};
use crate::commands::output::say;
use crate::commands::table;

pub(super) fn print_list(answer: &Value) -> io::Result<()> {
    let row = |plugin: &Value| {
        vec![
            text(&plugin["name"]).to_owned(),
            text(&plugin["tag"]).to_owned(),
            digest(&plugin["digest"]).to_owned(),
            number(&plugin["size_bytes"]),
            format!("{} ms", number(&plugin["deadline_ms"])),
            format!("{} MiB", plugin["memory_bytes"].as_u64().unwrap_or(0) >> 20),
            time(&plugin["when_ms"]),
            text(&plugin["who"]).to_owned(),
            texts(&plugin["routes"], " "),
        ]
    };
    let heading = ["PLUGIN", "VERSION", "DIGEST", "BYTES", "DEADLINE", "MEMORY", "PUSHED", "BY", "ROUTES"];
    table::print(&heading, &rows(&answer["plugins"], row), &[3, 4, 5])?;
    let standing = answer["plugins"].as_array().into_iter().flatten().flat_map(|plugin| plugin["standing"].as_array());
    print_standing(standing.flatten(), "route")
}

/// A line for each route that does not run: how, and why.
pub(in crate::commands) fn print_standing<'a>(routes: impl Iterator<Item = &'a Value>, name: &str) -> io::Result<()> {
    let mut said: Vec<&str> = Vec::new();
    for route in routes.filter(|route| text(&route["state"]) != "running") {
        let named = text(&route[name]);
        if !said.contains(&named) {
            said.push(named);
            let reason = route["state_reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
            say!("route {named} is {}{reason}", text(&route["state"]))?;
        }
    }
    Ok(())
}

pub(super) fn print_plugin(answer: &Value) -> io::Result<()> {
    say!("plugin     {}", text(&answer["name"]))?;
    let mebibytes = answer["memory_bytes"].as_u64().unwrap_or(0) >> 20;
    say!("limits     {} ms, {mebibytes} MiB a message", number(&answer["deadline_ms"]))?;
    if let Some(latest) = answer["versions"].get(0) {
        say!("contract   {}", text(&latest["contract"]))?;
        say!("imports    {}", texts(&latest["imports"], " "))?;
    }
    say!("")?;
    let row = |version: &Value| {
        vec![
            text(&version["tag"]).to_owned(),
            digest(&version["digest"]).to_owned(),
            number(&version["size_bytes"]),
            time(&version["when_ms"]),
            text(&version["who"]).to_owned(),
            version["cases"].as_array().map_or(0, Vec::len).to_string(),
            if version["has_names"].as_bool() == Some(true) { "yes" } else { "no" }.to_owned(),
            text(&version["source"]).to_owned(),
        ]
    };
    let heading = ["VERSION", "DIGEST", "BYTES", "PUSHED", "BY", "CASES", "NAMES", "SOURCE"];
    table::print(&heading, &rows(&answer["versions"], row), &[2, 5])?;
    print_uses(&answer["uses"])?;
    print_deployments(&answer["deployments"])
}

fn print_uses(uses: &Value) -> io::Result<()> {
    if uses.as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    say!("")?;
    table_of_uses(uses, ("ROUTE", "route"))?;
    print_standing(uses.as_array().into_iter().flatten(), "route")
}

/// What uses of plugins cost and came to, each named by this.
pub(in crate::commands) fn table_of_uses(uses: &Value, (title, name): (&str, &str)) -> io::Result<()> {
    let row = |used: &Value| {
        vec![
            text(&used[name]).to_owned(),
            number(&used["position"]),
            digest(&used["digest"]).to_owned(),
            number(&used["calls"]),
            counts(&used["verdicts"]),
            number(&used["faults"]),
            counts(&used["faults_by"]),
            micros(&used["p50_ns"]),
            micros(&used["p99_ns"]),
            format!("{} KiB", number(&Value::from(used["memory_bytes"].as_u64().unwrap_or(0) >> 10))),
            number(&used["instances_started"]),
        ]
    };
    let heading =
        [title, "PLACE", "DIGEST", "CALLS", "VERDICTS", "FAULTS", "OF THEM", "P50", "P99", "MEMORY", "INSTANCES"];
    table::print(&heading, &rows(uses, row), &[1, 3, 5, 7, 8, 9, 10])
}

fn print_deployments(deployments: &Value) -> io::Result<()> {
    if deployments.as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    say!("")?;
    let row = |deployment: &Value| {
        let deployed = &deployment["deployed"];
        vec![
            text(&deployment["route"]).to_owned(),
            digest(&deployed["digest"]).to_owned(),
            digest(&deployed["previous"]).to_owned(),
            time(&deployed["when_ms"]),
            text(&deployed["who"]).to_owned(),
        ]
    };
    table::print(&["DEPLOYED TO", "DIGEST", "BEFORE", "WHEN", "BY"], &rows(deployments, row), &[])
}

pub(super) fn print_traps(answer: &Value) -> io::Result<()> {
    let row = |trap: &Value| {
        vec![
            text(&trap["fingerprint"]).to_owned(),
            text(&trap["plugin"]).to_owned(),
            number(&trap["count"]),
            text(&trap["kind"]).to_owned(),
            time(&trap["first_ms"]),
            digest(&trap["first_digest"]).to_owned(),
            time(&trap["last_ms"]),
            digest(&trap["last_digest"]).to_owned(),
            text(&trap["text"]).lines().next().unwrap_or_default().chars().take(80).collect(),
        ]
    };
    let heading = ["FINGERPRINT", "PLUGIN", "COUNT", "KIND", "FIRST", "IN", "LAST", "IN", "TEXT"];
    table::print(&heading, &rows(&answer["traps"], row), &[2])
}

fn counts(value: &Value) -> String {
    let counts = value.as_object().into_iter().flatten().filter(|(_, count)| count.as_u64() != Some(0));
    counts.map(|(name, count)| format!("{name} {}", number(count))).collect::<Vec<_>>().join(", ")
}

fn micros(ns: &Value) -> String {
    let ns = ns.as_u64().unwrap_or(0);
    format!("{}.{} µs", table::count(ns / 1_000), ns % 1_000 / 100)
}

fn rows(values: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    values.as_array().into_iter().flatten().map(row).collect()
}

fn texts(value: &Value, between: &str) -> String {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(between)
}
