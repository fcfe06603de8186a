//! The task of one subscriber: it owns the accounts, and moves from stream to stream as connections come and go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use quipu_protocol::frame::{Body, Frame};
use quipu_protocol::{Message, proto};
use tokio::sync::{mpsc, oneshot};

use super::inbox::Inbox;
use super::ledger::Ledger;
use super::{Answer, Command, Delivery, Mode, SettleError, Settled, Start, Subscribe, SubscribeError, Why};
use crate::error::Lost;
use crate::link::{Link, Session, Shared};
use crate::retry::Retry;
use crate::stream::{Broken, OpenError, Setback, Stream, StreamError};

/// Commands looked at between two writes.
const COMMANDS_AT_ONCE: usize = 256;

/// Settlements without an answer, beyond which no more are taken in.
const UNANSWERED_MAX: usize = 16_384;

/// Bytes encoded ahead of what the stream takes.
const AHEAD_BYTES: usize = 128 << 10;

/// A subscription's stream, as the router opened it.
pub(super) struct Open {
    stream: Stream,
    subscribed: proto::Subscribed,
}

impl Open {
    pub(super) fn ack_deadline(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.subscribed.ack_deadline_ms)).filter(|deadline| !deadline.is_zero())
    }
}

pub(super) async fn open(session: &Session, subscribe: &Subscribe, wait: Duration) -> Result<Open, SubscribeError> {
    let told_apart = |e| match e {
        OpenError::Refused(refusal) => SubscribeError::Refused(refusal),
        OpenError::Lost(lost) => SubscribeError::Lost(lost),
        e => SubscribeError::Open(e),
    };
    let mut stream = Stream::open(session, frame(subscribe).into(), wait).await.map_err(told_apart)?;
    match stream.answer(wait).await.map_err(told_apart)?.body {
        Body::Subscribed(subscribed) if has_mode(&subscribed, subscribe.mode) => Ok(Open { stream, subscribed }),
        Body::Subscribed(other) => {
            Err(Lost::Protocol(format!("{:?} in the place of {subscribe:?}", other.mode())).into())
        }
        other => Err(Lost::Protocol(format!("{} in answer to Subscribe", other.name())).into()),
    }
}

fn frame(subscribe: &Subscribe) -> proto::Subscribe {
    let (start, start_offset, start_ms) = match subscribe.start {
        Start::First => (proto::Start::First, 0, 0),
        Start::New => (proto::Start::New, 0, 0),
        Start::Offset(offset) => (proto::Start::Offset, offset, 0),
        Start::Time(ms) => (proto::Start::Time, 0, ms),
    };
    proto::Subscribe {
        queue: subscribe.queue.clone(),
        subscription: subscribe.subscription.clone(),
        mode: proto::Mode::from(subscribe.mode).into(),
        start: start.into(),
        start_offset,
        start_ms,
    }
}

/// A router that knows but one mode does not say which.
fn has_mode(subscribed: &proto::Subscribed, mode: Mode) -> bool {
    match subscribed.mode() {
        proto::Mode::Unspecified => mode == Mode::Shared,
        said => said == mode.into(),
    }
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    subscribe: Subscribe,
    inbox: Arc<Inbox>,
    /// For deliveries, so that they can be settled; weak, because they are not to keep this task.
    sender: mpsc::WeakSender<Command>,
    commands: mpsc::Receiver<Command>,
    /// Counts the streams.
    number: u64,
    ledger: Ledger<Option<Answer>>,
    /// Who waits until every settlement before this ordinal is answered.
    flushes: VecDeque<(u64, oneshot::Sender<()>)>,
    /// What the router last said of the subscription.
    notice: String,
    retry: Retry,
}

