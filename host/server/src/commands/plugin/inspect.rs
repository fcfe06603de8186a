//! `quipu plugin inspect`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use quipu_runtime::{Component, RuntimeConfig};
use serde_json::json;

use crate::commands::output::say;
use crate::commands::table::count;
use crate::plugins::offline;

/// Functions that are printed for people.
const FUNCTIONS_SHOWN: usize = 20;

/// Shows what a file is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A module or component.
    file: PathBuf,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let (component, took) = offline::load(&args.file, RuntimeConfig::default()).await?;
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if args.json {
        let found = json!({
            "file": args.file,
            "digest": component.digest(),
            "size_bytes": component.size_bytes(),
            "contract": component.contract_version(),
            "imports": component.imports(),
            "memories": component.memories(),
            "has_names": component.has_names(),
            "functions": component.functions(),
            "compile_ms": ms,
        });
        say!("{found}")?;
    } else {
        print(&component, ms)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(component: &Component, compile_ms: u64) -> std::io::Result<()> {
    say!("digest     {}", component.digest())?;
    say!("size       {} bytes, compiled in {compile_ms} ms", count(component.size_bytes() as u64))?;
    say!("contract   {}", component.contract_version())?;
    let imports = component.imports();
    say!("imports    {}", if imports.is_empty() { "nothing".into() } else { imports.join(" ") })?;
    say!("memories   {}", component.memories())?;
    let functions = component.functions();
    match component.has_names() {
        true => say!("functions  {} with names", functions.len())?,
        false => say!("functions  without names: traces show numbers")?,
    }
    for function in functions.iter().take(FUNCTIONS_SHOWN) {
        say!("           {function}")?;
    }
    if functions.len() > FUNCTIONS_SHOWN {
        say!("           … all: --json")?;
    }
    Ok(())
}
