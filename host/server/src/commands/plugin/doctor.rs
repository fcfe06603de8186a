//! `quipu plugin doctor`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::author::languages::{self, ALL, Language};
use crate::author::project::{MANIFEST, Project};
use crate::author::toolchains::install::{install, installer};
use crate::author::toolchains::{Found, Missing, Registry, Toolbox, Toolchains};
use crate::commands::output::say;
use crate::commands::table;

/// Says which tools are needed and which are missing. Fails where one is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin doctor\n  quipu plugin doctor --lang python --install")]
pub(crate) struct Args {
    /// For this language; without it for the project's, or where there is no project for all.
    #[arg(long, value_parser = languages::Parser)]
    lang: Option<&'static Language>,
    /// Gets what is missing from the language's own package registry, into the project's `.quipu/tools` or into
    /// $QUIPU_TOOLS where that is set; a target of Rust by rustup.
    #[arg(long)]
    install: bool,
    /// The project's folder.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
}

/// A tool, and whether it is there.
struct Row {
    name: &'static str,
    wanted: String,
    state: Result<Found, Missing>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let languages = asked(args.lang, &args.dir)?;
    let toolbox = Toolbox::of(&args.dir);
    let tools = tools(&languages);
    if args.install {
        for error in install(&toolbox, &tools, &mut |what| eprintln!("{what}")) {
            eprintln!("quipu: {error}");
        }
    }
    let rows = rows(&toolbox, &tools);
    let missing = rows.iter().filter(|row| row.state.is_err()).count();
    if args.json {
        let rows: Vec<Value> = rows.iter().map(as_json).collect();
        say!("{}", json!({ "tools": rows, "missing": missing }))?;
    } else {
        print(&rows)?;
        let names: Vec<&str> = languages.iter().map(|language| language.name).collect();
        match missing {
            0 => say!("all there for {}", names.join(", "))?,
            _ => say!("{missing} missing for {}", names.join(", "))?,
        }
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn asked(asked: Option<&'static Language>, dir: &Path) -> Result<Vec<&'static Language>> {
    match asked {
        Some(language) => Ok(vec![language]),
        None if dir.join(MANIFEST).exists() => Ok(vec![Project::open(dir)?.language]),
        None => Ok(ALL.to_vec()),
    }
}

/// Each tool once.
fn tools(languages: &[&'static Language]) -> Vec<&'static str> {
    let mut tools = Vec::new();
    for tool in languages.iter().flat_map(|language| language.tools) {
        if !tools.contains(tool) {
            tools.push(tool);
        }
    }
    tools
}

/// The tools, and before the first that is missing from a registry, what would install it.
fn rows(toolbox: &Toolbox, tools: &[&'static str]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let row = |name: &'static str| {
        let wanted = Toolchains::embedded().tool(name).map(|tool| tool.wanted()).unwrap_or_default();
        Row { name, wanted, state: toolbox.find(name) }
    };
    for name in tools {
        let row_of_tool = row(name);
        let registry = Toolchains::embedded().tool(name).map_or(Registry::System, |tool| tool.registry);
        if let Some(installer) = installer(registry).filter(|_| row_of_tool.state.is_err())
            && !rows.iter().any(|row| row.name == installer)
        {
            rows.push(row(installer));
        }
        rows.push(row_of_tool);
    }
    rows
}

fn print(rows: &[Row]) -> std::io::Result<()> {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|Row { name, wanted, state }| {
            let (found, place) = match state {
                Ok(found) if found.version.is_empty() => ("there".to_owned(), found.place.clone()),
                Ok(found) => (found.version.clone(), found.place.clone()),
                Err(missing) => {
                    let found = missing.found.as_ref().map_or("missing".into(), |version| format!("only {version}"));
                    (found, missing.get.clone())
                }
            };
            vec![(*name).to_owned(), wanted.clone(), found, place]
        })
        .collect();
    table::print(&["TOOL", "WANTED", "FOUND", "WHERE"], &cells, &[])
}

fn as_json(Row { name, wanted, state }: &Row) -> Value {
    match state {
        Ok(found) => json!({ "tool": name, "wanted": wanted, "found": found.version, "where": found.place }),
        Err(missing) => {
            json!({ "tool": name, "wanted": wanted, "missing": true, "found": missing.found, "get": missing.get })
        }
    }
}
