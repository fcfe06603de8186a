//! `quipu completions`, and what a shell is answered that asks for the words that may come next.
//!
//! The script that a shell loads runs the binary at each tab, with [`VARIABLE`] set, so that what it offers is what this
//! binary takes. Names of queues, routes, plugins and the like come from the router that the line so far speaks of. A
//! router that is away, or too slow, has none: nobody who types waits for it, or reads its errors.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Arg, Command, CommandFactory as _, Parser};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use serde_json::{Value, json};

use super::Cli;
use super::connect::ServerArgs;
use super::context::file::Contexts;
use super::output::say;

/// The variable that the scripts set.
const VARIABLE: &str = "QUIPU_COMPLETE";
/// To bash a word ends at `=`, `:` and `@`, and only what is behind the last of them is replaced. The binary wants whole
/// words, as in NAME@VERSION or --context=NAME.
const BASH_WHOLE_WORDS: &str = r#"
_quipu() {
    local typed=${COMP_LINE:0:COMP_POINT}
    typed=${typed##*[[:space:]]}
    if [[ $typed != *[=:@]* ]]; then
        _clap_complete_quipu "$@"
        return
    fi
    local COMP_WORDS COMP_CWORD
    read -ra COMP_WORDS <<< "${COMP_LINE:0:COMP_POINT}"
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _clap_complete_quipu quipu "$typed" "${COMP_WORDS[COMP_CWORD - 1]}"
    local before=${typed%"${typed##*[=:@]}"}
    COMPREPLY=("${COMPREPLY[@]#"$before"}")
}
complete -o nospace -o bashdefault -F _quipu quipu
"#;
/// Found by zsh as `_quipu` on its path of functions, the script is run at the first tab, which is to offer something too.
const ZSH_AUTOLOADED: &str = "\nif [[ ${funcstack[1]-} == _quipu ]]; then\n    _clap_dynamic_completer_quipu\nfi\n";
/// How long a tab waits for a router.
const WAIT: Duration = Duration::from_millis(400);
/// Names that are offered at most.
const NAMES_MAX: usize = 1_000;
/// Options that say which router is asked.
const CONNECTION: [&str; 6] = ["--context", "--server", "--ca", "--token", "--cert", "--key"];

/// Prints a script for a shell that completes commands, options, files, and names of the running router.
#[derive(Debug, clap::Args)]
#[command(after_help = "To install it, for whoever logs in:\n  \
    quipu completions bash > ~/.local/share/bash-completion/completions/quipu\n  \
    quipu completions zsh > ~/.zfunc/_quipu        # with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc\n  \
    quipu completions fish > ~/.config/fish/completions/quipu.fish\n\n\
    Examples:\n  quipu completions bash > ~/.local/share/bash-completion/completions/quipu\n  \
    quipu completions zsh > ~/.zfunc/_quipu")]
pub(crate) struct Args {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let shell = args.shell.name();
    let mut script = Vec::new();
    let completer = completer(&std::env::args_os().next().unwrap_or_default())?;
    Shells::builtins()
        .completer(shell)
        .context("no such shell")?
        .write_registration(VARIABLE, "quipu", "quipu", &completer, &mut script)
        .context("cannot write the script")?;
    let mut script = String::from_utf8(script).context("the script is no text")?;
    script.push_str(match args.shell {
        Shell::Bash => BASH_WHOLE_WORDS,
        Shell::Zsh => ZSH_AUTOLOADED,
        Shell::Fish => "",
    });
    say!("{}", script.trim())?;
    Ok(ExitCode::SUCCESS)
}

/// What the script runs: what was typed, where that is found on the path, or else its place.
fn completer(typed: &OsStr) -> Result<String> {
    let mut path = PathBuf::from(typed);
    if path.components().count() > 1 {
        path = std::path::absolute(&path).context("no such path")?;
    }
    path.to_str().map(str::to_owned).with_context(|| format!("{}: the path is no text", path.display()))
}

/// Answers a shell that asks for the next word, and ends the process then. Called before anything else is begun.
pub(super) fn answer_shell() {
    CompleteEnv::with_factory(|| with_names(Cli::command())).var(VARIABLE).bin("quipu").complete();
}

/// What a word of a command names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Queue,
    /// A subscription of the queue that is the word before.
    Subscription,
    Route,
    Plugin,
    /// NAME@VERSION.
    Version,
    Context,
}

