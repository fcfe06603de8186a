//! `quipu plugin push`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quipu_client::Client;
use quipu_runtime::{FILE_BYTES_MAX, RuntimeConfig};
use serde_json::{Value, json};

use super::{Ask, build, digest, text, until_done};
use crate::author::build::Options;
use crate::author::candidate::project_of;
use crate::author::project::Project;
use crate::commands::output::say;
use crate::files;
use crate::plugins::cases::{self, Case};
use crate::plugins::upload::PIECE_BYTES_MAX;

/// Copies a plugin's file into the router's store. What a project's build gave has the name and version of its
/// `plugin.toml`, and its cases as a self-test.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A project, which is built first; or a module or component.
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// What routes call it. Unless said, the project's name, or else the file's without its ending.
    #[arg(long)]
    name: Option<String>,
    /// The version, as 1.5.0. Unless said, the project's, or else the beginning of the file's digest.
    #[arg(long)]
    tag: Option<String>,
    /// A self-test that is run before this version serves: a file of cases, as `plugin test` takes them, or a JSON list.
    /// Unless said, the project's `tests/*.toml`, with its configuration where a case has none.
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    ask: Ask,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let project = project(&args.path)?;
    let file = match &project {
        Some(project) if args.path.is_dir() => {
            let options = Options { colours: std::io::stderr().is_terminal(), ..Options::default() };
            let built = build::build_or_say_why(project, options, RuntimeConfig::default()).await?;
            let Some(built) = built else { return Ok(ExitCode::FAILURE) };
            if !args.ask.json {
                say!("{}", built.line(project))?;
            }
            built.file
        }
        _ => args.path.clone(),
    };
    let bytes = files::read(&file, FILE_BYTES_MAX as u64)?;
    let of_project = project.as_ref().map(|project| project.name.to_string());
    let of_file = || file.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
    let name = args.name.clone().or(of_project).or_else(of_file).context("say --name: the file's has no text")?;
    let tag = args.tag.clone().or_else(|| project.as_ref().map(|project| project.version.clone()));
    let cases = match (&args.cases, &project) {
        (Some(file), _) => checked(cases::file::read(file)?.cases.into_iter().map(|placed| placed.case).collect())?,
        (None, Some(project)) => cases_of(project)?,
        (None, None) => Vec::new(),
    };
    let client = args.ask.server.connect().await?;
    let upload = upload(&client, &bytes).await?;
    let source = args.path.display().to_string();
    let call = json!({ "upload": upload, "name": name, "tag": tag, "cases": cases, "source": source });
    let answer = until_done(&client, "plugin.push", &call).await?;
    client.close().await;
    if args.ask.json {
        say!("{answer}")?;
    } else {
        print(&answer)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The project, where that is what is pushed, or the file is what its build gave.
fn project(path: &Path) -> Result<Option<Project>> {
    let is_dir = path.is_dir();
    let dir = if is_dir { Some(path) } else { project_of(path) };
    let project = dir.map(Project::open).transpose()?;
    Ok(project.filter(|project| is_dir || project.gives(path)))
}

/// A project's own cases. They have passed with its configuration, so that it goes along: a route's may be another. Not
/// where it has environment variables in it, which are secrets of this machine.
fn cases_of(project: &Project) -> Result<Vec<Case>> {
    let files = cases::file::read_any(&project.dir)?;
    let config = match project.has_secret {
        true => None,
        false => Some(Value::Object(project.config()?.clone())),
    };
    let cases = files.into_iter().flat_map(|file| file.cases).map(|placed| placed.case);
    let cases = cases.map(|case| Case { config: case.config.or_else(|| config.clone()), ..case }).collect();
    checked(cases).with_context(|| format!("tests of {}; --cases FILE says which go along", project.name))
}

fn checked(cases: Vec<Case>) -> Result<Vec<Case>> {
    cases::check(&cases)?;
    Ok(cases)
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
