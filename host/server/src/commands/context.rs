//! `quipu context`: routers by name. What a context holds is in `file`; how commands use it is in `connect`.

pub(super) mod file;
pub(super) mod secret;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{ArgGroup, Subcommand};
use serde_json::{Value, json};

use super::output::say;
use super::table;
use file::{Contexts, Saved};
use secret::{Secret, TokenSource, read};

/// The variable that names a context.
pub(super) const VARIABLE: &str = "QUIPU_CONTEXT";
/// What `--token` takes for standard input.
const STDIN: &str = "-";

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Keeps a router's address, whom to trust there and who you are, under a name.
    Add(AddArgs),
    /// Lists the contexts; a star is before the current one. Tokens are not shown.
    #[command(after_help = "Examples:\n  quipu context list\n  quipu context list --json")]
    List(Output),
    /// Makes a context the current one: commands use it where nothing else is said.
    #[command(after_help = "Examples:\n  quipu context use prod\n  quipu context use --none")]
    Use(UseArgs),
    /// Shows a context, without its token.
    #[command(after_help = "Examples:\n  quipu context show\n  quipu context show prod --json")]
    Show {
        /// Its name; by default the one that commands use now.
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Forgets a context.
    #[command(after_help = "Example:\n  quipu context rm staging")]
    Rm {
        /// Its name.
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

/// How to print.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// Prints JSON, one object.
    #[arg(long)]
    json: bool,
}

/// A new context.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("secret").args(["token", "token_env", "token_file"]),
    after_help = "The file is $XDG_CONFIG_HOME/quipu/contexts.toml, by default ~/.config/quipu/contexts.toml. Nobody else \
        may read it.\n\n\
        Examples:\n  quipu context add prod --server router.example.org:4433 --ca ca.pem --token-env PROD_TOKEN --use\n  \
        quipu context add till --server 10.0.0.7:4433 --ca ca.pem --cert till-7.pem --key till-7.key\n  \
        quipu context add prod --server router.example.org:4433 --token - --replace < token.txt"
)]
pub(crate) struct AddArgs {
    /// Its name: letters, digits, `-`, `_` and `.`; at most 64.
    name: String,
    /// The router's address.
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// Certificates to trust, a PEM file; by default the development certificate on loopback, else the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A token that says who you are; `-` reads it from standard input, so that nobody sees it. It is kept in the file.
    #[arg(long, value_name = "TOKEN")]
    token: Option<Secret>,
    /// The variable that has the token whenever the context is used.
    #[arg(long, value_name = "VARIABLE")]
    token_env: Option<String>,
    /// The file that has the token whenever the context is used.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// A certificate that says who you are, a PEM file.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, a PEM file.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Takes the place of a context of this name.
    #[arg(long)]
    replace: bool,
    /// Makes it the current one as well.
    #[arg(long = "use")]
    make_current: bool,
    #[command(flatten)]
    output: Output,
}

