//! What became of messages: a log in memory, bounded in bytes, the oldest events going first.
//!
//! Off, it costs one look at a number for each message. Sampled, it knows all of some messages rather than some of all:
//! what was made of a message is in it where the message is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use quipu_protocol::Message;
use serde::Serialize;

use crate::outputs::ROOT;
use crate::route::lock;

/// Bytes that a log has where nothing else is said.
pub const TRACE_BYTES: usize = 16 << 20;
/// Messages that [`TraceLog::show`] follows at most.
const FOLLOWED_MAX: usize = 1_024;
/// What an event takes beside its texts, near enough.
const EVENT_BYTES: usize = 160;

/// Which messages are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TraceMode {
    /// None.
    #[default]
    Off,
    /// One in so many, by a hash of its id; with 1, all of them.
    Sampled(u32),
    /// All.
    All,
}

/// The log.
#[derive(Debug)]
pub struct TraceLog {
    /// 0: off; else one in so many.
    one_in: AtomicU32,
    ring: Mutex<Ring>,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Event>,
    bytes: usize,
    bytes_max: usize,
    gone: u64,
}

/// Something that happened to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The message's id.
    pub id: String,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// What it was.
    #[serde(flatten)]
    pub what: What,
}

/// The things that happen to messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum What {
    /// A client published it, and was answered.
    Published { subject: String, publisher: String, outcome: String, places: Vec<(String, u64)> },
    /// A route made an attempt.
    Attempt { route: String, attempt: u32, hops: Vec<Hop>, ns: u64, end: String },
    /// A route made these of it.
    Outputs { route: String, made: Vec<(String, String)> },
    /// What a subscription did with it is durable.
    Settled { subscription: String, outcome: String },
    /// A consumer has it.
    Delivered { queue: String, subscription: String, consumer: Option<String>, attempt: u32 },
    /// It went to a dead-letter queue.
    DeadLettered { subscription: String, reason: String },
}

/// One plugin's part in an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Name and digest.
    pub plugin: String,
    /// As of [`Verdict::name`](quipu_runtime::Verdict::name); or `fault` and its code; or `bypassed`.
    pub verdict: String,
    /// How long it took.
    pub ns: u64,
}

/// How full the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TraceInfo {
    /// 0: off; else one message in so many is followed.
    pub one_in: u32,
    /// Events in it.
    pub events: usize,
    /// Their bytes, near enough.
    pub bytes: usize,
    /// Bytes at which the oldest go.
    pub bytes_max: usize,
    /// Events that went since the start.
    pub gone: u64,
}

impl Default for TraceLog {
    fn default() -> Self {
        let ring = Ring { events: VecDeque::new(), bytes: 0, bytes_max: TRACE_BYTES, gone: 0 };
        Self { one_in: AtomicU32::new(0), ring: Mutex::new(ring) }
    }
}

impl TraceLog {
    /// Says which messages are followed from now on, and how much is kept. Off, all of it goes.
    pub fn configure(&self, mode: TraceMode, bytes_max: usize) {
        let one_in = match mode {
            TraceMode::Off => 0,
            TraceMode::Sampled(one_in) => one_in.max(1),
            TraceMode::All => 1,
        };
        self.one_in.store(one_in, Ordering::Release);
        let mut ring = lock(&self.ring);
        ring.bytes_max = if one_in == 0 { 0 } else { bytes_max };
        ring.shrink();
    }

    /// Whether any message is followed.
    pub fn is_on(&self) -> bool {
        self.one_in.load(Ordering::Relaxed) > 0
    }

    /// Whether this message is followed. What was made of a message is where that is.
    pub fn follows(&self, message: &Message) -> bool {
        match self.one_in.load(Ordering::Relaxed) {
            0 => false,
            1 => true,
            one_in => hash(message.headers.first(ROOT).unwrap_or(message.id.as_str())).is_multiple_of(one_in.into()),
        }
    }

    /// Takes note of an event of a message that is followed.
    pub fn add(&self, id: &str, what: What) {
        if !self.is_on() {
            return;
        }
        let event = Event { id: id.to_owned(), at_ms: quipu_queue::now_ms(), what };
        let mut ring = lock(&self.ring);
        ring.bytes += event.bytes();
        ring.events.push_back(event);
        ring.shrink();
    }

    /// What is known of a message, of those that it was made of and of those that were made of it, in order; that it was
    /// published comes first, though its publisher hears of that when routes may be at work already. Looks through the
    /// whole log.
    pub fn show(&self, id: &str) -> Vec<Event> {
        let ring = lock(&self.ring);
        let of = |up: bool| ring.related(id, up);
        let related: HashSet<&str> = of(true).into_iter().chain(of(false)).collect();
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut events = Vec::new();
        for event in ring.events.iter().filter(|event| related.contains(event.id.as_str())) {
            let place = events.len();
            let first = *first.entry(&event.id).or_insert(place);
            let is_published = matches!(event.what, What::Published { .. });
            events.push((if is_published { (first, 0) } else { (place, 1) }, event));
        }
        events.sort_by_key(|(place, _)| *place);
        events.into_iter().map(|(_, event)| event.clone()).collect()
    }