/// What goes on with the stream at hand.
#[derive(Default)]
struct Phase {
    /// The connection goes away, or the subscriber closes: no more deliveries are wanted.
    stopping: bool,
    /// No more commands can come.
    drained: bool,
    /// `End` is sent.
    ended: bool,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        subscribe: Subscribe,
        inbox: Arc<Inbox>,
        sender: mpsc::WeakSender<Command>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let retry = Retry::new(shared.clone());
        let (ledger, flushes) = (Ledger::new(1, 0), VecDeque::new());
        Self { shared, subscribe, inbox, sender, commands, number: 0, ledger, flushes, notice: String::new(), retry }
    }

    pub(super) async fn run(mut self, open: Open, done: oneshot::Sender<Result<(), SubscribeError>>) {
        let end = self.streams(open).await;
        self.commands.close();
        self.give_up();
        while let Some(command) = self.commands.recv().await {
            if let Command::Settle { answer: Some(answer), .. } = command {
                // Who settled may wait no longer.
                answer.send(Err(SettleError::Closed)).ok();
            }
        }
        let result = end.clone().map_or(Ok(()), Err);
        self.inbox.end(end);
        // Only `close` waits for this.
        done.send(result).ok();
    }

    /// Goes from stream to stream until the subscriber closes, or there is no other.
    async fn streams(&mut self, mut open: Open) -> Option<SubscribeError> {
        loop {
            let session = open.stream.session.clone();
            let broken = match self.stream(open).await {
                Ok(()) => None,
                Err(End::Broken(Broken::Retry(why))) => Some(why),
                Err(End::Broken(Broken::Final(Lost::Refused(refusal)))) => {
                    return Some(SubscribeError::Refused(refusal));
                }
                Err(End::Broken(Broken::Final(lost))) => return Some(lost.into()),
                Err(End::Over) => return Some(SubscribeError::Ended(std::mem::take(&mut self.notice))),
            };
            self.give_up();
            self.inbox.restart();
            if self.inbox.is_closed() {
                return None;
            }
            open = match self.reopen(session, broken).await {
                Ok(open) => open?,
                Err(error) => return Some(error),
            };
        }
    }

    /// Works on one stream until it is ended as it should be, because the subscriber closes or the connection goes.
    async fn stream(&mut self, open: Open) -> Result<(), End> {
        self.inbox.subscribed(open.ack_deadline());
        let Open { mut stream, subscribed } = open;
        self.number += 1;
        self.ledger = Ledger::new(self.subscribe.prefetch, subscribed.credit_max);
        let mut link = self.shared.link.clone();
        let leaving = link.wait_for(|link| !matches!(link, Link::Up(_)));
        tokio::pin!(leaving);
        let (mut frames, mut commands, mut phase) = (Vec::new(), Vec::new(), Phase::default());
        loop {
            phase.stopping |= self.inbox.is_closed();
            self.fill(&mut stream, &mut phase);
            let waiting = stream.writer.waiting_bytes();
            let room = self.ledger.unanswered() < UNANSWERED_MAX && waiting < AHEAD_BYTES;
            tokio::select! {
                biased;
                more = stream.frames.next_many(&mut frames) => {
                    if more == 0 {
                        return Err(End::Broken(Broken::ended(None)));
                    }
                    for frame in frames.drain(..) {
                        if self.frame(frame, &phase)? {
                            return Ok(());
                        }
                    }
                }
                more = self.commands.recv_many(&mut commands, COMMANDS_AT_ONCE), if room && !phase.drained && !phase.ended => {
                    phase.drained |= more == 0;
                    commands.drain(..).for_each(|command| self.command(command, &mut stream));
                }
                _ = &mut leaving, if !phase.stopping => phase.stopping = true,
                () = self.inbox.changed(), if !phase.stopping => {}
                written = stream.writer.write_some(), if waiting > 0 => {
                    written.map_err(Broken::from)?;
                }
            }
        }
    }

    /// Puts what there is to say into the stream's buffer.
    fn fill(&mut self, stream: &mut Stream, phase: &mut Phase) {
        if !phase.stopping
            && let Some(credit) = self.ledger.grant(self.inbox.taken(self.ledger.step()))
        {
            stream.writer.push(credit);
        }
        let tokens_max = stream.session.limits.settle_tokens;
        while stream.writer.waiting_bytes() < AHEAD_BYTES
            && let Some(settle) = self.ledger.send(tokens_max)
        {
            stream.writer.push(settle);
        }
        if phase.stopping && !phase.ended && self.ledger.is_quiet() && self.commands.is_empty() {
            phase.ended = true;
            stream.writer.push(proto::End {});
        }
        if phase.ended {
            stream.writer.finish_once_written();
        }
    }

    fn command(&mut self, command: Command, stream: &mut Stream) {
        match command {
            Command::Seek(offset) => stream.writer.push(proto::Seek { offset }),
            Command::Settle { stream: number, token, verdict, answer } if number == self.number => {
                self.ledger.settle(token, verdict, answer);
            }
            Command::Settle { answer, .. } => tell(answer, Ok(Settled::Stale)),
            Command::Flush(done) => self.flushes.push_back((self.ledger.taken_in(), done)),
        }
        self.answer_flushes();
    }

    /// Whether it was the router's `End`, in answer to ours.
    fn frame(&mut self, frame: Result<Frame, StreamError>, phase: &Phase) -> Result<bool, End> {
        let frame = frame.map_err(|e| Broken::ended(Some(&e)))?;
        match frame.body {
            Body::Deliver(deliver) => {
                self.retry.worked();
                self.deliver(deliver, frame.payload, phase)?;
            }
            Body::Settled(settled) => {
                let answers = self.ledger.settled(settled);
                answers.into_iter().for_each(|(answer, settled)| tell(answer, settled));
                self.answer_flushes();
            }
            Body::Notice(notice) => {
                tracing::info!(queue = self.subscribe.queue, kind = ?notice.kind(), text = notice.text, "notice");
                self.notice = notice.text;
            }
            Body::Error(error) => return Err(Broken::refused(error.into()).into()),
            Body::End(_) if phase.ended => return Ok(true),
            Body::End(_) => return Err(End::Over),
            _ => return Err(Broken::unexpected(&frame).into()),
        }
        Ok(false)
    }

    fn deliver(&mut self, deliver: proto::Deliver, payload: bytes::Bytes, phase: &Phase) -> Result<(), Broken> {
        let broken = |why: String| Broken::Final(Lost::Protocol(why));
        if !self.ledger.deliver() {
            return Err(broken("more deliveries than credit".into()));
        }
        let why = proto::Why::try_from(deliver.why).map_or(Why::Other, Why::from);
        let proto::Deliver { token, offset, attempt, message, crashes, .. } = deliver;
        let message = Message::decode(message, payload).map_err(|e| broken(format!("delivery {offset}: {e}")))?;
        // Without a subscriber there is nobody to take it, and `End` gives it back.
        if let (false, Some(commands)) = (phase.stopping, self.sender.upgrade()) {
            self.inbox.push(Delivery { message, offset, attempt, why, crashes, token, stream: self.number, commands });
        }
        Ok(())
    }

    fn answer_flushes(&mut self) {
        let answered = self.ledger.answered_before();
        while let Some((_, done)) = self.flushes.pop_front_if(|(before, _)| *before <= answered) {
            // Who asked may wait no longer.
            done.send(()).ok();
        }
    }

    /// The stream is gone: nothing more is answered on it.
    fn give_up(&mut self) {
        let ledger = std::mem::replace(&mut self.ledger, Ledger::new(1, 0));
        ledger.into_waiters().for_each(|answer| tell(answer, Err(SettleError::Unanswered)));
        for (_, done) in self.flushes.drain(..) {
            // Who asked may wait no longer.
            done.send(()).ok();
        }
    }

    /// A stream on the connection there is, or on the next; none where the subscriber closes meanwhile. Deliveries of
    /// earlier streams are answered all the while.
    async fn reopen(&mut self, session: Session, broken: Option<Setback>) -> Result<Option<Open>, SubscribeError> {
        let Self { shared, subscribe, inbox, commands, retry, .. } = self;
        let opening = resubscribe(shared, subscribe, retry, session, broken);
        tokio::pin!(opening);
        loop {
            tokio::select! {
                open = &mut opening => return open.map(Some),
                () = inbox.changed() => if inbox.is_closed() {
                    return Ok(None);
                },
                command = commands.recv() => match command {
                    Some(Command::Settle { answer, .. }) => tell(answer, Ok(Settled::Stale)),
                    // Nothing is outstanding. Who asked may wait no longer.
                    Some(Command::Flush(done)) => drop(done.send(())),
                    Some(Command::Seek(_)) => {}
                    None => return Ok(None),
                },
            }
        }
    }
}

async fn resubscribe(
    shared: &Shared,
    subscribe: &Subscribe,
    retry: &mut Retry,
    mut session: Session,
    mut broken: Option<Setback>,
) -> Result<Open, SubscribeError> {
    loop {
        if let Some(setback) = broken {
            retry.failed(&session, &setback).await?;
        }
        session = shared.session().await?;
        broken = match open(&session, subscribe, shared.config.open_timeout).await {
            Ok(open) => return Ok(open),
            Err(SubscribeError::Refused(refusal)) if refusal.retryable => Some((&refusal).into()),
            Err(SubscribeError::Open(e)) => Some(e.to_string().into()),
            Err(e) => return Err(e),
        };
    }
}

fn tell(answer: Option<Answer>, settled: Result<Settled, SettleError>) {
    match answer {
        // Who settled may wait no longer.
        Some(answer) => drop(answer.send(settled)),
        None => {
            if let Err(error) = settled {
                tracing::warn!(%error, "a settlement that nobody waits for");
            }
        }
    }
}

/// How a stream ended, other than by our `End`.
enum End {
    Broken(Broken),
    /// By the router's.
    Over,
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}
