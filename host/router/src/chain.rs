//! One attempt at one message: the condition, then the plugins in turn, then what goes out.

use std::time::Instant;

use quipu_protocol::limits::HOPS_MAX;
use quipu_protocol::{Message, Subject};
use quipu_queue::Output;
use quipu_runtime::{Digest, Fault, Hand, Plugin, Verdict};

use crate::breaker::Breaker;
use crate::condition::Condition;
use crate::outputs::{Outputs, path};
use crate::settings::OnBroken;
use crate::stats::PluginInfo;
use crate::template::Template;
use crate::trace::Hop;

/// What an attempt comes to.
#[derive(Debug)]
pub(crate) enum Decision {
    /// `when` does not want it; it goes to `else`.
    Filtered { outputs: Vec<Output>, error: Option<String> },
    /// Through.
    Forward(Vec<Output>),
    /// Dropped by a plugin. What was emitted stays.
    Drop { outputs: Vec<Output>, reason: String },
    /// A plugin asks for another attempt; 0: after the route's own delay.
    Retry { position: usize, delay_ms: u64, reason: String },
    /// Given up at once.
    Reject { position: Option<usize>, reason: String },
    /// A plugin failed.
    Fault { position: usize, fault: Fault },
    /// A plugin is broken, and the route stands still for that.
    Broken,
}

/// What an attempt is told besides the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) attempt: u32,
    pub(crate) now_ms: u64,
    pub(crate) seed: u64,
}

/// Who calls the plugins of a chain, and watches over them.
pub(crate) trait Calls {
    fn call(&mut self, position: usize, plugin: &mut dyn Plugin, hand: &mut Hand) -> Result<Verdict, Fault>;

    /// A broken plugin is left out.
    fn bypassed(&mut self, chain: &Chain, position: usize);
}

/// Counts calls and times, and takes note of them where the message is followed.
pub(crate) struct Counted<'a> {
    pub(crate) stats: &'a mut [PluginInfo],
    pub(crate) hops: Option<&'a mut Vec<Hop>>,
}

/// What a route does with a message.
#[derive(Default)]
pub(crate) struct Chain {
    pub(crate) route: String,
    pub(crate) when: Option<Condition>,
    pub(crate) otherwise: Vec<Template>,
    pub(crate) plugins: Vec<Box<dyn Plugin>>,
    pub(crate) to: Vec<Template>,
}

