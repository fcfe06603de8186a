//! Requests: a message whose replies come straight back, on a short stream each.

use std::fmt;
use std::time::Duration;

use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::limits::{REPLIES_MAX, REQUEST_MS_MAX};
use quipu_protocol::{Message, MessageError, proto};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Lost, Refusal};
use crate::link::{Link, Shared};
use crate::message::OutgoingMessage;
use crate::publisher::{Position, Receipt};
use crate::stream::{Broken, OpenError, Stream, StreamError};

/// The header of a reply which says that the request failed, and why.
pub(crate) const ERROR_HEADER: &str = "error";
/// How much longer than the router a client waits: for the way there and back.
const SLACK: Duration = Duration::from_secs(5);

/// The replies to one request, as they come. Dropping it closes the inbox: who replies then is told so.
pub struct Replies {
    /// Where the request is.
    pub receipt: Receipt,
    /// The subject that replies go to, which the request has as its `reply_to`.
    pub inbox: String,
    stream: Stream,
    link: watch::Receiver<Link>,
    due: Instant,
    is_over: bool,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It breaks a rule of messages.
    #[error(transparent)]
    Invalid(#[from] MessageError),
    /// It asks for more than 1,024 replies, or waits less than 1 ms or more than 1 h.
    #[error("a request waits 1 ms to 1 h for 1 to {REPLIES_MAX} replies")]
    Bounds,
    /// The router refuses it: nothing of it is stored. [`Code::NoQueue`](crate::Code) where nothing takes its subject.
    #[error("the router refuses the request: {0}")]
    Refused(Refusal),
    /// No reply came in time, or not all that were asked for. The request itself is stored, and may still be worked on;
    /// the text says where it is.
    #[error("{}", .0.text)]
    NoReply(Refusal),
    /// Whoever replied says that it failed (the header `error` of the reply).
    #[error("the reply says: {0}")]
    Failed(String),
    /// The connection was lost, or the router goes away: the request may be stored, and may be worked on, but its inbox
    /// is gone. It is not repeated.
    #[error("the connection was lost before the reply ({0}); the request may be stored, and may be worked on")]
    Unanswered(String),
    /// There is no stream for it: nothing was sent.
    #[error(transparent)]
    Open(OpenError),
    /// The client works no more.
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl RequestError {
    /// The router's code, where it says one that this version knows.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refusal) | Self::NoReply(refusal) => refusal.code(),
            _ => None,
        }
    }
}

/// Sends a request and waits until it is stored.
pub(crate) async fn request(
    shared: &Shared,
    message: OutgoingMessage,
    wait: Duration,
    replies: u32,
) -> Result<Replies, RequestError> {
    let begun = Instant::now();
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    if !(1..=REQUEST_MS_MAX).contains(&wait_ms) || !(1..=REPLIES_MAX).contains(&replies) {
        return Err(RequestError::Bounds);
    }
    let session = shared.session().await?;
    let link = shared.link.clone();
    let encoded = message.encode(true, session.limits.payload_bytes)?;
    // What it waited for a connection is gone; the router is to say that the time is over, unless it is already.
    let left_ms = wait_ms.saturating_sub(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)).max(1);
    let request = proto::Request { message: encoded.header, timeout_ms: left_ms, replies_max: replies };
    let open_wait = shared.config.open_timeout.min(wait);
    let frame = Frame::with_payload(request, encoded.payload);
    let stream = Stream::open(&session, frame, open_wait).await.map_err(RequestError::Open)?.not_waited_for();
    let due = begun + wait + SLACK;
    let mut replies = Replies { receipt: Receipt::Routed, inbox: String::new(), stream, link, due, is_over: false };
    let frame = replies.frame().await?;
    let Body::Requested(proto::Requested { result: Some(result), inbox }) = frame.body else {
        return Err(unexpected(&frame));
    };
    replies.inbox = inbox;
    replies.receipt = receipt(result)?;
    Ok(replies)
}