/// By command and argument; a command of one word stands for all below it, and the more exact row comes first.
const KINDS: &[(&str, &str, Kind)] = &[
    ("context add", "name", Kind::Context),
    ("context", "name", Kind::Context),
    ("queue", "queue", Kind::Queue),
    ("queue change", "name", Kind::Queue),
    ("queue delete", "name", Kind::Queue),
    ("queue purge", "name", Kind::Queue),
    ("subscription", "name", Kind::Subscription),
    ("route change", "name", Kind::Route),
    ("route delete", "name", Kind::Route),
    ("route pause", "name", Kind::Route),
    ("route resume", "name", Kind::Route),
    ("route show", "name", Kind::Route),
    ("route seek", "name", Kind::Route),
    ("plugin show", "name", Kind::Plugin),
    ("plugin rollback", "name", Kind::Plugin),
    ("plugin logs", "name", Kind::Plugin),
    ("plugin traps", "name", Kind::Plugin),
    ("plugin push", "name", Kind::Plugin),
    ("plugin", "version", Kind::Version),
    // Wherever they are.
    ("", "queue", Kind::Queue),
    ("", "from_queue", Kind::Queue),
    ("", "subscription", Kind::Subscription),
    ("", "route", Kind::Route),
    ("", "plugin", Kind::Plugin),
    ("", "against", Kind::Version),
    ("", "context", Kind::Context),
];

/// The command with something to offer for each argument that names something.
fn with_names(command: Command) -> Command {
    below(command, "")
}

fn below(command: Command, path: &str) -> Command {
    let of = path.to_owned();
    let command = command.mut_args(|arg| match kind(&of, arg.get_id().as_str()) {
        Some(kind) => offering(arg, kind),
        None => arg,
    });
    let path = path.to_owned();
    command.mut_subcommands(|sub| {
        let path = format!("{path} {}", sub.get_name());
        below(sub, path.trim_start())
    })
}

fn kind(command: &str, arg: &str) -> Option<Kind> {
    let matches = |of: &str| of.is_empty() || command == of || command.starts_with(&format!("{of} "));
    KINDS.iter().find(|(of, id, _)| *id == arg && matches(of)).map(|(_, _, kind)| *kind)
}

fn offering(arg: Arg, kind: Kind) -> Arg {
    arg.add(ArgValueCompleter::new(move |typed: &OsStr| offered(kind, typed)))
}

fn offered(kind: Kind, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str().filter(|typed| !typed.starts_with('-')) else { return Vec::new() };
    let names = names(kind, &std::env::args_os().collect::<Vec<_>>()).unwrap_or_default();
    let fitting = names.into_iter().filter(|name| name.starts_with(typed)).take(NAMES_MAX);
    fitting.map(CompletionCandidate::new).collect()
}

/// The names of a kind; none where something is in the way.
fn names(kind: Kind, arguments: &[OsString]) -> Option<Vec<String>> {
    if kind == Kind::Context {
        let contexts = Contexts::load().ok()?;
        return Some(contexts.all().map(|(name, _)| name.to_owned()).collect());
    }
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).filter(|word| *word != "=").collect();
    let server = Connection::try_parse_from(connection(&words)).ok()?.server;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let listed = runtime.block_on(async { tokio::time::timeout(WAIT, ask(kind, &server)).await });
    // A name that is still being resolved would keep the process.
    runtime.shutdown_background();
    let answer = listed.ok()?.ok()?;
    Some(names_in(kind, &answer, &words))
}

/// What of a line says which router is asked.
#[derive(Debug, Parser)]
struct Connection {
    #[command(flatten)]
    server: ServerArgs,
}

