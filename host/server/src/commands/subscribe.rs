//! `quipu sub`.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use quipu_client::{Delivery, Message, Mode, Start, Subscribe, Subscriber};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::connect::ServerArgs;

/// Prints the messages of a queue, one a line, and settles each after it is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quipu sub orders --subscription billing\n  \
    quipu sub orders --subscription look --since 1h --count 10 --json")]
pub(crate) struct Args {
    /// The queue.
    queue: String,
    /// The durable subscription to read by; made if it is not there. Consumers of one subscription share its messages.
    #[arg(long, short, value_name = "NAME")]
    subscription: String,
    /// Ends after so many messages; without it, it goes on until it is interrupted.
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// A new subscription starts with the next message published, not with the first that is there.
    #[arg(long, group = "start")]
    new: bool,
    /// A new subscription starts with the message at this offset.
    #[arg(long, group = "start", value_name = "N")]
    from_offset: Option<u64>,
    /// A new subscription starts with what was published so long ago, as 1h30m.
    #[arg(long, group = "start", value_parser = humantime::parse_duration, value_name = "AGE")]
    since: Option<Duration>,
    /// How the subscription's consumers share it; fixed when it is made.
    #[arg(long, value_enum, default_value_t = Sharing::Shared)]
    mode: Sharing,
    /// Prints each message as a JSON object with its headers, not the payload alone.
    #[arg(long)]
    json: bool,
    /// Deliveries asked for ahead.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096), value_name = "N")]
    prefetch: u32,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let client = args.server.connect().await?;
    let mut subscribe = Subscribe::new(&args.queue, &args.subscription);
    subscribe.mode = args.mode.into();
    subscribe.start = args.start();
    // No more than what will be printed, so that the others get the rest.
    let wanted = args.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::MAX);
    subscribe.prefetch = args.prefetch.min(wanted.max(1));
    let mut subscriber = client.subscribe(subscribe).await?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut left = args.count.unwrap_or(u64::MAX);
    let ended = loop {
        if left == 0 {
            break Ok(());
        }
        tokio::select! {
            next = subscriber.next() => match next {
                Some(Ok(delivery)) => match print(&delivery, args.json) {
                    Ok(()) => {
                        // Printed first, settled then: what a reader of this output has not got is delivered again.
                        if let Err(e) = delivery.ack_later().await.context("cannot settle") {
                            break Err(e);
                        }
                        left -= 1;
                    }
                    // Who reads has enough, as `head`; this delivery and those ahead go back when the stream ends.
                    Err(e) if e.kind() == ErrorKind::BrokenPipe => break Ok(()),
                    Err(e) => break Err(anyhow::Error::new(e).context("standard output")),
                },
                Some(Err(e)) => break Err(e.into()),
                None => break Ok(()),
            },
            _ = interrupt.recv() => break Ok(()),
            _ = terminate.recv() => break Ok(()),
        }
    };
    let closed = close(subscriber).await;
    client.close().await;
    ended.and(closed).map(|()| ExitCode::SUCCESS)
}

/// How the consumers of a subscription share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sharing {
    /// Each message goes to whichever has room.
    Shared,
    /// Messages of one key go to one of them, in order.
    KeyShared,
    /// All go to the one that came first.
    Exclusive,
}

impl From<Sharing> for Mode {
    fn from(sharing: Sharing) -> Self {
        match sharing {
            Sharing::Shared => Self::Shared,
            Sharing::KeyShared => Self::KeyShared,
            Sharing::Exclusive => Self::Exclusive,
        }
    }
}

impl Args {
    fn start(&self) -> Start {
        match (self.new, self.from_offset, self.since) {
            (true, ..) => Start::New,
            (false, Some(offset), _) => Start::Offset(offset),
            (false, None, Some(age)) => {
                let at = SystemTime::now().checked_sub(age).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                Start::Time(at.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
            }
            (false, None, None) => Start::First,
        }
    }
}

fn print(delivery: &Delivery, json: bool) -> io::Result<()> {
    let line = if json { as_json(delivery).into_bytes() } else { one_line(&delivery.message.payload) };
    let mut out = std::io::stdout().lock();
    out.write_all(&line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush())
}

async fn close(subscriber: Subscriber) -> Result<()> {
    subscriber.flush().await.context("the last settlements have no answer; those messages may come again")?;
    subscriber.close().await.context("cannot close the subscription")
}

/// The payload, with its line breaks written as `\n`, so that a message is always one line.
pub(super) fn one_line(payload: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(payload.len());
    for byte in payload {
        match byte {
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            other => line.push(*other),
        }
    }
    line
}

fn as_json(delivery: &Delivery) -> String {
    let mut object = message_as_json(&delivery.message);
    object["offset"] = delivery.offset.into();
    object["attempt"] = delivery.attempt.into();
    object["crashes"] = delivery.crashes.into();
    object.to_string()
}

/// A message with its headers; a payload that is no text in hexadecimal digits.
pub(super) fn message_as_json(message: &Message) -> Value {
    let headers: Vec<[&str; 2]> = message.headers.iter().map(|(name, value)| [name, value]).collect();
    let mut object = json!({
        "id": message.id.as_str(),
        "subject": message.subject.as_str(),
        "origin_subject": message.origin_subject.as_str(),
        "key": message.key.as_ref().map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned()),
        "headers": headers,
        "published_ms": message.published_ms,
    });
    if let Some(reply_to) = &message.reply_to {
        object["reply_to"] = reply_to.as_str().into();
    }
    match std::str::from_utf8(&message.payload) {
        Ok(text) => object["payload"] = text.into(),
        Err(_) => object["payload_hex"] = message.payload.iter().map(|b| format!("{b:02x}")).collect::<String>().into(),
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_one_line() {
        assert_eq!(one_line(b"a\r\nb"), b"a\\r\\nb");
    }
}
