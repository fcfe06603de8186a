//! What one commit makes of what is asked.

use quipu_protocol::{Message, Subject};

use super::*;
use crate::commit::Mode;
use crate::store::Start;

fn published(to: &str, id: &str) -> Published {
    let id = quipu_protocol::MessageId::new(id).expect("an id");
    Published::new(&Message::new(id, Subject::new(to).expect("a subject"), ""), true)
}

/// Plans at a time and applies.
fn commit<T>(state: &mut State, now_ms: u64, work: impl FnOnce(&mut Plan<'_>) -> T) -> T {
    let nothing = crate::state::tests::Nothing;
    let mut plan = Plan::new(state, &nothing, 1 << 20, now_ms);
    let done = work(&mut plan);
    let planned = plan.finish();
    let volatile = Commit { time_ms: planned.commit.time_ms, operations: planned.volatile };
    state.apply(planned.commit, &nothing).expect("it fits");
    state.apply_volatile(volatile, &nothing).expect("it fits");
    done
}

#[test]
fn a_repeated_id_is_a_duplicate_until_the_window_is_over_though_nothing_else_was_committed() {
    let mut state = State::default();
    let queue = QueueSettings::new(Subject::new("q").expect("a subject"));
    commit(&mut state, 1_000, |plan| plan.define_queue(&queue)).expect("a queue");
    let done = |receipt| Attempted::Done(Ok(receipt));
    let mut publish = |now_ms| commit(&mut state, now_ms, |plan| plan.publish(&published("q", "m"), None));
    let places = |offset| vec![("q".into(), Offset(offset))];
    let end_ms = 1_000 + crate::dedup::WINDOW_MS;
    assert_eq!(publish(1_000), done(Receipt::Stored(places(0))));
    // A clock that goes back stands still.
    assert_eq!(publish(500), done(Receipt::Duplicate(places(0))));
    assert_eq!(publish(end_ms - 1), done(Receipt::Duplicate(places(0))));
    assert_eq!(publish(end_ms), done(Receipt::Stored(places(1))));
    assert_eq!(publish(end_ms + 1), done(Receipt::Duplicate(places(1))));
}

#[test]
fn a_queue_defined_twice_in_a_commit_is_one_queue() {
    let mut state = State::default();
    let queue = |name: &str| QueueSettings::new(Subject::new(name).expect("a subject"));
    commit(&mut state, 0, |plan| {
        plan.define_queue(&queue("a")).expect("a queue");
        plan.define_queue(&QueueSettings { attempts_max: 9, ..queue("a") }).expect("a queue");
        plan.define_queue(&queue("b")).expect("a queue");
        plan.define_queue(&queue("a")).expect("a queue");
    });
    let known: Vec<_> = state.queues.values().map(|q| (&*q.name, q.definition.attempts_max)).collect();
    assert_eq!(known, [("a", 5), ("b", 5)]);
}

#[test]
fn a_message_that_was_handed_out_alone_is_taken_for_that_until_it_comes_back() {
    let mut state = State::default();
    let queue = QueueSettings::new(Subject::new("q").expect("a subject"));
    commit(&mut state, 0, |plan| plan.define_queue(&queue)).expect("a queue");
    let (_, id) = commit(&mut state, 0, |plan| plan.subscribe("q", "s", Mode::Shared, Start::First)).expect("a queue");
    commit(&mut state, 0, |plan| plan.publish(&published("q", "m"), None));
    let isolated = |state: &State| state.subscription(id).expect("a subscription").1.isolated;
    commit(&mut state, 0, |plan| plan.isolate(id, Offset(0)));
    assert_eq!(isolated(&state), Some(Offset(0)));
    commit(&mut state, 0, |plan| plan.release(id));
    assert_eq!(isolated(&state), None);
    // It is given out alone again, in one commit with the word that it came back.
    commit(&mut state, 0, |plan| {
        plan.release(id);
        plan.isolate(id, Offset(0));
    });
    assert_eq!(isolated(&state), Some(Offset(0)));
}

#[test]
fn backoff_stays_at_its_last_step() {
    let steps = [100, 1_000, 10_000];
    assert_eq!([1, 2, 3, 4, 99].map(|n| backoff(&steps, n)), [100, 1_000, 10_000, 10_000, 10_000]);
    assert_eq!(backoff(&[], 3), 0);
}
