//! `quipu plugin build`.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use quipu_runtime::RuntimeConfig;
use serde_json::json;

use crate::author::build::{Built, Options, build};
use crate::author::candidate::Candidate;
use crate::author::job::BuildError;
use crate::author::project::Project;
use crate::commands::output::say;

/// Builds a project with its language's own tool, and checks that the router will load what comes of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin build\n  quipu plugin build plugins/big-quakes --debug\n  \
    quipu plugin build -- --features metric")]
pub(crate) struct Args {
    /// The project's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Keeps debug information: traces have files and lines. The file is larger, and no slower.
    #[arg(long)]
    debug: bool,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
    /// For the language's own tool.
    #[arg(last = true, value_name = "TOOL-ARGS")]
    tool_args: Vec<OsString>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let project = Project::open(&args.dir)?;
    let options = Options { debug: args.debug, args: args.tool_args, colours: std::io::stderr().is_terminal() };
    let Some(built) = build_or_say_why(&project, options, RuntimeConfig::default()).await? else {
        return Ok(ExitCode::FAILURE);
    };
    if args.json {
        say!("{}", json(&project, &built))?;
    } else {
        say!("{}", built.line(&project))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds, with what the tools say on standard error word by word. None: a tool failed, and has said why.
pub(super) async fn build_or_say_why(
    project: &Project,
    options: Options,
    runtime: RuntimeConfig,
) -> Result<Option<Built>> {
    match build(project, options, runtime).await {
        Ok(built) => {
            eprint!("{}", built.said);
            Ok(Some(built))
        }
        Err(e) => match e.downcast_ref::<BuildError>() {
            Some(BuildError::Failed { command, output }) => {
                eprint!("{output}");
                eprintln!("quipu: {}: {command} failed", project.name);
                Ok(None)
            }
            _ => Err(e.context(format!("plugin {:?}", project.name.as_str()))),
        },
    }
}

/// What a command is to try: a project, which is built first, or a file. None: a tool failed, and has said why.
pub(super) async fn candidate(path: &Path, dir: Option<&Path>, say_built: bool) -> Result<Option<Candidate>> {
    if !path.is_dir() {
        return Candidate::of_file(path, dir).map(Some);
    }
    ensure!(dir.is_none(), "{} is a project itself: --dir is for a file", path.display());
    let project = Project::open(path)?;
    // What its configuration lacks is said before the compiler works.
    let candidate = Candidate::of_project(&project, path)?;
    let options = Options { colours: std::io::stderr().is_terminal(), ..Options::default() };
    let built = build_or_say_why(&project, options, Candidate::runtime(&project.limits)).await?;
    let Some(built) = built else { return Ok(None) };
    if say_built {
        say!("{}", built.line(&project))?;
    }
    Ok(Some(candidate.built(built.component, built.compile)))
}

fn json(project: &Project, built: &Built) -> serde_json::Value {
    json!({
        "name": project.name.as_str(),
        "version": project.version,
        "language": project.language.name,
        "file": built.file,
        "digest": built.component.digest(),
        "size_bytes": built.component.size_bytes(),
        "needs": built.needs,
        "ms": u64::try_from(built.took.as_millis()).unwrap_or(u64::MAX),
    })
}
