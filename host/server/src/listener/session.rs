//! A session: one connection, its control stream, and the streams that the client opens.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream, VarInt};
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::{VERSION, limits, proto};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::frames::{FrameReader, FrameWriter, ReadFrameError};
use super::{BIDIRECTIONAL_STREAMS_MAX, FIRST_FRAME_TIMEOUT, admin, publisher, request, subscription};
use crate::access::Client;
use crate::services::Services;

/// Frames of the control stream that wait to be handled.
const CONTROL_FRAMES_MAX: usize = 16;
/// Longest client name.
const CLIENT_BYTES_MAX: usize = 128;

/// Runs a session, whose `Hello` is due at a time, until its client leaves, or until `stop` and the grace are over.
pub(super) async fn run(
    connection: Connection,
    hello_due: Instant,
    services: Arc<Services>,
    stop: CancellationToken,
    grace: Duration,
) {
    let peer = connection.remote_address();
    let (control, client, name) =
        match open(&connection, &services, hello_due).instrument(tracing::info_span!("hello", %peer)).await {
            Ok(opened) => opened,
            Err(error) => return close(&connection, &error).await,
        };
    let session = uuid::Uuid::now_v7().to_string();
    let span = tracing::info_span!("session", %peer, client = name, user = client.user());
    let opened = Opened { connection, control, client: Arc::new(client), session };
    serve(opened, services, stop, grace).instrument(span).await;
}

/// The control stream of a session.
struct Control {
    reader: FrameReader,
    writer: FrameWriter,
}

/// A session whose client was let in.
struct Opened {
    connection: Connection,
    control: Control,
    client: Arc<Client>,
    session: String,
}

/// The control stream, who came, and what it calls itself.
async fn open(
    connection: &Connection,
    services: &Services,
    due: Instant,
) -> Result<(Control, Client, String), proto::Error> {
    let lost = |e: String| Code::Protocol.error(e);
    let late = || Code::Timeout.error("no Hello within 5 s");
    let accepted = tokio::time::timeout_at(due, connection.accept_bi()).await.map_err(|_| late())?;
    let (send, recv) = accepted.map_err(|e| lost(e.to_string()))?;
    let mut control =
        Control { reader: FrameReader::new(recv, services.ingest.clone()), writer: FrameWriter::new(send) };
    let refused = match tokio::time::timeout_at(due, control.reader.next()).await {
        Ok(Ok(Some(Frame { body: Body::Hello(hello), .. }))) => {
            match check(&hello).and_then(|()| services.access.welcome(&hello, connection)) {
                Ok(client) => return Ok((control, client, hello.client)),
                Err(error) => error,
            }
        }
        Ok(Ok(Some(frame))) => {
            Code::Protocol.error(format!("the first frame of a connection is Hello, not {}", frame.body.name()))
        }
        Ok(Ok(None)) => Code::Protocol.error("the control stream ended before Hello"),
        Ok(Err(e)) => e.to_error().unwrap_or_else(|| lost(e.to_string())),
        Err(_) => late(),
    };
    control.writer.fail(refused.clone()).await;
    Err(refused)
}

fn check(hello: &proto::Hello) -> Result<(), proto::Error> {
    if !hello.versions.contains(&VERSION) {
        return Err(Code::Version.error(format!("this router speaks version {VERSION}, not {:?}", hello.versions)));
    }
    if hello.client.is_empty() || hello.client.len() > CLIENT_BYTES_MAX || hello.client.chars().any(char::is_control) {
        let text = format!("Hello.client: 1 to {CLIENT_BYTES_MAX} bytes without control characters are expected");
        return Err(Code::Protocol.error(text));
    }
    Ok(())
}

