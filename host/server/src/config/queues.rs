//! `[queue.NAME]`: what queues take, and where their dead letters go.

use std::collections::HashSet;

use quipu_protocol::{Subject, SubjectPattern};

use super::check::{Checker, Placed};
use super::problem::join;
use super::raw::{self, Named, Table};
use super::{QUEUE_SUBJECTS_MAX, QUEUES_MAX, QueueConfig, RouteConfig};

const ATTEMPTS_MAX: u32 = 1_000;
const ATTEMPTS: u32 = 5;

/// A queue whose defaults are still to be found.
struct Draft {
    name: Subject,
    subjects: Vec<SubjectPattern>,
    attempts_max: Option<u32>,
    backoff: Vec<std::time::Duration>,
    dead_letter: Option<Subject>,
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
    };
    drafts.into_iter().map(finish).collect()
}

fn draft(
    checker: &mut Checker<'_>,
    name: &str,
    raw: raw::Queue,
    key: &str,
    span: &std::ops::Range<usize>,
) -> Option<Draft> {
    let subjects = checker.list(raw.subjects, &join(key, "subjects"), QUEUE_SUBJECTS_MAX, SubjectPattern::new);
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
    let name = checker.queue_name(name, span, key)?;
    let subjects = subjects.into_iter().map(|subject| subject.value).collect();
    Some(Draft { name, subjects, attempts_max, backoff, dead_letter })
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
