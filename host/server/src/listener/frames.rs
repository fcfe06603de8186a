//! Frames on a QUIC stream.

use bytes::BytesMut;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use quipu_protocol::code::Code;
use quipu_protocol::frame::{self, Frame, FrameError};
use quipu_protocol::limits::FRAME_HEADER_BYTES_MAX;
use quipu_protocol::proto;

/// Bytes asked of the stream at once.
const READ_BYTES: usize = 64 << 10;
/// A buffer larger than this is given back once it is empty, so that one large frame does not stay for ever.
const BUFFER_KEPT_BYTES: usize = 256 << 10;

/// Reads frames. One task owns it: a read that is cancelled is not repeated, but no byte of it is lost either.
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFrameError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ended inside a frame")]
    Cut,
    #[error(transparent)]
    Stream(#[from] ReadError),
}

impl ReadFrameError {
    /// What the peer is told; none where it is not there any more.
    pub(super) fn to_error(&self) -> Option<proto::Error> {
        match self {
            Self::Frame(e) if is_over_limit(e) => Some(Code::TooLarge.error(e.to_string())),
            Self::Frame(e) => Some(Code::Protocol.error(e.to_string())),
            Self::Cut => Some(Code::Protocol.error(self.to_string())),
            Self::Stream(_) => None,
        }
    }
}

/// Whether a frame is sound, but more than is taken.
fn is_over_limit(error: &FrameError) -> bool {
    match error {
        FrameError::TooLarge { .. } | FrameError::TooMany(_) => true,
        FrameError::Header { header, .. } => *header as usize > FRAME_HEADER_BYTES_MAX,
        _ => false,
    }
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame and its length on the wire; none at a clean end.
    pub(super) async fn next(&mut self) -> Result<Option<(Frame, u64)>, ReadFrameError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => {
                    if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEPT_BYTES {
                        self.buffer = BytesMut::new();
                    }
                    self.buffer.extend_from_slice(&chunk.bytes);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(ReadFrameError::Cut),
            }
        }
    }

    /// The next frame, where all of it is there already. Types to be ignored are passed over.
    pub(super) fn buffered(&mut self) -> Result<Option<(Frame, u64)>, ReadFrameError> {
        while let Some(raw) = frame::split(&mut self.buffer)? {
            let length = (9 + raw.header.len() + raw.payload.len()) as u64;
            if let Some(frame) = Frame::decode(raw)? {
                return Ok(Some((frame, length)));
            }
        }
        Ok(None)
    }

    /// Tells the peer that nothing more is read.
    pub(super) fn stop(&mut self, code: Code) {
        // Ignored: a stream that has ended needs no stop.
        self.stream.stop(VarInt::from_u32(code as u32)).ok();
    }
}

/// Writes frames. Dropped before [`FrameWriter::finish`], the stream is reset.
pub(super) struct FrameWriter {
    stream: SendStream,
    buffer: BytesMut,
    finished: bool,
}

impl FrameWriter {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, buffer: BytesMut::new(), finished: false }
    }

    /// Until the client stops reading for good, or the connection is lost.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let stopped = self.stream.stopped();
        // Why does not matter.
        async move { drop(stopped.await) }
    }

    /// Puts a frame behind the others that wait for [`FrameWriter::flush`].
    pub(super) fn put(&mut self, frame: impl Into<Frame>) {
        frame.into().encode(&mut self.buffer);
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Writes what waits; blocks while the peer does not read.
    pub(super) async fn flush(&mut self) -> Result<(), WriteError> {
        let bytes = self.buffer.split().freeze();
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = BytesMut::new();
        }
        self.stream.write_chunk(bytes).await
    }

    /// Puts a frame and writes.
    pub(super) async fn send(&mut self, frame: impl Into<Frame>) -> Result<(), WriteError> {
        self.put(frame);
        self.flush().await
    }

    /// Ends the stream cleanly.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        // Ignored: the peer stopped the stream, and so has its end.
        self.stream.finish().ok();
    }

    /// Says why, and ends the stream. Does not wait long for a peer that does not read.
    pub(super) async fn fail(&mut self, error: proto::Error) {
        let code = error.code;
        self.put(error);
        let written = tokio::time::timeout(super::FIRST_FRAME_TIMEOUT, self.flush()).await;
        if matches!(written, Ok(Ok(()))) {
            self.finish();
        } else {
            self.finished = true;
            // Ignored: then it is closed already.
            self.stream.reset(VarInt::from_u32(code)).ok();
        }
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.finished {
            // A stream that quinn drops would end as if all had been said.
            self.stream.reset(VarInt::from_u32(Code::Internal as u32)).ok();
        }
    }
}