async fn serve(opened: Opened, services: Arc<Services>, stop: CancellationToken, grace: Duration) {
    let Opened { connection, control: Control { reader, mut writer }, client, session } = opened;
    let limits = proto::Limits {
        payload_bytes: services.limits.message_bytes as u64,
        headers: limits::HEADERS_MAX.try_into().unwrap_or(u32::MAX),
        bidirectional_streams: BIDIRECTIONAL_STREAMS_MAX,
        settle_tokens: limits::SETTLE_TOKENS_MAX.try_into().unwrap_or(u32::MAX),
    };
    let router = format!("quipu/{}", env!("CARGO_PKG_VERSION"));
    let welcome = proto::Welcome { version: VERSION, session, limits: Some(limits), router };
    if writer.send(welcome).await.is_err() {
        return;
    }
    tracing::debug!("a session begins");
    let streams = TaskTracker::new();
    let (frames_sender, mut frames) = mpsc::channel(CONTROL_FRAMES_MAX);
    streams.spawn(read_control(reader, frames_sender));
    let mut stopping = false;
    let refused = loop {
        tokio::select! {
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                if writer.send(proto::Goaway { reason: "the router stops".into(), grace_ms }).await.is_err() {
                    break None;
                }
            }
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let task = stream_task(send, recv, services.clone(), client.clone());
                    drop(streams.spawn(task.in_current_span()));
                }
                Err(_) => break None,
            },
            error = client.lost() => break Some(error),
            frame = frames.recv() => match handle(frame, &mut writer).await {
                Next::Go => {}
                Next::Leave => break goodbye(&connection, &mut writer).await,
                Next::Refuse(error) => break Some(error),
            },
        }
    };
    if let Some(error) = refused {
        tracing::info!(error.text, "a session is refused");
        writer.fail(error.clone()).await;
        close(&connection, &error).await;
    }
    drop(frames);
    connection.close(VarInt::from_u32(Code::Goodbye as u32), b"");
    streams.close();
    streams.wait().await;
    tracing::debug!("a session ends");
}

enum Next {
    Go,
    Leave,
    Refuse(proto::Error),
}

async fn handle(frame: Option<Result<Frame, ReadFrameError>>, writer: &mut FrameWriter) -> Next {
    let lost = || Next::Refuse(Code::Protocol.error("the control stream ended without Goodbye"));
    match frame {
        Some(Ok(Frame { body: Body::Ping(ping), .. })) if !ping.answer => {
            match writer.send(proto::Ping { answer: true, ..ping }).await {
                Ok(()) => Next::Go,
                Err(_) => lost(),
            }
        }
        Some(Ok(Frame { body: Body::Ping(_), .. })) => Next::Go,
        Some(Ok(Frame { body: Body::Goodbye(_), .. })) => Next::Leave,
        Some(Ok(frame)) => {
            Next::Refuse(Code::Protocol.error(format!("{} does not belong on the control stream", frame.body.name())))
        }
        Some(Err(e)) => e.to_error().map_or_else(lost, Next::Refuse),
        None => lost(),
    }
}

/// Answers a `Goodbye` and waits until the client closes, since closing first would discard the answer.
async fn goodbye(connection: &Connection, writer: &mut FrameWriter) -> Option<proto::Error> {
    if writer.send(proto::Goodbye {}).await.is_ok() {
        writer.finish();
        tokio::time::timeout(FIRST_FRAME_TIMEOUT, connection.closed()).await.ok();
    }
    None
}

async fn read_control(mut reader: FrameReader, frames: mpsc::Sender<Result<Frame, ReadFrameError>>) {
    loop {
        let next = match reader.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(e) => Err(e),
        };
        let failed = next.is_err();
        if frames.send(next).await.is_err() || failed {
            return;
        }
    }
}

/// Finds out by its first frame what a stream is for.
async fn stream_task(send: SendStream, recv: RecvStream, services: Arc<Services>, client: Arc<Client>) {
    let (mut reader, mut writer) = (FrameReader::new(recv, services.ingest.clone()), FrameWriter::new(send));
    let refused = match tokio::time::timeout(FIRST_FRAME_TIMEOUT, reader.next()).await {
        Ok(Ok(Some(frame))) => match frame.body {
            Body::OpenPublisher(open) => return publisher::run(open, reader, writer, services, client).await,
            Body::Subscribe(subscribe) => return subscription::run(subscribe, reader, writer, services, client).await,
            Body::Request(request) => {
                return request::run(request, frame.payload, (reader, writer), services, client).await;
            }
            Body::AdminCall(call) => return admin::run(call, &frame.payload, writer, services, &client).await,
            other => Code::Protocol.error(format!("no stream begins with {}", other.name())),
        },
        Ok(Ok(None)) => Code::Protocol.error("the stream ended before its first frame"),
        Ok(Err(e)) => match e.to_error() {
            Some(error) => error,
            None => return,
        },
        Err(_) => Code::Timeout.error("no frame within 5 s"),
    };
    reader.stop(Code::from_number(refused.code).unwrap_or(Code::Protocol));
    writer.fail(refused).await;
}

/// Closes a connection with an error's code, after the error frame had a moment to arrive.
async fn close(connection: &Connection, error: &proto::Error) {
    tokio::time::timeout(Duration::from_millis(200), connection.closed()).await.ok();
    connection.close(VarInt::from_u32(error.code), error.text.as_bytes());
}
