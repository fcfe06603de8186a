//! `quipu compile-plugin`: what the router starts to compile a plugin, with limits. Not for people.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use quipu_runtime::RuntimeConfig;
use rustix::process::{Resource, Rlimit, nice, setrlimit};

/// Others, who have messages in hand, come first.
const NICE: i32 = 5;

/// Compiles a plugin from standard input to standard output.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file's name, for errors.
    #[arg(long)]
    source: String,
    /// The file's size. Once standard input ends after it, the parent is gone, and so is this.
    #[arg(long)]
    bytes: u64,
    /// Of processor time.
    #[arg(long)]
    seconds: u64,
    /// Address space, in bytes.
    #[arg(long)]
    memory: u64,
    /// Leaves the processor to others who want it.
    #[arg(long)]
    polite: bool,
    /// For an engine whose traces have files and lines.
    #[arg(long)]
    lines: bool,
    /// For an engine that counts instructions.
    #[arg(long)]
    fuel: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let at_most = |value| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::As, at_most(args.memory)).context("cannot limit memory")?;
    let cpu = Rlimit { current: Some(args.seconds), maximum: Some(args.seconds + 1) };
    setrlimit(Resource::Cpu, cpu).context("cannot limit processor time")?;
    setrlimit(Resource::Core, at_most(0)).context("cannot refuse a core file")?;
    if args.polite {
        // No more than a courtesy.
        nice(NICE).ok();
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(args.bytes).read_to_end(&mut bytes).context("cannot read the plugin")?;
    std::thread::spawn(|| {
        // Comes back when the parent ends, and never else.
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).ok();
        std::process::exit(1);
    });
    let config = RuntimeConfig { trace_lines: args.lines, count_fuel: args.fuel, ..RuntimeConfig::default() };
    match quipu_runtime::compile(&args.source, &bytes, &config) {
        Ok(code) => {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&code).and_then(|()| stdout.flush()).context("cannot hand over the code")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(e) => {
            eprintln!("{e}");
            Ok(ExitCode::FAILURE)
        }
    }
}