/// The words of a line that are options of a connection, with their values.
fn connection<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut found = vec!["quipu"];
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        if CONNECTION.contains(&word) {
            found.extend(std::iter::once(word).chain(words.next().filter(|value| !value.is_empty())));
        } else if word.split_once('=').is_some_and(|(option, _)| CONNECTION.contains(&option)) {
            found.push(word);
        }
    }
    found
}

async fn ask(kind: Kind, server: &ServerArgs) -> Result<Value> {
    let method = match kind {
        Kind::Route => "route.list",
        Kind::Plugin | Kind::Version => "plugin.list",
        Kind::Queue | Kind::Subscription | Kind::Context => "queue.list",
    };
    let client = server.connect().await?;
    Ok(client.call(method, json!({})).await?)
}

fn names_in(kind: Kind, answer: &Value, words: &[&str]) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = match kind {
        Kind::Queue => list(&answer["queues"]).iter().map(|queue| text(&queue["name"])).collect(),
        Kind::Subscription => {
            // Of the queue that the line names, whichever word of it that is.
            let of_line = list(&answer["queues"]);
            let of_line = of_line.iter().filter(|queue| words.iter().any(|word| queue["name"] == *word));
            of_line.flat_map(|queue| list(&queue["subscriptions"])).map(|one| text(&one["name"])).collect()
        }
        Kind::Route => list(&answer["routes"]).iter().map(|route| text(&route["name"])).collect(),
        Kind::Plugin => list(&answer["plugins"]).iter().map(|plugin| text(&plugin["name"])).collect(),
        Kind::Version => {
            let label = |plugin: &Value| format!("{}@{}", text(&plugin["name"]), text(&plugin["tag"]));
            list(&answer["plugins"]).iter().map(label).collect()
        }
        Kind::Context => Vec::new(),
    };
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_of_a_command_that_there_is() {
        let command = Cli::command();
        for (of, id, _) in KINDS.iter().filter(|(of, ..)| !of.is_empty()) {
            let found = of.split(' ').try_fold(&command, |command, name| command.find_subcommand(name));
            let found = found.unwrap_or_else(|| panic!("there is no `quipu {of}`"));
            let has = |command: &Command| command.get_arguments().any(|arg| arg.get_id() == *id);
            assert!(has(found) || found.get_subcommands().any(has), "`quipu {of}` has no {id:?}");
        }
    }

    #[test]
    fn the_more_exact_row_counts() {
        assert_eq!(kind("queue create", "name"), None, "a new name is nobody's yet");
        assert_eq!(kind("queue purge", "name"), Some(Kind::Queue));
        assert_eq!(kind("context rm", "name"), Some(Kind::Context));
        assert_eq!(kind("plugin deploy", "version"), Some(Kind::Version));
        assert_eq!(kind("ledger", "queue"), Some(Kind::Queue));
        assert_eq!(kind("queues", "name"), None);
    }

    #[test]
    fn the_router_is_the_one_that_the_line_speaks_of() {
        let line = ["quipu", "sub", "--server", "a:1", "q", "--ca=b.pem", "--json", "--context", ""];
        assert_eq!(connection(&line), ["quipu", "--server", "a:1", "--ca=b.pem", "--context"]);
    }

    #[test]
    fn names_are_told_once_and_subscriptions_are_of_the_queue_named() {
        let plugins = json!({ "plugins": [{ "name": "b", "tag": "2" }, { "name": "b", "tag": "1" }] });
        assert_eq!(names_in(Kind::Plugin, &plugins, &[]), ["b"]);
        assert_eq!(names_in(Kind::Version, &plugins, &[]), ["b@1", "b@2"]);
        let queues = json!({ "queues": [
            { "name": "q", "subscriptions": [{ "name": "s" }] }, { "name": "other", "subscriptions": [{ "name": "t" }] },
        ] });
        assert_eq!(names_in(Kind::Subscription, &queues, &["quipu", "sub", "q", "-s", ""]), ["s"]);
    }
}
