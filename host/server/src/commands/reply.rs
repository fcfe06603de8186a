//! `quipu reply`.

use std::os::fd::AsFd;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_client::{Asked, Message, Replied, Responder, Subscribe};
use quipu_protocol::limits::PAYLOAD_BYTES_MAX;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::connect::ServerArgs;
use super::output::say;

/// Of what a command says went wrong, the most that is told.
const ERROR_BYTES_MAX: usize = 4 << 10;
/// How much of an output is read at a time, in bytes.
const CHUNK_BYTES: usize = 16 << 10;

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
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that what the shell started ends with it.
    let mut process = process.process_group(0).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let group = Group::of(&process);
    let mut input = process.stdin.take();
    let payload = request.payload.clone();
    let feeding = async move {
        if let Some(input) = &mut input {
            // A command need not read what it is given.
            input.write_all(&payload).await.ok();
        }
    };
    let mut output = Output::new(process.stdout.take(), PAYLOAD_BYTES_MAX);
    let mut errors = Output::new(process.stderr.take(), ERROR_BYTES_MAX);
    let reading = async { tokio::try_join!(output.until_end(), errors.until_end()) };
    // What goes on in the background may hold the outputs open: the command is done when the shell is.
    let done = async {
        tokio::select! {
            status = process.wait() => status.context("the command's end"),
            (read, ()) = async { tokio::join!(reading, feeding) } => {
                read?;
                process.wait().await.context("the command's end")
            }
        }
    };
    let Ok(status) = tokio::time::timeout(wait, done).await else {
        drop(group);
        process.wait().await.context("the command's end")?;
        return Ok(Err(format!("the command took more than {}", humantime::format_duration(wait))));
    };
    group.leave();
    let status = status?;
    tokio::try_join!(output.what_is_left(), errors.what_is_left())?;
    if !status.success() {
        let said = String::from_utf8_lossy(&errors.bytes);
        return Ok(Err(format!("the command ended with {status}: {}", said.trim())));
    }
    if output.has_more {
        return Ok(Err(format!("the command printed more than {PAYLOAD_BYTES_MAX} bytes")));
    }
    let mut output = output.bytes;
    // As a shell does where it puts a command's output into another's line.
    output.pop_if(|last| *last == b'\n');
    Ok(Ok(output))
}

/// The processes of a command, which are killed where nobody waits for them any more.
struct Group(Option<Pid>);

impl Group {
    fn of(process: &Child) -> Self {
        Self(process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// The command is done, and what it left in the background goes on.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Where it is gone, that is as good.
            kill_process_group(group, Signal::KILL).ok();
        }
    }
}

/// The beginning of what a command prints. All of it is read, so that nobody waits for room.
struct Output<R> {
    from: Option<R>,
    bytes: Vec<u8>,
    most: usize,
    has_more: bool,
}

impl<R: AsyncRead + AsFd + Unpin> Output<R> {
    fn new(from: Option<R>, most: usize) -> Self {
        Self { from, bytes: Vec::new(), most, has_more: false }
    }

    /// Cancelled, it has kept what it read.
    async fn until_end(&mut self) -> Result<()> {
        while self.some(CHUNK_BYTES).await? > 0 {}
        Ok(())
    }

    /// What is in the pipe already: who wrote it is done, and others may hold it open.
    async fn what_is_left(&mut self) -> Result<()> {
        let there = match &self.from {
            Some(from) => rustix::io::ioctl_fionread(from).context("the command's output")?,
            None => 0,
        };
        let mut left = usize::try_from(there).unwrap_or(usize::MAX);
        while left > 0 {
            match self.some(left.min(CHUNK_BYTES)).await? {
                0 => break,
                read => left -= read,
            }
        }
        Ok(())
    }

    /// So many bytes at most; 0 at the end.
    async fn some(&mut self, at_most: usize) -> Result<usize> {
        let Some(from) = &mut self.from else { return Ok(0) };
        let mut chunk = vec![0; at_most];
        let read = from.read(&mut chunk).await.context("the command's output")?;
        let kept = read.min(self.most - self.bytes.len());
        self.bytes.extend_from_slice(&chunk[..kept]);
        self.has_more |= kept < read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once() {
        assert_eq!(fill("{id} {payload} {subject} {other} {", &request()), "m1 {id} prices.get {other} {");
    }

    fn request() -> Message {
        let id = quipu_client::MessageId::new("m1").expect("an id");
        let subject = quipu_client::Subject::new("prices.get").expect("a subject");
        Message::new(id, subject, "{id}")
    }

    /// Far longer than it takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn run(command: &str, wait: Duration) -> Result<Vec<u8>, String> {
        execute(command, &request(), wait).await.expect("it is run")
    }

    #[tokio::test]
    async fn what_goes_on_in_the_background_does_not_hold_up_the_reply() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        let command = format!("mkfifo {0}; cat {0} & printf done", fifo.display());
        assert_eq!(run(&command, PATIENCE).await, Ok(b"done".to_vec()));
        // It was left alone, and ends as the pipe that it reads does.
        tokio::fs::write(&fifo, "").await.expect("somebody reads");
        let large = "head -c 200000 /dev/zero";
        assert_eq!(run(large, PATIENCE).await.map(|output| output.len()), Ok(200_000));
        let failed = run("echo no >&2; exit 3", PATIENCE).await;
        assert_eq!(failed, Err("the command ended with exit status: 3: no".into()));
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_ends_with_all_that_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let fifo = dir.path().join("fifo");
        std::process::Command::new("mkfifo").arg(&fifo).status().expect("made");
        let reading = tokio::spawn(tokio::fs::read(fifo.clone()));
        let writer = tokio::fs::OpenOptions::new().write(true).open(&fifo).await.expect("somebody reads");
        // For as long as it lives it holds the pipe open.
        let command = format!("sleep 300 > {} & wait", fifo.display());
        let took = run(&command, Duration::from_millis(200)).await;
        assert_eq!(took, Err("the command took more than 200ms".into()));
        drop(writer);
        let ended = tokio::time::timeout(PATIENCE, reading).await.expect("nobody holds the pipe open");
        assert_eq!(ended.expect("read").expect("read"), b"");
    }
}
