//! Where routes tell what happens in them.

use std::sync::Arc;

use quipu_protocol::Message;
use quipu_queue::{Output, Target};

use crate::trace::{Hop, TraceLog, What};
use crate::traps::Traps;

/// Shared by all routes of a router.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) traps: Arc<Traps>,
    pub(crate) trace: Arc<TraceLog>,
}

/// An attempt at a message that is followed.
pub(crate) struct Followed {
    pub(crate) id: Arc<str>,
    pub(crate) hops: Vec<Hop>,
    begun: std::time::Instant,
}

impl Told {
    /// What is to be told of a message; none where it is not followed.
    pub(crate) fn follow(&self, message: &Message) -> Option<Followed> {
        let begin = || Followed { id: message.id.as_str().into(), hops: Vec::new(), begun: std::time::Instant::now() };
        self.trace.follows(message).then(begin)
    }

    /// An attempt is over.
    pub(crate) fn attempt(&self, route: &str, attempt: u32, followed: &mut Followed, end: &str, outputs: &[Output]) {
        let ns = u64::try_from(followed.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let hops = std::mem::take(&mut followed.hops);
        self.trace.add(&followed.id, What::Attempt { route: route.to_owned(), attempt, hops, ns, end: end.to_owned() });
        let made: Vec<(String, String)> = outputs.iter().filter_map(made).collect();
        if !made.is_empty() {
            self.trace.add(&followed.id, What::Outputs { route: route.to_owned(), made });
        }
    }
}

/// Id and subject of an output.
fn made(output: &Output) -> Option<(String, String)> {
    let Target::Subject(subject) = &output.target;
    let message = Message::decode(output.header.clone(), bytes::Bytes::new()).ok()?;
    Some((message.id.as_str().to_owned(), subject.as_str().to_owned()))
}
