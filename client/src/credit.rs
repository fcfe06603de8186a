//! What a publisher may still send on its stream.

use quipu_protocol::proto;

/// Running totals, granted and used, since the stream was opened.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    granted: (u64, u64),
    used: (u64, u64),
}

impl Credit {
    pub(crate) fn new(granted: proto::Credit) -> Self {
        Self { granted: (granted.messages, granted.bytes), used: (0, 0) }
    }

    /// A total that is not above the last one does no harm.
    pub(crate) fn grant(&mut self, total: proto::Credit) {
        self.granted = (self.granted.0.max(total.messages), self.granted.1.max(total.bytes));
    }

    /// The last frame may overdraw the bytes, so that one larger than the grant is not stuck.
    pub(crate) fn may_send(&self) -> bool {
        self.used.0 < self.granted.0 && self.used.1 < self.granted.1
    }

    /// One message sent, in a frame of so many bytes.
    pub(crate) fn charge(&mut self, frame_bytes: usize) {
        self.used = (self.used.0 + 1, self.used.1 + frame_bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `+m/b` grants totals, `!b` sends a frame; says before each step whether one may be sent.
    fn check(script: &str, expect: &str) {
        let mut credit = Credit::default();
        let mut seen = Vec::new();
        for step in script.split(' ') {
            if let Some((messages, bytes)) = step.strip_prefix('+').and_then(|totals| totals.split_once('/')) {
                let total = |n: &str| n.parse().expect("a number");
                credit.grant(proto::Credit { messages: total(messages), bytes: total(bytes) });
            } else {
                credit.charge(step[1..].parse().expect("a number"));
            }
            seen.push(if credit.may_send() { "yes" } else { "no" });
        }
        assert_eq!(seen.join(" "), expect, "{script}");
    }

    #[test]
    fn totals_bound_messages_and_bytes() {
        check("+2/100 !10 !10 +3/100 !10", "yes yes no yes no");
        check("+9/100 !99 !1 +9/101 !1", "yes yes no yes no");
    }

    #[test]
    fn one_large_message_may_overdraw() {
        check("+9/100 !9000 +9/9000 +9/9001", "yes no no yes");
    }

    #[test]
    fn old_totals_do_no_harm() {
        check("+5/100 +2/50 !10 !10 !10", "yes yes yes yes yes");
    }
}
