//! `quipu man`: a manual page for each command, made of what `--help` says.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Command, CommandFactory as _};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::Cli;
use super::help::examples;
use super::output::say;
use crate::nearest::did_you_mean;

/// Exit codes, as every command has them.
const EXIT_CODES: [(&str, &str); 4] = [
    ("0", "Done."),
    ("1", "Failed; standard error says why. For status, ledger and message show also: the answer is no."),
    ("2", "Wrong usage."),
    ("78", "A configuration file, or the file of contexts, is not taken."),
];
const ENVIRONMENT: [(&str, &str); 8] = [
    ("QUIPU_CONTEXT", "The context to use, as --context."),
    ("QUIPU_SERVER", "The router's address, as --server."),
    ("QUIPU_CA", "Certificates to trust, as --ca."),
    ("QUIPU_TOKEN", "A token that says who you are, as --token."),
    ("QUIPU_CERT, QUIPU_KEY", "A certificate that says who you are, and its key, as --cert and --key."),
    ("QUIPU_LOG", "What is logged to standard error, as `debug` or `plugin=trace`."),
    ("QUIPU_DEV_CERTIFICATE", "Another place of the development certificate."),
    ("XDG_CONFIG_HOME", "Where quipu/contexts.toml is; ~/.config unless set."),
];

/// Prints a command's manual page, or writes those of all commands.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu man queue redrive | man -l -\n  quipu man --dir ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// The command, word by word; without it, the page of `quipu` itself.
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Writes a page for each command into this directory, which is made if it is not there.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// One page.
struct Page {
    /// `quipu-queue-redrive.1`.
    file: String,
    roff: Vec<u8>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.dir {
        Some(directory) => write(directory)?,
        None => print(&args.command)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let pages = pages()?;
    for page in &pages {
        let path = directory.join(&page.file);
        fs::write(&path, &page.roff).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(say!("{} pages in {}", pages.len(), directory.display())?)
}

fn print(words: &[String]) -> Result<()> {
    let root = built();
    let mut command = &root;
    for word in words {
        let Some(sub) = visible(command).find(|sub| sub.get_name() == word) else {
            let near = did_you_mean(word, visible(command).map(Command::get_name));
            bail!("there is no command `{} {word}`{near}", name(command));
        };
        command = sub;
    }
    let page = String::from_utf8(page(command)?.roff).context("the page is no text")?;
    Ok(say!("{}", page.trim_end())?)
}

fn pages() -> Result<Vec<Page>> {
    let (root, mut pages) = (built(), Vec::new());
    let mut left = vec![&root];
    while let Some(command) = left.pop() {
        pages.push(page(command)?);
        left.extend(visible(command));
    }
    pages.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(pages)
}

/// Without the command `help`, which would have a page for each command once more.
fn built() -> Command {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    root
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

/// As it is typed.
fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<Page> {
    let dashed = name(command).replace(' ', "-");
    let version = format!("quipu {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(&dashed).source(version).manual("Quipu");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut out)?;
    }
    sections(command, &mut out)?;
    Ok(Page { file: format!("{dashed}.1"), roff: out })
}

/// What clap does not know of.
fn sections(command: &Command, out: &mut Vec<u8>) -> Result<()> {
    let mut roff = Roff::new();
    let below: Vec<&Command> = visible(command).collect();
    if !below.is_empty() {
        roff.control("SH", ["COMMANDS"]);
        for sub in below {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            entry(&mut roff, &format!("{}(1)", name(sub).replace(' ', "-")), &about);
        }
    }
    let examples = examples(command);
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        roff.control("nf", []);
        for line in &examples {
            roff.text([roman(line.as_str())]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["EXIT STATUS"]);
    EXIT_CODES.iter().for_each(|(code, what)| entry(&mut roff, code, what));
    if command.get_arguments().any(|arg| arg.get_id() == "context") || command.get_name() == "quipu" {
        roff.control("SH", ["ENVIRONMENT"]);
        ENVIRONMENT.iter().for_each(|(variable, what)| entry(&mut roff, variable, what));
    }
    if let Some((above, _)) = name(command).rsplit_once(' ') {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold(above.replace(' ', "-")), roman("(1)")]);
    }
    Ok(out.write_all(roff.render().as_bytes())?)
}

fn entry(roff: &mut Roff, term: &str, what: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(what)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_with_name_synopsis_and_examples() {
        let mut lacking = Vec::new();
        for page in pages().expect("pages") {
            let text = String::from_utf8(page.roff).expect("text");
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "EXIT STATUS"] {
                let is_there =
                    text.lines().any(|line| line == format!(".SH {section}") || line == format!(".SH \"{section}\""));
                if !is_there {
                    lacking.push(format!("{}: no {section}", page.file));
                }
            }
        }
        assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    }

    #[test]
    fn pages_are_of_commands_that_people_see() {
        let files: Vec<String> = pages().expect("pages").into_iter().map(|page| page.file).collect();
        for there in ["quipu.1", "quipu-pub.1", "quipu-queue.1", "quipu-queue-redrive.1", "quipu-context-add.1"] {
            assert!(files.iter().any(|file| file == there), "{there}: {files:?}");
        }
        assert!(!files.iter().any(|file| file.contains("help") || file.contains("compile-plugin")), "{files:?}");
    }
}
