//! A subscription stream's accounts: credit granted, deliveries made, settlements that wait to be sent or answered. No
//! I/O and no clock.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use quipu_protocol::limits::TEXT_BYTES_MAX;
use quipu_protocol::{code, proto};

use super::{SettleError, Settled};

/// What is to become of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Nack { delay_ms: u64 },
    Reject { reason: String },
    Extend { delay_ms: u64 },
    AckThrough,
}

/// `W` is who waits for the answer.
pub(super) struct Ledger<W> {
    prefetch: u64,
    granted: u64,
    delivered: u64,
    /// In the order in which they were handed over.
    unsent: VecDeque<(u64, Verdict)>,
    /// Who waits for which token to be settled, and with which ordinal.
    waiters: HashMap<u64, (W, u64)>,
    /// Who waits for which token to be extended, in order: any number, and all of them before it is settled.
    extensions: HashMap<u64, VecDeque<(W, u64)>>,
    /// Ordinals of the next settlement, and of those that are answered out of order.
    next: u64,
    unanswered: BTreeSet<u64>,
}

impl Verdict {
    pub(super) fn nack(delay: Duration) -> Self {
        Self::Nack { delay_ms: millis(delay) }
    }

    pub(super) fn extend(time: Duration) -> Self {
        Self::Extend { delay_ms: millis(time) }
    }

    pub(super) fn reject(reason: &str) -> Self {
        let mut reason = reason.to_owned();
        code::truncate(&mut reason, TEXT_BYTES_MAX);
        Self::Reject { reason }
    }

