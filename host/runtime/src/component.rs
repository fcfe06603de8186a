//! A plugin that is loaded: compiled once, used by any number of routes.

use std::fmt;
use std::sync::Arc;

use crate::bindings::PluginPre;
use crate::guest::{Guest, Instance, StartError};
use crate::host::{Host, Identity};
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
    #[error("plugin `{plugin}` failed to start: {fault}")]
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
    #[error("a memory limit of {} for plugin `{plugin}`; the router grants at most {}", Size(*.asked), Size(*.most))]
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

    /// Makes an instance for one use and has it read its configuration. Takes its time from the deadline, as a message
    /// does.
    ///
    /// # Errors
    ///
    /// [`ConfigureError`] where the plugin refuses or fails, or no instance can be had.
    pub fn plugin(&self, r#use: Use) -> Result<Guest, ConfigureError> {
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
        let identity = Arc::new(Identity { plugin: plugin(), route: r#use.route, config_json: r#use.config_json });
        let instance = Instance::start(self, &identity, &r#use.limits).map_err(|e| match e {
            StartError::Refused(reason) => ConfigureError::Refused { plugin: plugin(), reason },
            StartError::Fault(fault) => ConfigureError::Fault { plugin: plugin(), fault },
        })?;
        Ok(Guest::new(self.clone(), identity, r#use.limits, instance, permit))
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
