//! The messages of a publisher that have no receipt yet: which are sent on the stream at hand, which may be sent next,
//! and what a receipt or a lost stream means to them. No I/O and no clock.

use std::collections::{BTreeSet, VecDeque};

use bytes::BytesMut;
use quipu_protocol::code::Code;
use quipu_protocol::frame::put;
use quipu_protocol::proto;

use super::{Receipt, ReceiptError};
use crate::credit::Credit;
use crate::message::{Encoded, Id};

/// The frame type of `Publish`.
const PUBLISH: u8 = 18;

/// In publish order, but for those that were refused and are sent again. The first `numbered` of them have consecutive
/// sequences, and of these the first `sent` were sent on this stream. A named publisher's messages keep their sequences
/// over its streams; others are numbered anew on each.
pub(crate) struct Window<W> {
    named: bool,
    pending: VecDeque<Pending<W>>,
    sent: usize,
    numbered: usize,
    sequence_first: u64,
    credit: Credit,
    /// Ordinal of the next message; ordinals count over all streams.
    next: u64,
    /// Of the messages that were refused and wait behind later ones.
    refused: BTreeSet<u64>,
    /// Whether the router is to stop at a failure.
    stops: bool,
    /// It did, as far as receipts tell: what is pending up to the first that takes up again is refused, for this reason.
    stopped: Option<proto::Error>,
    /// The next message takes up again.
    resumes: bool,
}

/// Whom to tell what became of a message.
type Answer<W> = (W, Result<Receipt, ReceiptError>);

struct Pending<W> {
    message: Encoded,
    waiter: W,
    ordinal: u64,
    /// Whether it was sent on an earlier stream too.
    again: bool,
    /// Whether it takes up again after a failure, on whatever stream.
    resume: bool,
}

/// A receipt that does not fit what was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit(pub(crate) String);

impl<W> Window<W> {
    pub(crate) fn new(named: bool, stops: bool) -> Self {
        Self {
            named,
            stops,
            stopped: None,
            resumes: false,
            pending: VecDeque::new(),
            sent: 0,
            numbered: 0,
            sequence_first: 1,
            credit: Credit::default(),
            next: 0,
            refused: BTreeSet::new(),
        }
    }

    /// The next message that is pushed takes up again.
    pub(crate) fn resume(&mut self) {
        self.resumes = self.stops;
    }

    /// Takes a message, or refuses it at once where the router would, also on a stream that does not know of the failure.
    pub(crate) fn push(&mut self, message: Encoded, waiter: W) -> Option<Answer<W>> {
        let resume = std::mem::take(&mut self.resumes);
        if let Some(why) = &self.stopped
            && !resume
            && !self.pending.iter().any(|pending| pending.resume)
        {
            return Some((waiter, refused(why)));
        }
        self.pending.push_back(Pending { message, waiter, ordinal: self.next, again: false, resume });
        self.next += 1;
        None
    }

    /// Starts on a new stream. After the first, only once [`lost`](Self::lost) or receipts left nothing sent.
    pub(crate) fn opened(&mut self, opened: proto::Opened) -> Result<(), Misfit> {
        debug_assert_eq!(self.sent, 0);
        let numbered_last = self.sequence_first - 1 + self.numbered as u64;
        if !self.named {
            self.sequence_first = opened.last_sequence + 1;
        } else if opened.last_sequence > numbered_last {
            // Someone else publishes under this name and epoch: what came next would pass for a repetition of that.
            return Err(Misfit(format!("sequence {} of a publisher that sent {numbered_last}", opened.last_sequence)));
        }
        self.credit = Credit::new(opened.credit.unwrap_or_default());
        Ok(())
    }

    pub(crate) fn grant(&mut self, total: proto::Credit) {
        self.credit.grant(total);
    }

    /// Writes the next publish, if there is one and credit for it.
    pub(crate) fn send(&mut self, out: &mut BytesMut) -> bool {
        let Some(next) = self.pending.get_mut(self.sent) else { return false };
        if !self.credit.may_send() {
            return false;
        }
        let before = out.len();
        let sequence = self.sequence_first + self.sent as u64;
        // Lent for the moment: even a cheap clone of each costs at a quarter of a million messages a second.
        let (message, resume) = (std::mem::take(&mut next.message.header), next.resume);
        let publish = proto::Publish { sequence, message, resume };
        put(PUBLISH, &publish, &next.message.payload, out);
        next.message.header = publish.message;
        self.credit.charge(out.len() - before);
        self.sent += 1;
        self.numbered = self.numbered.max(self.sent);
        true
    }

