//! `quipu plugin test`: cases, tried on the engine and within the limits of production.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use quipu_runtime::{Component, ConfigureError, LogLevel};
use regex::Regex;

use super::{build, from_queue, shown};
use crate::author::bless;
use crate::author::build::LINE_WIDTH;
use crate::author::candidate::Candidate;
use crate::author::report::{self, Report};
use crate::author::trial::{self, Outcome};
use crate::commands::connect::ServerArgs;
use crate::commands::output::say;
use crate::plugins::cases::Difference;
use crate::plugins::cases::file::{self, CaseFile};

/// Where the verdicts begin, and how wide they are, in characters.
const VERDICT_COLUMN: usize = 72;
const VERDICT_WIDTH: usize = 32;
/// Longest line, in characters.
const LINE_CHARS_MAX: usize = 120;
/// Log lines of one case that are shown.
const LOGS_SHOWN: usize = 8;

/// Tries a plugin's cases, `tests/*.toml`: a message in, and what should become of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu plugin test\n  quipu plugin test --filter 'reject' --show\n  \
    quipu plugin test big-quakes.wasm --dir big-quakes --report junit=report.xml\n  \
    quipu plugin test --from-queue quakes --last 20\n\nA case:\n  [[case]]\n  name = \"drops 2.1\"\n  \
    message = { payload = { properties = { mag = 2.1 } } }\n  expect = { verdict = \"drop\", reason = \"small\" }")]
