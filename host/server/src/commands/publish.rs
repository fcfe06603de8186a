//! `quipu pub`.

mod lines;
mod mapping;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use quipu_client::{OutgoingMessage, PendingReceipt, PublishError, Publisher, PublisherOptions, Receipt};
use serde_json::json;
use tokio::io::{AsyncBufRead, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::connect::ServerArgs;
use super::output::say;
use super::table::count;
pub(super) use lines::{Line, Lines};
pub(super) use mapping::Mapping;

/// Publishes under way, their receipts not yet looked at.
const RECEIPTS_MAX: usize = 4_096;
/// Refused messages that are told one by one; the rest is counted.
const REFUSALS_SHOWN: u64 = 10;

/// Publishes one message, or one for each line of a file or of standard input, many in flight.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu pub orders.eu --message '{\"id\":7}'\n  \
    quipu pub quakes.raw --file earthquakes.ndjson --id-field id --header-from type=properties.type\n  \
    tail -f app.log | quipu pub logs.app --header host=web1")]
pub(crate) struct Args {
    /// The subject.
    subject: String,
    /// The payload of a single message.
    #[arg(long, short, conflicts_with = "file", value_name = "TEXT")]
    message: Option<String>,
    /// A file with one payload a line; without it and --message, lines are read from standard input.
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    mapping: Mapping,
    /// Publishes under this name: in order and exactly once over lost connections, without ids. Whoever had the name is
    /// fenced.
    #[arg(long)]
    name: Option<String>,
    /// Sends again what the router has no room for now, with growing pauses.
    #[arg(long)]
    retry_refused: bool,
    /// Stops at the first message that is refused: nothing behind it is stored, and no more is read.
    #[arg(long, conflicts_with = "retry_refused")]
    stop_on_error: bool,
    /// Ends with the counts as a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What became of the messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) duplicate: u64,
    pub(super) rejected: u64,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    args.mapping.check().context("invalid arguments")?;
    let client = args.server.connect().await?;
    let options = PublisherOptions {
        name: args.name.clone(),
        retry_refused: args.retry_refused,
        stop_on_error: args.stop_on_error,
        ..PublisherOptions::default()
    };
    let publisher = client.publisher(options).await?;
    let begun = Instant::now();
    let progress = progress_bar();
    let (sender, receipts) = mpsc::channel(RECEIPTS_MAX);
    let refused = CancellationToken::new();
    let counting = tokio::spawn(count_receipts(receipts, progress.clone(), refused.clone()));
    let stop = if args.stop_on_error { refused } else { CancellationToken::new() };
    let sent = match (&args.message, &args.file) {
        (Some(message), _) => {
            let line = Line::Text { number: 1, bytes: message.clone().into_bytes() };
            publish_line(&publisher, &args, line, &sender).await.map(drop)
        }
        (None, Some(path)) => {
            let file = tokio::fs::File::open(path).await.with_context(|| format!("cannot read {}", path.display()))?;
            publish_lines(&publisher, &args, BufReader::with_capacity(1 << 20, file), (&sender, &stop)).await
        }
        (None, None) => publish_lines(&publisher, &args, BufReader::new(tokio::io::stdin()), (&sender, &stop)).await,
    };
    drop(sender);
    let counts = counting.await?;
    progress.finish_and_clear();
    publisher.close().await.context("the router did not take everything")?;
    client.close().await;
    tell(&args, counts, begun.elapsed())?;
    sent?;
    Ok(if counts.rejected == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What waits to be counted: a receipt to come, or a message that was refused before it was sent.
pub(super) enum Sent {
    Pending(u64, PendingReceipt),
    Refused(u64, String),
}

async fn publish_lines(
    publisher: &Publisher,
    args: &Args,
    input: impl AsyncBufRead + Unpin,
    (sent, stop): (&mpsc::Sender<Sent>, &CancellationToken),
) -> Result<()> {
    let mut lines = Lines::new(input);
    while let Some(line) = stop.run_until_cancelled(lines.next()).await.transpose().context("cannot read the input")? {
        let Some(line) = line else { break };
        let handed_over = publish_line(publisher, args, line, sent).await?;
        if args.stop_on_error && !handed_over {
            break;
        }
    }
    Ok(())
}

async fn publish_line(publisher: &Publisher, args: &Args, line: Line, sent: &mpsc::Sender<Sent>) -> Result<bool> {
    let (number, message) = match line {
        Line::Text { number, bytes } => (number, args.mapping.message(&args.subject, bytes)),
        Line::TooLong { number, bytes } => {
            (number, Err(format!("a line of {bytes} bytes is longer than a payload may be")))
        }
    };
    publish(publisher, number, message, sent).await
}

/// Publishes a message; where it is invalid that is counted, and only a lost publisher is an error. Whether it was handed
/// over.
async fn publish(
    publisher: &Publisher,
    number: u64,
    message: Result<OutgoingMessage, String>,
    sent: &mpsc::Sender<Sent>,
) -> Result<bool> {
    let said = match message {
        Ok(message) => match publisher.publish(message).await {
            Ok(receipt) => Sent::Pending(number, receipt),
            Err(PublishError::Invalid(e)) => Sent::Refused(number, e.to_string()),
            Err(PublishError::Lost(e)) => return Err(e.into()),
        },
        Err(why) => Sent::Refused(number, why),
    };
    let handed_over = matches!(said, Sent::Pending(..));
    sent.send(said).await.context("the receipts are no longer counted")?;
    Ok(handed_over)
}

/// Counts until every sender is gone; `refused_one` is cancelled once a message is.
async fn count_receipts(
    mut sent: mpsc::Receiver<Sent>,
    progress: ProgressBar,
    refused_one: CancellationToken,
) -> Counts {
    let mut counts = Counts::default();
    while let Some(said) = sent.recv().await {
        let refused = match said {
            Sent::Pending(number, receipt) => match receipt.await {
                Ok(Receipt::Stored(_) | Receipt::Routed) => {
                    counts.stored += 1;
                    None
                }
                Ok(Receipt::Duplicate(_)) => {
                    counts.duplicate += 1;
                    None
                }
                Err(e) => Some((number, e.to_string())),
            },
            Sent::Refused(number, why) => Some((number, why)),
        };
        if let Some((number, why)) = refused {
            counts.rejected += 1;
            refused_one.cancel();
            if counts.rejected <= REFUSALS_SHOWN {
                progress.suspend(|| eprintln!("quipu: message {number}: {why}"));
            }
        }
        progress.inc(1);
    }
    counts
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} answered  {per_sec}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn tell(args: &Args, counts: Counts, took: Duration) -> std::io::Result<()> {
    let Counts { stored, duplicate, rejected } = counts;
    if args.json {
        return say!("{}", json!({ "stored": stored, "duplicate": duplicate, "rejected": rejected }));
    }
    let [stored, duplicate, rejected] = [stored, duplicate, rejected].map(count);
    say!("{stored} stored, {duplicate} duplicate, {rejected} rejected in {:.2} s", took.as_secs_f64())
}
