//! `quipu plugin dev`: builds, tests and deploys a project as often as its sources change.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail, ensure};
use quipu_client::Client;
use quipu_runtime::{Component, FILE_BYTES_MAX};
use serde_json::json;
use tokio::fs::File;
use tokio::io::BufReader;

use super::run::{self, LineArgs};
use super::{build, deploy, push, shown, test, text, until_done};
use crate::author::candidate::Candidate;
use crate::author::watch::Watch;
use crate::commands::connect::ServerArgs;
use crate::commands::output::say;
use crate::files;
use crate::plugins::version::DEV;

/// Changed files that are named.
const NAMED_MAX: usize = 3;

/// Builds, tests and deploys a project as often as its sources change. What fails leaves what serves.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin dev\n  quipu plugin dev --input sample.ndjson\n  \
    quipu plugin dev big-quakes --route alerts")]
pub(crate) struct Args {
    /// The project.
    #[arg(default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// A route of a running router: what passes its tests is pushed and deployed there.
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Runs what passes its tests on this file, a payload a line.
    #[arg(long, value_name = "FILE", conflicts_with = "route")]
    input: Option<PathBuf>,
    /// Each line of the input is a whole message, as a case has it.
    #[arg(long, requires = "input")]
    messages: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    ensure!(
        args.dir.is_dir(),
        "{} is no directory: a project is watched, as `quipu plugin new` makes it",
        args.dir.display()
    );
    tokio::select! {
        ended = watch(&args) => ended,
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("cannot wait for Ctrl-C")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn watch(args: &Args) -> Result<ExitCode> {
    // Before the first build, so that a change while it runs is not missed.
    let mut watch = Watch::start(&args.dir)?;
    loop {
        once(args).await;
        say!("watching  {}           Ctrl-C ends", shown::typed(&args.dir))?;
        let changed = watch.changed().await?;
        say!("changed   {}  {}", named(&args.dir, &changed), now())?;
    }
}

/// One round, as far as it goes. What goes wrong is said, and what the route serves then.
async fn once(args: &Args) {
    match (prepared(args).await, &args.route) {
        (Ok(Some(ready)), Some(route)) => {
            if let Err(e) = deploy_to(route, &ready).await {
                eprintln!("{e:#}");
                eprintln!("unknown   what route {route} serves: quipu plugin show {}", ready.name);
            }
        }
        (Ok(_), _) => {}
        (Err(e), route) => {
            eprintln!("{e:#}");
            if let Some(route) = route {
                eprintln!("kept      route {route} serves what it served");
            }
        }
    }
}

/// A version in the router's store, to be deployed.
struct Ready {
    client: Client,
    name: String,
    digest: String,
}

/// Built and tested, and in the router's store where there is a route to deploy to.
async fn prepared(args: &Args) -> Result<Option<Ready>> {
    let Some(candidate) = build::candidate(&args.dir, None, true).await? else { bail!("build: failed; see above") };
    let (component, _) = candidate.load().await?;
    if candidate.dir.join("tests").is_dir() {
        let (files, outcomes) = test::try_all(&candidate, &component, None).await?;
        test::print(&candidate, &files, &outcomes, false)?;
        let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
        ensure!(failed == 0, "test: {failed} of {} cases fail", outcomes.len());
    }
    if args.route.is_some() {
        return pushed(&candidate, args).await.map(Some);
    }
    if let Some(input) = &args.input {
        run_on(input, component, &candidate, args.messages).await?;
    }
    Ok(None)
}

/// The file, as the development version.
async fn pushed(candidate: &Candidate, args: &Args) -> Result<Ready> {
    let bytes = files::read(&candidate.file, FILE_BYTES_MAX as u64)?;
    let client = args.server.connect().await?;
    let upload = push::upload(&client, &bytes).await?;
    let (name, source) = (&candidate.name, candidate.file.display().to_string());
    // Its cases have passed here, with the project's configuration; the route's may be another.
    let call = json!({ "upload": upload, "name": name, "tag": DEV, "cases": [], "source": source });
    let pushed = until_done(&client, "plugin.push", &call).await?;
    Ok(Ready { client, name: name.clone(), digest: text(&pushed["version"]["digest"]).to_owned() })
}

/// Puts the version into the route, or says what the router says against it.
async fn deploy_to(route: &str, Ready { client, name, digest }: &Ready) -> Result<()> {
    let call = json!({ "name": name, "version": digest, "route": route });
    let answer = until_done(client, "plugin.deploy", &call).await?;
    client.close().await;
    if answer["deployed"].as_bool() == Some(true) {
        deploy::print(&answer)?;
    } else {
        deploy::print_failed(&answer);
    }
    Ok(())
}

async fn run_on(input: &Path, component: Component, candidate: &Candidate, messages: bool) -> Result<()> {
    let file = File::open(input).await.with_context(|| format!("cannot read {}", input.display()))?;
    let config_json = candidate.r#use().config_json;
    run::lines(component, candidate, config_json, BufReader::new(file), &LineArgs::of(messages)).await?;
    Ok(())
}

/// A few of the files that changed.
fn named(dir: &Path, changed: &[PathBuf]) -> String {
    let short = |path: &PathBuf| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    let mut named: Vec<String> = changed.iter().take(NAMED_MAX).map(short).collect();
    if changed.len() > NAMED_MAX {
        named.push(format!("{} more", changed.len() - NAMED_MAX));
    }
    named.join(", ")
}

/// The time of day, in UTC.
fn now() -> String {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    time.get(11..19).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_are_not_listed() {
        let changed: Vec<PathBuf> = ["a/x", "a/y", "a/z", "a/v", "a/w"].map(PathBuf::from).to_vec();
        assert_eq!(named(Path::new("a"), &changed), "x, y, z, 2 more");
        assert_eq!(named(Path::new("a"), &changed[..1]), "x");
    }
}
