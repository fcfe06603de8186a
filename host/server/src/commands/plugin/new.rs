//! `quipu plugin new`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use crate::author::languages::Language;
use crate::author::new::{create, files_to_edit};
use crate::author::project::ProjectName;
use crate::author::toolchains::{Toolbox, Toolchains};
use crate::commands::output::say;

/// Makes a project: source, configuration, a test that passes, and messages to try it on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin new big-quakes --lang rust\n  \
    quipu plugin new big-quakes --lang rust --dir plugins/big-quakes")]
pub(crate) struct Args {
    /// What the plugin is called: small letters, digits and `-`, as in big-quakes.
    name: ProjectName,
    /// The language to write it in.
    #[arg(long)]
    lang: &'static Language,
    /// The project's folder, which is made; NAME, unless said.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let dir = args.dir.as_deref().unwrap_or(Path::new(args.name.as_str()));
    create(&args.name, args.lang, dir)?;
    let (files, toolbox) = (files_to_edit(args.lang), Toolbox::of(dir));
    let missing: Vec<&str> = args.lang.tools.iter().copied().filter(|tool| toolbox.find(tool).is_err()).collect();
    if args.json {
        say!("{}", json!({ "name": args.name.as_str(), "dir": dir, "files": files, "missing": missing }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let created = format!("Created {}: {}", dir.display(), files.join("  "));
    if missing.is_empty() {
        say!("{created}      Next: quipu plugin test")?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("{created}")?;
    let origin = |tool: &&str| Toolchains::embedded().tool(tool).map(|found| format!("{tool} ({})", found.registry));
    let missing: Vec<String> = missing.iter().filter_map(origin).collect();
    let into = match toolbox.dir().ends_with(".quipu/tools") {
        true => format!("{}/.quipu, nowhere else", dir.display()),
        false => format!("{}, nowhere else", toolbox.dir().display()),
    };
    say!("Missing {}. Next: quipu plugin doctor --install     goes into {into}", missing.join(", "))?;
    Ok(ExitCode::SUCCESS)
}