    fn frame(self, tokens: Vec<u64>) -> proto::Settle {
        let (verb, delay_ms, reason) = match self {
            Self::Ack => (proto::Verb::Ack, 0, String::new()),
            Self::Nack { delay_ms } => (proto::Verb::Nack, delay_ms, String::new()),
            Self::Reject { reason } => (proto::Verb::Reject, 0, reason),
            Self::Extend { delay_ms } => (proto::Verb::Extend, delay_ms, String::new()),
            Self::AckThrough => (proto::Verb::AckThrough, 0, String::new()),
        };
        proto::Settle { verb: verb.into(), tokens, delay_ms, reason }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl<W> Ledger<W> {
    /// For a stream whose router lets so many deliveries be outstanding; 0 is a router that does not say.
    pub(super) fn new(prefetch: u32, credit_max: u32) -> Self {
        let most = if credit_max == 0 { u32::MAX } else { credit_max };
        Self {
            prefetch: prefetch.clamp(1, most).into(),
            granted: 0,
            delivered: 0,
            unsent: VecDeque::new(),
            waiters: HashMap::new(),
            extensions: HashMap::new(),
            next: 0,
            unanswered: BTreeSet::new(),
        }
    }

    /// After how many more deliveries taken a grant is due.
    pub(super) fn step(&self) -> u64 {
        self.prefetch.div_ceil(4)
    }

    /// The grant that is due when so many deliveries are taken.
    pub(super) fn grant(&mut self, taken: u64) -> Option<proto::Credit> {
        let total = taken + self.prefetch;
        if total < self.granted + self.step() {
            return None;
        }
        self.granted = total;
        Some(proto::Credit { messages: total, bytes: 0 })
    }

    /// Counts a delivery; false where there was no credit for it.
    pub(super) fn deliver(&mut self) -> bool {
        self.delivered += 1;
        self.delivered <= self.granted
    }

    /// Takes a settlement in. But for extensions a token has one at most, because a delivery is consumed by it.
    pub(super) fn settle(&mut self, token: u64, verdict: Verdict, waiter: W) {
        let extends = matches!(verdict, Verdict::Extend { .. });
        self.unsent.push_back((token, verdict));
        if extends {
            self.extensions.entry(token).or_default().push_back((waiter, self.next));
        } else {
            self.waiters.insert(token, (waiter, self.next));
        }
        self.unanswered.insert(self.next);
        self.next += 1;
    }

    /// The next frame: the settlements at the front that say the same.
    pub(super) fn send(&mut self, tokens_max: usize) -> Option<proto::Settle> {
        let (token, verdict) = self.unsent.pop_front()?;
        let mut tokens = vec![token];
        // A delivery may be extended twice, but not in one frame.
        let once = !matches!(verdict, Verdict::Extend { .. });
        while tokens.len() < tokens_max {
            let fits = |(token, next): &mut (u64, Verdict)| *next == verdict && (once || !tokens.contains(token));
            let Some((token, _)) = self.unsent.pop_front_if(fits) else { break };
            tokens.push(token);
        }
        Some(verdict.frame(tokens))
    }

    /// Who is answered by this, and how. Tokens that nobody waits for are passed over.
    pub(super) fn settled(&mut self, settled: proto::Settled) -> Vec<(W, Result<Settled, SettleError>)> {
        let proto::Settled { committed, stale, refused, error } = settled;
        let refusal = error.unwrap_or_default();
        let answers = (committed.into_iter().map(|token| (token, Ok(Settled::Committed))))
            .chain(stale.into_iter().map(|token| (token, Ok(Settled::Stale))))
            .chain(refused.into_iter().map(|token| (token, Err(SettleError::Refused(refusal.clone().into())))));
        let mut told = Vec::new();
        for (token, answer) in answers {
            if let Some((waiter, ordinal)) = self.waiter(token) {
                self.unanswered.remove(&ordinal);
                told.push((waiter, answer));
            }
        }
        told
    }

    /// Who waits for the next answer to this token.
    fn waiter(&mut self, token: u64) -> Option<(W, u64)> {
        let Some(extensions) = self.extensions.get_mut(&token) else { return self.waiters.remove(&token) };
        let first = extensions.pop_front();
        if extensions.is_empty() {
            self.extensions.remove(&token);
        }
        first
    }

    /// Settlements without an answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Settlements ever taken in.
    pub(super) fn taken_in(&self) -> u64 {
        self.next
    }

    /// Settlements before this ordinal are all answered.
    pub(super) fn answered_before(&self) -> u64 {
        self.unanswered.first().copied().unwrap_or(self.next)
    }

    /// Whether nothing waits to be sent or answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.unanswered.is_empty()
    }

    pub(super) fn into_waiters(self) -> impl Iterator<Item = W> {
        let extensions = self.extensions.into_values().flatten();
        extensions.chain(self.waiters.into_values()).map(|(waiter, _)| waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_follows_what_is_taken_in_steps() {
        let mut ledger: Ledger<()> = Ledger::new(8, 0);
        let mut total = |taken| ledger.grant(taken).map(|credit| credit.messages);
        assert_eq!([0, 1, 2, 3, 4, 9].map(&mut total), [Some(8), None, Some(10), None, Some(12), Some(17)]);
        let mut one: Ledger<()> = Ledger::new(0, 0);
        assert_eq!([0, 1, 2].map(|taken| one.grant(taken).expect("due").messages), [1, 2, 3]);
        assert_eq!(Ledger::<()>::new(256, 10).grant(0).expect("due").messages, 10);
    }

    #[test]
    fn deliveries_need_credit() {
        let mut ledger: Ledger<()> = Ledger::new(2, 0);
        assert!(!ledger.deliver());
        ledger.grant(0);
        assert!(ledger.deliver() && !ledger.deliver());
    }

    /// `a7` acks 7, `n7` nacks it at once, `r7` rejects it, `e7` extends it and `t7` acks through it; `send` sends frames of 3 tokens; `+1`, `?1` and `!1`
    /// answer: committed, stale, refused; `before` tells before what all is answered.
    fn check(script: &str, expect: &str) {
        let mut ledger = Ledger::new(1, 0);
        let mut seen = Vec::new();
        for step in script.split(' ') {
            let token = || step[1..].parse::<u64>().expect("a number");
            let mut answer = |settled| {
                for (waiter, answer) in ledger.settled(settled) {
                    seen.push(format!("{waiter}={}", answer.map_or("Refused".into(), |s| format!("{s:?}"))));
                }
            };
            match step.as_bytes()[0] {
                b'+' => answer(proto::Settled { committed: vec![token()], ..Default::default() }),
                b'?' => answer(proto::Settled { stale: vec![token()], ..Default::default() }),
                b'!' => answer(proto::Settled { refused: vec![token()], ..Default::default() }),
                b's' => {
                    while let Some(frame) = ledger.send(3) {
                        seen.push(format!("{}{:?}", frame.verb, frame.tokens).replace(' ', ""));
                    }
                }
                b'b' => seen.push(format!("<{}", ledger.answered_before())),
                b'a' => ledger.settle(token(), Verdict::Ack, step),
                b'n' => ledger.settle(token(), Verdict::nack(Duration::ZERO), step),
                b'e' => ledger.settle(token(), Verdict::extend(Duration::from_secs(1)), step),
                b't' => ledger.settle(token(), Verdict::AckThrough, step),
                _ => ledger.settle(token(), Verdict::reject("bad"), step),
            }
        }
        assert_eq!(seen.join(" "), expect, "{script}");
    }

    #[test]
    fn settlements_that_say_the_same_share_a_frame() {
        check("a1 a2 n3 a4 a5 a6 a7 send", "1[1,2] 2[3] 1[4,5,6] 1[7]");
        check("t1 a2 t3 t4 e5 e6 send", "5[1] 1[2] 5[3,4] 4[5,6]");
    }

    #[test]
    fn a_delivery_may_be_extended_again_and_again_before_it_is_settled() {
        check("e1 e1 e2 a1 send before", "4[1] 4[1,2] 1[1] <0");
        check("e1 e1 a1 send +1 before +1 ?1 before", "4[1] 4[1] 1[1] e1=Committed <1 e1=Committed a1=Stale <3");
    }

    #[test]
    fn every_token_is_answered_once() {
        check("a1 n2 r3 send +1 +1 ?2 !3 +9", "1[1] 2[2] 3[3] a1=Committed n2=Stale r3=Refused");
    }

    #[test]
    fn flushing_looks_at_the_oldest_unanswered() {
        check("before a1 a2 send +2 before +1 before", "<0 1[1,2] a2=Committed <0 a1=Committed <2");
    }
}
