//! `quipu plugin deploy` and `quipu plugin rollback`.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Ask, digest, number, text, until_done};
use crate::commands::output::say;
use crate::plugins::version::Reference;

/// Puts a version into a running route.
#[derive(Debug, clap::Args)]
pub(crate) struct DeployArgs {
    /// NAME@VERSION: a tag, or the beginning of a digest.
    version: Reference,
    /// The route.
    #[arg(long)]
    route: String,
    #[command(flatten)]
    ask: Ask,
}

/// Goes back to an earlier version.
#[derive(Debug, clap::Args)]
pub(crate) struct RollbackArgs {
    /// The plugin.
    name: String,
    /// The route.
    #[arg(long)]
    route: String,
    /// The version to go back to; the one before, unless said.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

pub(crate) async fn deploy(args: DeployArgs) -> Result<ExitCode> {
    let Reference { name, version } = args.version;
    run(&args.ask, "plugin.deploy", &json!({ "name": name, "version": version, "route": args.route })).await
}

pub(crate) async fn rollback(args: RollbackArgs) -> Result<ExitCode> {
    run(&args.ask, "plugin.rollback", &json!({ "name": args.name, "route": args.route, "to": args.to })).await
}

async fn run(ask: &Ask, method: &str, call: &Value) -> Result<ExitCode> {
    let client = ask.server.connect().await?;
    let answer = until_done(&client, method, call).await?;
    client.close().await;
    let deployed = answer["deployed"].as_bool() == Some(true);
    if ask.json {
        say!("{answer}")?;
    } else if deployed {
        print(&answer)?;
    } else {
        print_failed(&answer);
    }
    Ok(if deployed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A deployment that went well.
pub(super) fn print(answer: &Value) -> std::io::Result<()> {
    let compile = answer["compile_ms"].as_u64().map_or("kept".to_owned(), |ms| format!("{ms} ms"));
    let test = &answer["self_test"];
    let cases = match test["cases"].as_u64() {
        Some(0) | None => "no cases".to_owned(),
        Some(cases) => format!("{} of {cases}", number(&test["passed"])),
    };
    say!("compile   {compile}    configure {}    self-test {cases}", text(&answer["configure"]))?;
    let (swap, version) = (&answer["swap"], text(&answer["version"]["label"]));
    let change = match answer["previous"]["label"].as_str() {
        Some(before) => format!("{before} → {version}"),
        None => format!("{version} is the first"),
    };
    let (offset, drained) = (number(&swap["offset"]), number(&swap["drained"]));
    let at = match swap["queue"].as_str() {
        Some(queue) => format!("{change} at {queue} offset {offset}"),
        None => format!("{change}, as messages are published"),
    };
    say!("swap      {at}        drained {drained} in flight in {} ms", number(&swap["took_ms"]))?;
    print_ledger(&answer["ledger"])?;
    let (plugin, route) = (text(&answer["plugin"]), text(&answer["route"]));
    let probed = if answer["probed"].as_bool() == Some(true) { "probed" } else { "not probed" };
    let serving = text(&answer["serving"]);
    say!("serving   {serving} ({probed})            undo: quipu plugin rollback {plugin} --route {route}")
}

fn print_ledger(ledger: &Value) -> std::io::Result<()> {
    if !ledger.is_object() {
        return Ok(());
    }
    let part = |name: &str, always: bool| {
        (always || ledger[name].as_u64() != Some(0)).then(|| format!("{name} {}", number(&ledger[name])))
    };
    let parts = [("delivered", true), ("dropped", true), ("filtered", false), ("dead", true), ("otherwise", false)];
    let mut sum: Vec<String> = parts.into_iter().filter_map(|(name, always)| part(name, always)).collect();
    sum.push(format!("pending {}", number(&ledger["pending"])));
    let (came, lost, twice) = (number(&ledger["came"]), number(&ledger["lost"]), number(&ledger["twice"]));
    say!("check     in {came} = {}           lost {lost}, twice {twice}", sum.join(" + "))
}

/// One that did not, and what serves all the same.
pub(super) fn print_failed(answer: &Value) {
    let (step, error) = (text(&answer["step"]), text(&answer["error"]));
    eprintln!("{step}: {error}");
    let serving = &answer["serving"];
    match serving["label"].as_str() {
        Some(label) if answer["changed"].as_bool() == Some(true) => {
            eprintln!("serving   {label} ({}), all the same", digest(&serving["digest"]));
        }
        Some(label) => eprintln!("serving   {label} ({}) goes on; nothing changed", digest(&serving["digest"])),
        None => eprintln!("nothing changed"),
    }
}
