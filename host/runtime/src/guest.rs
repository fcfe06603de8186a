//! A plugin at work: one instance, reused from message to message and made anew after a fault, or when it is old.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;

use crate::bindings;
use crate::component::{Component, Isolation, Recycle, Use};
use crate::host::{HANDLES_MAX, Host, Identity, SEED_MAX};
use crate::logs::{LogSink, unix_ms};
use crate::plugin::{Digest, Fault, FaultKind, Hand, Limits, Plugin, Usage, Verdict};
use crate::slots::Permit;
use crate::text::cut;

/// A plugin with its configuration, ready for messages. Belongs to one thread at a time.
pub struct Guest {
    component: Component,
    identity: Arc<Identity>,
    config_digest: Digest,
    start: Start,
    isolation: Isolation,
    recycle: Recycle,
    /// None after a fault, and where it is to be made anew.
    instance: Option<Instance>,
    /// Of the instance.
    messages_left: u64,
    /// By the last message, where it is counted.
    fuel_used: Option<u64>,
    usage: Usage,
    /// Declared after the instance, so that its place is free before it is given back.
    _permit: Permit,
}

/// What every instance of a use is started with.
#[derive(Debug, Clone, Copy)]
struct Start {
    limits: Limits,
    started_ms: Option<u64>,
    /// For `configure`: the same for every instance of this use, so that a replay sees the same.
    seed: u64,
}

/// A store with what runs in it; a trap poisons the whole of it.
pub(crate) struct Instance {
    store: Store<Host>,
    exports: bindings::Plugin,
    deadline_ticks: u64,
    counts_fuel: bool,
}

/// Why an instance is not there.
pub(crate) enum StartError {
    /// `configure` said no.
    Refused(String),
    /// It did not get that far.
    Fault(Fault),
}

/// Longest refusal of a configuration that is kept, in bytes.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// Room in one crossing for what is not counted as output: names, lists and the like.
const CROSSING_EXTRA_BYTES: usize = 1 << 20;

impl Guest {
    pub(crate) fn start(
        component: Component,
        r#use: Use,
        logs: Arc<dyn LogSink>,
        permit: Permit,
    ) -> Result<Self, StartError> {
        let Use { route, config_json, limits, isolation, recycle, started_ms } = r#use;
        let config_digest = Digest::of(config_json.as_bytes());
        let seed = seed(&[component.digest().as_bytes(), config_digest.as_bytes(), route.as_bytes()]);
        let identity = Arc::new(Identity { plugin: component.name().to_owned(), route, config_json, logs });
        let mut guest = Self {
            component,
            identity,
            config_digest,
            start: Start { limits, started_ms, seed },
            isolation,
            recycle,
            instance: None,
            messages_left: u64::MAX,
            fuel_used: None,
            usage: Usage::default(),
            _permit: permit,
        };
        let instance = guest.make()?;
        guest.instance = Some(instance);
        Ok(guest)
    }

    /// What it may take.
    pub fn limits(&self) -> &Limits {
        &self.start.limits
    }

    /// The component that it is an instance of.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// About how many instructions the last message took; none where the runtime does not count them, or before the first.
    pub fn fuel_used(&self) -> Option<u64> {
        self.fuel_used
    }

    fn make(&mut self) -> Result<Instance, StartError> {
        let now_ms = self.start.started_ms.unwrap_or_else(unix_ms);
        self.usage.instances_started += 1;
        self.usage.started_ms = now_ms;
        let instance = Instance::start(&self.component, &self.identity, &self.start, now_ms)?;
        self.messages_left = self.recycle.messages.map_or(u64::MAX, jittered);
        self.note_memory(instance.memory_bytes());
        Ok(instance)
    }

    fn remake(&mut self) -> Result<Instance, Fault> {
        self.make().map_err(|e| match e {
            StartError::Fault(fault) => fault,
            StartError::Refused(reason) => Fault {
                kind: FaultKind::Configure,
                text: format!("made anew, the plugin refuses its configuration: {reason}"),
                trace: Vec::new(),
            },
        })
    }

    fn note_memory(&mut self, bytes: usize) {
        self.usage.memory_bytes = bytes;
        self.usage.memory_peak_bytes = self.usage.memory_peak_bytes.max(bytes);
    }

    /// Keeps the instance for the next message, or lets it go.
    fn put_back(&mut self, instance: Instance) {
        self.messages_left = self.messages_left.saturating_sub(1);
        let is_large = self.recycle.memory_bytes.is_some_and(|most| self.usage.memory_bytes > most);
        let is_old = self.messages_left == 0;
        if self.isolation == Isolation::Worker && !is_large && !is_old {
            self.instance = Some(instance);
            return;
        }
        self.usage.recycled += u64::from(is_large || is_old);
        self.usage.memory_bytes = 0;
    }
}