pub(crate) struct Args {
    /// A project, which is built first; or a module or component.
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    path: PathBuf,
    /// The project of a FILE: its `tests`, and the configuration and limits in its `plugin.toml`.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only cases in whose name this regular expression finds something; of a queue, messages by their id.
    #[arg(long, value_name = "RE")]
    filter: Option<Regex>,
    /// Writes what was found into the files of cases that fail, as what is expected from now on.
    #[arg(long)]
    bless: bool,
    /// Shows messages whole, and what became of them.
    #[arg(long)]
    show: bool,
    /// Writes a report. May be repeated.
    #[arg(long, value_name = "junit=FILE|json=FILE")]
    report: Vec<Report>,
    /// Tries the last messages of a running router's queue instead, and takes none of them away.
    #[arg(long, value_name = "QUEUE", conflicts_with = "bless")]
    from_queue: Option<String>,
    /// How many of them.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000), requires = "from_queue")]
    last: u16,
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let candidate = build::candidate(&args.path, args.dir.as_deref(), !args.json).await?;
    let Some(candidate) = candidate else { return Ok(ExitCode::FAILURE) };
    let (component, _) = candidate.load().await?;
    if let Some(queue) = &args.from_queue {
        let (filter, reports) = (args.filter.as_ref(), &args.report);
        let look =
            from_queue::Look { queue, last: args.last.into(), filter, reports, show: args.show, json: args.json };
        return from_queue::run(&candidate, component, &args.server, look).await;
    }
    let (files, outcomes) = try_all(&candidate, &component, args.filter.clone()).await?;
    if let Some(filter) = &args.filter {
        ensure!(!outcomes.is_empty(), "no case has a name in which {:?} is found", filter.as_str());
    }
    let run = report::Run { component: &component, limits: &candidate.limits, files: &files, outcomes: &outcomes };
    for report in &args.report {
        report.write(run)?;
    }
    if args.json {
        say!("{}", report::to_json(run))?;
    } else {
        print(&candidate, &files, &outcomes, args.show)?;
    }
    let failed = outcomes.iter().any(|outcome| !outcome.passed());
    if failed && args.bless {
        write_blessed(&files, &outcomes)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Every case of the project.
pub(super) async fn try_all(
    candidate: &Candidate,
    component: &Component,
    filter: Option<Regex>,
) -> Result<(Vec<CaseFile>, Vec<Outcome>)> {
    let (files, component) = (file::read_all(&candidate.dir)?, component.clone());
    let (r#use, dir) = (candidate.r#use(), candidate.dir.clone());
    let tried = tokio::task::spawn_blocking(move || -> Result<_> {
        let outcomes = trial::run(&component, &r#use, &files, filter.as_ref(), &dir)?;
        Ok((files, outcomes))
    });
    tried.await?
}

pub(super) fn print(
    candidate: &Candidate,
    files: &[CaseFile],
    outcomes: &[Outcome],
    show: bool,
) -> std::io::Result<()> {
    for outcome in outcomes {
        if outcome.passed() {
            print_passed(outcome)?;
        } else {
            let place = format!("{}:{}", shown::typed(&files[outcome.file].path), outcome.line);
            print_failed(outcome, &place, &candidate.file, show)?;
        }
        if show {
            print_whole(outcome)?;
        }
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed()).count();
    let passed = outcomes.len() - failed;
    say!("{passed} passed, {failed} failed           {}", shown::limits(&candidate.limits))
}

fn print_passed(outcome: &Outcome) -> std::io::Result<()> {
    let name = shown::padded(&format!("  ok    {}", outcome.case.name), VERDICT_COLUMN);
    let (verdict, time) = match &outcome.tried.attempt {
        Some(attempt) => (shown::verdict(&attempt.verdict), shown::duration(attempt.time)),
        None => ("does not start".into(), String::new()),
    };
    let left = format!("{name} {}", shown::cut(&verdict, VERDICT_WIDTH - 2));
    let room = LINE_WIDTH.saturating_sub(left.chars().count()).max(time.chars().count() + 2);
    say!("{}", format!("{left}{time:>room$}").trim_end())
}

fn print_failed(outcome: &Outcome, place: &str, file: &Path, show: bool) -> std::io::Result<()> {
    let (tried, case) = (&outcome.tried, &outcome.case);
    say!("{} {place}", shown::padded(&format!("  FAIL  {}", case.name), VERDICT_COLUMN))?;
    let is_verdict = |difference: &Difference| difference.what == "verdict";
    if let (Some(attempt), Some(_)) = (&tried.attempt, case.expect.verdict)
        && !tried.differences.iter().any(is_verdict)
    {
        let verdict = shown::cut(&shown::verdict(&attempt.verdict), VERDICT_COLUMN - 20);
        say!("{} as expected", shown::padded(&format!("        verdict   {verdict}"), VERDICT_COLUMN))?;
    }
    let mut last_place = None;
    for difference in &tried.differences {
        print_difference(difference, &mut last_place)?;
    }
    if let Some(attempt) = &tried.attempt {
        if let Err(fault) = &attempt.verdict {
            for line in shown::fault(fault, false) {
                say!("        {line}")?;
            }
        }
        if !show {
            say!("        input     {}", input(&attempt.input.payload))?;
        }
        print_logs(&attempt.logs)?;
    }
    if let Some(ConfigureError::Fault { fault, .. }) = &tried.refused {
        for line in shown::fault(fault, false) {
            say!("        {line}")?;
        }
    }
    if let Some(capsule) = &outcome.capsule {
        let (file, capsule) = (shown::typed(file), shown::typed(capsule));
        say!("        again     quipu plugin run {file} --capsule {capsule} --trace")?;
    }
    Ok(())
}

/// On one line where it fits; of a payload never, since values are long.
fn print_difference<'a>(
    Difference { what, place, expected, found }: &'a Difference,
    last: &mut Option<&'a str>,
) -> std::io::Result<()> {
    let named = format!("        {}{}", shown::padded(what, 10), place.as_deref().unwrap_or_default());
    let one_line = match place {
        Some(_) => format!("{}- {expected}", shown::padded(&named, 33)),
        None => format!("{}- {expected}", shown::padded(what, 10)),
    };
    let one_line = if place.is_none() { format!("        {one_line}") } else { one_line };
    let one_line = format!("{} + {found}", shown::padded(&one_line, VERDICT_COLUMN));
    let is_payload = what.ends_with("payload");
    let is_short = one_line.chars().count() <= LINE_CHARS_MAX && !expected.contains('\n') && !found.contains('\n');
    if is_short && !is_payload {
        *last = None;
        return say!("{one_line}");
    }
    if *last != place.as_deref() || place.is_none() {
        say!("{}", named.trim_end())?;
    }
    *last = place.as_deref();
    say!("                  - {}", indented(expected))?;
    say!("                  + {}", indented(found))
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n                    ")
}

/// The beginning of a payload, and how long it is.
fn input(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload).replace(char::is_control, " ");
    if text.chars().count() <= LINE_CHARS_MAX - 18 {
        return if text.is_empty() { "(empty)".into() } else { text };
    }
    let rest = format!(" {} bytes; whole: --show", payload.len());
    format!("{}{rest}", shown::cut(&text, LINE_CHARS_MAX - 18 - rest.len()))
}

fn print_logs(logs: &[(LogLevel, String)]) -> std::io::Result<()> {
    for (level, text) in logs.iter().take(LOGS_SHOWN) {
        let level = level.as_str().to_uppercase();
        say!("        log       {level} {}", indented(&shown::visible(text)))?;
    }
    if logs.len() > LOGS_SHOWN {
        say!("        log       {} more lines: --show", logs.len() - LOGS_SHOWN)?;
    }
    Ok(())
}

/// Message and outcome as JSON, over as many lines as they take.
fn print_whole(outcome: &Outcome) -> std::io::Result<()> {
    let message = serde_json::to_value(&outcome.case.message).unwrap_or_default();
    print_block("message", &message)?;
    let Some(attempt) = &outcome.tried.attempt else { return Ok(()) };
    print_block("found", &crate::plugins::cases::found(attempt).into())?;
    let is_failed = !outcome.passed();
    let shown = attempt.logs.iter().skip(if is_failed { LOGS_SHOWN } else { 0 });
    for (level, text) in shown {
        say!("        log       {} {}", level.as_str().to_uppercase(), indented(&shown::visible(text)))?;
    }
    Ok(())
}

fn print_block(name: &str, value: &serde_json::Value) -> std::io::Result<()> {
    let text = format!("{value:#}").replace('\n', "\n                  ");
    say!("        {}{text}", shown::padded(name, 10))
}

fn write_blessed(files: &[CaseFile], outcomes: &[Outcome]) -> Result<()> {
    for (n, file) in files.iter().enumerate() {
        let failed: Vec<&Outcome> = outcomes.iter().filter(|one| one.file == n && !one.passed()).collect();
        if failed.is_empty() {
            continue;
        }
        let place = || format!("{}: not blessed", file.path.display());
        let text = bless::blessed(&file.text, &failed).with_context(place)?;
        std::fs::write(&file.path, text).with_context(place)?;
        // Standard output may be JSON.
        eprintln!("blessed {} in {}: read what changed before you keep it", failed.len(), shown::typed(&file.path));
    }
    Ok(())
}