/// Which one is current.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("which").args(["name", "none"]).required(true))]
pub(crate) struct UseArgs {
    /// Its name.
    name: Option<String>,
    /// None is current from now on.
    #[arg(long)]
    none: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(command: ContextCommand) -> Result<ExitCode> {
    match command {
        ContextCommand::Add(args) => add(args)?,
        ContextCommand::List(output) => list(&output)?,
        ContextCommand::Use(UseArgs { name, output, .. }) => {
            let ((), file) = Contexts::change(|contexts| contexts.set_current(name.as_deref()))?;
            let said = match &name {
                Some(name) => format!("{name} is the current context"),
                None => "no context is current".to_owned(),
            };
            tell(&output, &said, json!({ "current": name, "file": file }))?;
        }
        ContextCommand::Show { name, output } => show(name, &output)?,
        ContextCommand::Rm { name, output } => {
            let (was_current, file) = Contexts::change(|contexts| contexts.remove(&name))?;
            let more = if was_current { "; no context is current now" } else { "" };
            let said = format!("{name} is gone from {}{more}", file.display());
            tell(&output, &said, json!({ "removed": name, "was_current": was_current, "file": file }))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(args: AddArgs) -> Result<()> {
    let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose().context("no such path");
    let token = match (args.token, args.token_env, args.token_file) {
        (Some(Secret(text)), ..) if text == STDIN => {
            Some(TokenSource::Text(Secret(read(std::io::stdin()).context("standard input")?)))
        }
        (Some(Secret(text)), ..) => Some(TokenSource::Text(Secret(read(text.as_bytes()).context("--token")?))),
        (None, Some(name), _) => Some(TokenSource::Env(name)),
        (None, None, path) => absolute(path)?.map(TokenSource::File),
    };
    let saved = Saved {
        server: args.server,
        ca: absolute(args.ca)?,
        token,
        cert: absolute(args.cert)?,
        key: absolute(args.key)?,
    };
    let name = args.name;
    let (current, file) = Contexts::change(|contexts| {
        contexts.add(&name, saved, args.replace)?;
        if args.make_current {
            contexts.set_current(Some(&name))?;
        }
        Ok(contexts.current().map(str::to_owned))
    })?;
    let is_current = current.as_deref() == Some(&name);
    let next = if is_current { "it is the current one".into() } else { format!("next: quipu context use {name}") };
    let said = format!("{name} is in {}; {next}", file.display());
    tell(&args.output, &said, json!({ "added": name, "current": current, "file": file }))?;
    Ok(())
}

fn list(output: &Output) -> Result<()> {
    let contexts = Contexts::load()?;
    let current = contexts.current();
    if output.json {
        let all: Vec<Value> = contexts.all().map(|(name, saved)| as_json(name, saved, current)).collect();
        return Ok(say!("{}", json!({ "file": contexts.path(), "current": current, "contexts": all }))?);
    }
    let row = |(name, saved): (&str, &Saved)| {
        let star = if current == Some(name) { "*" } else { "" };
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        [star, name, &saved.server, &path(&saved.ca), &token(saved), &path(&saved.cert)].map(str::to_owned).to_vec()
    };
    let rows: Vec<Vec<String>> = contexts.all().map(row).collect();
    Ok(table::print(&["", "CONTEXT", "SERVER", "CA", "TOKEN", "CERT"], &rows, &[])?)
}

fn show(name: Option<String>, output: &Output) -> Result<()> {
    let contexts = Contexts::load()?;
    let variable = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty());
    let name = name.or(variable).or_else(|| contexts.current().map(str::to_owned));
    let name = name.with_context(|| {
        format!("no context is current in {}: say which one, or `quipu context use NAME`", contexts.path().display())
    })?;
    let saved = contexts.find(&name)?;
    if output.json {
        return Ok(say!("{}", as_json(&name, saved, contexts.current()))?);
    }
    let path = |path: &Option<PathBuf>, none: &str| {
        path.as_ref().map_or_else(|| none.to_owned(), |path| path.display().to_string())
    };
    let is_current = if contexts.current() == Some(&name) { "  (current)" } else { "" };
    say!("context  {name}{is_current}")?;
    say!("server   {}", saved.server)?;
    say!("ca       {}", path(&saved.ca, "the development certificate on loopback, else the system's"))?;
    say!("token    {}", if saved.token.is_none() { "none".into() } else { token(saved) })?;
    say!("cert     {}", path(&saved.cert, "none"))?;
    say!("key      {}", path(&saved.key, "none"))?;
    Ok(say!("file     {}", contexts.path().display())?)
}

/// Where its token is, and never the token.
fn token(saved: &Saved) -> String {
    match &saved.token {
        None => String::new(),
        Some(TokenSource::Text(_)) => "in the file".to_owned(),
        Some(TokenSource::Env(name)) => format!("${name}"),
        Some(TokenSource::File(path)) => path.display().to_string(),
    }
}

fn as_json(name: &str, saved: &Saved, current: Option<&str>) -> Value {
    let token = match &saved.token {
        None => Value::Null,
        Some(TokenSource::Text(_)) => json!("in the file"),
        Some(TokenSource::Env(name)) => json!({ "env": name }),
        Some(TokenSource::File(path)) => json!({ "file": path }),
    };
    json!({
        "name": name,
        "current": current == Some(name),
        "server": saved.server,
        "ca": saved.ca,
        "token": token,
        "cert": saved.cert,
        "key": saved.key,
    })
}

fn tell(output: &Output, said: &str, json: Value) -> std::io::Result<()> {
    if output.json { say!("{json}") } else { say!("{said}") }
}