    /// Takes the receipted messages off, in order; where `again` says so, those that the router has no room for go back
    /// to the messages that wait to be sent.
    pub(crate) fn receipt(&mut self, receipt: proto::Receipt, again: bool) -> Result<Vec<Answer<W>>, Misfit> {
        let proto::Receipt { first, last, results } = receipt;
        let expected = self.sequence_first..self.sequence_first + self.sent as u64;
        let count = results.len();
        if first != expected.start || last >= expected.end || last.checked_sub(first) != (count as u64).checked_sub(1) {
            return Err(Misfit(format!("a receipt for {first} to {last} with {count} results; sent are {expected:?}")));
        }
        self.sequence_first += count as u64;
        self.sent -= count;
        self.numbered -= count;
        let (mut answered, mut back) = (Vec::with_capacity(count), Vec::new());
        for ((pending, result), sequence) in self.pending.drain(..count).zip(results).zip(first..) {
            if self.stops {
                self.stopped = stopped(self.stopped.take(), (sequence, pending.resume), &result);
            }
            if again && is_full(&result) {
                back.push(pending);
                continue;
            }
            if !self.refused.is_empty() {
                self.refused.remove(&pending.ordinal);
            }
            let ours = pending.again && pending.message.id == Id::Made;
            answered.push((pending.waiter, answer(result, ours)));
        }
        back.into_iter().for_each(|pending| self.put_back(pending));
        Ok(answered)
    }

    /// Behind those that have a sequence already, which they keep, and in the order of the others.
    fn put_back(&mut self, refused: Pending<W>) {
        let unnumbered = self.pending.iter().skip(self.numbered);
        let earlier = unnumbered.take_while(|pending| pending.ordinal < refused.ordinal).count();
        self.refused.insert(refused.ordinal);
        self.pending.insert(self.numbered + earlier, refused);
    }

    /// The stream is gone. What was sent on it is to be sent again; those that cannot be are taken off, and those behind
    /// a failure, which the next stream knows nothing of.
    pub(crate) fn lost(&mut self) -> Vec<Answer<W>> {
        // None until a stream is opened.
        self.credit = Credit::default();
        let mut answers = self.give_up_stopped();
        if self.named {
            self.sent = 0;
            return answers;
        }
        if self.stops && self.pending.iter().take(self.sent).any(|pending| pending.message.id == Id::Absent) {
            // Which of them are stored is not known, so nothing may be stored behind them, or be sent before them.
            let sent = self.pending.drain(..self.sent).map(|pending| (pending.waiter, Err(ReceiptError::Ambiguous)));
            answers.extend(sent);
            self.stopped = Some(Code::Stopped.error("the connection was lost, and this publisher stops at that"));
            (self.sent, self.numbered) = (0, 0);
            answers.extend(self.give_up_stopped());
            return answers;
        }
        let unsent = self.pending.split_off(self.sent);
        (self.sent, self.numbered) = (0, 0);
        let sent = std::mem::replace(&mut self.pending, VecDeque::with_capacity(unsent.len()));
        for pending in sent {
            match pending.message.id {
                Id::Absent => {
                    self.refused.remove(&pending.ordinal);
                    answers.push((pending.waiter, Err(ReceiptError::Ambiguous)));
                }
                Id::Given | Id::Made => self.pending.push_back(Pending { again: true, ..pending }),
            }
        }
        self.pending.extend(unsent);
        answers
    }

    /// Takes off what is pending behind a failure, up to the first that takes up again.
    fn give_up_stopped(&mut self) -> Vec<Answer<W>> {
        let Some(why) = &self.stopped else { return Vec::new() };
        let count = self.pending.iter().position(|pending| pending.resume).unwrap_or(self.pending.len());
        let numbered = count.min(self.numbered);
        self.sequence_first += numbered as u64;
        self.numbered -= numbered;
        self.sent = self.sent.saturating_sub(count);
        self.pending.drain(..count).map(|pending| (pending.waiter, refused(why))).collect()
    }

