//! The task of one publisher: it owns the window, and moves from stream to stream as connections come and go.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::proto;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::window::{Window, is_full};
use super::{COMMANDS_MAX, Command, PublisherOptions, ReceiptError, Waiter};
use crate::backoff::{Backoff, seed};
use crate::error::Lost;
use crate::link::{Link, Session, Shared};
use crate::retry::Retry;
use crate::stream::{Broken, OpenError, Setback, Stream, StreamError};

/// Bytes encoded ahead of what the stream takes: one write for many small messages.
const AHEAD_BYTES: usize = 128 << 10;

/// Commands looked at between two writes.
const COMMANDS_AT_ONCE: usize = 128;

/// A publisher's stream, as the router opened it.
pub(super) struct Open {
    stream: Stream,
    opened: proto::Opened,
}

pub(super) async fn open(session: &Session, opening: &proto::OpenPublisher, wait: Duration) -> Result<Open, OpenError> {
    let mut stream = Stream::open(session, opening.clone().into(), wait).await?;
    match stream.answer(wait).await?.body {
        // So far on that counting would end is no sequence.
        Body::Opened(opened) if opened.last_sequence < u64::MAX / 2 && is_epoch_of(&opened, opening) => {
            Ok(Open { stream, opened })
        }
        Body::Opened(opened) => Err(Lost::Protocol(format!("{opened:?} in answer to {opening:?}")).into()),
        other => Err(Lost::Protocol(format!("{} in answer to OpenPublisher", other.name())).into()),
    }
}

