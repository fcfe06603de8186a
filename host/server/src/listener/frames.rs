//! Frames on a QUIC stream.

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use quipu_protocol::code::Code;
use quipu_protocol::frame::{self, Frame, FrameError};
use quipu_protocol::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};
use quipu_protocol::proto;

use super::ingest::{Ingest, Room};

/// Pieces that are taken of a stream at once: what so many packets brought.
const PIECES: usize = 4;
/// Bytes that they have at the most.
pub(crate) const READ_BYTES: usize = PIECES * super::UDP_PAYLOAD_BYTES_MAX as usize;
/// Frames up to this size need no room, unless they publish: they are what keeps a client going.
const SMALL_BYTES: u64 = 16 << 10;
/// The type of `Publish`.
const PUBLISH: u8 = 18;
/// Length, type and length of the header.
const PREFIX_BYTES: usize = 9;
/// Of the header, what the sequence takes where it stands first.
const SEQUENCE_BYTES_MAX: usize = 11;

/// Reads frames. One task owns it: a read that is cancelled is not repeated, but no byte of it is lost either.
///
/// A frame is kept only while the budget of all publishers has room for it.
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    ingest: Arc<Ingest>,
    /// For the frame at the buffer's beginning.
    room: Option<Room>,
    refusing: Option<Refusing>,
}

/// What came.
pub(super) enum Incoming {
    /// A frame, its length on the wire, and the room that it takes.
    Frame(Frame, u64, Room),
    /// A `Publish` that there was no room for: it is gone, but for its length on the wire and its sequence, where that
    /// stood first.
    Refused(Option<u64>, u64),
}

/// A `Publish` that is being thrown away.
struct Refusing {
    sequence: Option<u64>,
    length: u64,
    left: usize,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFrameError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream ended inside a frame")]
    Cut,
    #[error("no room for a frame of {0} bytes: publishers send more than the router can take in")]
    NoRoom(u64),
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
            Self::NoRoom(_) => Some(Code::Overloaded.error(self.to_string())),
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
    pub(super) fn new(stream: RecvStream, ingest: Arc<Ingest>) -> Self {
        Self { stream, buffer: BytesMut::new(), ingest, room: None, refusing: None }
    }

    /// The next frame; none at a clean end.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ReadFrameError> {
        match self.incoming().await? {
            Some(Incoming::Frame(frame, ..)) => Ok(Some(frame)),
            Some(Incoming::Refused(_, length)) => Err(ReadFrameError::NoRoom(length)),
            None => Ok(None),
        }
    }

    /// As [`FrameReader::next`], for who answers a `Publish` that there was no room for.
    pub(super) async fn incoming(&mut self) -> Result<Option<Incoming>, ReadFrameError> {
        loop {
            if let Some(incoming) = self.buffered()? {
                return Ok(Some(incoming));
            }
            // All that is there, so that what came together goes on together.
            let mut pieces = [const { Bytes::new() }; PIECES];
            match self.stream.read_chunks(&mut pieces).await? {
                Some(taken) => pieces[..taken].iter().for_each(|piece| self.buffer.extend_from_slice(piece)),
                None if self.buffer.is_empty() && self.refusing.is_none() => return Ok(None),
                None => return Err(ReadFrameError::Cut),
            }
        }
    }

    /// The next frame, where all of it is there already. Types to be ignored are passed over.
    pub(super) fn buffered(&mut self) -> Result<Option<Incoming>, ReadFrameError> {
        loop {
            if let Some(refused) = self.throw_away() {
                return Ok(Some(refused));
            }
            if self.refusing.is_some() {
                return Ok(None);
            }
            self.admit()?;
            if self.refusing.is_some() {
                continue;
            }
            // Without room there are too few bytes to tell, or an error that this finds.
            let Some(raw) = frame::split(&mut self.buffer)? else { return Ok(None) };
            let length = (PREFIX_BYTES + raw.header.len() + raw.payload.len()) as u64;
            if length > READ_BYTES as u64 {
                // What is left has a large buffer under it, which would stay for as long as the stream.
                self.buffer = BytesMut::from(&self.buffer[..]);
            }
            let room = self.room.take().expect("a whole frame was admitted");
            if let Some(frame) = Frame::decode(raw)? {
                return Ok(Some(Incoming::Frame(frame, length, room)));
            }
        }
    }

    /// Takes room for the frame that begins the buffer, or decides to throw it away.
    fn admit(&mut self) -> Result<(), ReadFrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>().filter(|_| self.room.is_none()) else {
            return Ok(());
        };
        let [a, b, c, d, kind, ..] = *prefix;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > FRAME_BYTES_MAX {
            return Ok(());
        }
        let (whole, publishes) = (4 + length, kind == PUBLISH);
        let bytes = if publishes || whole as u64 > SMALL_BYTES { whole as u64 } else { 0 };
        match self.ingest.reserve(bytes) {
            Some(room) => {
                self.room = Some(room);
                if whole > self.buffer.len() + READ_BYTES {
                    // No larger than needed: growing by itself it would double.
                    self.buffer.reserve(whole + READ_BYTES - self.buffer.len());
                }
            }
            None if !publishes => return Err(ReadFrameError::NoRoom(bytes)),
            None if self.buffer.len() >= whole.min(PREFIX_BYTES + SEQUENCE_BYTES_MAX) => {
                let sequence = sequence_of(&self.buffer[PREFIX_BYTES..]);
                self.refusing = Some(Refusing { sequence, length: bytes, left: whole });
            }
            // The next bytes tell its sequence.
            None => {}
        }
        Ok(())
    }

    /// Throws away what is there of a refused frame; the refusal once all of it is gone.
    fn throw_away(&mut self) -> Option<Incoming> {
        let refusing = self.refusing.as_mut()?;
        let here = refusing.left.min(self.buffer.len());
        self.buffer.advance(here);
        refusing.left -= here;
        let Refusing { sequence, length, .. } = self.refusing.take_if(|refusing| refusing.left == 0)?;
        Some(Incoming::Refused(sequence, length))
    }

    /// Tells the peer that nothing more is read.
    pub(super) fn stop(&mut self, code: Code) {
        // Ignored: a stream that has ended needs no stop.
        self.stream.stop(VarInt::from_u32(code as u32)).ok();
    }
}

/// `Publish.sequence`, where the header begins with it.
fn sequence_of(header: &[u8]) -> Option<u64> {
    let (&tag, mut rest) = header.split_first()?;
    (tag == 0x08).then(|| prost::encoding::decode_varint(&mut rest).ok()).flatten()
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
        // The connection keeps it until the peer has it, so it could not be written to again soon.
        let bytes = std::mem::take(&mut self.buffer).freeze();
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
