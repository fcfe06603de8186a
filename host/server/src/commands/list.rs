//! `quipu queue` and `quipu route`: what a running router has.

use std::io;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::ask::Ask;
use super::output::say;
use super::plugin::show::{print_standing, table_of_uses};
use super::{define, redrive, table};
use crate::config::ByteSize;

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Lists the queues.
    #[command(after_help = "Example:\n  quipu queue list")]
    List(Ask),
    /// Shows one queue with its subscriptions.
    #[command(after_help = "Example:\n  quipu queue show orders")]
    Show {
        /// Its name.
        queue: String,
        #[command(flatten)]
        args: Ask,
    },
    /// Moves dead letters back to where they died.
    Redrive(redrive::Args),
    /// Makes a queue while the router runs.
    #[command(after_help = "Example:\n  quipu queue create orders 'subjects=[\"orders.>\"]' max_attempts=3")]
    Create(define::DefineArgs),
    /// Changes a queue that was made while the router runs.
    #[command(after_help = "Example:\n  quipu queue change orders max_attempts=5 --unset retention")]
    Change(define::ChangeArgs),
    /// Deletes a queue with its subscriptions.
    #[command(after_help = "Example:\n  quipu queue delete orders --with-messages")]
    Delete(define::DeleteQueueArgs),
    /// Deletes all messages that are in a queue.
    #[command(after_help = "Example:\n  quipu queue purge orders")]
    Purge(define::NameArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Lists the routes, with what they did since the router started.
    #[command(after_help = "Example:\n  quipu route list")]
    List(Ask),
    /// Shows one route: what it is, how it stands, what it did, and what its plugins cost.
    #[command(after_help = "Example:\n  quipu route show big")]
    Show(define::NameArgs),
    /// Makes a route while the router runs.
    #[command(after_help = "Example:\n  quipu route create big from=quakes 'to=[\"alerts\"]' \\\n    \
        'plugins=[{name=\"filter-json\", config={field=\"properties.mag\", at_least=4.5}}]'")]
    Create(define::DefineArgs),
    /// Changes a route that was made while the router runs; messages notice nothing but what changes.
    #[command(after_help = "Example:\n  quipu route change big parallel=4 --unset when")]
    Change(define::ChangeArgs),
    /// Deletes a route.
    #[command(after_help = "Examples:\n  quipu route delete big --keep-subscription\n  \
        quipu route delete big --drop-subscription")]
    Delete(define::DeleteRouteArgs),
    /// Lets a route take no further message until it is resumed; also after a restart.
    #[command(after_help = "Example:\n  quipu route pause big")]
    Pause(define::NameArgs),
    /// Lets a route that was paused, or that stands still because its plugin fails on everything, go on.
    #[command(after_help = "Example:\n  quipu route resume big")]
    Resume(define::NameArgs),
    /// Lets a route go on elsewhere in its queue.
    #[command(after_help = "Examples:\n  quipu route seek big --to first\n  \
        quipu route seek big --to 2026-11-21T10:00:00Z")]
    Seek(define::SeekArgs),
}

pub(crate) async fn queues(command: QueueCommand) -> Result<ExitCode> {
    match command {
        QueueCommand::List(args) => args.ask("queue.list", json!({}), print_queues).await,
        QueueCommand::Show { queue, args } => args.ask("queue.show", json!({ "queue": queue }), print_queue).await,
        QueueCommand::Redrive(args) => redrive::run(args).await,
        QueueCommand::Create(args) => define::create("queue", args).await,
        QueueCommand::Change(args) => define::change("queue", args).await,
        QueueCommand::Delete(args) => define::delete_queue(args).await,
        QueueCommand::Purge(args) => define::named("queue.purge", args).await,
    }
}

pub(crate) async fn routes(command: RouteCommand) -> Result<ExitCode> {
    match command {
        RouteCommand::List(args) => args.ask("route.list", json!({}), print_routes).await,
        RouteCommand::Show(args) => args.ask("route.show", print_route).await,
        RouteCommand::Create(args) => define::create("route", args).await,
        RouteCommand::Change(args) => define::change("route", args).await,
        RouteCommand::Delete(args) => define::delete_route(args).await,
        RouteCommand::Pause(args) => define::named("route.pause", args).await,
        RouteCommand::Resume(args) => define::named("route.resume", args).await,
        RouteCommand::Seek(args) => define::seek_route(args).await,
    }
}

fn print_queues(answer: &Value) -> io::Result<()> {
    let row = |queue: &Value| {
        let subscriptions = queue["subscriptions"].as_array().map_or(0, Vec::len);
        let subjects = texts(&queue["subjects"]);
        vec![
            text(&queue["name"]),
            number(&queue["messages"]),
            number(&queue["bytes"]),
            number(&queue["next_offset"]),
            subscriptions.to_string(),
            text(&queue["durability"]),
            text(&queue["retention"]),
            subjects,
        ]
    };
    let heading = ["QUEUE", "MESSAGES", "BYTES", "APPENDED", "SUBSCRIPTIONS", "DURABILITY", "RETENTION", "SUBJECTS"];
    table::print(&heading, &rows(&answer["queues"], row), &[1, 2, 3, 4])
}