impl Plugin for Guest {
    fn name(&self) -> &str {
        self.component.name()
    }

    fn digest(&self) -> &Digest {
        self.component.digest()
    }

    fn config_digest(&self) -> &Digest {
        &self.config_digest
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn process(&mut self, hand: &mut Hand) -> Result<Verdict, Fault> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.remake()?,
        };
        let verdict = instance.process(hand);
        self.fuel_used = instance.fuel_used();
        self.note_memory(instance.memory_bytes());
        match verdict {
            Ok(verdict) => {
                self.put_back(instance);
                Ok(verdict)
            }
            Err(fault) => {
                self.usage.memory_bytes = 0;
                Err(fault)
            }
        }
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("component", &self.component).field("route", &self.identity.route).finish()
    }
}

impl Instance {
    /// Instantiates, which runs the module's own start, and configures.
    fn start(component: &Component, identity: &Arc<Identity>, start: &Start, now_ms: u64) -> Result<Self, StartError> {
        let (runtime, limits) = (component.runtime(), start.limits);
        let host = Host::new(Arc::clone(identity), limits, now_ms, start.seed);
        let mut store = Store::new(runtime.engine(), host);
        store.limiter(|host| &mut host.memory);
        store.set_max_component_handles(HANDLES_MAX);
        store.set_hostcall_fuel(limits.output_bytes.saturating_mul(2).saturating_add(CROSSING_EXTRA_BYTES));
        let deadline_ticks = ticks(limits.deadline, runtime.config().tick);
        store.set_epoch_deadline(deadline_ticks);
        let counts_fuel = runtime.config().count_fuel;
        refuel(&mut store, counts_fuel);
        let configured = component.pre().instantiate(&mut store).and_then(|exports| {
            let answer = exports.quipu_plugin_handler().call_configure(&mut store)?;
            Ok((exports, answer))
        });
        store.data_mut().report_suppressed();
        match configured {
            Ok((exports, Ok(()))) => Ok(Self { store, exports, deadline_ticks, counts_fuel }),
            Ok((_, Err(reason))) => Err(StartError::Refused(cut(reason, REFUSAL_BYTES_MAX))),
            Err(e) => Err(StartError::Fault(store.data_mut().fault(&e))),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.store.data().memory.bytes()
    }

    fn fuel_used(&self) -> Option<u64> {
        // Asked where it is not counted, the store makes an error each time, which takes longer than a small plugin.
        self.counts_fuel.then(|| self.store.get_fuel().ok().map(|left| FUEL - left))?
    }

    fn process(&mut self, hand: &mut Hand) -> Result<Verdict, Fault> {
        self.store.set_epoch_deadline(self.deadline_ticks);
        refuel(&mut self.store, self.counts_fuel);
        self.store.data_mut().begin(hand);
        let called = self.exports.quipu_plugin_handler().call_process(&mut self.store);
        let host = self.store.data_mut();
        host.end(hand);
        match called {
            Ok(verdict) => host.verdict(verdict),
            Err(e) => Err(host.fault(&e)),
        }
    }
}

/// More than any deadline leaves time for: fuel is counted, time is what is limited.
const FUEL: u64 = u64::MAX >> 1;

fn refuel(store: &mut Store<Host>, counts_fuel: bool) {
    if counts_fuel {
        // An engine that counts it takes it.
        store.set_fuel(FUEL).ok();
    }
}

/// Ticks that are at least the deadline: the first of them may be over at once.
fn ticks(deadline: Duration, tick: Duration) -> u64 {
    let whole = deadline.as_micros().div_ceil(tick.as_micros());
    u64::try_from(whole).unwrap_or(u64::MAX >> 1).min(u64::MAX >> 1) + 1
}

/// Below 2^53, as every number of the contract.
fn seed(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes) % SEED_MAX
}

/// Up to a tenth more or less, by chance.
fn jittered(messages: u64) -> u64 {
    let tenth = messages / 10;
    let chance = RandomState::new().hash_one(()) % (2 * tenth + 1);
    (messages - tenth + chance).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_tenth() {
        let drawn: Vec<u64> = (0..200).map(|_| jittered(1_000)).collect();
        assert!(drawn.iter().all(|n| (900..=1_100).contains(n)) && drawn.iter().any(|n| *n != drawn[0]), "{drawn:?}");
        assert_eq!([jittered(1), jittered(0)], [1, 1]);
    }

    #[test]
    fn a_deadline_is_never_cut_short() {
        let ms = Duration::from_millis;
        assert_eq!([ticks(ms(50), ms(5)), ticks(ms(51), ms(5)), ticks(ms(1), ms(5))], [11, 12, 2]);
    }
}
