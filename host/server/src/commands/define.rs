//! `quipu queue|route|subscription …`: what changes while the router runs.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::ask::Ask;
use super::output::say;
use super::table;

/// A queue or route as `KEY=VALUE` pairs, with the keys of the configuration file.
#[derive(Debug, Args)]
pub(crate) struct DefineArgs {
    /// Its name.
    name: String,
    /// Keys as in the configuration file; a value is TOML, or a text without quotes.
    #[arg(value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    ask: Ask,
}

/// As [`DefineArgs`], for something that is there.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Its name.
    name: String,
    /// Keys as in the configuration file; a value is TOML, or a text without quotes. The others stay.
    #[arg(value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A key that gets its default back.
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Something by its name.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Its name.
    name: String,
    #[command(flatten)]
    ask: Ask,
}

impl NameArgs {
    /// A call about it, and its answer as this prints it.
    pub(super) async fn ask(self, method: &str, print: fn(&Value) -> std::io::Result<()>) -> Result<ExitCode> {
        self.ask.ask(method, json!({ "name": self.name }), print).await
    }
}

/// A route that goes.
#[derive(Debug, Args)]
#[group(id = "its_subscription", required = true, multiple = false, args = ["keep_subscription", "drop_subscription"])]
pub(crate) struct DeleteRouteArgs {
    /// Its name.
    name: String,
    /// Keeps its subscription, with all that the route has not done: a route of this name goes on from there.
    #[arg(long)]
    keep_subscription: bool,
    /// Deletes its subscription too: what only the route would still have read is gone.
    #[arg(long)]
    drop_subscription: bool,
    #[command(flatten)]
    ask: Ask,
}

/// A queue that goes.
#[derive(Debug, Args)]
pub(crate) struct DeleteQueueArgs {
    /// Its name.
    name: String,
    /// Also where messages are in it, which are gone then.
    #[arg(long)]
    with_messages: bool,
    #[command(flatten)]
    ask: Ask,
}

/// Where a reader goes on.
#[derive(Debug, Args)]
pub(crate) struct SeekArgs {
    /// Its name.
    name: String,
    /// `first`, `new`, an offset, or a time such as 2026-11-21T10:00:00Z.
    #[arg(long, value_name = "WHERE")]
    to: String,
    #[command(flatten)]
    ask: Ask,
}

/// A subscription by its queue and name.
#[derive(Debug, Args)]
pub(crate) struct SubscriptionArgs {
    /// Its queue.
    queue: String,
    /// Its name.
    name: String,
    #[command(flatten)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// Makes a subscription, so that its queue keeps messages for it from now on.
    #[command(after_help = "Example:\n  quipu subscription create orders billing --mode key-shared --start new")]
    Create {
        #[command(flatten)]
        subscription: SubscriptionArgs,
        /// How its consumers share it: shared, key-shared or exclusive.
        #[arg(long, default_value = "shared")]
        mode: String,
        /// Where it starts: `first`, `new`, an offset, or a time.
        #[arg(long, default_value = "first", value_name = "WHERE")]
        start: String,
    },
    /// Changes how consumers share a subscription. What they have in hand comes again, shared in the new way.
    #[command(after_help = "Example:\n  quipu subscription change orders billing --mode key-shared")]
    Change {
        #[command(flatten)]
        subscription: SubscriptionArgs,
        /// How its consumers share it from now on: shared, key-shared or exclusive.
        #[arg(long)]
        mode: String,
    },
    /// Hands out nothing more until it is resumed; also after a restart.
    #[command(after_help = "Example:\n  quipu subscription pause orders billing")]
    Pause(SubscriptionArgs),
    /// Hands out again.
    #[command(after_help = "Example:\n  quipu subscription resume orders billing")]
    Resume(SubscriptionArgs),
    /// Goes on elsewhere: back to read again what is still there, or ahead.
    #[command(after_help = "Examples:\n  quipu subscription seek orders billing --to first\n  \
        quipu subscription seek orders billing --to 4711")]
    Seek {
        #[command(flatten)]
        subscription: SubscriptionArgs,
        /// `first`, `new`, an offset, or a time such as 2026-11-21T10:00:00Z.
        #[arg(long, value_name = "WHERE")]
        to: String,
    },
    /// Deletes a subscription: what only it would still have read is gone.
    #[command(after_help = "Example:\n  quipu subscription delete orders billing")]
    Delete(SubscriptionArgs),
}

