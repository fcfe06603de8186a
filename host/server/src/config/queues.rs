//! `[queue.NAME]`: what queues take, and where their dead letters go.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use quipu_protocol::{Subject, SubjectPattern};
use quipu_queue::delivery::{DEADLINE_MAX_MS, IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX};
use quipu_queue::{Durability, OnFull, QueueLimits, Retention};

use toml::Spanned;

use super::check::{Checker, Placed, taken};
use super::problem::join;
use super::raw::{self, Given, Kept, Named, Table};
use super::units::{ByteSize, HumanDuration};
use super::{QUEUE_SUBJECTS_MAX, QUEUES_MAX, QueueConfig, RouteConfig};

const ATTEMPTS_MAX: u32 = 1_000;
const ATTEMPTS: u32 = 5;
const ACK_DEADLINE: Duration = Duration::from_secs(30);
/// Ten years.
const AGE_MAX: HumanDuration = HumanDuration(Duration::from_secs(315_576_000));
const MESSAGES_MAX: u64 = 1_000_000_000_000;
const BYTES_MAX: ByteSize = ByteSize(1 << 50);

/// A queue whose defaults are still to be found.
struct Draft {
    name: Subject,
    subjects: Vec<SubjectPattern>,
    attempts_max: Option<u32>,
    backoff: Vec<Duration>,
    dead_letter: Option<Subject>,
    durability: Durability,
    retention: Retention,
    limits: QueueLimits,
    in_flight_max: u32,
    ack_deadline: Duration,
}

/// The queues that are as they should be; what is wrong with others is reported.
pub(super) fn check(
    checker: &mut Checker<'_>,
    raw: Named<raw::Queue>,
    routes: &[Placed<RouteConfig>],
) -> Vec<QueueConfig> {
    checker.at_most(raw.len(), QUEUES_MAX, "queues", &(0..0), "queue");
    let mut drafts = Vec::new();
    for (name, queue) in raw {
        let (key, span) = (join("queue", &name), queue.span());
        let Table(queue) = queue.into_inner();
        drafts.extend(draft(checker, &name, queue, &key, &span).map(|value| Placed { value, key, span }));
    }
    let ends = default_dead_letters(checker, &mut drafts, routes);
    let finish = |Placed { value: draft, .. }: Placed<Draft>| QueueConfig {
        attempts_max: draft.attempts_max.unwrap_or(if ends.contains(&draft.name) { 0 } else { ATTEMPTS }),
        name: draft.name,
        subjects: draft.subjects,
        backoff: draft.backoff,
        dead_letter: draft.dead_letter,
        durability: draft.durability,
        retention: draft.retention,
        limits: draft.limits,
        in_flight_max: draft.in_flight_max,
        ack_deadline: draft.ack_deadline,
    };
    drafts.into_iter().map(finish).collect()
}

fn draft(checker: &mut Checker<'_>, name: &str, raw: raw::Queue, key: &str, span: &Range<usize>) -> Option<Draft> {
    let subjects = checker.list(raw.subjects, &join(key, "subjects"), QUEUE_SUBJECTS_MAX, taken);
    let attempts_max = checker.within(raw.max_attempts, &join(key, "max_attempts"), 0..=ATTEMPTS_MAX);
    let backoff = checker.backoff(raw.backoff, &join(key, "backoff"));
    let mut dead_letter = None;
    if let Some(given) = raw.dead_letter {
        let (key, span) = (join(key, "dead_letter"), given.span());
        dead_letter = checker.queue_name(given.as_ref(), &span, &key);
        if given.as_ref() == name {
            checker.report(&span, &key, "a queue cannot be its own dead-letter queue");
        }
    }
    let durability = raw.durability.map_or(Durability::default(), Spanned::into_inner);
    let is_log = raw.retention.is_some_and(|kept| kept.into_inner() == Kept::Log);
    let retention = retention(checker, raw.retention_age, raw.retention_bytes, raw.retention_messages, is_log, key);
    let limits = limits(checker, raw.max_messages, raw.max_bytes, raw.on_full, key);
    let in_flight_most = u32::try_from(IN_FLIGHT_MAX).unwrap_or(u32::MAX);
    let in_flight = checker.within(raw.max_in_flight, &join(key, "max_in_flight"), 1..=in_flight_most);
    let deadline = HumanDuration(Duration::ZERO)..=HumanDuration(Duration::from_millis(DEADLINE_MAX_MS));
    let deadline = checker.within(raw.ack_deadline, &join(key, "ack_deadline"), deadline);
    Some(Draft {
        name: checker.queue_name(name, span, key)?,
        subjects: subjects.into_iter().map(|subject| subject.value).collect(),
        attempts_max,
        backoff,
        dead_letter,
        durability,
        retention,
        limits,
        in_flight_max: in_flight.unwrap_or(u32::try_from(IN_FLIGHT_DEFAULT).unwrap_or(u32::MAX)),
        ack_deadline: deadline.map_or(ACK_DEADLINE, |deadline| deadline.0),
    })
}

