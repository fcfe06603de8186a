//! The configuration file: what it may say, with defaults, limits and units.
//!
//! Everything that can be known without starting is checked here, and all of it is reported at once. What a plugin
//! makes of its own configuration and whether `when` compiles is for those who load them.

mod check;
mod definitions;
mod diff;
mod graph;
mod limits;
mod notes;
mod problem;
mod queues;
mod raw;
mod routes;
mod units;
mod users;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quipu_protocol::{Subject, SubjectPattern};
use quipu_queue::{Durability, QueueLimits, Retention};
use quipu_runtime::Isolation;
use serde::Deserialize;

pub(crate) use definitions::{Composed, Definition, DefinitionError, Kind, read_toml};
pub(crate) use diff::{Change, Difference, changes, diff};
pub(crate) use limits::LimitsConfig;
pub(crate) use problem::Problem;
use quipu_router::{OnBroken, Template, TraceMode};
pub(crate) use raw::Table;
pub(crate) use units::{ByteSize, HumanDuration};
pub(crate) use users::{ANONYMOUS, Read, UserConfig};
pub(crate) use values::{has_secret, to_json};

/// Longest grace period at shutdown.
pub(crate) const GRACE_MAX: Duration = Duration::from_secs(10);
/// Most subjects in a route's `to`, and in its `else`.
pub(crate) const ROUTE_SUBJECTS_MAX: usize = 64;
/// Most plugins in a route.
pub(crate) const ROUTE_PLUGINS_MAX: usize = 64;
/// Most patterns of one queue.
pub(crate) const QUEUE_SUBJECTS_MAX: usize = 256;
/// Most queues in a configuration.
pub(crate) const QUEUES_MAX: usize = 4_096;
/// Most routes in a configuration.
pub(crate) const ROUTES_MAX: usize = 4_096;
/// Largest file that a plugin's configuration may take in, in bytes.
pub(crate) const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;

/// A configuration that has been checked. Paths in it are relative to the configuration file's directory, joined.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// `[listen]`.
    pub(crate) listen: ListenConfig,
    /// `[tls]`; without it a development certificate is used, on loopback only.
    pub(crate) tls: Option<TlsFiles>,
    /// `[user.NAME]`, by name. None at all: everyone may do everything.
    pub(crate) users: Vec<UserConfig>,
    /// `[limits]`.
    pub(crate) limits: LimitsConfig,
    /// `[store]`.
    pub(crate) store: StoreConfig,
    /// `[plugins]`.
    pub(crate) plugins: PluginsConfig,
    /// `[trace]`.
    pub(crate) trace: TraceConfig,
    /// `[plugin.NAME]`, by name. Plugins that need nothing said are not in it.
    pub(crate) plugin: BTreeMap<String, PluginConfig>,
    /// `[queue.NAME]`, by name. Dead-letter queues that are not in the file are not here either: they are made when
    /// the first message goes there.
    pub(crate) queues: Vec<QueueConfig>,
    /// `[[route]]`, in the file's order.
    pub(crate) routes: Vec<RouteConfig>,
}

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListenConfig {
    /// `quic`: the UDP address. Default 127.0.0.1:4433.
    pub(crate) quic: SocketAddr,
    /// `grace`: how long a shutdown may take. Default 8 s, at most 10 s.
    pub(crate) grace: Duration,
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// `certificate`: the server's own first, then those that lead to a root.
    pub(crate) certificate: PathBuf,
    /// `key`: PKCS #8, PKCS #1 or SEC 1.
    pub(crate) key: PathBuf,
    /// `client_ca`: authorities whose client certificates are taken. Default none: only those that users name by
    /// fingerprint.
    pub(crate) client_ca: Option<PathBuf>,
}

/// Where and how messages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreConfig {
    /// `path`: a directory, made if absent. Default `data`.
    pub(crate) path: PathBuf,
    /// `journal_segments`: how many files the journal has. Default 4; 2 to 16.
    pub(crate) journal_segments: usize,
    /// `journal_segment`: bytes of each, which they take on disk from the start. Default 32 MiB; 1 MiB to 1 GiB, a
    /// multiple of 4 KiB.
    pub(crate) journal_segment_bytes: usize,
    /// `memory`: bytes of messages kept in memory that are also on disk. Default 64 MiB.
    pub(crate) memory_bytes: usize,
    /// `disk_reserve`: publishes are refused while the disk has less room than this. Default 64 MiB.
    pub(crate) disk_reserve_bytes: u64,
}

