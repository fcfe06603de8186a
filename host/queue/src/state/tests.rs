//! Whatever is done, the state that lived through it, the state that the journal gives and the state that a checkpoint
//! and the rest of the journal give are the same.

use proptest::prelude::*;
use quipu_protocol::{Message, MessageId, SubjectPattern};

use super::*;
use crate::checkpoint::{Checkpoints, Frozen};
use crate::commit::{DedupKey, Mode};
use crate::delivery::{Held, Token};
use crate::disk::RealDisk;
use crate::plan::{Output, Plan, Published, QueueSettings, Settle, Settlement, Settler, Target};
use crate::store::Start;

/// Bodies for states that keep all in memory.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Bodies for Nothing {
    fn message(&self, queue: QueueId, offset: Offset) -> Result<Arc<Stored>, String> {
        Err(format!("offset {offset} of {queue:?} is not in memory"))
    }
}

const QUEUES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Define { queue: usize, subjects: usize },
    Subscribe { queue: usize, name: usize, from_end: bool },
    Publish { queue: usize, id: u8, bytes: usize },
    Settle { subscription: usize, at: usize, how: usize },
    Commit { later_ms: u64 },
    Checkpoint { fails: bool, memory: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let queue = 0..QUEUES.len();
    prop_oneof![
        1 => (queue.clone(), 0..3usize).prop_map(|(queue, subjects)| Step::Define { queue, subjects }),
        1 => (queue.clone(), 0..3usize, any::<bool>())
            .prop_map(|(queue, name, from_end)| Step::Subscribe { queue, name, from_end }),
        6 => (queue, 0..200u8, prop_oneof![0..200usize, Just(70_000)])
            .prop_map(|(queue, id, bytes)| Step::Publish { queue, id, bytes }),
        6 => (0..6usize, 0..20usize, 0..5usize)
            .prop_map(|(subscription, at, how)| Step::Settle { subscription, at, how }),
        4 => prop_oneof![0..1_000u64, Just(130_000)].prop_map(|later_ms| Step::Commit { later_ms }),
        1 => (any::<bool>(), 0..100_000usize).prop_map(|(fails, memory)| Step::Checkpoint { fails, memory }),
    ]
}

/// A state, its journal, and its checkpoints.
struct Live {
    state: State,
    journal: Vec<Vec<u8>>,
    checkpoints: Checkpoints,
    now_ms: u64,
}

impl Live {
    /// Plans and applies the steps of one commit.
    fn commit(&mut self, steps: &[Step]) {
        let mut plan = Plan::new(&mut self.state, &self.checkpoints, 1 << 20, self.now_ms);
        let mut settled = BTreeSet::new();
        for step in steps {
            match *step {
                Step::Define { queue, subjects } => {
                    plan.define_queue(&settings(queue, subjects)).expect("the same durability");
                }
                Step::Subscribe { queue, name, from_end } => {
                    let start = if from_end { Start::New } else { Start::First };
                    plan.subscribe(QUEUES[queue], &name.to_string(), Mode::Shared, start);
                }
                Step::Publish { queue, id, bytes } => {
                    // Refused where there is no such queue yet.
                    plan.publish(&Published::new(&message(queue, id, bytes), true), None);
                }
                Step::Settle { subscription, at, how } => settle(&mut plan, &mut settled, subscription, at, how),
                Step::Commit { .. } | Step::Checkpoint { .. } => {}
            }
        }
        let commit = plan.finish().commit;
        if !commit.operations.is_empty() {
            self.journal.push(postcard::to_allocvec(&commit).expect("it is plain"));
            self.state.apply(commit, &self.checkpoints).expect("it fits");
        }
    }

    fn checkpoint(&mut self, fails: bool, memory: usize) {
        let frozen = Frozen::new(&mut self.state, self.journal.len() as u64, [1; 16]);
        let begun = frozen.begun();
        if fails {
            begun.failed(&mut self.state);
        } else {
            let written = self.checkpoints.write(&frozen).expect("a disk");
            begun.done(&mut self.state, &written);
        }
        self.state.evict(memory);
    }
}

fn settings(queue: usize, subjects: usize) -> QueueSettings {
    let subjects = QUEUES[..subjects].iter().map(|name| SubjectPattern::new(&format!("{name}.>")).expect("a pattern"));
    QueueSettings {
        subjects: subjects.collect(),
        ..QueueSettings::new(Subject::new(QUEUES[queue]).expect("a subject"))
    }
}

fn message(queue: usize, id: u8, bytes: usize) -> Message {
    let to = Subject::new(&format!("{}.x", QUEUES[queue])).expect("a subject");
    Message::new(MessageId::new(&id.to_string()).expect("an id"), to, vec![id; bytes])
}

