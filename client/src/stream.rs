//! Streams of frames: one task reads each, its owner writes in pieces that can be given up at any moment.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use quipu_protocol::code::Code;
use quipu_protocol::frame::{Body, Frame, FrameError, split};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::error::{Lost, Refusal};
use crate::link::Session;

/// Frames that a reader may be ahead of the stream's owner; beyond, QUIC's flow control stops the router.
const FRAMES_AHEAD_MAX: usize = 64;

/// Bytes of a block of small frames: below what makes an allocator tidy up whenever one is freed.
const BLOCK_BYTES: usize = 32 << 10;

/// Pieces that are taken of a stream at once: what so many packets brought.
const PIECES: usize = 16;

/// Why a publisher, a subscription or a call found no stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Every stream of the connection is in use.
    #[error("no free stream within {} ms: this connection's limit is {limit} publishers, subscribers and calls at a time; close some, or connect once more", .after.as_millis())]
    StreamLimit {
        /// Bidirectional streams that the router allows, the control stream included.
        limit: u32,
        /// How long it waited, by [`ClientConfig::open_timeout`](crate::ClientConfig::open_timeout).
        after: Duration,
    },
    /// A stream, but no answer on it.
    #[error("the router did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The router refuses it.
    #[error(transparent)]
    Refused(Refusal),
    /// The stream or its connection went away; trying again is reasonable.
    #[error("the connection was lost: {0}")]
    Disconnected(String),
    /// The client works no more.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ends inside a frame")]
    Cut,
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl StreamError {
    /// What the router says by the number of a reset or a close.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Read(ReadError::Reset(code)) => {
                Some(Refusal::from_close(code.into_inner(), "the router reset the stream".into()))
            }
            Self::Read(ReadError::ConnectionLost(quinn::ConnectionError::ApplicationClosed(close))) => {
                let text = String::from_utf8_lossy(&close.reason).into_owned();
                Some(Refusal::from_close(close.error_code.into_inner(), text))
            }
            _ => None,
        }
    }
}

/// How a stream ended, other than as it should.
#[derive(Debug)]
pub(crate) enum Broken {
    /// A new stream may do better.
    Retry(Setback),
    /// It would not.
    Final(Lost),
}

/// A failure that may pass.
#[derive(Debug)]
pub(crate) struct Setback {
    pub(crate) why: String,
    /// Not to be tried again before.
    pub(crate) after: Duration,
}

impl From<String> for Setback {
    fn from(why: String) -> Self {
        Self { why, after: Duration::ZERO }
    }
}

impl From<&Refusal> for Setback {
    fn from(refusal: &Refusal) -> Self {
        Self { why: refusal.to_string(), after: refusal.after }
    }
}

impl From<WriteError> for Broken {
    fn from(error: WriteError) -> Self {
        Self::Retry(error.to_string().into())
    }
}

impl Broken {
    /// Because of an error frame.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        if refusal.retryable { Self::Retry((&refusal).into()) } else { Self::Final(Lost::refused(refusal)) }
    }

    /// Because of a frame that does not belong there.
    pub(crate) fn unexpected(frame: &Frame) -> Self {
        Self::Final(Lost::Protocol(format!("{} where it does not belong", frame.body.name())))
    }

    /// The reader has nothing more: an error, or the end without `End`.
    pub(crate) fn ended(error: Option<&StreamError>) -> Self {
        match error {
            Some(StreamError::Frame(e)) => Self::Final(Lost::Protocol(e.to_string())),
            Some(e) => e.refusal().map_or_else(|| Self::Retry(e.to_string().into()), Self::refused),
            None => Self::Retry(String::from("the router ended the stream").into()),
        }
    }
}

/// The sending half. Resets the stream when dropped, unless it was finished: QUIC itself would finish it as it is, in
/// the middle of a frame.
pub(crate) struct FrameWriter {
    send: SendStream,
    /// Whole blocks, which go to the stream as they are; then the one that is being filled.
    blocks: VecDeque<Bytes>,
    blocks_bytes: usize,
    filling: BytesMut,
    finished: bool,
}

impl FrameWriter {
    pub(crate) fn new(send: SendStream) -> Self {
        Self { send, blocks: VecDeque::new(), blocks_bytes: 0, filling: BytesMut::new(), finished: false }
    }

    /// Puts a frame behind those that wait to be written.
    pub(crate) fn push(&mut self, frame: impl Into<Frame>) {
        frame.into().encode(&mut self.filling);
    }

