//! A plugin that is loaded: compiled once, used by any number of routes.

use std::fmt;
use std::sync::Arc;

use crate::bindings::PluginPre;
use crate::guest::{Guest, StartError};
use crate::host::Host;
use crate::load::Facts;
use crate::logs::{LogSink, RouterLog};
use crate::plugin::{Digest, Fault, Limits};
use crate::runtime::Runtime;
use crate::slots::Slots;
use crate::text::Size;

/// A loaded plugin. Cloning is cheap.
#[derive(Clone)]
pub struct Component {
    name: Arc<str>,
    compiled: Arc<Compiled>,
    runtime: Runtime,
}

/// What does not depend on the name.
pub(crate) struct Compiled {
    pub(crate) pre: PluginPre<Host>,
    pub(crate) digest: Digest,
    pub(crate) bytes: usize,
    pub(crate) imports: Vec<String>,
    pub(crate) slots: Slots,
    pub(crate) version: String,
    pub(crate) facts: Facts,
}

/// One use of a plugin in a route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Use {
    /// The route's name.
    pub route: String,
    /// The configuration of this use, as JSON; not looked at here.
    pub config_json: String,
    /// What it may take.
    pub limits: Limits,
    /// How long an instance lives.
    pub isolation: Isolation,
    /// When an instance is made anew although it is well.
    pub recycle: Recycle,
    /// The clock that `configure` sees, in Unix milliseconds; none: the present. For a replay.
    pub started_ms: Option<u64>,
}

/// How long an instance of a plugin lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// From message to message, until a fault or until it is recycled.
    #[default]
    Worker,
    /// For one message: nothing of one is there when the next one comes. Each costs a start, with `configure`.
    Message,
}

/// When an instance is made anew between two messages, so that a slow leak harms nobody. By default never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recycle {
    /// Once its memories are larger than this.
    pub memory_bytes: Option<usize>,
    /// After about so many messages: up to a tenth more or fewer, so that not all of a route's instances go at once.
    pub messages: Option<u64>,
}

/// Why a plugin cannot be used like this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigureError {
    /// The plugin's own answer to its configuration.
    #[error("plugin `{plugin}` refuses its configuration: {reason}")]
    Refused {
        /// Its name.
        plugin: String,
        /// At most 4 KiB.
        reason: String,
    },
    /// It trapped, or overran a limit, while it started or read its configuration.
    #[error("plugin `{plugin}` failed to start: {}", fault.with_place())]
    Fault {
        /// Its name.
        plugin: String,
        /// What happened.
        #[source]
        fault: Fault,
    },
    /// Every place in the pool is taken; no running plugin is disturbed.
    #[error("no room for another instance of plugin `{plugin}`: {what}")]
    Exhausted {
        /// Its name.
        plugin: String,
        /// Which size is at its end.
        what: String,
    },
    /// More memory than the runtime can grant.
    #[error(
        "a memory limit of {} for plugin `{plugin}` (`plugin.{plugin}.memory`); the router grants at most {}: the largest of \
         these as it starts counts",
        Size(*.asked), Size(*.most)
    )]
    MemoryLimit {
        /// Its name.
        plugin: String,
        /// Bytes asked for.
        asked: usize,
        /// Bytes that can be granted.
        most: usize,
    },
}

impl Component {
    pub(crate) fn new(name: &str, compiled: Arc<Compiled>, runtime: Runtime) -> Self {
        Self { name: name.into(), compiled, runtime }
    }

    /// The name under which it was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of the file's bytes.
    pub fn digest(&self) -> &Digest {
        &self.compiled.digest
    }

    /// The file's size in bytes.
    pub fn size_bytes(&self) -> usize {
        self.compiled.bytes
    }

    /// The interfaces that it imports, as `quipu:plugin/message@0.1.0`.
    pub fn imports(&self) -> &[String] {
        &self.compiled.imports
    }

    /// Of the contract that it was made for, as `0.1.0`.
    pub fn contract_version(&self) -> &str {
        &self.compiled.version
    }

    /// Names of functions that it defines, as its name section has them: the first 256, each at most 128 bytes.
    pub fn functions(&self) -> &[String] {
        &self.compiled.facts.functions
    }

    /// Whether it has a name section; without one, a trace shows numbers.
    pub fn has_names(&self) -> bool {
        self.compiled.facts.has_names
    }

    /// Linear memories that each instance takes from the pool.
    pub fn memories(&self) -> u32 {
        self.compiled.slots.memories
    }

    /// Makes an instance for one use and has it read its configuration. Takes its time from the deadline, as a message
    /// does. What it logs goes to the router's log and to [`Runtime::logs`].
    ///
    /// # Errors
    ///
    /// [`ConfigureError`] where the plugin refuses or fails, or no instance can be had.
    pub fn plugin(&self, r#use: Use) -> Result<Guest, ConfigureError> {
        let ring = self.runtime.rings().of(&self.name);
        let route = r#use.route.as_str().into();
        self.plugin_with(r#use, Arc::new(RouterLog { plugin: Arc::clone(&self.name), route, ring }))
    }

    /// As [`Component::plugin`], with all that it logs going to the sink and nowhere else.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn plugin_with(&self, r#use: Use, logs: Arc<dyn LogSink>) -> Result<Guest, ConfigureError> {
        let plugin = || self.name.as_ref().to_owned();
        let (asked, most) = (r#use.limits.memory_bytes, self.runtime.config().memory_bytes_max);
        if asked > most {
            return Err(ConfigureError::MemoryLimit { plugin: plugin(), asked, most });
        }
        let permit = self.runtime.places().take(self.compiled.slots).ok_or_else(|| {
            let total = self.runtime.places().total();
            let what = format!("the router has {} instances with {} memories", total.instances, total.memories);
            ConfigureError::Exhausted { plugin: plugin(), what }
        })?;
        Guest::start(self.clone(), r#use, logs, permit).map_err(|e| match e {
            StartError::Refused(reason) => ConfigureError::Refused { plugin: plugin(), reason },
            StartError::Fault(fault) => ConfigureError::Fault { plugin: plugin(), fault },
        })
    }

    pub(crate) fn slots(&self) -> Slots {
        self.compiled.slots
    }

    pub(crate) fn pre(&self) -> &PluginPre<Host> {
        &self.compiled.pre
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component").field("name", &self.name).field("digest", self.digest()).finish_non_exhaustive()
    }
}
