//! `quipu message`: what became of a message, and what a plugin saw that failed on it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use super::connect::ServerArgs;
use super::explain::text;
use super::output::say;
use super::plugin::until_done;
use crate::files;

#[derive(Debug, Subcommand)]
pub(crate) enum MessageCommand {
    /// Tells what became of a message: from the trace log (`[trace]`), and where it is now.
    #[command(after_help = "Example:\n  quipu message show ak0247")]
    Show {
        /// Its id.
        id: String,
        /// Prints JSON, one object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Writes what the plugin saw that a dead letter died in, for `quipu plugin run FILE --capsule`.
    #[command(after_help = "Examples:\n  quipu message capsule quakes-dead 12 --output ak0247.json\n  \
        quipu message capsule --id ak0247 > ak0247.json")]
    Capsule(CapsuleArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct CapsuleArgs {
    /// The queue of dead letters.
    #[arg(requires = "offset")]
    queue: Option<String>,
    /// Where in it the letter is.
    offset: Option<u64>,
    /// The message's id; the newest letter with it is taken.
    #[arg(long, conflicts_with = "queue", required_unless_present = "queue")]
    id: Option<String>,
    /// Where to write it; by default to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(command: MessageCommand) -> Result<ExitCode> {
    match command {
        MessageCommand::Show { id, json, server } => {
            let client = server.connect().await?;
            let answer = client.call("message.show", json!({ "id": id })).await.context("message.show")?;
            client.close().await;
            if json {
                say!("{answer}")?;
            } else {
                print(&answer)?;
            }
            let is_known =
                [&answer["events"], &answer["places"]].iter().any(|l| l.as_array().is_some_and(|l| !l.is_empty()));
            Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        MessageCommand::Capsule(args) => capsule(args).await,
    }
}

async fn capsule(args: CapsuleArgs) -> Result<ExitCode> {
    let client = args.server.connect().await?;
    let call = json!({ "queue": args.queue, "offset": args.offset, "id": args.id });
    let answer = until_done(&client, "message.capsule", &call).await?;
    client.close().await;
    let capsule = &answer["capsule"];
    match &args.output {
        Some(file) => {
            let written = files::write_private(file, &format!("{capsule}\n"));
            written.with_context(|| format!("cannot write {}", file.display()))?;
            say!(
                "{}: {} in {}, {}",
                text(&answer["place"]),
                text(&capsule["verdict"]),
                text(&capsule["plugin"]),
                file.display()
            )?;
        }
        None => say!("{capsule}")?,
    }
    if answer["same"].as_bool() != Some(true) {
        eprintln!("quipu: the router itself gets another outcome now: {}", text(&answer["again"]));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(answer: &Value) -> io::Result<()> {
    let id = text(&answer["id"]);
    for event in answer["events"].as_array().into_iter().flatten() {
        let whose = if text(&event["id"]) == id { String::new() } else { format!("  [{}]", text(&event["id"])) };
        say!("{}  {}{whose}", time(&event["at_ms"]), said(event))?;
    }
    for place in answer["places"].as_array().into_iter().flatten() {
        let whose = if text(&place["id"]) == id { String::new() } else { format!("  [{}]", text(&place["id"])) };
        say!("is in {} offset {}, {} bytes{whose}", text(&place["queue"]), place["offset"], place["payload_bytes"])?;
        for (name, value) in place["dead"].as_object().into_iter().flatten().filter(|(name, _)| *name != "capsule") {
            say!("  dead: {name:<12} {}", text(value))?;
        }
    }
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    if is_empty(&answer["events"]) && is_empty(&answer["places"]) {
        say!("nothing is known of {id}: no queue has it, among {} messages that were looked at", answer["looked"])?;
    }
    let trace = &answer["trace"];
    match trace["one_in"].as_u64() {
        Some(0) => {
            say!("trace: off; `[trace] mode = \"all\"` or \"sampled\" keeps what becomes of messages from then on")
        }
        Some(1) => say!("trace: all, {} events, {} gone", trace["events"], trace["gone"]),
        _ => say!("trace: one message in {}, {} events, {} gone", trace["one_in"], trace["events"], trace["gone"]),
    }
}

fn said(event: &Value) -> String {
    let field = |name: &str| text(&event[name]);
    match field("event") {
        "published" => {
            let places = event["places"].as_array().into_iter().flatten();
            let places: Vec<String> = places.map(|place| format!("{} offset {}", text(&place[0]), place[1])).collect();
            format!("published to {}: {}  {}", field("subject"), field("outcome"), places.join(", "))
        }
        "attempt" => {
            let hops = event["hops"].as_array().into_iter().flatten();
            let hop = |hop: &Value| {
                format!(
                    "{} {} {} µs",
                    text(&hop["plugin"]),
                    text(&hop["verdict"]),
                    hop["ns"].as_u64().unwrap_or(0) / 1_000
                )
            };
            let hops: Vec<String> = hops.map(hop).collect();
            format!("route {}, attempt {}: {}  {}", field("route"), event["attempt"], field("end"), hops.join(", "))
        }
        "outputs" => {
            let made = event["made"].as_array().into_iter().flatten();
            let made: Vec<String> = made.map(|one| format!("{} to {}", text(&one[0]), text(&one[1]))).collect();
            format!("route {} made {}", field("route"), made.join(", "))
        }
        "settled" => format!("settled by {}: {}", field("subscription"), field("outcome")),
        "delivered" => {
            let (queue, subscription, consumer) = (field("queue"), field("subscription"), field("consumer"));
            format!("delivered from {queue} to {subscription} (client {consumer}), attempt {}", event["attempt"])
        }
        "dead-lettered" => format!("dead-lettered by {}: {}", field("subscription"), field("reason")),
        other => other.to_owned(),
    }
}

fn time(unix_ms: &Value) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms.as_u64().unwrap_or(0));
    humantime::format_rfc3339_millis(at).to_string()
}