impl Replies {
    /// The next reply, once it is there; none once as many came as were asked for. Nothing after an error. Cancel-safe.
    ///
    /// A reply whose sender says that the request failed has the header `error`.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoReply`] where the time is over before all came; others as for
    /// [`Client::request`](crate::Client::request).
    pub async fn next(&mut self) -> Option<Result<Message, RequestError>> {
        if self.is_over {
            return None;
        }
        let next = match self.frame().await {
            Ok(Frame { body: Body::Reply(reply), payload }) => match Message::decode(reply.message, payload) {
                Ok(message) => return Some(Ok(message)),
                Err(e) => Some(Err(Lost::Protocol(format!("a reply: {e}")).into())),
            },
            Ok(Frame { body: Body::End(_), .. }) => {
                self.stream.writer.finish_once_written();
                None
            }
            Ok(other) => Some(Err(unexpected(&other))),
            Err(e) => Some(Err(e)),
        };
        self.is_over = true;
        next
    }

    async fn frame(&mut self) -> Result<Frame, RequestError> {
        let leaves = |link: &Link| !matches!(link, Link::Up(_));
        let next = tokio::select! {
            biased;
            next = tokio::time::timeout_at(self.due, self.stream.frames.next()) => next,
            // A router that goes away, or a client that closes, is not held up.
            _ = self.link.wait_for(leaves) => Ok(None),
        };
        match next {
            Ok(Some(Ok(Frame { body: Body::Error(error), .. }))) => Err(refused(error.into())),
            Ok(Some(Ok(frame))) => Ok(frame),
            Ok(ended) => Err(match &*self.link.borrow() {
                Link::Up(_) | Link::Down => lost(ended.and_then(Result::err).as_ref()),
                Link::Draining => RequestError::Unanswered("the router goes away".into()),
                Link::Closing => Lost::Closed.into(),
                Link::Gone(lost) => lost.clone().into(),
            }),
            Err(_) => Err(RequestError::Unanswered("the router is silent".into())),
        }
    }
}

/// The payload of a reply, or what it says went wrong.
pub(crate) fn payload(reply: Message) -> Result<Message, RequestError> {
    match reply.headers.first(ERROR_HEADER) {
        Some(why) => Err(RequestError::Failed(why.to_owned())),
        None => Ok(reply),
    }
}

fn receipt(result: proto::Result) -> Result<Receipt, RequestError> {
    use proto::result::Kind;
    let positions = |stored: proto::Stored| stored.positions.into_iter().map(Position::from).collect();
    match result.kind {
        Some(Kind::Stored(stored)) => Ok(Receipt::Stored(positions(stored))),
        Some(Kind::Duplicate(stored)) => Ok(Receipt::Duplicate(positions(stored))),
        Some(Kind::Routed(_)) => Ok(Receipt::Routed),
        Some(Kind::Error(error)) => Err(refused(error.into())),
        None => Err(Lost::Protocol("a result of no kind".into()).into()),
    }
}

fn refused(refusal: Refusal) -> RequestError {
    match refusal.code() {
        Some(Code::NoReply) => RequestError::NoReply(refusal),
        _ => RequestError::Refused(refusal),
    }
}

fn lost(error: Option<&StreamError>) -> RequestError {
    match Broken::ended(error) {
        Broken::Retry(setback) => RequestError::Unanswered(setback.why),
        Broken::Final(Lost::Refused(refusal) | Lost::Fenced(refusal)) => RequestError::Refused(refusal),
        Broken::Final(lost) => lost.into(),
    }
}

impl fmt::Debug for Replies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("receipt", &self.receipt).field("inbox", &self.inbox).finish_non_exhaustive()
    }
}

fn unexpected(frame: &Frame) -> RequestError {
    Lost::Protocol(format!("{} in answer to a request", frame.body.name())).into()
}
