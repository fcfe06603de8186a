//! `quipu plugin new`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use crate::author::languages::{self, Language};
use crate::author::new::{create, files_to_edit};
use crate::author::project::ProjectName;
use crate::author::toolchains::{Registry, Toolbox, Toolchains};
use crate::commands::output::say;

/// Makes a project: source, configuration, a test that passes, and messages to try it on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin new big-quakes --lang rust\n  \
    quipu plugin new big-quakes --lang rust --dir plugins/big-quakes")]
pub(crate) struct Args {
    /// What the plugin is called: small letters, digits and `-`, as in big-quakes.
    name: ProjectName,
    /// The language to write it in.
    #[arg(long, value_parser = languages::Parser)]
    lang: &'static Language,
    /// The project's folder, which is made or empty but for a repository; NAME, unless said.
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
    let registry = |tool: &str| Toolchains::embedded().tool(tool).map_or(Registry::System, |found| found.registry);
    let missing: Vec<(&str, Registry)> = missing.into_iter().map(|tool| (tool, registry(tool))).collect();
    let listed: Vec<String> = missing.iter().map(|(tool, registry)| format!("{tool} ({registry})")).collect();
    say!("Missing {}. Next: {}", listed.join(", "), next(&missing, dir, &toolbox))?;
    Ok(ExitCode::SUCCESS)
}

/// What to do about what is missing, and where it goes: not everything into the project.
fn next(missing: &[(&str, Registry)], dir: &Path, toolbox: &Toolbox) -> String {
    let is_from = |wanted: Registry| missing.iter().any(|(_, registry)| *registry == wanted);
    if is_from(Registry::System) {
        return "quipu plugin doctor     says where each is had from".into();
    }
    let tools = match toolbox.dir().ends_with(".quipu/tools") {
        true => format!("{}/.quipu", dir.display()),
        false => toolbox.dir().display().to_string(),
    };
    let into = match (is_from(Registry::Rustup), is_from(Registry::Pypi) || is_from(Registry::Npm)) {
        (true, true) => format!("goes into {tools}, and a target of Rust where rustup keeps it"),
        (true, false) => "goes where rustup keeps it".into(),
        (false, _) => format!("goes into {tools}, nowhere else"),
    };
    format!("quipu plugin doctor --install     {into}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_what_is_missing_goes_is_said_as_it_is() {
        let dir = Path::new("quakes");
        let next = |missing: &[(&str, Registry)]| next(missing, dir, &Toolbox::at("quakes/.quipu/tools"));
        let install = "quipu plugin doctor --install     goes ";
        assert_eq!(next(&[("esbuild", Registry::Npm)]), format!("{install}into quakes/.quipu, nowhere else"));
        assert_eq!(next(&[("a target", Registry::Rustup)]), format!("{install}where rustup keeps it"));
        let system = next(&[("node", Registry::System), ("esbuild", Registry::Npm)]);
        assert_eq!(system, "quipu plugin doctor     says where each is had from");
    }
}
