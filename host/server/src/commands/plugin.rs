//! `quipu plugin`: versions of plugins, and which of them routes serve.

mod bench;
mod build;
pub(crate) mod compile;
mod deploy;
mod dev;
mod doctor;
mod from_queue;
mod inspect;
mod logs;
mod new;
mod push;
pub(super) use push::upload;
mod run;
pub(super) mod show;
mod shown;
mod test;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use quipu_client::Client;
use serde_json::{Value, json};

use super::ask::Ask;
use super::output::say;
use crate::plugins::version::{Reference, short};

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Makes a project for a plugin of your own. Needs no router.
    New(new::Args),
    /// Says which tools a language needs, which are missing, and how to get them. Needs no router.
    Doctor(doctor::Args),
    /// Makes a file that the router loads of a project. Needs no router.
    Build(build::Args),
    /// Lists the versions in the router's store, and the routes that serve them.
    #[command(after_help = "Example:\n  quipu plugin list")]
    List(Ask),
    /// Shows a plugin: its versions, where they serve, and what they did.
    #[command(after_help = "Example:\n  quipu plugin show big-quakes")]
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        ask: Ask,
    },
    /// Copies a plugin's file into the router's store. It serves once it is deployed.
    #[command(after_help = "Examples:\n  quipu plugin push big-quakes\n  \
        quipu plugin push big-quakes.wasm --tag 1.5.0 --cases cases.json")]
    Push(push::Args),
    /// Puts a version into a running route, between two messages. Whatever fails leaves what serves.
    #[command(after_help = "Example:\n  quipu plugin deploy big-quakes@1.5.0 --route alerts")]
    Deploy(deploy::DeployArgs),
    /// Goes back to the version that a route served before.
    #[command(after_help = "Examples:\n  quipu plugin rollback big-quakes --route alerts\n  \
        quipu plugin rollback big-quakes --route alerts --to 1.4.2")]
    Rollback(deploy::RollbackArgs),
    /// Takes a version out of the router's store, unless it is in use.
    #[command(after_help = "Example:\n  quipu plugin rm big-quakes@1.4.2")]
    Rm {
        /// NAME@VERSION: a tag, or the beginning of a digest.
        version: Reference,
        #[command(flatten)]
        ask: Ask,
    },
    /// Shows what a file is: its digest, what it imports, its functions. Needs no router.
    #[command(after_help = "Example:\n  quipu plugin inspect big-quakes.wasm")]
    Inspect(inspect::Args),
    /// Shows what a plugin logged.
    #[command(after_help = "Example:\n  quipu plugin logs big-quakes --follow --since 5m --level warn")]
    Logs(logs::Args),
    /// Shows what plugins failed on, by fingerprint.
    #[command(after_help = "Examples:\n  quipu plugin traps\n  quipu plugin traps big-quakes --json")]
    Traps {
        /// Of this plugin alone.
        name: Option<String>,
        #[command(flatten)]
        ask: Ask,
    },
    /// Tries a plugin's cases: messages, and what should become of them. Needs no router.
    Test(test::Args),
    /// Runs a plugin on messages, a line each, and says what it makes of them. Needs no router.
    Run(run::Args),
    /// Measures a plugin: time, instructions and memory for each message. Needs no router.
    Bench(bench::Args),
    /// Builds, tests and deploys a project as often as its sources change.
    Dev(dev::Args),
}

pub(crate) async fn run(command: PluginCommand) -> Result<ExitCode> {
    match command {
        PluginCommand::New(args) => new::run(&args),
        PluginCommand::Doctor(args) => doctor::run(&args),
        PluginCommand::Build(args) => build::run(args).await,
        PluginCommand::List(ask) => ask.ask("plugin.list", json!({}), show::print_list).await,
        PluginCommand::Show { name, ask } => ask.ask("plugin.show", json!({ "name": name }), show::print_plugin).await,
        PluginCommand::Push(args) => push::run(args).await,
        PluginCommand::Deploy(args) => deploy::deploy(args).await,
        PluginCommand::Rollback(args) => deploy::rollback(args).await,
        PluginCommand::Rm { version: Reference { name, version }, ask } => {
            ask.ask("plugin.remove", json!({ "name": name, "version": version }), print_removed).await
        }
        PluginCommand::Inspect(args) => inspect::run(args).await,
        PluginCommand::Logs(args) => logs::run(args).await,
        PluginCommand::Traps { name, ask } => ask.ask("plugin.traps", json!({ "name": name }), show::print_traps).await,
        PluginCommand::Test(args) => test::run(args).await,
        PluginCommand::Run(args) => run::run(args).await,
        PluginCommand::Bench(args) => bench::run(args).await,
        PluginCommand::Dev(args) => dev::run(args).await,
    }
}

/// Calls what takes its time again until it is done, and gives what it came to. All of it is one call, by its id.
pub(super) async fn until_done(client: &Client, method: &str, arguments: &Value) -> Result<Value> {
    let mut arguments = arguments.clone();
    arguments["call"] = uuid::Uuid::now_v7().to_string().into();
    loop {
        let answer = client.call(method, arguments.clone()).await.with_context(|| method.to_owned())?;
        let mut answer = whole(client, answer).await.with_context(|| method.to_owned())?;
        if answer["done"].as_bool() == Some(true) {
            return Ok(answer["result"].take());
        }
    }
}

/// An answer, or the one whose parts it names.
async fn whole(client: &Client, answer: Value) -> Result<Value> {
    let Some(id) = answer["parts"]["id"].as_str() else { return Ok(answer) };
    let size = usize::try_from(answer["parts"]["size"].as_u64().unwrap_or(0))?;
    let mut text = Vec::new();
    while text.len() < size {
        let part = client.call("answer.part", json!({ "id": id, "offset": text.len() })).await?;
        let part = STANDARD.decode(part["data"].as_str().unwrap_or_default())?;
        ensure!(!part.is_empty(), "{} of {size} bytes of the answer came", text.len());
        text.extend(part);
    }
    Ok(serde_json::from_slice(&text)?)
}

fn print_removed(answer: &Value) -> io::Result<()> {
    let removed = &answer["removed"];
    say!("removed {}@{} ({})", text(&removed["name"]), text(&removed["tag"]), digest(&removed["digest"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The first 8 digits.
fn digest(value: &Value) -> &str {
    short(text(value))
}

fn number(value: &Value) -> String {
    super::table::count(value.as_u64().unwrap_or(0))
}

fn time(unix_ms: &Value) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms.as_u64().unwrap_or(0));
    humantime::format_rfc3339_seconds(at).to_string()
}