    /// Messages sent on this stream.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Messages ever pushed.
    pub(crate) fn pushed(&self) -> u64 {
        self.next
    }

    /// Messages before this ordinal are all answered.
    pub(crate) fn answered_before(&self) -> u64 {
        let oldest = self.pending.front().map_or(self.next, |oldest| oldest.ordinal);
        self.refused.first().map_or(oldest, |refused| oldest.min(*refused))
    }

    pub(crate) fn into_waiters(self) -> impl Iterator<Item = W> {
        self.pending.into_iter().map(|pending| pending.waiter)
    }
}

/// Why whatever comes behind a message is refused, once it has this result.
fn stopped(
    before: Option<proto::Error>,
    (sequence, resume): (u64, bool),
    result: &proto::Result,
) -> Option<proto::Error> {
    let before = before.filter(|_| !resume);
    let text = || format!("sequence {sequence} was refused, and this publisher stops at that until it resumes");
    match &result.kind {
        Some(proto::result::Kind::Error(error)) if error.code == Code::Stopped as u32 => before.or(Some(error.clone())),
        Some(proto::result::Kind::Error(_)) | None => before.or_else(|| Some(Code::Stopped.error(text()))),
        Some(_) => before,
    }
}

fn refused(why: &proto::Error) -> Result<Receipt, ReceiptError> {
    Err(ReceiptError::Refused(why.clone().into()))
}

/// Whether the router refuses the message only because it has no room now.
pub(crate) fn is_full(result: &proto::Result) -> bool {
    match &result.kind {
        Some(proto::result::Kind::Error(error)) => {
            error.retryable && Code::from_number(error.code).is_some_and(Code::is_full)
        }
        _ => false,
    }
}

