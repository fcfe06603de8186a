//! `quipu check`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::output::say;
use super::table;
use crate::access;
use crate::config::Config;
use crate::memory::{self, Line};
use crate::plugins::Offline;

/// Checks a configuration: keys and values, that plugins load and take their configuration, expressions, cycles.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu check --config quipu.toml\n  quipu check --memory")]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, short, default_value = "quipu.toml", value_name = "FILE")]
    config: PathBuf,
    /// Adds up what the router takes of memory at most.
    #[arg(long)]
    memory: bool,
    /// Prints what was found as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let offline = Offline::check(&config).await?;
    let plugins = offline.listing(&config);
    let (mut notes, lines) = (config.notes(), memory::lines(&config, &plugins));
    notes.extend(
        offline
            .elsewhere
            .iter()
            .map(|name| format!("plugin {name:?}: neither a file nor stock: the router's store must have it")),
    );
    notes.extend(access::check(&config)?);
    if args.json {
        let mut found = serde_json::json!({
            "queues": config.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(),
            "routes": config.routes.iter().map(|route| &route.name).collect::<Vec<_>>(),
            "plugins": plugins,
            "notes": notes,
        });
        if args.memory {
            found["memory"] = serde_json::json!({ "lines": lines, "total_bytes": memory::total(&lines) });
        }
        say!("{found}")?;
    } else {
        let file = args.config.display();
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let counts =
            [many(config.queues.len(), "queue"), many(config.routes.len(), "route"), many(plugins.len(), "plugin")];
        say!("{file}: fine: {}", counts.join(", "))?;
        for note in notes {
            say!("{file}: note: {note}")?;
        }
        if args.memory {
            print(&lines)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(lines: &[Line]) -> std::io::Result<()> {
    let row = |line: &Line| vec![line.what.to_owned(), memory::mebibytes(line.bytes), line.how.clone()];
    let sum = vec!["together".to_owned(), memory::mebibytes(memory::total(lines)), "at the most".to_owned()];
    let rows: Vec<Vec<String>> = lines.iter().map(row).chain([sum]).collect();
    table::print(&["MEMORY", "AT MOST", "BY"], &rows, &[1])
}
