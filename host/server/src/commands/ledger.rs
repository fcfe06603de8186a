//! `quipu ledger`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::connect::ServerArgs;
use super::output::say;
use super::table;

/// What of a message's fate is a column of its own, where any subscription has it.
const FATES: [(&str, &str); 9] = [
    ("acked", "ACKED"),
    ("filtered", "FILTERED"),
    ("dropped", "DROPPED"),
    ("dead_lettered", "DEAD"),
    ("expired", "EXPIRED"),
    ("evicted", "EVICTED"),
    ("compacted", "COMPACTED"),
    ("purged", "PURGED"),
    ("sought_past", "SOUGHT PAST"),
];
/// Where messages came from, likewise.
const SOURCES: [(&str, &str); 3] = [("entered", "ENTERED"), ("sought_back", "SOUGHT BACK"), ("redriven", "REDRIVEN")];
/// Columns that are always there.
const ALWAYS: [&str; 4] = ["entered", "acked", "dead_lettered", "evicted"];

/// Accounts for every message that entered a queue, for each subscription: what came is what is done with, waiting, in
/// flight or parked. Fails where it is not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu ledger\n  quipu ledger orders --json")]
pub(crate) struct Args {
    /// One queue alone.
    queue: Option<String>,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.server.connect().await?;
    let arguments = args.queue.as_ref().map_or_else(|| json!({}), |queue| json!({ "queue": queue }));
    let answer = client.call("ledger", arguments).await.context("ledger")?;
    client.close().await;
    if args.json {
        say!("{answer}")?;
    } else {
        print(&answer)?;
    }
    Ok(if is_balanced(&answer) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether both sides are the same for every subscription; not where the answer does not say.
fn is_balanced(answer: &Value) -> bool {
    let balanced = |subscription: &Value| subscription["balanced"].as_bool() == Some(true);
    answer["subscriptions"].as_array().is_some_and(|all| all.iter().all(balanced))
}

fn print(answer: &Value) -> std::io::Result<()> {
    let subscriptions: Vec<&Value> = answer["subscriptions"].as_array().into_iter().flatten().collect();
    let of = |subscription: &Value, field: &str| subscription["counts"][field].as_u64().unwrap_or(0);
    let shown = |fields: &[(&'static str, &'static str)]| -> Vec<(&'static str, &'static str)> {
        let has = |field: &str| ALWAYS.contains(&field) || subscriptions.iter().any(|s| of(s, field) > 0);
        fields.iter().copied().filter(|(field, _)| has(field)).collect()
    };
    let (sources, fates) = (shown(&SOURCES), shown(&FATES));
    let outstanding = [("waiting", "WAITING"), ("in_flight", "IN FLIGHT"), ("parked", "PARKED")];
    let counted = sources.iter().chain(&fates).chain(&outstanding).map(|(_, title)| *title);
    let heading: Vec<&str> = ["QUEUE", "SUBSCRIPTION"].into_iter().chain(counted).chain([""]).collect();
    let row = |subscription: &&Value| {
        let counts = sources.iter().chain(&fates).map(|(field, _)| of(subscription, field));
        let left = outstanding.iter().map(|(field, _)| subscription[field].as_u64().unwrap_or(0));
        let names = ["queue", "subscription"].map(|field| subscription[field].as_str().unwrap_or_default().to_owned());
        let (came, accounted) = (&subscription["came"], &subscription["accounted"]);
        let verdict = match subscription["balanced"].as_bool() {
            Some(true) => "balanced".to_owned(),
            _ => format!("{came} came, {accounted} are accounted for"),
        };
        names.into_iter().chain(counts.chain(left).map(table::count)).chain([verdict]).collect()
    };
    let rows: Vec<Vec<String>> = subscriptions.iter().map(row).collect();
    let right: Vec<usize> = (2..heading.len() - 1).collect();
    table::print(&heading, &rows, &right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subscription_that_does_not_balance_fails() {
        let of =
            |balanced: [bool; 2]| json!({ "subscriptions": balanced.map(|balanced| json!({ "balanced": balanced })) });
        assert!(is_balanced(&of([true, true])));
        assert!(!is_balanced(&of([true, false])));
        assert!(!is_balanced(&json!({ "subscriptions": [{}] })) && !is_balanced(&json!({})));
    }
}