pub(crate) async fn subscriptions(command: SubscriptionCommand) -> Result<ExitCode> {
    let (method, args, more) = match command {
        SubscriptionCommand::Create { subscription, mode, start } => {
            ("subscription.create", subscription, json!({ "mode": mode, "start": start }))
        }
        SubscriptionCommand::Change { subscription, mode } => {
            ("subscription.change", subscription, json!({ "mode": mode }))
        }
        SubscriptionCommand::Pause(args) => ("subscription.pause", args, json!({})),
        SubscriptionCommand::Resume(args) => ("subscription.resume", args, json!({})),
        SubscriptionCommand::Seek { subscription, to } => ("subscription.seek", subscription, json!({ "to": to })),
        SubscriptionCommand::Delete(args) => ("subscription.delete", args, json!({})),
    };
    let mut arguments = json!({ "queue": args.queue, "subscription": args.name });
    merge(&mut arguments, more);
    args.ask.ask(method, arguments, print).await
}

pub(crate) async fn create(kind: &str, args: DefineArgs) -> Result<ExitCode> {
    let arguments = json!({ "name": args.name, "set": args.set });
    args.ask.ask(&format!("{kind}.create"), arguments, print).await
}

pub(crate) async fn change(kind: &str, args: ChangeArgs) -> Result<ExitCode> {
    let arguments = json!({ "name": args.name, "set": args.set, "unset": args.unset });
    args.ask.ask(&format!("{kind}.change"), arguments, print).await
}

/// A method that takes nothing but a name.
pub(crate) async fn named(method: &str, args: NameArgs) -> Result<ExitCode> {
    args.ask(method, print).await
}

pub(crate) async fn delete_queue(args: DeleteQueueArgs) -> Result<ExitCode> {
    args.ask.ask("queue.delete", json!({ "name": args.name, "with_messages": args.with_messages }), print).await
}

pub(crate) async fn delete_route(args: DeleteRouteArgs) -> Result<ExitCode> {
    let arguments = json!({ "name": args.name, "drop_subscription": args.drop_subscription });
    args.ask.ask("route.delete", arguments, print).await
}

pub(crate) async fn seek_route(args: SeekArgs) -> Result<ExitCode> {
    args.ask.ask("route.seek", json!({ "name": args.name, "to": args.to }), print).await
}

/// Reads the configuration file again and makes the router what it says.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    ask: Ask,
}

pub(crate) async fn reload(args: ReloadArgs) -> Result<ExitCode> {
    args.ask.ask("config.reload", json!({}), print).await
}

pub(crate) async fn diff(args: ReloadArgs) -> Result<ExitCode> {
    args.ask.ask("config.diff", json!({}), print).await
}

/// Every answer has `did`, a line, and may have `differences`, `swaps` and `notes`.
fn print(answer: &Value) -> std::io::Result<()> {
    for line in texts(&answer["differences"]) {
        say!("{line}")?;
    }
    for swap in answer["swaps"].as_array().into_iter().flatten() {
        say!("{}", swapped(swap))?;
    }
    if let Some(did) = answer["did"].as_str() {
        say!("{did}")?;
    }
    for note in texts(&answer["notes"]) {
        say!("note: {note}")?;
    }
    if let Some(count) = answer["count"].as_u64() {
        say!("{} messages", table::count(count))?;
    }
    Ok(())
}

/// Where a route took another chain, in one line.
pub(super) fn swapped(swap: &Value) -> String {
    let text = |field: &str| swap[field].as_str().unwrap_or_default();
    let number = |field: &str| table::count(swap[field].as_u64().unwrap_or(0));
    let (route, ms) = (text("route"), number("took_ms"));
    match swap["queue"].as_str() {
        Some(queue) => {
            format!(
                "route {route} swapped at {queue} offset {}; {} in flight drained, in {ms} ms",
                number("offset"),
                number("drained")
            )
        }
        None => format!("route {route} swapped between two messages, in {ms} ms"),
    }
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn merge(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}
