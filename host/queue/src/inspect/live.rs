//! Whether everything that somebody still waits for can be read, and whether the books agree.

use quipu_protocol::Message;

use super::found::{Found, Problems};
use super::{QueueReport, Report};
use crate::commit::{Offset, QueueId};
use crate::state::{Queue, State};

pub(super) fn check(state: &State, found: &Found, problems: &mut Problems, report: &mut Report) {
    for (id, queue) in &state.queues {
        // What it held is gone with the process, as promised.
        let kept = !queue.is_in_memory_alone();
        let lost = if kept { check_messages(*id, queue, found, problems) } else { 0 };
        if kept {
            check_books(queue, problems);
        }
        let messages = if kept { queue.live } else { 0 };
        report.queues.push(QueueReport {
            name: queue.name.to_string(),
            messages,
            readable: messages.saturating_sub(lost),
            bytes: if kept { queue.live_bytes } else { 0 },
            first: queue.next_live(Offset(0)),
            next: queue.next,
            subscriptions: subscriptions(queue, kept),
        });
    }
    report.queues.sort_by(|a, b| a.name.cmp(&b.name));
}

fn subscriptions(queue: &Queue, kept: bool) -> Vec<(String, u64)> {
    let outstanding = |s: &crate::state::Subscription| if kept { s.outstanding(queue.next) } else { 0 };
    queue.subscriptions.values().map(|s| (s.name.clone(), outstanding(s))).collect()
}

/// How many are lost.
fn check_messages(id: QueueId, queue: &Queue, found: &Found, problems: &mut Problems) -> u64 {
    let mut count = 0;
    let mut lost = 0;
    let mut run: Option<(Offset, Offset)> = None;
    let tell = |run: Option<(Offset, Offset)>, problems: &mut Problems| {
        if run.is_some() {
            problems.queue("table chunks", &queue.name, run, "lost: no whole chunk or record has it".into());
        }
    };
    let mut offset = queue.next_live(Offset(0));
    while offset < queue.next {
        count += 1;
        let readable = match queue.in_memory(offset) {
            Some(stored) => Message::decode(stored.header.clone(), stored.payload.clone()).is_ok(),
            None => found.holds(id, offset),
        };
        if !readable {
            lost += 1;
            run = match run {
                Some((first, last)) if last.next() == offset => Some((first, offset)),
                before => {
                    tell(before, problems);
                    Some((offset, offset))
                }
            };
        }
        offset = queue.next_live(offset.next());
    }
    tell(run, problems);
    if count != queue.live {
        let what = format!("it counts {} messages that are needed, and there are {count}", queue.live);
        problems.books("table queues", &queue.name, what);
    }
    lost
}

/// The ledger of each subscription: as many came as are gone or outstanding.
fn check_books(queue: &Queue, problems: &mut Problems) {
    for subscription in queue.subscriptions.values() {
        let (came, gone) = (subscription.counts.came(), subscription.counts.gone());
        let outstanding = subscription.outstanding(queue.next);
        if gone.checked_add(outstanding) != Some(came) {
            let name = &subscription.name;
            let what =
                format!("subscription {name}: {came} messages came, {gone} are done with, and {outstanding} are left");
            problems.books("table queues", &queue.name, what);
        }
    }
}
