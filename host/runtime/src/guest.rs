//! A plugin at work: one instance, reused from message to message and made anew after a fault.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmtime::Store;

use crate::bindings;
use crate::component::Component;
use crate::host::{Host, Identity, SEED_MAX};
use crate::plugin::{Digest, Fault, FaultKind, Hand, Limits, Plugin, Verdict};
use crate::slots::Permit;
use crate::text::cut;

/// A plugin with its configuration, ready for messages. Belongs to one thread at a time.
pub struct Guest {
    component: Component,
    identity: Arc<Identity>,
    limits: Limits,
    /// None after a fault.
    instance: Option<Instance>,
    /// Declared after the instance, so that its place is free before it is given back.
    _permit: Permit,
}

/// A store with what runs in it; a trap poisons the whole of it.
pub(crate) struct Instance {
    store: Store<Host>,
    exports: bindings::Plugin,
    deadline_ticks: u64,
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
    pub(crate) fn new(
        component: Component,
        identity: Arc<Identity>,
        limits: Limits,
        instance: Instance,
        permit: Permit,
    ) -> Self {
        Self { component, identity, limits, instance: Some(instance), _permit: permit }
    }

    /// What it may take.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn restart(&self) -> Result<Instance, Fault> {
        Instance::start(&self.component, &self.identity, &self.limits).map_err(|e| match e {
            StartError::Fault(fault) => fault,
            StartError::Refused(reason) => Fault {
                kind: FaultKind::Configure,
                text: format!("made anew after a fault, the plugin refuses its configuration: {reason}"),
                trace: Vec::new(),
            },
        })
    }
}

impl Plugin for Guest {
    fn name(&self) -> &str {
        self.component.name()
    }

    fn digest(&self) -> &Digest {
        self.component.digest()
    }

    fn process(&mut self, hand: &mut Hand) -> Result<Verdict, Fault> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.restart()?,
        };
        let verdict = instance.process(hand)?;
        self.instance = Some(instance);
        Ok(verdict)
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("component", &self.component).field("route", &self.identity.route).finish()
    }
}

impl Instance {
    /// Instantiates, which runs the module's own start, and configures.
    pub(crate) fn start(component: &Component, identity: &Arc<Identity>, limits: &Limits) -> Result<Self, StartError> {
        let runtime = component.runtime();
        let host = Host::new(Arc::clone(identity), *limits, unix_ms(), random_seed());
        let mut store = Store::new(runtime.engine(), host);
        store.limiter(|host| &mut host.memory);
        store.set_hostcall_fuel(limits.output_bytes.saturating_mul(2).saturating_add(CROSSING_EXTRA_BYTES));
        let deadline_ticks = ticks(limits.deadline, runtime.config().tick);
        store.set_epoch_deadline(deadline_ticks);
        let configured = component.pre().instantiate(&mut store).and_then(|exports| {
            let answer = exports.quipu_plugin_handler().call_configure(&mut store)?;
            Ok((exports, answer))
        });
        store.data_mut().report_suppressed();
        match configured {
            Ok((exports, Ok(()))) => Ok(Self { store, exports, deadline_ticks }),
            Ok((_, Err(reason))) => Err(StartError::Refused(cut(reason, REFUSAL_BYTES_MAX))),
            Err(e) => Err(StartError::Fault(store.data_mut().fault(&e))),
        }
    }

    fn process(&mut self, hand: &mut Hand) -> Result<Verdict, Fault> {
        self.store.set_epoch_deadline(self.deadline_ticks);
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

/// Ticks that are at least the deadline: the first of them may be over at once.
fn ticks(deadline: Duration, tick: Duration) -> u64 {
    let whole = deadline.as_micros().div_ceil(tick.as_micros());
    u64::try_from(whole).unwrap_or(u64::MAX >> 1).min(u64::MAX >> 1) + 1
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// For `configure`, which no replay repeats.
fn random_seed() -> u64 {
    RandomState::new().hash_one(()) % SEED_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_cut_short() {
        let ms = Duration::from_millis;
        assert_eq!([ticks(ms(50), ms(5)), ticks(ms(51), ms(5)), ticks(ms(1), ms(5))], [11, 12, 2]);
    }
}