fn print_queue(answer: &Value) -> io::Result<()> {
    let queue = &answer["queue"];
    let age = queue["retention_age_ms"].as_u64().map(|ms| format!(" of {}", duration(ms))).unwrap_or_default();
    say!("queue         {}", text(&queue["name"]))?;
    say!("subjects      {}", texts(&queue["subjects"]))?;
    say!("messages      {} of {} appended", number(&queue["messages"]), number(&queue["next_offset"]))?;
    say!("bytes         {}", number(&queue["bytes"]))?;
    say!("oldest        {}", oldest(queue))?;
    say!("kept          {}, {}{age}", text(&queue["durability"]), text(&queue["retention"]))?;
    say!("holds         {}", holds(queue))?;
    say!("in flight     at most {} a subscription", number(&queue["in_flight_max"]))?;
    say!("ack deadline  {}", queue["ack_deadline_ms"].as_u64().filter(|ms| *ms > 0).map_or("none".into(), duration))?;
    say!("max attempts  {}", number(&queue["attempts_max"]))?;
    say!("dead letter   {}", queue["dead_letter"].as_str().unwrap_or("none"))?;
    say!("")?;
    let fields = ["consumers", "waiting", "in_flight", "parked", "acked", "filtered", "dropped", "dead_lettered"];
    let row = |subscription: &Value| {
        let counts = fields.iter().map(|field| number(&subscription[*field]));
        [text(&subscription["name"]), text(&subscription["mode"])].into_iter().chain(counts).collect()
    };
    let heading =
        ["SUBSCRIPTION", "MODE", "CONSUMERS", "WAITING", "IN FLIGHT", "PARKED", "ACKED", "FILTERED", "DROPPED", "DEAD"];
    table::print(&heading, &rows(&queue["subscriptions"], row), &[2, 3, 4, 5, 6, 7, 8, 9])
}

/// The oldest message that is still needed, and by whom.
fn oldest(queue: &Value) -> String {
    if queue["messages"].as_u64() == Some(0) {
        return "none".into();
    }
    let offset = format!("offset {}", number(&queue["first_offset"]));
    match queue["pinned_by"].as_str() {
        Some(name) => format!("{offset}, needed by {name}"),
        None => offset,
    }
}

/// How much a queue takes, and what comes then.
fn holds(queue: &Value) -> String {
    let messages = queue["messages_max"].as_u64().map(|most| format!("{} messages", table::count(most)));
    let bytes = queue["bytes_max"].as_u64().map(|most| ByteSize(most).to_string());
    let limits: Vec<String> = messages.into_iter().chain(bytes).collect();
    if limits.is_empty() {
        "any number".into()
    } else {
        format!("{}, then {}", limits.join(", "), text(&queue["on_full"]))
    }
}

fn duration(ms: u64) -> String {
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

fn print_routes(answer: &Value) -> io::Result<()> {
    let fields = ["attempts", "forwarded", "filtered", "when_errors", "dropped", "retried", "dead_lettered", "outputs"];
    let row = |route: &Value| {
        let counts = fields.iter().map(|field| number(&route[*field]));
        let plugins = route["plugins"].as_array().into_iter().flatten();
        let chain: Vec<String> =
            plugins.map(|plugin| format!("{}@{:.8}", text(&plugin["name"]), text(&plugin["digest"]))).collect();
        let named = [text(&route["name"]), text(&route["from"]), text(&route["state"])];
        named.into_iter().chain(counts).chain([chain.join(" → ")]).collect()
    };
    let heading = [
        "ROUTE",
        "FROM",
        "STATE",
        "ATTEMPTS",
        "FORWARDED",
        "FILTERED",
        "WHEN ERRORS",
        "DROPPED",
        "RETRIED",
        "DEAD",
        "OUTPUTS",
        "PLUGINS",
    ];
    table::print(&heading, &rows(&answer["routes"], row), &[3, 4, 5, 6, 7, 8, 9, 10])?;
    print_standing(answer["routes"].as_array().into_iter().flatten(), "name")
}

fn print_route(answer: &Value) -> io::Result<()> {
    let route = &answer["route"];
    let reason = route["state_reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
    let from = match texts(&route["on"]) {
        on if on.is_empty() => text(&route["from"]),
        on => format!("what is published to {on}"),
    };
    say!("route         {}", text(&route["name"]))?;
    say!("state         {}{reason}", text(&route["state"]))?;
    say!("from          {from}")?;
    say!("when          {}", route["when"].as_str().unwrap_or("always"))?;
    say!("to            {}", texts(&route["to"]))?;
    say!("lanes         {}, order {}", number(&route["parallel"]), text(&route["order"]))?;
    say!("on broken     {}", text(&route["on_broken"]))?;
    say!("work          {} ms", table::count(route["busy_ns"].as_u64().unwrap_or(0) / 1_000_000))?;
    let fields = [
        "attempts",
        "forwarded",
        "filtered",
        "when_errors",
        "dropped",
        "retried",
        "rejected",
        "failed",
        "dead_lettered",
        "outputs",
    ];
    for field in fields {
        say!("{:<13} {}", field.replace('_', " "), number(&route[field]))?;
    }
    for (reason, count) in route["drop_reasons"].as_object().into_iter().flatten() {
        say!("  dropped     {}  {reason}", number(count))?;
    }
    if let Some(queue) = route["waiting_for"].as_str() {
        say!("waits for     room in {queue}")?;
    }
    if answer["uses"].as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    say!("")?;
    table_of_uses(&answer["uses"], ("PLUGIN", "name"))
}

fn rows(values: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    values.as_array().into_iter().flatten().map(row).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> String {
    let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.collect::<Vec<_>>().join(" ")
}

fn number(value: &Value) -> String {
    table::count(value.as_u64().unwrap_or(0))
}
