//! `quipu reply`.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_client::{Asked, Message, Replied, Responder, Subscribe};
use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::connect::ServerArgs;
use super::output::say;

/// Of what a command says went wrong, the most that is told.
const ERROR_BYTES_MAX: u64 = 4 << 10;

/// Takes requests from a queue, one after the other, and replies to each where it says (`reply_to`).
///
/// A request is settled once its reply is where it goes. Several of these on one subscription share its requests; each
/// subscription replies to every request of its queue.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu reply prices --exec 'jq -c \"{price: 12}\"'\n  \
    quipu reply prices --echo --count 1\n  \
    quipu reply prices --message '{subject} has {payload}' --subscription desk")]
#[command(group(clap::ArgGroup::new("how").required(true).args(["exec", "echo", "message"])))]
pub(crate) struct Args {
    /// The queue.
    queue: String,
    /// The durable subscription to take requests by; made if it is not there.
    #[arg(long, short, default_value = "reply", value_name = "NAME")]
    subscription: String,
    /// Replies with what this command prints, but for a line break at its end; `sh -c` runs it, the request on its standard input, QUIPU_ID and
    /// QUIPU_SUBJECT in its environment. Where it fails, the reply says so with what it wrote to standard error.
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Replies with the request's own payload.
    #[arg(long)]
    echo: bool,
    /// Replies with this text, in which {payload}, {subject} and {id} are those of the request.
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// How long the command may take with one request; then it is killed, and the reply says so.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration, value_name = "TIME")]
    exec_timeout: Duration,
    /// Ends after so many requests.
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Prints a JSON object for each request.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.server.connect().await?;
    let mut subscribe = Subscribe::new(&args.queue, &args.subscription);
    // No more than it works on, so that others get the rest.
    subscribe.prefetch = 1;
    let mut responder = client.respond(subscribe).await?;
    let ended = respond(&mut responder, &args).await;
    let closed = responder.close().await.context("cannot close the subscription");
    client.close().await;
    ended.and(closed).map(|()| ExitCode::SUCCESS)
}

async fn respond(responder: &mut Responder, args: &Args) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        tokio::select! {
            next = responder.next() => match next {
                Some(asked) => {
                    answer(asked?, args).await?;
                    left -= 1;
                }
                None => break,
            },
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        }
    }
    Ok(())
}

async fn answer(asked: Asked, args: &Args) -> Result<()> {
    let (id, subject) = (asked.message().id.clone(), asked.message().subject.clone());
    let (replied, error) = match payload(asked.message(), args).await? {
        Ok(payload) => (asked.reply(payload).await?, None),
        Err(why) => (asked.fail(&why).await?, Some(why)),
    };
    let outcome = match replied {
        Replied::Sent => "replied",
        Replied::Again => "replied before",
        Replied::TooLate => "too late: nobody waits for the reply",
        Replied::NotAsked => "no reply asked for",
    };
    if args.json {
        let line = json!({ "id": id.as_str(), "subject": subject.as_str(), "outcome": outcome, "error": error });
        return Ok(say!("{line}")?);
    }
    let failed = error.map(|why| format!(" (failed: {why})")).unwrap_or_default();
    Ok(say!("{id}  {subject}  {outcome}{failed}")?)
}

/// The reply, or what went wrong with it.
async fn payload(request: &Message, args: &Args) -> Result<Result<Vec<u8>, String>> {
    match (&args.exec, &args.message) {
        (Some(command), _) => execute(command, request, args.exec_timeout).await,
        (None, Some(text)) => Ok(Ok(fill(text, request).into_bytes())),
        (None, None) => Ok(Ok(request.payload.to_vec())),
    }
}

/// The text with its placeholders filled; each once, so that a payload with braces is not looked into.
fn fill(text: &str, request: &Message) -> String {
    let payload = String::from_utf8_lossy(&request.payload);
    let values =
        [("{payload}", payload.as_ref()), ("{subject}", request.subject.as_str()), ("{id}", request.id.as_str())];
    let (mut filled, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let (taken, value) = values.iter().find(|(name, _)| rest.starts_with(name)).unwrap_or(&("{", "{"));
        filled.push_str(value);
        rest = &rest[taken.len()..];
    }
    filled + rest
}

async fn execute(command: &str, request: &Message, wait: Duration) -> Result<Result<Vec<u8>, String>> {
    let mut process = Command::new("sh");
    process.args(["-c", command]).env("QUIPU_ID", request.id.as_str()).env("QUIPU_SUBJECT", request.subject.as_str());
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = process.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let (mut input, output, errors) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
    let payload = request.payload.clone();
    let feeding = async move {
        if let Some(input) = &mut input {
            // A command need not read what it is given.
            input.write_all(&payload).await.ok();
        }
    };
    let most = PAYLOAD_BYTES_MAX as u64;
    let all = async { tokio::join!(feeding, read(output, most), read(errors, ERROR_BYTES_MAX), process.wait()) };
    let Ok(((), output, errors, status)) = tokio::time::timeout(wait, all).await else {
        return Ok(Err(format!("the command took more than {}", humantime::format_duration(wait))));
    };
    let ((mut output, is_whole), (errors, _)) = (output?, errors?);
    let status = status.context("the command's end")?;
    if !status.success() {
        let said = String::from_utf8_lossy(&errors);
        return Ok(Err(format!("the command ended with {status}: {}", said.trim())));
    }
    if !is_whole {
        return Ok(Err(format!("the command printed more than {most} bytes")));
    }
    // As a shell does where it puts a command's output into another's line.
    output.pop_if(|last| *last == b'\n');
    Ok(Ok(output))
}

/// So many bytes of an output, and whether that is all. It is read to its end, so that nobody waits for room.
async fn read(output: Option<impl AsyncRead + Unpin>, most: u64) -> Result<(Vec<u8>, bool)> {
    let Some(mut output) = output else { return Ok((Vec::new(), true)) };
    let mut bytes = Vec::new();
    (&mut output).take(most).read_to_end(&mut bytes).await.context("the command's output")?;
    let more = tokio::io::copy(&mut output, &mut tokio::io::sink()).await.context("the command's output")?;
    Ok((bytes, more == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once() {
        let id = quipu_client::MessageId::new("m1").expect("an id");
        let subject = quipu_client::Subject::new("prices.get").expect("a subject");
        let request = Message::new(id, subject, "{id}");
        assert_eq!(fill("{id} {payload} {subject} {other} {", &request), "m1 {id} prices.get {other} {");
    }
}