impl Chain {
    /// Its plugins' files.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.plugins.iter().map(|plugin| *plugin.digest()).collect()
    }

    /// Name and digest of the plugin at this place.
    pub(crate) fn plugin_name(&self, position: usize) -> String {
        let plugin = self.plugins.get(position);
        plugin.map_or_else(String::new, |plugin| format!("{}@{}", plugin.name(), plugin.digest().short()))
    }

    /// Makes one attempt.
    pub(crate) fn attempt(&mut self, input: Message, seen: Seen, breaker: &Breaker, calls: &mut dyn Calls) -> Decision {
        if input.hops >= HOPS_MAX {
            let path = path(&self.route, &input.headers);
            let reason = format!("more than {HOPS_MAX} hops: {path}");
            return Decision::Reject { position: None, reason };
        }
        match self.when.as_ref().map_or(Ok(true), |when| when.matches(&input, seen.attempt)) {
            Ok(true) => self.run(input, seen, breaker, calls),
            Ok(false) => self.set_aside(&input, None),
            Err(e) => self.set_aside(&input, Some(e)),
        }
    }

    fn set_aside(&self, input: &Message, error: Option<String>) -> Decision {
        let mut outputs = Outputs::of(&self.route, input);
        for template in &self.otherwise {
            match template.expand(input) {
                Ok(subject) => outputs.forward(0, subject, input, None),
                Err(e) => return unfit("else", &e),
            }
        }
        Decision::Filtered { outputs: outputs.finish(), error }
    }

    fn run(&mut self, input: Message, seen: Seen, breaker: &Breaker, calls: &mut dyn Calls) -> Decision {
        let mut outputs = Outputs::of(&self.route, &input);
        let mut hand = Hand::new(input, seen.attempt, seen.now_ms, seen.seed);
        let mut routed: Option<Vec<Subject>> = None;
        for position in 0..self.plugins.len() {
            if breaker.is_broken(position) {
                match breaker.then() {
                    OnBroken::Hold => return Decision::Broken,
                    OnBroken::DeadLetter => return self.dead(position),
                    OnBroken::Bypass => {
                        calls.bypassed(self, position);
                        outputs.bypassed(&self.plugin_name(position));
                        continue;
                    }
                }
            }
            let made = calls.call(position, self.plugins[position].as_mut(), &mut hand);
            for emitted in hand.emitted.drain(..) {
                outputs.emitted(position, emitted);
            }
            let verdict = match made {
                Ok(verdict) => verdict,
                Err(fault) => return Decision::Fault { position, fault },
            };
            breaker.passed(position);
            match verdict {
                Verdict::Forward => {}
                Verdict::Route(subjects) => routed = Some(subjects),
                Verdict::Drop(reason) => return Decision::Drop { outputs: outputs.finish(), reason },
                Verdict::Retry { delay_ms, reason } => return Decision::Retry { position, delay_ms, reason },
                Verdict::Reject(reason) => return Decision::Reject { position: Some(position), reason },
            }
        }
        self.send(&hand, routed, outputs)
    }

    fn dead(&self, position: usize) -> Decision {
        let reason = format!("plugin {} is broken: it fails on everything", self.plugin_name(position));
        Decision::Reject { position: Some(position), reason }
    }

    /// Through: where no plugin said where to, to the route's subjects.
    fn send(&self, hand: &Hand, routed: Option<Vec<Subject>>, mut outputs: Outputs<'_>) -> Decision {
        let subjects = match routed {
            Some(subjects) => subjects,
            None => match self.to.iter().map(|template| template.expand(&hand.message)).collect() {
                Ok(subjects) => subjects,
                Err(e) => return unfit("to", &e),
            },
        };
        let payload = hand.payload_changed.then(|| hand.message.payload.clone());
        for subject in subjects {
            outputs.forward(self.plugins.len(), subject, &hand.message, payload.clone());
        }
        Decision::Forward(outputs.finish())
    }
}

impl Decision {
    /// For people.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Filtered { .. } => "filtered",
            Self::Forward(_) => "forward",
            Self::Drop { .. } => "drop",
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Fault { .. } => "fault",
            Self::Broken => "broken",
        }
    }

    /// What goes out.
    pub(crate) fn outputs(&self) -> &[Output] {
        match self {
            Self::Filtered { outputs, .. } | Self::Forward(outputs) | Self::Drop { outputs, .. } => outputs,
            Self::Retry { .. } | Self::Reject { .. } | Self::Fault { .. } | Self::Broken => &[],
        }
    }
}

impl Calls for Counted<'_> {
    fn call(&mut self, position: usize, plugin: &mut dyn Plugin, hand: &mut Hand) -> Result<Verdict, Fault> {
        let begun = Instant::now();
        let made = plugin.process(hand);
        let time = begun.elapsed();
        self.stats[position].count(time, &made);
        if let Some(hops) = &mut self.hops {
            let plugin = format!("{}@{}", plugin.name(), plugin.digest().short());
            let verdict = match &made {
                Ok(verdict) => verdict.name().to_owned(),
                Err(fault) => format!("fault {}", fault.kind),
            };
            hops.push(Hop { plugin, verdict, ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) });
        }
        made
    }

    fn bypassed(&mut self, chain: &Chain, position: usize) {
        self.stats[position].bypassed += 1;
        if let Some(hops) = &mut self.hops {
            hops.push(Hop { plugin: chain.plugin_name(position), verdict: "bypassed".into(), ns: 0 });
        }
    }
}

/// A template that a message does not fit will not fit the next time either.
fn unfit(key: &str, error: &crate::template::TemplateError) -> Decision {
    Decision::Reject { position: None, reason: format!("{key}: {error}") }
}

/// Random to a plugin, the same for every attempt at the message: below 2^53.
pub(crate) fn seed(input: &Message, route: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(route.as_bytes()).update(&[0]).update(input.id.as_str().as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes) >> 11
}
