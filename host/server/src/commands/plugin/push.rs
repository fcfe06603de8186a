//! `quipu plugin push`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu_client::Client;
use serde_json::{Value, json};

use super::{Ask, digest, text, until_done};
use crate::commands::output::say;
use crate::plugins::cases;
use crate::plugins::upload::PIECE_BYTES_MAX;

/// Copies a plugin's file into the router's store.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A module or component.
    file: PathBuf,
    /// What routes call it; the file's name without its ending, unless said.
    #[arg(long)]
    name: Option<String>,
    /// The version, as 1.5.0; the beginning of the file's digest, unless said.
    #[arg(long)]
    tag: Option<String>,
    /// A self-test that is run before this version serves: a file of cases, as `plugin test` takes them, or a JSON list.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    ask: Ask,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let of_file = || args.file.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
    let name = args.name.clone().or_else(of_file).context("say --name: the file's has no text")?;
    let cases = match &args.cases {
        Some(file) => {
            let cases = cases::file::read(file)?.cases.into_iter().map(|placed| placed.case).collect();
            cases::check(&cases)?;
            cases
        }
        None => Vec::new(),
    };
    let client = args.ask.server.connect().await?;
    let upload = upload(&client, &bytes).await?;
    let source = args.file.display().to_string();
    let call = json!({ "upload": upload, "name": name, "tag": args.tag, "cases": cases, "source": source });
    let answer = until_done(&client, "plugin.push", &call).await?;
    client.close().await;
    if args.ask.json {
        say!("{answer}")?;
    } else {
        print(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends a file in pieces; what the router calls it then.
pub(in crate::commands) async fn upload(client: &Client, bytes: &[u8]) -> Result<String> {
    let begun = client.call("plugin.upload", json!({ "size": bytes.len() })).await.context("plugin.upload")?;
    let upload = text(&begun["upload"]).to_owned();
    for (n, piece) in bytes.chunks(PIECE_BYTES_MAX).enumerate() {
        let call = json!({ "upload": upload, "offset": n * PIECE_BYTES_MAX, "data": STANDARD.encode(piece) });
        client.call("plugin.piece", call).await.context("plugin.piece")?;
    }
    Ok(upload)
}

fn print(answer: &Value) -> std::io::Result<()> {
    let version = &answer["version"];
    let (name, tag, digest) = (text(&version["name"]), text(&version["tag"]), digest(&version["digest"]));
    let cases = version["cases"].as_array().map_or(0, Vec::len);
    say!("pushed {name}@{tag} ({digest}), {cases} cases")?;
    let started: Vec<&str> = answer["started"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match started.is_empty() {
        true => say!("next: quipu plugin deploy {name}@{tag} --route ROUTE"),
        false => say!("started, they waited for it: {}", started.join(", ")),
    }
}
