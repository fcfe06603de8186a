//! `quipu queue redrive`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::connect::ServerArgs;
use super::output::say;
use super::table;

/// Refusals that are told one by one; the rest is counted.
const REFUSALS_SHOWN: usize = 16;

/// Moves dead letters back to the queue where they died, for the subscription that gave them up.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu queue redrive orders-dead --dry-run\n  \
    quipu queue redrive orders-dead --filter 'headers[\"quipu-dead-route\"] == \"bill\"' --rate 100")]
pub(crate) struct Args {
    /// The queue of dead letters.
    queue: String,
    /// Only those that this CEL expression is true of.
    #[arg(long, value_name = "CEL")]
    filter: Option<String>,
    /// Only those with this message id.
    #[arg(long)]
    id: Option<String>,
    /// Only those whose plugin failed so: a fingerprint of `quipu plugin traps`.
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// Only the one at this offset.
    #[arg(long, value_name = "N")]
    offset: Option<u64>,
    /// So many at most; all, unless said.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    limit: Option<u64>,
    /// So many a second at most; as fast as it goes, unless said.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    rate: Option<u64>,
    /// Says what would be moved where, and moves nothing.
    #[arg(long)]
    dry_run: bool,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What all slices came to.
#[derive(Debug, Default)]
struct Total {
    moved: BTreeMap<(String, String), u64>,
    refused: Vec<Value>,
    refused_count: u64,
    filter_errors: u64,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.server.connect().await?;
    let mut total = Total::default();
    let (mut from, mut left) = (0, args.limit);
    loop {
        let arguments = json!({
            "queue": args.queue, "from": from, "filter": args.filter, "id": args.id, "fingerprint": args.fingerprint, "offset": args.offset,
            "limit": left, "rate": args.rate, "dry_run": args.dry_run,
        });
        let slice = client.call("queue.redrive", arguments).await.context("queue.redrive")?;
        total.add(&slice);
        from = slice["next"].as_u64().context("an answer without `next`")?;
        left = left.map(|left| left.saturating_sub(slice["moved_count"].as_u64().unwrap_or(0)));
        if slice["done"].as_bool() == Some(true) || left == Some(0) {
            break;
        }
    }
    client.close().await;
    if args.json {
        say!("{}", total.json())?;
    } else {
        total.print(args.dry_run)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Total {
    fn add(&mut self, slice: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        for moved in slice["moved"].as_array().into_iter().flatten() {
            let to = (text(&moved["queue"]), text(&moved["subscription"]));
            *self.moved.entry(to).or_default() += count(&moved["count"]);
        }
        let shown = REFUSALS_SHOWN - self.refused.len();
        self.refused.extend(slice["refused"].as_array().into_iter().flatten().take(shown).cloned());
        self.refused_count += count(&slice["refused_count"]);
        self.filter_errors += count(&slice["filter_errors"]);
    }

    fn json(&self) -> Value {
        let moved: Vec<Value> = self
            .moved
            .iter()
            .map(|((queue, subscription), n)| json!({ "queue": queue, "subscription": subscription, "count": n }))
            .collect();
        json!({
            "moved": moved, "refused": self.refused, "refused_count": self.refused_count,
            "filter_errors": self.filter_errors,
        })
    }

    fn print(&self, dry_run: bool) -> std::io::Result<()> {
        let moves = if dry_run { "WOULD MOVE" } else { "MOVED" };
        let row = |((queue, subscription), n): (&(String, String), &u64)| {
            vec![queue.clone(), subscription.clone(), table::count(*n)]
        };
        let rows: Vec<Vec<String>> = self.moved.iter().map(row).collect();
        table::print(&["TO QUEUE", "FOR SUBSCRIPTION", moves], &rows, &[2])?;
        if self.refused_count > 0 {
            say!("{} cannot go back:", table::count(self.refused_count))?;
        }
        for refused in &self.refused {
            say!("  offset {}: {}", refused["offset"], refused["why"].as_str().unwrap_or_default())?;
        }
        if self.filter_errors > 0 {
            say!("{} stay: the filter cannot be evaluated on them", table::count(self.filter_errors))?;
        }
        Ok(())
    }
}