/// Where plugins are found and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginsConfig {
    /// `dir`: where `NAME.wasm` is looked for. Default none.
    pub(crate) dir: Option<PathBuf>,
    /// `workers`: threads that run plugins; no route holds all of them. Default one more than cores, 3 to 17; 2 to 256.
    pub(crate) workers: usize,
    /// `watch`: a directory whose changed `NAME.wasm` are pushed, and deployed to every route that uses NAME. For
    /// development. Default none.
    pub(crate) watch: Option<PathBuf>,
    /// `store_max`: bytes of plugin files that the store keeps. Default 1 GiB; 64 MiB to 1 TiB.
    pub(crate) store_bytes_max: u64,
    /// `instances`: most plugin instances at a time. Default twice what the routes need and 32 to spare, so that a chain
    /// can be made while the one before it serves; 64 at least. 1 to 10,000.
    pub(crate) instances: Option<u32>,
    /// `memories`: most linear memories of all instances together. Default three for each instance; 1 to 20,000.
    pub(crate) memories: Option<u32>,
    /// `compile_time`: how long compiling one plugin may take, on the clock and of processor time. Default 60 s; 1 s to 1 h.
    pub(crate) compile_time: Duration,
    /// `compile_memory`: address space that compiling one plugin may take. Default 4 GiB; 256 MiB to 1 TiB.
    pub(crate) compile_memory_bytes: u64,
}

/// Which messages it is kept of what became of them, in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceConfig {
    /// `mode`: `off`, `sampled` or `all`; and `one_in`: with `sampled`, one message in so many. Default off, and 100; 1 to
    /// 1,000,000.
    pub(crate) mode: TraceMode,
    /// `memory`: bytes of events; past them the oldest go. Default 16 MiB; 64 KiB to 1 GiB.
    pub(crate) memory_bytes: usize,
}

/// One plugin's file and what it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PluginConfig {
    /// `file`: the module or component. None: in `plugins.dir`, or a stock plugin.
    pub(crate) file: Option<PathBuf>,
    /// `deadline`: how long one message may take. Default 50 ms; 1 ms to 60 s.
    pub(crate) deadline: Duration,
    /// `memory`: bytes of linear memory of one instance. Default 64 MiB; 1 MiB to 4 GiB.
    pub(crate) memory_bytes: usize,
    /// `output`: bytes that one message may become. Default 4 MiB; at most 64 MiB.
    pub(crate) output_bytes: usize,
    /// `isolation`: how long an instance lives, `worker` or `message`. Default `worker`: from message to message.
    pub(crate) isolation: Isolation,
    /// `recycle_memory`: an instance whose memory is larger is made anew between two messages. Default never.
    pub(crate) recycle_memory_bytes: Option<usize>,
    /// `recycle_messages`: an instance is made anew after about so many messages. Default never; 1 to 1,000,000,000.
    pub(crate) recycle_messages: Option<u64>,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueConfig {
    /// The name, which is always one of its subjects.
    pub(crate) name: Subject,
    /// `subjects`: what it takes besides its own name.
    pub(crate) subjects: Vec<SubjectPattern>,
    /// `max_attempts`: failed attempts before a message is dead-lettered; 0: attempts without end. Default 5, and 0 for
    /// a queue of dead letters; at most 1,000.
    pub(crate) attempts_max: u32,
    /// `backoff`: the delay before the second attempt, the third, …; the last one goes on. Default 100 ms, 1 s, 10 s;
    /// at most 16 steps of at most a day.
    pub(crate) backoff: Vec<Duration>,
    /// `dead_letter`: the queue that dead letters go to. Default the name with `-dead`; none for a queue that is itself
    /// the `dead_letter` or `then` of another.
    pub(crate) dead_letter: Option<Subject>,
    /// `durability`: what a receipt promises, `synced`, `buffered` or `memory`. Default synced.
    pub(crate) durability: Durability,
    /// `retention`: `work` or `log`, and for a log how much of it, `retention_age`, `retention_bytes` and
    /// `retention_messages`. Default work; a log without any of them grows without end.
    pub(crate) retention: Retention,
    /// `max_messages`, `max_bytes` and `on_full`: `reject`, `drop-oldest` or `block`. Default without end, and reject; a
    /// queue in memory alone 64 MiB.
    pub(crate) limits: QueueLimits,
    /// `max_in_flight`: messages of one subscription in flight or parked at once. Default 10,000; at most 1,000,000.
    pub(crate) in_flight_max: u32,
    /// `ack_deadline`: how long a consumer may take over a delivery; 0: for ever. Default 30 s; at most 12 h.
    pub(crate) ack_deadline: Duration,
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RouteConfig {
    /// `name`: letters, digits, `-` and `_`; also the name of its subscription.
    pub(crate) name: String,
    /// `from` or `on`.
    pub(crate) source: Source,
    /// `start`: where its subscription starts when it is new. Default `first`.
    pub(crate) start: Start,
    /// `when`: a CEL expression, not yet compiled.
    pub(crate) when: Option<String>,
    /// `else`: where messages go that `when` refuses. Empty: nowhere, they are settled and counted as filtered.
    pub(crate) otherwise: Vec<Template>,
    /// `plugins`: the chain.
    pub(crate) plugins: Vec<PluginUse>,
    /// `to`: where messages go after the chain. Empty only where there are plugins, which may say where.
    pub(crate) to: Vec<Template>,
    /// `parallel`: messages that are worked on at once, each with instances of the plugins of its own. Default 1; 1 to
    /// 64.
    pub(crate) parallel: usize,
    /// `order`: which messages keep theirs. Default `key`.
    pub(crate) order: Order,
    /// `on_error`. An inline route has one attempt.
    pub(crate) on_error: OnError,
    /// `on_broken`: what becomes of messages once a plugin fails on everything: `hold`, `bypass` or `dead-letter`. Default
    /// hold.
    pub(crate) on_broken: OnBroken,
    /// `broken_after`: different messages in a row that a plugin fails on before that. Default 10; 1 to 1,000.
    pub(crate) broken_after: u32,
}

/// Where a route's messages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `from`: a queue of this configuration.
    Queue(Subject),
    /// `on`: subjects on whose messages it runs inline, as these are published and before anything is stored. 1 to 64
    /// patterns.
    Inline(Vec<SubjectPattern>),
}