/// Settles one of the messages that a subscription has not, in one of five ways.
fn settle(
    plan: &mut Plan<'_>,
    settled: &mut BTreeSet<(SubscriptionId, Offset)>,
    subscription: usize,
    at: usize,
    how: usize,
) {
    let state = plan.state();
    let Some((&subscription, &queue)) = state.subscriptions.iter().find(|(id, _)| id.0 as usize == subscription) else {
        return;
    };
    let known = &state.queues[&queue].subscriptions[&subscription];
    let floor = known.settled.floor().0;
    let unsettled = (floor..state.queues[&queue].next.0).map(Offset).filter(|offset| !known.settled.contains(*offset));
    let Some(offset) = unsettled.into_iter().nth(at) else { return };
    let attempt = known.marks.get(&offset).map_or(1, |mark| mark.attempts + 1);
    if !settled.insert((subscription, offset)) {
        return;
    }
    let output = |payload: Option<Bytes>| Output {
        target: Target::Subject(Subject::new("a").expect("a subject")),
        header: message(0, 0, 0).encode_header(),
        payload,
    };
    let (settlement, outputs) = match how {
        0 => (Settlement::Done(Outcome::Acked), Vec::new()),
        1 => (Settlement::Done(Outcome::Dropped), vec![output(None), output(Some("new".into())), output(None)]),
        2 => (Settlement::Nack { delay_ms: None }, Vec::new()),
        3 => (Settlement::DeadLetter { queue: None, reason: "bad".into(), headers: Vec::new() }, vec![output(None)]),
        _ => (Settlement::Park { delay_ms: 5 }, Vec::new()),
    };
    let settler = Settler { queue, subscription, held: Held { offset, attempt } };
    // Refused where nothing takes the output yet.
    plan.settle(settler, &Settle { token: Token(0), settlement, outputs }).ok();
}

/// Everything that matters of a state.
fn content(state: &State, bodies: &dyn Bodies) -> Vec<String> {
    let mut lines = vec![format!("{} {}", state.time_ms, state.subscription_next)];
    for (id, queue) in &state.queues {
        lines.push(format!("{:?}", postcard::to_allocvec(&state.row(*id)).expect("it is plain")));
        let live: Vec<Offset> = (0..queue.next.0).map(Offset).filter(|offset| queue.is_live(*offset)).collect();
        for &offset in &live {
            let stored = queue.in_memory(offset).cloned().map_or_else(|| bodies.message(*id, offset), Ok);
            let stored = stored.expect("a live message");
            lines.push(format!("{offset} {} {}", blake3::hash(&stored.header), blake3::hash(&stored.payload)));
        }
        assert_eq!(queue.live, live.len() as u64, "queue {id:?}");
    }
    for queue in QUEUES {
        for id in 0..200u8 {
            let key = DedupKey::new(&format!("{queue}.x"), &id.to_string());
            lines.extend(state.dedup.find(key).map(|places| format!("{queue} {id} {places:?}")));
        }
    }
    lines
}

fn replay(mut state: State, journal: &[Vec<u8>], bodies: &dyn Bodies) -> State {
    for record in journal {
        let commit: Commit = postcard::from_bytes(record).expect("it is whole");
        state.apply(commit, bodies).expect("it fits");
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn replay_gives_the_state_that_lived(steps in prop::collection::vec(step(), 1..250)) {
        let directory = tempfile::tempdir().expect("a directory");
        let checkpoints = Checkpoints::open(Arc::new(RealDisk::open(directory.path()).expect("a disk"))).expect("a state file");
        let mut live = Live { state: State::default(), journal: Vec::new(), checkpoints, now_ms: 1_000 };
        live.commit(&[Step::Define { queue: 0, subjects: 1 }, Step::Define { queue: 1, subjects: 2 }]);
        let mut gathered = Vec::new();
        for step in steps {
            match step {
                Step::Commit { later_ms } => {
                    live.now_ms += later_ms;
                    live.commit(&std::mem::take(&mut gathered));
                }
                Step::Checkpoint { fails, memory } => live.checkpoint(fails, memory),
                step => gathered.push(step),
            }
        }
        live.commit(&gathered);
        // The ids that only planning has let go.
        live.state.dedup.expire(live.now_ms);
        let mut from_journal = replay(State::default(), &live.journal, &Nothing);
        from_journal.dedup.expire(live.now_ms);
        let lived = content(&live.state, &live.checkpoints);
        prop_assert_eq!(&lived, &content(&from_journal, &Nothing));
        let restored = live.checkpoints.restore().expect("a state file");
        let (state, position) = restored.map_or_else(|| (State::default(), 0), |r| (r.state, r.position));
        let position = usize::try_from(position).expect("few records");
        let mut recovered = replay(state, &live.journal[position..], &live.checkpoints);
        recovered.dedup.expire(live.now_ms);
        prop_assert_eq!(&lived, &content(&recovered, &live.checkpoints));
    }
}
