//! Where routes lead: outputs that nothing takes, and routes that lead back to where they began.
//!
//! Only subjects that are the same for every message are followed; hops are counted at run time for the rest.

use std::collections::HashMap;

use quipu_protocol::Subject;

use super::QueueConfig;
use super::check::Placed;

/// A subject that a route publishes to.
pub(super) struct Output {
    pub(super) route: String,
    /// None: as messages are published.
    pub(super) from: Option<Subject>,
    pub(super) subject: Subject,
}

type Report<'a> = dyn FnMut(&Placed<Output>, String) + 'a;

/// Reports each output that no queue takes or that closes a cycle.
pub(super) fn check(queues: &[QueueConfig], outputs: &[Placed<Output>], report: &mut Report<'_>) {
    let takers = Takers::new(queues);
    let mut leading = vec![Vec::new(); queues.len()];
    let mut known: HashMap<&Subject, Vec<usize>> = HashMap::new();
    for place in outputs {
        let Output { from, subject, .. } = &place.value;
        let taken_by = known.entry(subject).or_insert_with(|| takers.of(subject));
        if taken_by.is_empty() {
            report(place, format!("no queue takes `{subject}`; add [queue.\"{subject}\"] or a pattern"));
        }
        if let Some(&from) = from.as_ref().and_then(|from| takers.by_name.get(from)) {
            leading[from].extend(taken_by.iter().map(|&to| Edge { output: place, to }));
        }
    }
    let mut walk = Walk { queues, leading, state: vec![Visit::New; queues.len()], trail: Vec::new() };
    for start in 0..queues.len() {
        walk.from(start, report);
    }
}

/// Which queues take a subject.
pub(super) struct Takers<'a> {
    queues: &'a [QueueConfig],
    by_name: HashMap<&'a Subject, usize>,
}

impl<'a> Takers<'a> {
    pub(super) fn new(queues: &'a [QueueConfig]) -> Self {
        Self { queues, by_name: queues.iter().enumerate().map(|(n, queue)| (&queue.name, n)).collect() }
    }

    pub(super) fn of(&self, subject: &Subject) -> Vec<usize> {
        let named = self.by_name.get(subject).copied();
        let by_pattern = |&n: &usize| self.queues[n].subjects.iter().any(|pattern| pattern.matches(subject));
        (0..self.queues.len()).filter(|n| Some(*n) == named || by_pattern(n)).collect()
    }
}

#[derive(Clone, Copy)]
struct Edge<'a> {
    output: &'a Placed<Output>,
    to: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    OnTrail,
    Done,
}

/// A depth-first walk over the queues, in a loop of its own so that a long chain needs no deep stack.
struct Walk<'a> {
    queues: &'a [QueueConfig],
    leading: Vec<Vec<Edge<'a>>>,
    state: Vec<Visit>,
    /// The queues from the start to here, each with the number of its edges that have been followed.
    trail: Vec<(usize, usize)>,
}

impl Walk<'_> {
    fn from(&mut self, start: usize, report: &mut Report<'_>) {
        self.enter(start);
        while let Some(&(at, followed)) = self.trail.last() {
            let Some(edge) = self.leading[at].get(followed).copied() else {
                self.state[at] = Visit::Done;
                self.trail.pop();
                continue;
            };
            self.trail.last_mut().expect("it is not empty").1 += 1;
            match self.state[edge.to] {
                Visit::New => self.enter(edge.to),
                Visit::OnTrail => report(edge.output, self.describe(edge.to)),
                Visit::Done => {}
            }
        }
    }

    fn enter(&mut self, queue: usize) {
        if self.state[queue] == Visit::New {
            self.state[queue] = Visit::OnTrail;
            self.trail.push((queue, 0));
        }
    }

    /// The cycle from this queue, which is on the trail, along it and back.
    fn describe(&self, first: usize) -> String {
        let begin = self.trail.iter().position(|&(queue, _)| queue == first).unwrap_or_default();
        let steps = self.trail[begin..].iter().map(|&(queue, followed)| {
            let route = &self.leading[queue][followed - 1].output.value.route;
            format!("queue {} → route {route} → ", self.queues[queue].name)
        });
        let path: String = steps.collect();
        format!("messages would go round for ever: {path}queue {}", self.queues[first].name)
    }
}
