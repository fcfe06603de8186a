//! What a route would do with a message: the same steps, plugins included, and no effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quipu_protocol::{Message, Subject};
use quipu_queue::{Output, Target};
use quipu_runtime::{Attempt, CapturedLog, Fault, Hand, Plugin, Verdict};
use serde_json::{Value, json};

use crate::breaker::Breaker;
use crate::chain::{Calls, Chain, Decision, Seen, seed};
use crate::condition::Condition;
use crate::settings::OnBroken;
use crate::template::Template;

/// A chain to be tried, with plugins of its own: those of a route at work stay out of it.
#[derive(Default)]
pub struct Explain {
    /// The route's name: ids of outputs and the plugins' seed depend on it.
    pub route: String,
    /// As of the route.
    pub when: Option<Condition>,
    /// As of the route.
    pub otherwise: Vec<Template>,
    /// One chain.
    pub plugins: Vec<Box<dyn Plugin>>,
    /// What the plugins log to, by their places, where that is to be shown.
    pub logs: Vec<Arc<CapturedLog>>,
    /// As of the route.
    pub to: Vec<Template>,
}

/// What a route would do with a message.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The route.
    pub route: String,
    /// The condition and what it said: whether it matches, or why it cannot be evaluated.
    pub when: Option<(String, Result<bool, String>)>,
    /// How long the condition took.
    pub when_time: Duration,
    /// The plugins that were called, each with name and digest: verdict, time, memory, differences, logs.
    pub hops: Vec<(String, Attempt)>,
    /// What would go out, in order, with the subject that each goes to. Payloads are in it.
    pub outputs: Vec<(Subject, Message)>,
    /// `forward`, `filtered`, `drop`, `retry`, `reject` or `fault`.
    pub end: &'static str,
    /// Why, where it says so.
    pub reason: Option<String>,
}

struct Watched {
    logs: Vec<Arc<CapturedLog>>,
    hops: Vec<(String, Attempt)>,
}

impl Calls for Watched {
    fn call(&mut self, position: usize, plugin: &mut dyn Plugin, hand: &mut Hand) -> Result<Verdict, Fault> {
        let attempt = Attempt::of(plugin, hand.clone(), self.logs.get(position).map(Arc::as_ref));
        *hand = attempt.output.clone();
        let verdict = attempt.verdict.clone();
        self.hops.push((format!("{}@{}", plugin.name(), plugin.digest().short()), attempt));
        verdict
    }

    fn bypassed(&mut self, _: &Chain, _: usize) {}
}

impl Explain {
    /// Walks a message through. Blocks as its plugins do: not for a thread of an async runtime.
    pub fn run(self, message: &Message, attempt: u32, now_ms: u64) -> Explained {
        let Self { route, when, otherwise, plugins, logs, to } = self;
        let begun = Instant::now();
        let said = when.as_ref().map(|when| (when.as_str().to_owned(), when.matches(message, attempt)));
        let when_time = if said.is_some() { begun.elapsed() } else { Duration::ZERO };
        let seen = Seen { attempt, now_ms, seed: seed(message, &route) };
        let mut chain = Chain { route, when, otherwise, plugins, to };
        let mut watched = Watched { logs, hops: Vec::new() };
        let breaker = Breaker::new(OnBroken::Hold, u32::MAX);
        let decision = chain.attempt(message.clone(), seen, &breaker, &mut watched);
        let (end, reason, outputs) = ended(decision);
        let outputs = outputs.into_iter().filter_map(|output| made(output, message)).collect();
        Explained { route: chain.route, when: said, when_time, hops: watched.hops, outputs, end, reason }
    }
}

fn ended(decision: Decision) -> (&'static str, Option<String>, Vec<Output>) {
    let end = decision.name();
    match decision {
        Decision::Forward(outputs) => (end, None, outputs),
        Decision::Filtered { outputs, error } => (end, error, outputs),
        Decision::Drop { outputs, reason } => (end, Some(reason), outputs),
        Decision::Retry { reason, .. } | Decision::Reject { reason, .. } => (end, Some(reason), Vec::new()),
        Decision::Fault { fault, .. } => (end, Some(fault.text), Vec::new()),
        Decision::Broken => (end, None, Vec::new()),
    }
}

fn made(output: Output, input: &Message) -> Option<(Subject, Message)> {
    let Output { target: Target::Subject(subject), header, payload } = output;
    let payload = payload.unwrap_or_else(|| input.payload.clone());
    Message::decode(header, payload).ok().map(|message| (subject, message))
}

impl Explained {
    /// For people and programs: one object.
    pub fn to_json(&self) -> Value {
        let when = self.when.as_ref().map(|(source, said)| {
            let mut when = json!({ "source": source, "ns": nanos(self.when_time) });
            match said {
                Ok(matches) => when["matches"] = (*matches).into(),
                Err(error) => when["error"] = error.as_str().into(),
            }
            when
        });
        let hop = |(plugin, attempt): &(String, Attempt)| {
            let mut hop = attempt.to_json();
            hop["plugin"] = plugin.as_str().into();
            hop
        };
        let output = |(subject, message): &(Subject, Message)| {
            json!({
                "subject": subject.as_str(),
                "id": message.id.as_str(),
                "key": message.key.as_ref().map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned()),
                "headers": message.headers.iter().collect::<Vec<_>>(),
                "payload_bytes": message.payload.len(),
            })
        };
        json!({
            "route": self.route,
            "when": when,
            "hops": self.hops.iter().map(hop).collect::<Vec<_>>(),
            "outputs": self.outputs.iter().map(output).collect::<Vec<_>>(),
            "end": self.end,
            "reason": self.reason,
        })
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