/// Which messages of a route keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Those of one key.
    #[default]
    Key,
    /// None.
    None,
}

/// Where a new subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Start {
    /// With the first message that is still there.
    #[default]
    First,
    /// With the next one published.
    New,
}

/// One plugin in a route's chain.
#[derive(Clone, PartialEq)]
pub(crate) struct PluginUse {
    /// `name`, up to an `@`.
    pub(crate) name: String,
    /// What follows the `@`: a tag or the beginning of a digest, which this use is pinned to.
    pub(crate) version: Option<String>,
    /// `config`: as JSON, with files and environment variables put in. Default `{}`. It may hold secrets: `Debug` leaves
    /// it out.
    pub(crate) config: serde_json::Value,
    /// Whether a part of it came from the environment: it is a secret then, and not written anywhere.
    pub(crate) has_secret: bool,
}

/// What a route does with a message that fails in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnError {
    /// `attempts`: how often it is tried. Default 5; 1 to 100.
    pub(crate) attempts_max: u32,
    /// `backoff`: as that of queues. Default 100 ms, 1 s, 10 s.
    pub(crate) backoff: Vec<Duration>,
    /// `then`: the queue it goes to after the last attempt. None: the dead-letter queue of `from`, which has one then.
    pub(crate) then: Option<Subject>,
}

/// Why a configuration is not taken. Each problem is a line of the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in it.
    #[error("{}", lines(.file, .problems))]
    Invalid {
        /// The file's name.
        file: String,
        /// In the file's order, at least one.
        problems: Vec<Problem>,
    },
    /// What is in it together with what was defined at run time.
    #[error("{}", .lines.join("\n"))]
    Composed {
        /// Each problem with its place, at least one.
        lines: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a configuration file, and the files it takes plugins' configuration from.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] says everything that is wrong, with file, line, column and key.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, &[]).map(|composed| composed.config)
    }

    /// As [`Config::load`], of a text; relative paths in it begin at `base_dir`.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub(crate) fn parse(text: &str, file_name: &str, base_dir: &Path) -> Result<Self, ConfigError> {
        Self::compose(text, file_name, base_dir, &[]).map(|composed| composed.config)
    }
}

impl RouteConfig {
    /// The queue that it reads; none of an inline route.
    pub(crate) fn queue(&self) -> Option<&Subject> {
        self.source.queue()
    }
}

impl Source {
    /// The queue, where it is one.
    pub(crate) fn queue(&self) -> Option<&Subject> {
        match self {
            Self::Queue(name) => Some(name),
            Self::Inline(_) => None,
        }
    }
}

impl Default for PluginConfig {
    fn default() -> Self {
        Self {
            file: None,
            deadline: Duration::from_millis(50),
            memory_bytes: 64 << 20,
            output_bytes: 4 << 20,
            isolation: Isolation::Worker,
            recycle_memory_bytes: None,
            recycle_messages: None,
        }
    }
}

impl fmt::Debug for PluginUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginUse").field("name", &self.name).finish_non_exhaustive()
    }
}

fn lines(file: &str, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("{file}:{problem}")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests;
