//! The messages of a publisher that have no receipt yet: which are sent on the stream at hand, which may be sent next,
//! and what a receipt or a lost stream means to them. No I/O and no clock.

use std::collections::VecDeque;

use bytes::BytesMut;
use quipu_protocol::frame::Frame;
use quipu_protocol::proto;

use super::{Receipt, ReceiptError};
use crate::credit::Credit;
use crate::message::{Encoded, Id};

/// In publish order; the first `sent` of them were sent on this stream, under consecutive sequences.
pub(crate) struct Window<W> {
    pending: VecDeque<Pending<W>>,
    sent: usize,
    sequence_first: u64,
    credit: Credit,
    /// Ordinal of the next message; ordinals count over all streams.
    next: u64,
}

struct Pending<W> {
    message: Encoded,
    waiter: W,
    ordinal: u64,
    /// Whether it was sent on an earlier stream too.
    again: bool,
}

/// A receipt that does not fit what was sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit(pub(crate) String);

impl<W> Window<W> {
    pub(crate) fn new() -> Self {
        Self { pending: VecDeque::new(), sent: 0, sequence_first: 1, credit: Credit::default(), next: 0 }
    }

    pub(crate) fn push(&mut self, message: Encoded, waiter: W) {
        self.pending.push_back(Pending { message, waiter, ordinal: self.next, again: false });
        self.next += 1;
    }

    /// Starts on a new stream. After the first, only once [`lost`](Self::lost) or receipts left nothing sent.
    pub(crate) fn opened(&mut self, opened: proto::Opened) {
        debug_assert_eq!(self.sent, 0);
        self.sequence_first = opened.last_sequence + 1;
        self.credit = Credit::new(opened.credit.unwrap_or_default());
    }

    pub(crate) fn grant(&mut self, total: proto::Credit) {
        self.credit.grant(total);
    }

    /// Writes the next publish, if there is one and credit for it.
    pub(crate) fn send(&mut self, out: &mut BytesMut) -> bool {
        let Some(next) = self.pending.get(self.sent) else { return false };
        if !self.credit.may_send() {
            return false;
        }
        let before = out.len();
        let sequence = self.sequence_first + self.sent as u64;
        let publish = proto::Publish { sequence, message: next.message.header.clone() };
        Frame::with_payload(publish, next.message.payload.clone()).encode(out);
        self.credit.charge(out.len() - before);
        self.sent += 1;
        true
    }

    /// Takes the receipted messages off, in order.
    pub(crate) fn receipt(
        &mut self,
        receipt: proto::Receipt,
    ) -> Result<impl Iterator<Item = (W, Result<Receipt, ReceiptError>)>, Misfit> {
        let proto::Receipt { first, last, results } = receipt;
        let expected = self.sequence_first..self.sequence_first + self.sent as u64;
        let count = results.len();
        if first != expected.start || last >= expected.end || last.checked_sub(first) != (count as u64).checked_sub(1) {
            return Err(Misfit(format!("a receipt for {first} to {last} with {count} results; sent are {expected:?}")));
        }
        self.sequence_first += count as u64;
        self.sent -= count;
        let answered = self.pending.drain(..count).zip(results);
        Ok(answered.map(|(pending, result)| {
            let ours = pending.again && pending.message.id == Id::Made;
            (pending.waiter, answer(result, ours))
        }))
    }

    /// The stream is gone. What was sent on it is to be sent again; those that cannot be are taken off.
    pub(crate) fn lost(&mut self) -> Vec<W> {
        let unsent = self.pending.split_off(self.sent);
        self.sent = 0;
        // None until a stream is opened.
        self.credit = Credit::default();
        let sent = std::mem::replace(&mut self.pending, VecDeque::with_capacity(unsent.len()));
        let mut ambiguous = Vec::new();
        for pending in sent {
            match pending.message.id {
                Id::Absent => ambiguous.push(pending.waiter),
                Id::Given | Id::Made => self.pending.push_back(Pending { again: true, ..pending }),
            }
        }
        self.pending.extend(unsent);
        ambiguous
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
        self.pending.front().map_or(self.next, |oldest| oldest.ordinal)
    }

    pub(crate) fn into_waiters(self) -> impl Iterator<Item = W> {
        self.pending.into_iter().map(|pending| pending.waiter)
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
    use quipu_protocol::code::Code;
    use quipu_protocol::frame::{Body, split};

    use super::*;

    fn result(letter: u8) -> proto::Result {
        use proto::result::Kind;
        let stored = || proto::Stored { positions: vec![proto::Position { queue: "q".into(), offset: 7 }] };
        let kind = match letter {
            b's' => Kind::Stored(stored()),
            b'd' => Kind::Duplicate(stored()),
            b'r' => Kind::Routed(proto::Routed {}),
            _ => Kind::Error(Code::NoQueue.error("no")),
        };
        proto::Result { kind: Some(kind) }
    }

    fn told(waiter: &str, answer: &Result<Receipt, ReceiptError>) -> String {
        let word = match answer {
            Ok(Receipt::Stored(_)) => "stored",
            Ok(Receipt::Duplicate(_)) => "duplicate",
            Ok(Receipt::Routed) => "routed",
            Err(_) => "refused",
        };
        format!("{waiter}={word}")
    }

    /// `a` pushes a message with a made id, `A` with a given one, `-a` without one; `+5` grants a total of messages;
    /// `r3ss` is a receipt from sequence 3 on; `open10` a new stream behind sequence 10; `lost` the end of one.
    fn check(script: &str, expect: &str) {
        let mut window: Window<String> = Window::new();
        window.opened(proto::Opened::default());
        let mut seen = Vec::new();
        for step in script.split(' ') {
            let push = |window: &mut Window<String>, id| {
                window.push(Encoded { header: Bytes::new(), payload: step.to_owned().into(), id }, step.into());
            };
            if step == "lost" {
                seen.extend(window.lost().into_iter().map(|waiter| format!("{waiter}=ambiguous")));
            } else if let Some(last) = step.strip_prefix("open") {
                window.opened(proto::Opened { last_sequence: last.parse().expect("a number"), credit: None });
            } else if let Some(total) = step.strip_prefix('+') {
                window.grant(proto::Credit { messages: total.parse().expect("a number"), bytes: 1 << 20 });
            } else if let Some((digit, results)) = step.strip_prefix('r').and_then(|rest| rest.split_at_checked(1)) {
                let first: u64 = digit.parse().expect("a digit");
                let last = first + results.len() as u64 - 1;
                let receipt = proto::Receipt { first, last, results: results.bytes().map(result).collect() };
                match window.receipt(receipt) {
                    Ok(answers) => seen.extend(answers.map(|(waiter, answer)| told(&waiter, &answer))),
                    Err(Misfit(_)) => seen.push("misfit".into()),
                }
            } else {
                let id = match step.as_bytes() {
                    [b'-', ..] => Id::Absent,
                    [letter, ..] if letter.is_ascii_uppercase() => Id::Given,
                    _ => Id::Made,
                };
                push(&mut window, id);
            }
            let mut out = BytesMut::new();
            while window.send(&mut out) {}
            while let Some(raw) = split(&mut out).expect("frames") {
                let frame = Frame::decode(raw).expect("a frame").expect("known");
                let Body::Publish(publish) = frame.body else { panic!("a publish") };
                seen.push(format!("{}:{}", publish.sequence, frame.payload.escape_ascii()));
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
    fn receipts_must_fit() {
        check("+9 a b r2s r1sss r1ss r1s", "1:a 2:b misfit misfit a=stored b=stored misfit");
    }
}