    /// How full it is.
    pub fn info(&self) -> TraceInfo {
        let ring = lock(&self.ring);
        let one_in = self.one_in.load(Ordering::Relaxed);
        TraceInfo { one_in, events: ring.events.len(), bytes: ring.bytes, bytes_max: ring.bytes_max, gone: ring.gone }
    }
}

impl Ring {
    fn shrink(&mut self) {
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.bytes();
            self.gone += 1;
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// A message, and those it was made of (`up`) or that were made of it.
    fn related<'a>(&'a self, id: &'a str, up: bool) -> HashSet<&'a str> {
        let mut found = HashSet::from([id]);
        loop {
            let before = found.len();
            for event in &self.events {
                let What::Outputs { made, .. } = &event.what else { continue };
                if up && made.iter().any(|(id, _)| found.contains(id.as_str())) {
                    found.insert(&event.id);
                } else if !up && found.contains(event.id.as_str()) {
                    found.extend(made.iter().map(|(id, _)| id.as_str()));
                }
            }
            if found.len() == before || found.len() >= FOLLOWED_MAX {
                return found;
            }
        }
    }
}

impl Event {
    fn bytes(&self) -> usize {
        let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| 48 + a.len() + b.len()).sum::<usize>();
        let texts = match &self.what {
            What::Published { subject, publisher, outcome, places } => {
                let places: usize = places.iter().map(|(queue, _)| 32 + queue.len()).sum();
                subject.len() + publisher.len() + outcome.len() + places
            }
            What::Attempt { route, hops, end, .. } => {
                let hops: usize = hops.iter().map(|hop| 56 + hop.plugin.len() + hop.verdict.len()).sum();
                route.len() + end.len() + hops
            }
            What::Outputs { route, made } => route.len() + pairs(made),
            What::Settled { subscription, outcome } => subscription.len() + outcome.len(),
            What::Delivered { queue, subscription, consumer, .. } => {
                queue.len() + subscription.len() + consumer.as_ref().map_or(0, String::len)
            }
            What::DeadLettered { subscription, reason } => subscription.len() + reason.len(),
        };
        EVENT_BYTES + self.id.len() + texts
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quipu_protocol::{MessageId, Subject};

    fn settled(n: usize) -> What {
        What::Settled { subscription: format!("s{n}"), outcome: "acked".into() }
    }

    fn outputs(ids: &[&str]) -> What {
        let made = ids.iter().map(|id| ((*id).to_owned(), "x".to_owned())).collect();
        What::Outputs { route: "r".into(), made }
    }

    #[test]
    fn a_message_is_shown_with_all_before_and_behind_it_and_without_its_siblings() {
        let log = TraceLog::default();
        log.add("root", settled(0));
        assert_eq!((log.is_on(), log.info().events), (false, 0));
        log.configure(TraceMode::All, 1 << 20);
        for (id, made) in [("root", vec!["a", "b"]), ("a", vec!["a1"]), ("b", vec!["b1"]), ("a1", vec!["a2"])] {
            log.add(id, outputs(&made));
        }
        log.add("other", outputs(&["x"]));
        log.add("a2", settled(1));
        let shown = |id: &str| log.show(id).into_iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!(shown("a"), ["root", "a", "a1", "a2"]);
        assert_eq!(shown("root"), ["root", "a", "b", "a1", "a2"]);
        assert_eq!(shown("b1"), ["root", "b"]);
        assert!(shown("nobody").is_empty());
        let published = What::Published {
            subject: "x".into(),
            publisher: String::new(),
            outcome: "stored".into(),
            places: vec![("q".into(), 7)],
        };
        log.add("b", published.clone());
        let b = log.show("b").into_iter().map(|event| event.what == published).collect::<Vec<_>>();
        assert_eq!(b, [false, true, false], "after what it was made of, before what was made of it");
        log.configure(TraceMode::Off, 1 << 20);
        assert_eq!((log.info().events, log.info().bytes), (0, 0));
    }

    #[test]
    fn the_oldest_go_and_the_bytes_stay_within_their_bound() {
        let log = TraceLog::default();
        log.configure(TraceMode::All, 10_000);
        for n in 0..1_000 {
            log.add(&format!("m{n}"), settled(n));
        }
        let info = log.info();
        assert!(info.bytes <= 10_000 && info.bytes > 9_000, "{info:?}");
        assert_eq!(info.events as u64 + info.gone, 1_000);
        assert!(log.show("m0").is_empty() && !log.show("m999").is_empty());
        log.add("m", What::DeadLettered { subscription: "s".into(), reason: "x".repeat(20_000) });
        assert_eq!(log.info().events, 0, "what is larger than the log is not in it");
    }

    #[test]
    fn what_was_made_of_a_message_is_sampled_with_it() {
        let log = TraceLog::default();
        log.configure(TraceMode::Sampled(10), 1 << 20);
        let message = |id: &str| {
            let subject = Subject::new("x").expect("a subject");
            Message::new(MessageId::new(id).expect("an id"), subject, "")
        };
        let followed = (0..1_000).filter(|n| log.follows(&message(&n.to_string()))).count();
        assert!((50..200).contains(&followed), "{followed}");
        for n in 0..100 {
            let root = n.to_string();
            let mut child = message("child");
            child.headers.set(ROOT, &root).expect("room");
            assert_eq!(log.follows(&child), log.follows(&message(&root)), "{n}");
        }
    }
}