/// `ours`: sent again under an id that nobody else has, so that the first time was ours as well.
fn answer(result: proto::Result, ours: bool) -> Result<Receipt, ReceiptError> {
    use proto::result::Kind;
    let positions = |stored: proto::Stored| stored.positions.into_iter().map(Into::into).collect::<Vec<_>>();
    match result.kind {
        Some(Kind::Stored(stored)) => Ok(Receipt::Stored(positions(stored))),
        Some(Kind::Duplicate(stored)) if ours && stored.positions.is_empty() => Ok(Receipt::Routed),
        Some(Kind::Duplicate(stored)) if ours => Ok(Receipt::Stored(positions(stored))),
        Some(Kind::Duplicate(stored)) => Ok(Receipt::Duplicate(positions(stored))),
        Some(Kind::Routed(_)) => Ok(Receipt::Routed),
        Some(Kind::Error(error)) => Err(ReceiptError::Refused(error.into())),
        None => Err(ReceiptError::Refused(quipu_protocol::code::Code::Unsupported.error("an unknown result").into())),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quipu_protocol::frame::{Body, Frame, split};

    use super::*;

    fn result(letter: u8) -> proto::Result {
        use proto::result::Kind;
        let stored = || proto::Stored { positions: vec![proto::Position { queue: "q".into(), offset: 7 }] };
        let kind = match letter {
            b's' => Kind::Stored(stored()),
            b'd' => Kind::Duplicate(stored()),
            b'r' => Kind::Routed(proto::Routed {}),
            b'x' => Kind::Duplicate(proto::Stored::default()),
            b'f' => Kind::Error(Code::QueueFull.error("full")),
            b'p' => Kind::Error(Code::Stopped.error("behind")),
            _ => Kind::Error(Code::NoQueue.error("no")),
        };
        proto::Result { kind: Some(kind) }
    }

    fn told(waiter: &str, answer: &Result<Receipt, ReceiptError>) -> String {
        let word = match answer {
            Ok(Receipt::Stored(_)) => "stored",
            Ok(Receipt::Duplicate(_)) => "duplicate",
            Ok(Receipt::Routed) => "routed",
            Err(ReceiptError::Ambiguous) => "ambiguous",
            Err(e) if e.code() == Some(Code::Stopped) => "stopped",
            Err(_) => "refused",
        };
        format!("{waiter}={word}")
    }

    /// `a` pushes a message with a made id, `A` with a given one, `-a` without one; `+5` grants a total of messages;
    /// `r3ss` is a receipt from sequence 3 on; `open10` a new stream behind sequence 10; `lost` the end of one; `flush`
    /// tells before which ordinal all is answered; `!` resumes.
    fn check(script: &str, expect: &str) {
        check_on(Window::new(false, false), script, expect);
    }

    fn check_named(script: &str, expect: &str) {
        check_on(Window::new(true, false), script, expect);
    }

    fn check_stopping(named: bool, script: &str, expect: &str) {
        check_on(Window::new(named, true), script, expect);
    }

    fn check_on(mut window: Window<String>, script: &str, expect: &str) {
        window.opened(proto::Opened::default()).expect("nothing there yet");
        let mut seen = Vec::new();
        for step in script.split(' ') {
            let push = |window: &mut Window<String>, id| {
                window.push(Encoded { header: Bytes::new(), payload: step.to_owned().into(), id }, step.into())
            };
            if step == "lost" {
                seen.extend(window.lost().iter().map(|(waiter, answer)| told(waiter, answer)));
            } else if step == "!" {
                window.resume();
            } else if let Some(last) = step.strip_prefix("open") {
                let last_sequence = last.parse().expect("a number");
                if window.opened(proto::Opened { last_sequence, ..proto::Opened::default() }).is_err() {
                    seen.push("misfit".into());
                }
            } else if step == "flush" {
                seen.push(format!("<{}", window.answered_before()));
            } else if let Some(total) = step.strip_prefix('+') {
                window.grant(proto::Credit { messages: total.parse().expect("a number"), bytes: 1 << 20 });
            } else if let Some((digit, results)) = step.strip_prefix('r').and_then(|rest| rest.split_at_checked(1)) {
                let first: u64 = digit.parse().expect("a digit");
                let last = first + results.len() as u64 - 1;
                let receipt = proto::Receipt { first, last, results: results.bytes().map(result).collect() };
                match window.receipt(receipt, !window.stops) {
                    Ok(answers) => seen.extend(answers.iter().map(|(waiter, answer)| told(waiter, answer))),
                    Err(Misfit(_)) => seen.push("misfit".into()),
                }
            } else {
                let id = match step.as_bytes() {
                    [b'-', ..] => Id::Absent,
                    [letter, ..] if letter.is_ascii_uppercase() => Id::Given,
                    _ => Id::Made,
                };
                seen.extend(push(&mut window, id).map(|(waiter, answer)| told(&waiter, &answer)));
            }
            let mut out = BytesMut::new();
            while window.send(&mut out) {}
            while let Some(raw) = split(&mut out).expect("frames") {
                let frame = Frame::decode(raw).expect("a frame").expect("known");
                let Body::Publish(publish) = frame.body else { panic!("a publish") };
                let resumes = if publish.resume { "!" } else { "" };
                seen.push(format!("{}:{}{resumes}", publish.sequence, frame.payload.escape_ascii()));
            }
        }
        assert_eq!(seen.join(" "), expect, "{script}");
    }

    #[test]
    fn messages_wait_for_credit_and_keep_their_order() {
        check("a b c +2 +3", "1:a 2:b 3:c");
        check("+9 a b r1s c r2er", "1:a 2:b a=stored 3:c b=refused c=routed");
    }

    #[test]
    fn a_new_stream_gets_everything_unanswered_in_order() {
        check("+2 a b r1s c lost open0 +9", "1:a 2:b a=stored 1:b 2:c");
        check("+1 a lost open5 +1 r6s", "1:a 6:a a=stored");
    }

    #[test]
    fn a_repetition_of_our_own_is_no_duplicate() {
        check("+9 a A lost open0 +9 r1dd", "1:a 2:A 1:a 2:A a=stored A=duplicate");
        check("+9 a r1d", "1:a a=duplicate");
    }

    #[test]
    fn what_has_no_id_is_not_sent_twice() {
        check("+2 -a b -c lost open0 +9", "1:-a 2:b -a=ambiguous 1:b 2:-c");
    }

    #[test]
    fn a_named_publishers_messages_keep_their_sequences() {
        check_named("+9 -a -b -c r1s lost open2 +2 r2x -d +9", "1:-a 2:-b 3:-c -a=stored 2:-b 3:-c -b=duplicate 4:-d");
        // What was not synced is gone with a crash; what was answered is not sent again.
        check_named("+9 a b r1s lost open0 +9 r2s c", "1:a 2:b a=stored 2:b b=stored 3:c");
        check_named("+9 a b c r1ss lost open0 +2 lost open3 +9 d", "1:a 2:b 3:c a=stored b=stored 3:c 3:c 4:d");
    }

    #[test]
    fn another_under_the_same_name_and_epoch_is_found_out() {
        check_named("+9 a lost open2", "1:a misfit");
    }

    #[test]
    fn what_the_router_has_no_room_for_is_sent_again() {
        check("+9 a b c r1fs flush r3s r4s flush", "1:a 2:b 3:c b=stored 4:a <0 c=stored a=stored <3");
        check("+3 a b c r1ffs +9", "1:a 2:b 3:c c=stored 4:a 5:b");
        check("+3 a b c d r1f r2f +9", "1:a 2:b 3:c 4:a 5:b 6:d");
        check("+9 a b r1fs lost open0 +9 r1s flush", "1:a 2:b b=stored 3:a 1:a a=stored <2");
    }

    #[test]
    fn a_named_publishers_refused_message_gets_a_new_sequence_behind_those_that_were_sent() {
        let sent = "1:a 2:b 3:c 1:a 2:b 3:c 4:a b=duplicate c=stored a=stored <3";
        check_named("+9 a b c lost open2 +2 r1f +9 r2xs r4s flush", sent);
    }

    #[test]
    fn what_comes_behind_a_failure_is_refused_until_one_takes_up_again() {
        for named in [false, true] {
            let (sent, told) = ("1:a 2:b 3:c a=stored b=refused", "c=stopped d=stopped 4:e! 5:g e=stored g=stored");
            check_stopping(named, "+9 a b c r1se r3p d ! e g r4ss", &format!("{sent} {told}"));
            // One that takes up again may fail as well.
            check_stopping(named, "+9 a r1e ! b r2e c", "1:a a=refused 2:b! b=refused c=stopped");
        }
        check_stopping(false, "+9 a r1f b ! c", "1:a a=refused b=stopped 2:c!");
        check("+9 a r1e ! b", "1:a a=refused 2:b");
    }

    #[test]
    fn a_failure_is_known_on_the_next_stream_too() {
        check_stopping(
            false,
            "+9 a b c r1e lost d open0 +9 e",
            "1:a 2:b 3:c a=refused b=stopped c=stopped d=stopped e=stopped",
        );
        check_stopping(
            false,
            "+9 a b r1e ! c d lost open0 +9 r1ss",
            "1:a 2:b a=refused 3:c! 4:d b=stopped 1:c! 2:d c=stored d=stored",
        );
        check_stopping(
            true,
            "+9 a b r1e ! c d lost open0 +9 r3ss",
            "1:a 2:b a=refused 3:c! 4:d b=stopped 3:c! 4:d c=stored d=stored",
        );
        check_stopping(true, "+2 a b c r1e lost open2 +9 ! d", "1:a 2:b a=refused b=stopped c=stopped 3:d!");
        // Nothing failed that is known of: all of it is tried again, in order.
        check_stopping(true, "+9 a b lost open0 +9 r1ep", "1:a 2:b 1:a 2:b a=refused b=stopped");
    }

    #[test]
    fn whoever_stops_sends_nothing_behind_what_may_be_lost() {
        let script = "+2 -a b -c lost open0 d ! +9 e r1s f";
        let told = "-a=ambiguous b=ambiguous -c=stopped d=stopped 1:e! e=stored 2:f";
        check_stopping(false, script, &format!("1:-a 2:b {told}"));
    }

    #[test]
    fn receipts_must_fit() {
        check("+9 a b r2s r1sss r1ss r1s", "1:a 2:b misfit misfit a=stored b=stored misfit");
    }
}