/// How long messages stay. How much of a log is kept means nothing where the queue is none.
fn retention(
    checker: &mut Checker<'_>,
    age: Given<HumanDuration>,
    bytes: Given<ByteSize>,
    messages: Given<u64>,
    is_log: bool,
    key: &str,
) -> Retention {
    let given = [
        ("retention_age", age.as_ref().map(Spanned::span)),
        ("retention_bytes", bytes.as_ref().map(Spanned::span)),
        ("retention_messages", messages.as_ref().map(Spanned::span)),
    ];
    if !is_log {
        for (name, span) in given.into_iter().filter_map(|(name, span)| Some((name, span?))) {
            checker.report(&span, &join(key, name), format!("`{name}` is for logs: add `retention = \"log\"`"));
        }
        return Retention::Work;
    }
    let least = HumanDuration(Duration::from_secs(1));
    let age = checker.within(age, &join(key, "retention_age"), least..=AGE_MAX);
    let bytes = checker.within(bytes, &join(key, "retention_bytes"), ByteSize(1)..=BYTES_MAX);
    let messages = checker.within(messages, &join(key, "retention_messages"), 1..=MESSAGES_MAX);
    let age_ms = age.map(|age| u64::try_from(age.0.as_millis()).unwrap_or(u64::MAX));
    Retention::Log { age_ms, bytes: bytes.map(|bytes| bytes.0), messages }
}

fn limits(
    checker: &mut Checker<'_>,
    messages: Given<u64>,
    bytes: Given<ByteSize>,
    on_full: Given<OnFull>,
    key: &str,
) -> QueueLimits {
    let messages = checker.within(messages, &join(key, "max_messages"), 1..=MESSAGES_MAX);
    let bytes = checker.within(bytes, &join(key, "max_bytes"), ByteSize(1)..=BYTES_MAX).map(|bytes| bytes.0);
    let on_full = on_full.map_or(OnFull::default(), Spanned::into_inner);
    QueueLimits { messages, bytes, on_full }
}

/// Gives each queue that names no dead-letter queue its default, unless it is one itself; these are returned.
fn default_dead_letters(
    checker: &mut Checker<'_>,
    drafts: &mut [Placed<Draft>],
    routes: &[Placed<RouteConfig>],
) -> HashSet<Subject> {
    let by_queues = drafts.iter().filter_map(|draft| draft.value.dead_letter.clone());
    let by_routes = routes.iter().filter_map(|route| route.value.on_error.then.clone());
    let mut used: HashSet<Subject> = by_queues.chain(by_routes).collect();
    let mut ends = HashSet::new();
    let mut open: Vec<_> = drafts.iter_mut().filter(|draft| draft.value.dead_letter.is_none()).collect();
    // A default is longer than the name it is made of, so all that can make a name one have had their turn before it.
    open.sort_by_key(|draft| draft.value.name.as_str().len());
    for Placed { value: draft, key, span } in open {
        if used.contains(&draft.name) {
            ends.insert(draft.name.clone());
            continue;
        }
        match Subject::new(&format!("{}-dead", draft.name)) {
            Ok(name) => {
                used.insert(name.clone());
                draft.dead_letter = Some(name);
            }
            Err(_) => {
                checker.report(span, key, "the name is too long for a `-dead` queue of its own; set `dead_letter`")
            }
        }
    }
    ends
}
