//! What producers, consumers and operators ask of the store.

mod consume;
mod operate;
mod produce;

use quipu_protocol::{Subject, SubjectPattern};

use super::world::{Event, Kind, World};
use crate::commit::{Durability, Offset, OnFull, QueueLimits, Retention, SubscriptionId};
use crate::plan::{Change, QueueSettings, Redrive};
use crate::request::{Reply, Request};
use crate::store::Start;

/// Queues by the first letter of their name: work, log, and in memory alone.
pub(super) const QUEUES: [&str; 6] = ["q0", "q1", "q2", "l0", "m0", "q0-dead"];
pub(super) const SUBJECTS: [&str; 3] = ["s.a", "s.b", "s.c"];
const PATTERNS: [&str; 4] = ["s.*", "s.a", "s.b", "s.c"];

/// What is asked and not answered yet.
#[derive(Debug)]
pub(super) enum Ask {
    Define(QueueSettings),
    Open { name: &'static str, epoch: u64 },
    Publish { ids: Vec<String>, named: Option<&'static str>, zombie: bool },
    Settle { consumer: u64, subscription: SubscriptionId, items: Vec<Item> },
    Subscribe { consumer: u64, queue: String, name: String, start: Start },
    Redrive { dry_run: bool },
    Change(Change),
    Checkpoint,
    Stop,
}

/// One settlement of a request.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) offset: u64,
    pub(super) kind: Kind,
    pub(super) outputs: Vec<String>,
    /// It was no delivery of this consumer's any more when it was sent.
    pub(super) is_stale: bool,
}

/// A named publisher.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) epoch: u64,
    /// The stream that it has: its source, and the session.
    pub(super) stream: Option<(u64, u64)>,
    /// One that it had: epoch, source, session.
    pub(super) old: Option<(u64, u64, u64)>,
    pub(super) opening: bool,
    pub(super) sequence: u64,
    /// Sent and not answered, by sequence.
    pub(super) unanswered: std::collections::BTreeMap<u64, String>,
    /// Refused, to be sent again.
    pub(super) refused: std::collections::BTreeMap<u64, String>,
}

impl Named {
    /// The connection is gone, and with it what it would have been answered.
    pub(super) fn disconnect(&mut self) {
        (self.stream, self.old, self.opening) = (None, None, false);
    }
}

impl World {
    /// The queues and subscriptions that there are from the start.
    pub(super) fn begin(&mut self) {
        for name in &QUEUES[..5] {
            self.define(name);
        }
        for _ in 0..4 {
            self.settle_down();
            self.do_journal_job();
        }
        self.settle_down();
        if self.running.is_some() {
            for _ in 0..3 {
                self.subscribe();
            }
        }
    }

    pub(super) fn ask(&mut self) {
        if self.random.percent(6) {
            return self.operate();
        }
        match self.random.below(100) {
            0..=29 => self.publish(),
            30..=37 => self.publish_named(),
            38..=69 => self.settle(),
            70..=76 => self.subscribe(),
            77..=84 => self.grant(),
            85..=88 => self.leave(),
            89..=91 => {
                let name = *self.random.pick(&QUEUES);
                self.define(name);
            }
            92..=95 => self.redrive(),
            96 | 97 => self.ask_checkpoint(),
            _ => self.open_publisher(),
        }
    }

    fn define(&mut self, name: &str) {
        let settings = self.settings(name);
        self.hit(match settings.limits.on_full {
            OnFull::Block => "queues that block",
            OnFull::DropOldest => "queues that drop the oldest",
            OnFull::Reject => "queues that reject",
        });
        self.define_as(settings);
    }

    pub(super) fn define_as(&mut self, settings: QueueSettings) {
        let ask = self.next();
        self.note(|| format!("ask {ask}: define {settings:?}"));
        let most = self.in_flight_max.entry(settings.name.to_string()).or_default();
        *most = settings.in_flight_max.max(*most);
        self.asks.insert(ask, Ask::Define(settings.clone()));
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::Defined(ask, answer))));
        self.take(Request::DefineQueue { settings, reply });
    }

    fn settings(&mut self, name: &str) -> QueueSettings {
        let random = &mut self.random;
        let subject = |text: &str| Subject::new(text).expect("a subject");
        let mut settings = QueueSettings::new(subject(name));
        if name.ends_with("-dead") {
            settings = QueueSettings::for_dead_letters(subject(name));
        } else {
            settings.attempts_max = *random.pick(&[0, 1, 2, 3]);
            settings.backoff_ms = random.pick(&[vec![], vec![10], vec![5, 50, 500]]).clone();
            let pattern = |n: &str| SubjectPattern::new(n).expect("a pattern");
            settings.subjects = (0..random.below(3)).map(|_| pattern(random.pick::<&str>(&PATTERNS))).collect();
            if random.percent(20) {
                settings.dead_letter = random.pick(&[None, Some("q0-dead".to_owned())]).clone();
            }
        }
        settings.in_flight_max = *random.pick(&[1, 2, 10, 1_000]);
        settings.ack_deadline_ms = *random.pick(&[0, 20, 1_000, 30_000]);
        settings.durability = match name.as_bytes()[0] {
            b'm' => Durability::Memory,
            _ => *random.pick(&[Durability::Synced, Durability::Synced, Durability::Buffered]),
        };
        if name.starts_with('l') {
            let messages = *random.pick(&[None, Some(5), Some(50)]);
            let bytes = *random.pick(&[None, None, Some(30_000)]);
            settings.retention = Retention::Log { age_ms: *random.pick(&[None, Some(2_000)]), bytes, messages };
        }
        settings.limits = match random.below(3) {
            0 => QueueLimits::default(),
            1 => QueueLimits { messages: Some(random.within(1..20)), bytes: None, on_full: OnFull::default() },
            _ => QueueLimits { messages: None, bytes: Some(random.within(200..60_000)), on_full: OnFull::default() },
        };
        settings.limits.on_full = *random.pick(&[OnFull::Reject, OnFull::DropOldest, OnFull::Block]);
        settings
    }

    fn redrive(&mut self) {
        let queue = (*self.random.pick(&["q0-dead", "q1-dead", "l0-dead", "q1"])).to_owned();
        let (dry_run, odd) = (self.random.percent(20), self.random.percent(20));
        let from = if self.random.percent(70) { 0 } else { self.random.below(10) };
        let redrive = Redrive {
            queue,
            from: Offset(from),
            look: *self.random.pick(&[1, 5, 1_000]),
            take: *self.random.pick(&[1, 3, 1_000]),
            only: Box::new(move |offset, _| !odd || offset.0 % 2 == 1),
            dry_run,
        };
        let ask = self.next();
        self.note(|| format!("ask {ask}: redrive {} from {from}, dry: {dry_run}", redrive.queue));
        self.asks.insert(ask, Ask::Redrive { dry_run });
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer| Self::say(&events, Event::Redriven(ask, answer))));
        self.take(Request::Redrive { redrive, reply });
    }

    pub(super) fn ask_checkpoint(&mut self) {
        let shrink = self.random.percent(30);
        let ask = self.next();
        self.asks.insert(ask, Ask::Checkpoint);
        let events = self.events.clone();
        let reply = Reply::Call(Box::new(move |answer: Result<_, _>| {
            Self::say(&events, Event::Checkpointed(ask, answer.map(drop)));
        }));
        self.take(Request::Checkpoint { shrink, reply });
    }
}
