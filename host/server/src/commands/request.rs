//! `quipu request`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use quipu_client::{Message, OutgoingMessage, RequestError};
use quipu_protocol::limits::{PAYLOAD_BYTES_MAX, REPLIES_MAX};
use tokio::io::AsyncReadExt as _;

use super::connect::ServerArgs;
use super::publish::Mapping;
use super::subscribe::{message_as_json, one_line};

/// Publishes a message and prints the reply to it, or several, one a line.
///
/// The request is stored like any message. Its replies are not: they come to this command alone, while it waits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu request prices.get --message '{\"item\":\"loom\"}'\n  \
    quipu request prices.get --file item.json --timeout 30s\n  \
    quipu request stock.count --message yarn --count 3 --json\n\n\
    Replies come from `quipu reply`, from a program, or from a route that sends to \"{reply_to}\".")]
pub(crate) struct Args {
    /// The subject.
    subject: String,
    /// The payload.
    #[arg(long, short, conflicts_with = "file", value_name = "TEXT")]
    message: Option<String>,
    /// A file with the payload; without it and --message, it is read from standard input.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    mapping: Mapping,
    /// How long to wait for the reply, or for all of them; 1ms to 1h.
    #[arg(long, short, default_value = "5s", value_parser = humantime::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// Replies to wait for, as of several responders.
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLIES_MAX)), value_name = "N")]
    count: u32,
    /// Prints each reply as a JSON object with its headers, not the payload alone.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    args.mapping.check().context("invalid arguments")?;
    let payload = payload(&args).await?;
    let message = args.mapping.message(&args.subject, payload).map_err(anyhow::Error::msg)?;
    let client = args.server.connect().await?;
    let answered = ask(&client, message, &args).await;
    client.close().await;
    answered
}

async fn ask(client: &quipu_client::Client, message: OutgoingMessage, args: &Args) -> Result<ExitCode> {
    let mut replies = client.request_many(message, args.timeout, args.count).await?;
    let mut code = ExitCode::SUCCESS;
    while let Some(reply) = replies.next().await {
        let reply = reply?;
        if let Some(why) = reply.headers.first("error").filter(|_| !args.json) {
            eprintln!("quipu: {}", RequestError::Failed(why.to_owned()));
        } else {
            print(&reply, args.json).context("standard output")?;
        }
        if reply.headers.first("error").is_some() {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn print(reply: &Message, json: bool) -> io::Result<()> {
    let line = if json { message_as_json(reply).to_string().into_bytes() } else { one_line(&reply.payload) };
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush())
}

async fn payload(args: &Args) -> Result<Vec<u8>> {
    let most = PAYLOAD_BYTES_MAX as u64 + 1;
    let mut payload = Vec::new();
    match (&args.message, &args.file) {
        (Some(message), _) => payload.extend_from_slice(message.as_bytes()),
        (None, Some(path)) => {
            let cannot = || format!("cannot read {}", path.display());
            let file = tokio::fs::File::open(path).await.with_context(cannot)?;
            file.take(most).read_to_end(&mut payload).await.with_context(cannot)?;
        }
        (None, None) => {
            let read = tokio::io::stdin().take(most).read_to_end(&mut payload).await;
            read.context("cannot read standard input")?;
        }
    }
    if payload.len() as u64 == most {
        bail!("the payload has more than {PAYLOAD_BYTES_MAX} bytes, which is the most");
    }
    Ok(payload)
}