fn is_epoch_of(opened: &proto::Opened, opening: &proto::OpenPublisher) -> bool {
    match opening.epoch {
        0 => opening.name.is_empty() == (opened.epoch == 0),
        epoch => epoch == opened.epoch,
    }
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    window: Window<Waiter>,
    /// What opens the next stream.
    opening: proto::OpenPublisher,
    /// Nothing is sent before, because the router has no room.
    pause: Option<Instant>,
    full: Backoff,
    retry_refused: bool,
    /// Who waits until every message before this ordinal is answered.
    flushes: VecDeque<(u64, oneshot::Sender<()>)>,
    closers: Vec<oneshot::Sender<()>>,
    /// No more commands come.
    closing: bool,
    retry: Retry,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        options: &PublisherOptions,
        opening: proto::OpenPublisher,
    ) -> Self {
        Self {
            commands,
            window: Window::new(options.name.is_some(), options.stop_on_error),
            opening,
            pause: None,
            full: Backoff::new(shared.config.reconnect, seed()),
            retry_refused: options.retry_refused && !options.stop_on_error,
            flushes: VecDeque::new(),
            closers: Vec::new(),
            closing: false,
            retry: Retry::new(shared.clone()),
            shared,
        }
    }

    pub(super) async fn run(mut self, open: Open, lost: Arc<OnceLock<Lost>>) {
        let reason = self.streams(open).await;
        self.end(&reason, &lost).await;
    }

    /// Goes from stream to stream until there is nothing left to do, or no way to do it.
    async fn streams(&mut self, mut open: Open) -> Lost {
        loop {
            let session = open.stream.session.clone();
            let broken = match self.stream(open).await {
                Ok(()) => None,
                Err(Broken::Retry(setback)) => Some(setback),
                Err(Broken::Final(lost)) => return lost,
            };
            if broken.is_some() {
                self.take_back();
            }
            if self.closing && self.window.is_empty() {
                return Lost::Closed;
            }
            open = match self.reopen(session, broken).await {
                Ok(open) => open,
                Err(lost) => return lost,
            };
        }
    }

    /// Works on one stream until it is ended as it should be, because all is done or the connection goes away.
    async fn stream(&mut self, open: Open) -> Result<(), Broken> {
        let Open { mut stream, opened } = open;
        self.opening.epoch = opened.epoch;
        self.window.opened(opened).map_err(|e| Broken::Final(Lost::Protocol(e.0)))?;
        let mut link = self.shared.link.clone();
        let leaving = link.wait_for(|link| !matches!(link, Link::Up(_)));
        tokio::pin!(leaving);
        let (mut frames, mut commands) = (Vec::new(), Vec::new());
        let (mut left, mut stopping, mut ended) = (false, false, false);
        loop {
            let may_send = !stopping && self.pause.is_none();
            while may_send && stream.writer.waiting_bytes() < AHEAD_BYTES && self.window.send(stream.writer.buffer()) {}
            let done = if stopping { self.window.sent() == 0 } else { self.closing && self.window.is_empty() };
            if done && !ended {
                ended = true;
                stream.writer.push(proto::End {});
            }
            if ended {
                stream.writer.finish_once_written();
            }
            let waiting = stream.writer.waiting_bytes();
            tokio::select! {
                biased;
                more = stream.frames.next_many(&mut frames) => {
                    if more == 0 {
                        return Err(Broken::ended(None));
                    }
                    for frame in frames.drain(..) {
                        if self.frame(frame, ended)? {
                            return Ok(());
                        }
                    }
                }
                gone = &mut leaving, if !left => {
                    left = true;
                    match gone.as_deref() {
                        // What was handed over before is still sent.
                        Ok(Link::Closing) => self.commands.close(),
                        _ => stopping = true,
                    }
                }
                more = self.commands.recv_many(&mut commands, COMMANDS_AT_ONCE),
                    if !stopping && !self.closing && waiting < AHEAD_BYTES =>
                {
                    self.closing = more == 0;
                    commands.drain(..).for_each(|command| self.command(command));
                }
                written = stream.writer.write_some(), if waiting > 0 => {
                    written.map_err(Broken::from)?;
                }
                () = until(self.pause), if self.pause.is_some() => self.pause = None,
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish { message, waiter } => {
                if let Some((waiter, answer)) = self.window.push(message, waiter) {
                    // Not everyone waits for receipts.
                    waiter.answer.send(answer).ok();
                }
            }
            Command::Resume => self.window.resume(),
            Command::Flush(done) => self.flushes.push_back((self.window.pushed(), done)),
            Command::Close(done) => {
                self.closers.push(done);
                // What was handed over before still comes out of it, and then its end.
                self.commands.close();
            }
        }
        self.answer_flushes();
    }

    /// Whether it was the router's `End`, in answer to ours.
    fn frame(&mut self, frame: Result<Frame, StreamError>, ended: bool) -> Result<bool, Broken> {
        let frame = frame.map_err(|e| Broken::ended(Some(&e)))?;
        match frame.body {
            Body::Receipt(receipt) => {
                self.receipt(receipt)?;
                self.retry.worked();
                self.answer_flushes();
            }
            Body::Credit(total) => self.window.grant(total),
            Body::Error(error) => return Err(Broken::refused(error.into())),
            Body::End(_) if ended && self.window.sent() == 0 => return Ok(true),
            Body::End(_) => return Err(Broken::Retry(String::from("the router ended the publisher").into())),
            _ => return Err(Broken::unexpected(&frame)),
        }
        Ok(false)
    }

    fn receipt(&mut self, receipt: proto::Receipt) -> Result<(), Broken> {
        if !receipt.results.iter().any(is_full) {
            self.full.reset();
        } else if self.retry_refused && self.pause.is_none() {
            let now = Instant::now();
            let asked = receipt.results.iter().map(asked_pause).max().unwrap_or_default();
            let asked = asked.min(self.shared.config.reconnect.give_up_after);
            self.pause = self.full.pause(now).map(|pause| now + pause.max(asked));
        }
        let answers = self.window.receipt(receipt, self.pause.is_some());
        let mut room: Option<OwnedSemaphorePermit> = None;
        for (waiter, answer) in answers.map_err(|e| Broken::Final(Lost::Protocol(e.0)))? {
            // Not everyone waits for receipts.
            waiter.answer.send(answer).ok();
            // Given back all at once.
            match &mut room {
                Some(room) => room.merge(waiter.room),
                None => room = Some(waiter.room),
            }
        }
        Ok(())
    }

    fn answer_flushes(&mut self) {
        let answered = self.window.answered_before();
        while let Some((_, done)) = self.flushes.pop_front_if(|(before, _)| *before <= answered) {
            // Who asked may wait no longer.
            done.send(()).ok();
        }
    }

    /// What was sent on a lost stream waits to be sent again.
    fn take_back(&mut self) {
        for (waiter, answer) in self.window.lost() {
            // Not everyone waits for receipts.
            waiter.answer.send(answer).ok();
        }
        self.answer_flushes();
    }

    /// A stream on the connection there is, or on the next.
    async fn reopen(&mut self, mut session: Session, mut broken: Option<Setback>) -> Result<Open, Lost> {
        loop {
            if let Some(setback) = broken {
                self.retry.failed(&session, &setback).await?;
            }
            session = self.shared.session().await?;
            broken = match open(&session, &self.opening, self.shared.config.open_timeout).await {
                Ok(open) => return Ok(open),
                Err(OpenError::Refused(refusal)) if refusal.retryable => Some((&refusal).into()),
                Err(OpenError::Refused(refusal)) => return Err(Lost::refused(refusal)),
                Err(OpenError::Lost(lost)) => return Err(lost),
                Err(e) => Some(e.to_string().into()),
            };
        }
    }

    /// Tells everyone who waits.
    async fn end(mut self, reason: &Lost, lost: &OnceLock<Lost>) {
        // Said first, so that whoever finds the channel closed finds the reason too.
        lost.set(reason.clone()).ok();
        self.commands.close();
        let finished = self.window.is_empty() && self.closing;
        for waiter in self.window.into_waiters() {
            waiter.answer.send(Err(ReceiptError::Lost(reason.clone()))).ok();
        }
        if finished {
            for done in self.closers.drain(..) {
                done.send(()).ok();
            }
        }
        let mut commands = Vec::new();
        while self.commands.recv_many(&mut commands, COMMANDS_MAX).await > 0 {
            for command in commands.drain(..) {
                if let Command::Publish { waiter, .. } = command {
                    waiter.answer.send(Err(ReceiptError::Lost(reason.clone()))).ok();
                }
            }
        }
    }
}

/// How long the router asks to wait before this message is sent again.
fn asked_pause(result: &proto::Result) -> Duration {
    match &result.kind {
        Some(proto::result::Kind::Error(error)) => Duration::from_millis(error.after_ms),
        _ => Duration::ZERO,
    }
}

async fn until(pause: Option<Instant>) {
    match pause {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
