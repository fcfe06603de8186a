//! `quipu explain`: what the router would do with a message.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use quipu_runtime::FILE_BYTES_MAX;
use serde_json::{Value, json};

use super::connect::ServerArgs;
use super::output::say;
use super::plugin::{until_done, upload};
use super::table::count;
use crate::files;

/// A larger payload, in bytes, is uploaded first: a call takes a mebibyte with all that is around it.
const PAYLOAD_IN_CALL_MAX: usize = 512 << 10;

/// Walks a message through a running router's routes and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu explain quakes.raw --file one.json\n  \
    quipu explain quakes.raw --file one.json --with build/big-quakes.wasm")]
pub(crate) struct Args {
    /// The message's subject.
    subject: String,
    /// A file with its payload; without it and --message, it is empty.
    #[arg(long, short, value_name = "FILE", conflicts_with = "message")]
    file: Option<PathBuf>,
    /// Its payload.
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// A header. May be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = pair)]
    headers: Vec<(String, String)>,
    /// Its key.
    #[arg(long, value_name = "KEY")]
    message_key: Option<String>,
    /// Its id.
    #[arg(long)]
    id: Option<String>,
    /// A plugin's file that takes the place of the one that serves, for this message alone.
    #[arg(long, value_name = "FILE.wasm")]
    with: Option<PathBuf>,
    /// In this route alone.
    #[arg(long, requires = "with")]
    route: Option<String>,
    /// Whose place it takes; by default that of its file's name.
    #[arg(long, requires = "with", value_name = "NAME")]
    plugin: Option<String>,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let payload = match (&args.file, &args.message) {
        (Some(file), _) => files::read(file, PAYLOAD_BYTES_MAX as u64)?,
        (None, text) => text.clone().unwrap_or_default().into_bytes(),
    };
    anyhow::ensure!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "{} bytes of payload; at most {PAYLOAD_BYTES_MAX}",
        payload.len()
    );
    let client = args.server.connect().await?;
    let with = match &args.with {
        Some(file) => {
            let bytes = files::read(file, FILE_BYTES_MAX as u64)?;
            let of_file = || file.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
            let plugin = args.plugin.clone().or_else(of_file).context("say --plugin: the file's name is no text")?;
            Some(json!({ "upload": upload(&client, &bytes).await?, "plugin": plugin, "route": args.route }))
        }
        None => None,
    };
    let mut call = json!({
        "subject": args.subject, "headers": args.headers, "key": args.message_key, "id": args.id, "with": with,
    });
    if payload.len() > PAYLOAD_IN_CALL_MAX {
        call["payload_upload"] = upload(&client, &payload).await?.into();
    } else {
        call["payload"] = STANDARD.encode(payload).into();
    }
    let answer = until_done(&client, "explain", &call).await?;
    client.close().await;
    if args.json {
        say!("{answer}")?;
    } else {
        print(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(answer: &Value) -> io::Result<()> {
    if let Some(with) = answer["with"].as_str() {
        say!("with      {with}, for this message alone")?;
    }
    for (n, step) in answer["steps"].as_array().into_iter().flatten().enumerate() {
        match step["at"].as_str() {
            Some("publish") => print_publish(n + 1, step)?,
            _ => print_route(n + 1, step)?,
        }
    }
    for end in answer["ends"].as_array().into_iter().flatten() {
        say!("end       {} {} (step {})", text(&end["how"]), text(&end["text"]), end["step"])?;
    }
    if answer["cut"].as_bool() == Some(true) {
        say!("cut       there is more: 256 steps and 16 hops are shown")?;
    }
    say!("nothing was stored and nothing was sent")
}

fn print_publish(n: usize, step: &Value) -> io::Result<()> {
    let inline = texts(&step["inline"]);
    let inline = if inline.is_empty() { String::new() } else { format!("; inline: {inline}") };
    let queues = texts(&step["queues"]);
    let queues = if queues.is_empty() { "no queue takes it" } else { &queues };
    say!("{n:<3} publish {} → {queues}{inline}", text(&step["subject"]))
}

fn print_route(n: usize, step: &Value) -> io::Result<()> {
    let from = step["queue"].as_str().map_or_else(|| "inline".into(), |queue| format!("from {queue}"));
    say!("{n:<3} route {} ({from}, {}), after step {}", text(&step["route"]), text(&step["state"]), step["from"])?;
    if let Some(when) = step["when"].as_object() {
        let said = when.get("error").and_then(Value::as_str).map_or_else(
            || when.get("matches").map(Value::to_string).unwrap_or_default(),
            |error| format!("cannot be evaluated: {error}"),
        );
        say!("    when    {} → {said}", text(&when["source"]))?;
    }
    for hop in step["hops"].as_array().into_iter().flatten() {
        let why = ["reason", "text"].iter().find_map(|field| hop[*field].as_str()).unwrap_or_default();
        let kind = hop["kind"].as_str().map(|kind| format!(" {kind}")).unwrap_or_default();
        let (micros, kib) = (hop["ns"].as_u64().unwrap_or(0) / 1_000, hop["memory_bytes"].as_u64().unwrap_or(0) >> 10);
        let (plugin, verdict) = (text(&hop["plugin"]), text(&hop["verdict"]));
        say!("    plugin  {plugin}: {verdict}{kind}  {} µs, {} KiB  {why}", count(micros), count(kib))?;
        for change in hop["changes"].as_array().into_iter().flatten() {
            let value = |value: &Value| value.as_str().map_or_else(|| "none".to_owned(), str::to_owned);
            let (before, after) = (value(&change["before"]), value(&change["after"]));
            say!("            {}: {before} → {after}", text(&change["what"]))?;
        }
        for line in hop["logs"].as_array().into_iter().flatten() {
            say!("            log {}: {}", text(&line["level"]), text(&line["text"]))?;
        }
    }
    for output in step["outputs"].as_array().into_iter().flatten() {
        let queues = texts(&output["queues"]);
        let bytes = count(output["payload_bytes"].as_u64().unwrap_or(0));
        say!("    output  {} → {queues}  {bytes} bytes, id {}", text(&output["subject"]), text(&output["id"]))?;
    }
    Ok(())
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn texts(value: &Value) -> String {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "NAME=VALUE is expected".to_owned())
}
