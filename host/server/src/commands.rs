//! The command line.

mod ask;
mod check;
mod completions;
mod connect;
mod context;
mod define;
mod demo;
mod explain;
mod help;
mod ledger;
mod list;
mod man;
mod message;
mod output;
mod plugin;
mod publish;
mod redrive;
mod reply;
mod request;
mod serve;
mod status;
mod store;
mod subscribe;
pub(crate) mod table;
mod user;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;

/// Exit code of a configuration that is not taken: EX_CONFIG of sysexits.h.
const EXIT_CONFIG: u8 = 78;

/// A QUIC message router that runs WebAssembly plugins between durable queues.
#[derive(Debug, Parser)]
#[command(
    name = "quipu",
    version,
    after_help = "Examples:\n  quipu serve --config quipu.toml\n  quipu pub orders.eu --message '{\"id\":7}'\n  \
        quipu sub orders --subscription billing\n  quipu queue list\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage, 78 a configuration file that is not taken.\n\
        Each command has its own --help, and `quipu man COMMAND` its manual page."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a router.
    Serve(serve::Args),
    /// Checks a configuration and its plugins without starting.
    Check(check::Args),
    /// Routes a week of earthquakes on a router of its own, and accounts for each.
    Demo(demo::Args),
    /// Publishes messages.
    Pub(publish::Args),
    /// Consumes messages from a queue, settling each once it is printed.
    Sub(subscribe::Args),
    /// Publishes a message and prints the reply to it.
    Request(request::Args),
    /// Replies to the messages of a queue.
    Reply(reply::Args),
    /// Says whether a running router does its work.
    Status(status::Args),
    /// Accounts for every message of a running router.
    Ledger(ledger::Args),
    /// Queues of a running router.
    #[command(
        subcommand,
        after_help = "Examples:\n  quipu queue list\n  \
        quipu queue show orders\n  \
        quipu queue redrive orders-dead --dry-run"
    )]
    Queue(list::QueueCommand),
    /// Subscriptions of a running router.
    #[command(
        subcommand,
        after_help = "Examples:\n  quipu subscription create orders billing\n  \
        quipu subscription pause orders billing"
    )]
    Subscription(define::SubscriptionCommand),
    /// Routes of a running router.
    #[command(
        subcommand,
        after_help = "Examples:\n  quipu route list\n  \
        quipu route pause large"
    )]
    Route(list::RouteCommand),
    /// Plugins of a running router.
    #[command(
        subcommand,
        after_help = "Examples:\n  quipu plugin push big-quakes.wasm --tag 1.5.0\n  \
        quipu plugin deploy big-quakes@1.5.0 --route alerts"
    )]
    Plugin(plugin::PluginCommand),
    #[command(hide = true)]
    CompilePlugin(plugin::compile::Args),
    /// Makes a running router what its configuration file says now, or says why not and changes nothing.
    #[command(after_help = "Examples:\n  quipu diff\n  quipu reload")]
    Reload(define::ReloadArgs),
    /// Shows what `reload` would change.
    #[command(after_help = "Example:\n  quipu diff")]
    Diff(define::ReloadArgs),
    /// Users of the configuration: tokens and fingerprints for it.
    #[command(
        subcommand,
        after_help = "Examples:\n  quipu user token\n  \
        quipu user fingerprint till-7.pem"
    )]
    User(user::UserCommand),
    /// Walks a message through a running router's routes, and changes nothing.
    Explain(explain::Args),
    /// What became of a message.
    #[command(subcommand, after_help = "Example:\n  quipu message show ak0247")]
    Message(message::MessageCommand),
    /// The store as a whole.
    #[command(
        subcommand,
        after_help = "Examples:\n  quipu store backup /backups/monday\n  \
        quipu store verify data"
    )]
    Store(store::StoreCommand),
    /// Routers by name, with address, certificate and token.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        quipu context add prod --server router.example.org:4433 --ca ca.pem --token-env PROD_TOKEN\n  \
        quipu context use prod"
    )]
    Context(context::ContextCommand),
    /// Prints a script that completes commands in bash, zsh or fish.
    Completions(completions::Args),
    /// Prints manual pages.
    Man(man::Args),
}

/// What the command line takes.
fn cli() -> clap::Command {
    help::grouped(help::fitted(Cli::command()))
}

/// Runs the command that the arguments ask for. Exit codes: 0 done, 1 failed, 2 usage, 78 configuration.
pub(crate) fn run() -> ExitCode {
    completions::answer_shell();
    let cli = match cli().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let level = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("QUIPU_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&anyhow::Error::new(e).context("cannot start the asynchronous runtime")),
    };
    let done = runtime.block_on(dispatch(cli.command));
    // A thread that still reads standard input would keep the process.
    runtime.shutdown_background();
    match done {
        Ok(code) => code,
        Err(e) => fail(&e),
    }
}

async fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Check(args) => check::run(&args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Pub(args) => publish::run(args).await,
        Command::Sub(args) => subscribe::run(args).await,
        Command::Request(args) => request::run(args).await,
        Command::Reply(args) => reply::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Ledger(args) => ledger::run(args).await,
        Command::Queue(command) => list::queues(command).await,
        Command::Subscription(command) => define::subscriptions(command).await,
        Command::Reload(args) => define::reload(args).await,
        Command::Diff(args) => define::diff(args).await,
        Command::Route(command) => list::routes(command).await,
        Command::Plugin(command) => plugin::run(command).await,
        Command::CompilePlugin(args) => plugin::compile::run(&args),
        Command::User(command) => user::run(command),
        Command::Explain(args) => explain::run(args).await,
        Command::Message(command) => message::run(command).await,
        Command::Store(command) => store::run(command).await,
        Command::Context(command) => context::run(command),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    if let Some(config) = error.downcast_ref::<ConfigError>() {
        eprintln!("{config}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // An error that shows its source already is not said twice.
        if !text.ends_with(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    eprintln!("quipu: {text}");
    ExitCode::FAILURE
}
