//! `quipu check`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::output::say;
use crate::config::Config;

/// Checks a configuration: keys and values, that plugins load and take their configuration, expressions, cycles.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, short, default_value = "quipu.toml", value_name = "FILE")]
    config: PathBuf,
    /// Prints what was found as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    let plugins = crate::app::check(&config)?.listing(&config);
    if args.json {
        let found = serde_json::json!({
            "queues": config.queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(),
            "routes": config.routes.iter().map(|route| &route.name).collect::<Vec<_>>(),
            "plugins": plugins,
        });
        say!("{found}")?;
    } else {
        let file = args.config.display();
        let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let counts =
            [many(config.queues.len(), "queue"), many(config.routes.len(), "route"), many(plugins.len(), "plugin")];
        say!("{file}: fine: {}", counts.join(", "))?;
    }
    Ok(ExitCode::SUCCESS)
}