    /// For one of many frames that are encoded in place. Blocks are of one size, so that nothing is copied to grow them.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        if self.filling.len() >= BLOCK_BYTES / 2 {
            self.close_block();
        }
        if self.filling.capacity() == 0 {
            self.filling.reserve(BLOCK_BYTES);
        }
        &mut self.filling
    }

    fn close_block(&mut self) {
        self.blocks_bytes += self.filling.len();
        self.blocks.push_back(self.filling.split().freeze());
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.blocks_bytes + self.filling.len()
    }

    /// Writes as much as the stream takes now, once it takes anything. Cancel-safe.
    pub(crate) async fn write_some(&mut self) -> Result<(), WriteError> {
        if self.blocks.is_empty() {
            self.close_block();
        }
        let written = self.send.write_chunks(self.blocks.make_contiguous()).await?;
        self.blocks.drain(..written.chunks);
        self.blocks_bytes -= written.bytes;
        Ok(())
    }

    /// Writes all that waits. Where it is cancelled, the rest still waits.
    pub(crate) async fn write_all(&mut self) -> Result<(), WriteError> {
        while self.waiting_bytes() > 0 {
            self.write_some().await?;
        }
        Ok(())
    }

    /// Ends the stream, once everything is written; to be called until then.
    pub(crate) fn finish_once_written(&mut self) {
        if !self.finished && self.waiting_bytes() == 0 {
            // It fails where the router has stopped the stream already, which comes to the same.
            self.send.finish().ok();
            self.finished = true;
        }
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.finished {
            // It fails where the stream is gone already.
            self.send.reset(VarInt::from_u32(Code::Goodbye as u32)).ok();
        }
    }
}

/// The receiving half: what the stream's reader task has read. It ends with the stream, or with one error.
pub(crate) struct Frames {
    read: mpsc::Receiver<Result<Frame, StreamError>>,
    _task: AbortOnDropHandle<()>,
}

impl Frames {
    pub(crate) fn new(receive: RecvStream) -> Self {
        let (frames, read) = mpsc::channel(FRAMES_AHEAD_MAX);
        Self { read, _task: AbortOnDropHandle::new(tokio::spawn(read_frames(receive, frames))) }
    }

    /// The next frame. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Result<Frame, StreamError>> {
        self.read.recv().await
    }

    /// All frames that are there, at least one; nothing where the stream has ended. Cancel-safe.
    pub(crate) async fn next_many(&mut self, into: &mut Vec<Result<Frame, StreamError>>) -> usize {
        self.read.recv_many(into, FRAMES_AHEAD_MAX).await
    }
}

async fn read_frames(mut receive: RecvStream, frames: mpsc::Sender<Result<Frame, StreamError>>) {
    let mut buffer = BytesMut::new();
    loop {
        let next = read_frame(&mut receive, &mut buffer).await.transpose();
        let Some(next) = next else { return };
        let last = next.is_err();
        if frames.send(next).await.is_err() || last {
            return;
        }
    }
}

async fn read_frame(receive: &mut RecvStream, buffer: &mut BytesMut) -> Result<Option<Frame>, StreamError> {
    loop {
        while let Some(raw) = split(buffer)? {
            if let Some(frame) = Frame::decode(raw)? {
                return Ok(Some(frame));
            }
        }
        // All that is there: each piece is what one packet brought.
        let mut pieces = [const { Bytes::new() }; PIECES];
        match receive.read_chunks(&mut pieces).await? {
            Some(taken) => pieces[..taken].iter().for_each(|piece| buffer.extend_from_slice(piece)),
            None if buffer.is_empty() => return Ok(None),
            None => return Err(StreamError::Cut),
        }
    }
}

/// A stream in use. The session waits for it before it says goodbye, unless it was [left out](Stream::not_waited_for).
pub(crate) struct Stream {
    pub(crate) writer: FrameWriter,
    pub(crate) frames: Frames,
    pub(crate) session: Session,
    _in_use: Option<TaskTrackerToken>,
}

impl Stream {
    /// Opens one and sends its first frame, without which the router does not see it.
    pub(crate) async fn open(session: &Session, first: Frame, wait: Duration) -> Result<Self, OpenError> {
        let in_use = session.streams.token();
        let limit = session.limits.bidirectional_streams;
        let (send, receive) = tokio::time::timeout(wait, session.connection.open_bi())
            .await
            .map_err(|_| OpenError::StreamLimit { limit, after: wait })?
            .map_err(|e| OpenError::Disconnected(e.to_string()))?;
        let mut writer = FrameWriter::new(send);
        writer.push(first);
        let written = tokio::time::timeout(wait, writer.write_all()).await;
        written.map_err(|_| OpenError::TimedOut(wait))?.map_err(|e| OpenError::Disconnected(e.to_string()))?;
        Ok(Self { writer, frames: Frames::new(receive), session: session.clone(), _in_use: Some(in_use) })
    }

    /// A session that ends does not wait for it: whoever has it may not look at it for a long time.
    pub(crate) fn not_waited_for(self) -> Self {
        Self { _in_use: None, ..self }
    }

    /// The router's first frame, with error frames told apart.
    pub(crate) async fn answer(&mut self, wait: Duration) -> Result<Frame, OpenError> {
        let next = tokio::time::timeout(wait, self.frames.next()).await.map_err(|_| OpenError::TimedOut(wait))?;
        match next {
            Some(Ok(Frame { body: Body::Error(error), .. })) => Err(OpenError::Refused(error.into())),
            Some(Ok(frame)) => Ok(frame),
            ended => Err(match Broken::ended(ended.and_then(Result::err).as_ref()) {
                Broken::Retry(setback) => OpenError::Disconnected(setback.why),
                Broken::Final(Lost::Refused(refusal) | Lost::Fenced(refusal)) => OpenError::Refused(refusal),
                Broken::Final(lost) => OpenError::Lost(lost),
            }),
        }
    }
}
