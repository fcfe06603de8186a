//! A request stream: one message is published with an inbox as its `reply_to`, and what comes there goes to the client.
//!
//! The message is as durable as any other; the inbox is this task's and goes with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quipu_protocol::code::Code;
use quipu_protocol::frame::Frame;
use quipu_protocol::limits::{FRAME_HEADER_BYTES_MAX, REPLIES_MAX, REQUEST_MS_MAX};
use quipu_protocol::{Subject, proto};
use quipu_queue::{Inbox, InboxMessage};
use tokio::time::{Instant, timeout_at};

use super::frames::{FrameReader, FrameWriter};
use super::publisher::{publish_one, read_message};
use crate::access::Client;
use crate::services::Services;

/// How a request ends before it has all replies: what the client is told, if it is there.
type Failed = Option<proto::Error>;

pub(super) async fn run(
    request: proto::Request,
    payload: Bytes,
    (mut reader, mut writer): (FrameReader, FrameWriter),
    services: Arc<Services>,
    client: Arc<Client>,
) {
    let stopped = writer.stopped();
    let ended = tokio::select! {
        answered = answer(&request, payload, &mut writer, &services, &client) => answered,
        failed = given_up(&mut reader) => Err(failed),
        () = stopped => Err(None),
    };
    match ended {
        Ok(()) => {
            if writer.send(proto::End {}).await.is_ok() {
                writer.finish();
            }
        }
        Err(Some(error)) => {
            reader.stop(Code::from_number(error.code).unwrap_or(Code::Protocol));
            writer.fail(error).await;
        }
        // Nobody is there to be told.
        Err(None) => {}
    }
}

/// Waits until the client resets its side, or sends what does not belong there. A client that has said all may end it.
async fn given_up(reader: &mut FrameReader) -> Failed {
    match reader.next().await {
        Ok(None) => std::future::pending().await,
        Ok(Some(frame)) => {
            Some(Code::Protocol.error(format!("{} does not belong on a request stream", frame.body.name())))
        }
        Err(e) => e.to_error(),
    }
}

async fn answer(
    request: &proto::Request,
    payload: Bytes,
    writer: &mut FrameWriter,
    services: &Services,
    client: &Arc<Client>,
) -> Result<(), Failed> {
    let (wait, most) = asked(request)?;
    let due = Instant::now() + wait;
    let mut publishing = client.publishing()?;
    let Some(_place) = services.requests.take() else {
        let most = services.requests.max();
        return Err(Some(Code::Busy.error(format!("this router takes {most} requests at a time (`limits.requests`)"))));
    };
    let overloaded = || Code::Overloaded.error("more is published than the router can take in; ask later");
    let bytes = (request.message.len() + payload.len()) as u64;
    let room = services.ingest.reserve(bytes).ok_or_else(overloaded)?;
    let (mut message, has_id) =
        read_message(&request.message, payload, &mut publishing, services.limits.message_bytes)?;
    if message.reply_to.is_some() {
        return Err(Some(Code::InvalidMessage.error("a request's reply_to is the router's: leave it empty")));
    }
    let inbox = open(services, most).await?;
    message.reply_to = Some(inbox.subject().clone());
    let no_room = || Code::NoReply.error(format!("no reply within {}: the request still waits for room", told(wait)));
    let published = timeout_at(due, publish_one(services, message, has_id, room)).await.map_err(|_| no_room())?;
    let place = place(&published)?;
    let requested = proto::Requested { result: Some(published), inbox: inbox.subject().as_str().into() };
    send(writer, due, requested).await?;
    replies(writer, inbox, (due, most)).await.map_err(|got| {
        let got = got?;
        let count = if got == 0 { "no reply".into() } else { format!("{got} of {most} replies") };
        Some(Code::NoReply.error(format!("{count} within {}; {place}", told(wait))))
    })
}

/// Hands on so many replies; where the time is over before, how many came, and none where nobody is there any more.
async fn replies(writer: &mut FrameWriter, mut inbox: Inbox, (due, most): (Instant, u32)) -> Result<(), Option<u32>> {
    for got in 0..most {
        match timeout_at(due, inbox.next()).await {
            Ok(Some(reply)) => send(writer, due, frame(&reply)).await.map_err(|_: Failed| None)?,
            // The store has failed or stopped, and closes the connection.
            Ok(None) => return Err(None),
            Err(_) => return Err(Some(got)),
        }
    }
    Ok(())
}

/// How long, and for how many replies.
fn asked(request: &proto::Request) -> Result<(Duration, u32), proto::Error> {
    let (wait_ms, most) = (request.timeout_ms, request.replies_max.max(1));
    if !(1..=REQUEST_MS_MAX).contains(&wait_ms) {
        return Err(Code::InvalidCall.error(format!("timeout_ms {wait_ms}: 1 to {REQUEST_MS_MAX} are allowed")));
    }
    if most > REPLIES_MAX {
        return Err(Code::InvalidCall.error(format!("replies_max {most}: at most {REPLIES_MAX} are allowed")));
    }
    Ok((Duration::from_millis(wait_ms), most))
}

/// An inbox whose name nobody can guess: who knows it got the request.
async fn open(services: &Services, most: u32) -> Result<Inbox, proto::Error> {
    let token = uuid::Uuid::new_v4().simple().to_string();
    let subject = Subject::inbox(&token).expect("hex digits are a token");
    services.store.inbox(subject, most).await.map_err(|e| Code::Unavailable.error(e.to_string()))
}

/// Where the request is, for people; or why nobody will answer it.
fn place(published: &proto::Result) -> Result<String, proto::Error> {
    use proto::result::Kind;
    match &published.kind {
        Some(Kind::Stored(stored)) => {
            let at = |at: &proto::Position| format!("`{}` at offset {}", at.queue, at.offset);
            let places: Vec<String> = stored.positions.iter().map(at).collect();
            Ok(format!("the request is stored in {} and may still be worked on", places.join(", ")))
        }
        Some(Kind::Duplicate(_)) => {
            let text = "a message with this id was published before: its replies go where it said then";
            Err(Code::NoReply.error(text))
        }
        Some(Kind::Routed(_)) => Ok("an inline route or an inbox took the request".into()),
        Some(Kind::Error(error)) => Err(error.clone()),
        None => Err(Code::Internal.error("the store gave no answer")),
    }
}

fn frame(reply: &InboxMessage) -> Frame {
    let stored = reply.stored();
    debug_assert!(stored.header.len() <= FRAME_HEADER_BYTES_MAX, "limits of messages keep it");
    Frame::with_payload(proto::Reply { message: stored.header.clone() }, stored.payload.clone())
}

/// A client that does not read has until the request's time is over. What is half written then ends with a reset.
async fn send(writer: &mut FrameWriter, due: Instant, frame: impl Into<Frame>) -> Result<(), Failed> {
    match timeout_at(due, writer.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

fn told(wait: Duration) -> String {
    format!("{} s", wait.as_secs_f64())
}
