//! How `--help` is put together, the examples in it, and what every command's help has to hold.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// Widest line of a help text, in characters.
const COLUMNS_MAX: usize = 120;
/// What is before what an option does, beside its name: an indent, its short form, and a gap.
const GAP_COLUMNS: usize = 8;
/// What is before a long text about an option, which stands below its name.
const LONG_INDENT_COLUMNS: usize = 10;
/// For what a command does, which stands behind its name in the list of the command above it.
const ABOUT_COLUMNS: usize = 100;
/// For what an option does at least, however long the names of its neighbours are.
const HELP_COLUMNS_MIN: usize = 40;

/// Commands by what somebody wants to do, as `quipu --help` lists them.
const GROUPS: [(&str, &[&str]); 5] = [
    ("A router", &["serve", "check", "diff", "reload", "status", "demo"]),
    ("Messages", &["pub", "sub", "request", "reply", "explain", "message", "ledger"]),
    ("What a router has", &["queue", "subscription", "route", "plugin"]),
    ("Keeping it", &["store", "user"]),
    ("Your shell", &["context", "completions", "man", "help"]),
];
/// Those of no group.
const OTHERS: &str = "More";

/// What the part of a help text is called that shows how a command is typed.
const HEADINGS: [&str; 2] = ["Example:", "Examples:"];

/// The lines of a command's help below `Example:` or `Examples:`, to the next empty one, without what all are indented by.
pub(super) fn examples(command: &Command) -> Vec<String> {
    let text = command.get_after_long_help().or_else(|| command.get_after_help()).map(ToString::to_string);
    let text = text.unwrap_or_default();
    let lines = text.lines().skip_while(|line| !HEADINGS.contains(&line.trim())).skip(1);
    let lines = lines.take_while(|line| !line.trim().is_empty());
    lines.map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect()
}

/// The command with all its help texts in lines of at most [`COLUMNS_MAX`]. clap could do so by the width of the terminal,
/// and would take more crates for it.
pub(super) fn fitted(command: Command) -> Command {
    let mut built = command.clone();
    built.build();
    fit(command, &built)
}

fn fit(command: Command, built: &Command) -> Command {
    let shown = || built.get_arguments().filter(|arg| !arg.is_hide_set());
    let longest = shown().map(|arg| arg.to_string().chars().count()).max().unwrap_or(0);
    let width = COLUMNS_MAX.saturating_sub(longest + GAP_COLUMNS).max(HELP_COLUMNS_MIN);
    let command = match command.get_about().map(|about| wrapped(&about.to_string(), ABOUT_COLUMNS, 0)) {
        Some(about) => command.about(about),
        None => command,
    };
    let command = match command.get_long_about().map(|about| paragraphs(&about.to_string(), COLUMNS_MAX)) {
        Some(about) => command.long_about(about),
        None => command,
    };
    let command = command.mut_args(|arg| match arg.get_long_help().map(ToString::to_string) {
        Some(help) => arg.long_help(paragraphs(&help, COLUMNS_MAX - LONG_INDENT_COLUMNS)),
        None => arg,
    });
    let command = command.mut_args(|arg| match arg.get_help().map(ToString::to_string) {
        Some(help) => {
            let behind = shown().find(|known| known.get_id() == arg.get_id()).map_or(0, behind);
            arg.help(wrapped(&help, width, behind))
        }
        None => arg,
    });
    command.mut_subcommands(|sub| match built.find_subcommand(sub.get_name()) {
        Some(built) => fit(sub, built),
        None => sub,
    })
}

/// Characters that clap puts behind what an argument does: its default and its values.
fn behind(arg: &Arg) -> usize {
    let list = |title: &str, values: Vec<String>| match values.is_empty() {
        true => 0,
        false => format!(" [{title}: {}]", values.join(", ")).chars().count(),
    };
    let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let values = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let takes_values = arg.get_num_args().is_some_and(|count| count.takes_values());
    if takes_values { list("default", defaults) + list("possible values", values) } else { 0 }
}

/// A text of several paragraphs in lines of at most so many characters.
fn paragraphs(text: &str, columns: usize) -> String {
    text.split("\n\n").map(|paragraph| wrapped(paragraph, columns, 0)).collect::<Vec<_>>().join("\n\n")
}

/// A text in lines of at most so many characters, with room behind the last one.
fn wrapped(text: &str, columns: usize, behind: usize) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if line.chars().count() + behind > columns
        && let Some((before, last)) = line.rsplit_once(' ')
    {
        lines.push(before.to_owned());
        line = last.to_owned();
    }
    lines.push(line);
    lines.join("\n")
}

/// The command with its subcommands in groups, where its help is asked for.
pub(super) fn grouped(command: Command) -> Command {
    let mut built = command.clone();
    built.build();
    let width = built.get_subcommands().map(|sub| sub.get_name().len()).max().unwrap_or(0);
    let is_grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others: Vec<&str> = built.get_subcommands().map(Command::get_name).filter(|name| !is_grouped(name)).collect();
    let (header, literal) = (*built.get_styles().get_header(), *built.get_styles().get_literal());
    let mut listed = String::new();
    for (title, names) in GROUPS.iter().map(|(title, names)| (*title, *names)).chain([(OTHERS, &others[..])]) {
        let subs = names.iter().filter_map(|name| built.find_subcommand(name)).filter(|sub| !sub.is_hide_set());
        let mut group = String::new();
        for sub in subs {
            let (name, about) = (sub.get_name(), sub.get_about().map(ToString::to_string).unwrap_or_default());
            let about = about.replace('\n', " ");
            // Writing to a text does not fail.
            writeln!(group, "  {literal}{name:width$}{literal:#}  {about}").ok();
        }
        if !group.is_empty() {
            writeln!(listed, "{header}{title}:{header:#}\n{group}").ok();
        }
    }
    let options = format!("{header}Options:{header:#}\n{{options}}");
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{listed}{options}{{after-help}}"
    ))
}

#[cfg(test)]
mod tests;
