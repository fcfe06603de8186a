//! What plugins say: to `tracing`, to a ring for each plugin that can be looked at later, or to whoever tries a plugin.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::text::{Line, start};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Takes the lines of one use of a plugin. Called while the plugin runs: must not block.
pub trait LogSink: Send + Sync {
    /// A line, within the limits of the use; it may have line breaks in it.
    fn line(&self, level: LogLevel, text: &str);
}

/// A line that a plugin logged.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LogLine {
    /// Counts the lines of this plugin since the router started, from 1.
    pub number: u64,
    /// Unix milliseconds.
    pub time_ms: u64,
    /// How much it matters.
    pub level: LogLevel,
    /// In which route.
    pub route: Arc<str>,
    /// At most 1 KiB, control characters escaped.
    pub text: String,
}

/// Most lines that are kept for one plugin.
pub const LOG_LINES_MAX: usize = 1_000;
/// Longest text of a kept line, in bytes.
const LINE_BYTES_MAX: usize = 1 << 10;
/// Most plugins that lines are kept for; past that, those go that were silent for longest.
const PLUGINS_MAX: usize = 128;

/// The rings of all plugins.
#[derive(Default)]
pub(crate) struct Rings(Mutex<HashMap<Arc<str>, Arc<Ring>>>);

/// The last lines of one plugin.
#[derive(Default)]
pub(crate) struct Ring(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    lines: VecDeque<LogLine>,
    /// How many there have been.
    count: u64,
}

impl Rings {
    pub(crate) fn of(&self, plugin: &Arc<str>) -> Arc<Ring> {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = rings.get(plugin) {
            return Arc::clone(ring);
        }
        if rings.len() >= PLUGINS_MAX
            && let Some(silent) = rings.iter().min_by_key(|(_, ring)| ring.last_ms()).map(|(name, _)| Arc::clone(name))
        {
            rings.remove(&silent);
        }
        Arc::clone(rings.entry(Arc::clone(plugin)).or_default())
    }

    pub(crate) fn read(&self, plugin: &str, route: Option<&str>, after: u64) -> Vec<LogLine> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(plugin).cloned();
        let Some(ring) = ring else { return Vec::new() };
        let lines = ring.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |line: &&LogLine| line.number > after && route.is_none_or(|route| *line.route == *route);
        lines.lines.iter().filter(wanted).cloned().collect()
    }
}

impl Ring {
    fn push(&self, route: &Arc<str>, level: LogLevel, text: &str) {
        let text = Line(start(text, LINE_BYTES_MAX)).to_string();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.count += 1;
        let line = LogLine { number: lines.count, time_ms: unix_ms(), level, route: Arc::clone(route), text };
        if lines.lines.len() >= LOG_LINES_MAX {
            lines.lines.pop_front();
        }
        lines.lines.push_back(line);
    }

    fn last_ms(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lines.back().map_or(0, |line| line.time_ms)
    }
}

/// Where lines go in a router at work: to its log, under the target `plugin`, and into the plugin's ring.
pub(crate) struct RouterLog {
    pub(crate) plugin: Arc<str>,
    pub(crate) route: Arc<str>,
    pub(crate) ring: Arc<Ring>,
}

impl LogSink for RouterLog {
    fn line(&self, level: LogLevel, text: &str) {
        let (plugin, route, line) = (&*self.plugin, &*self.route, Line(text));
        match level {
            LogLevel::Trace => tracing::trace!(target: "plugin", plugin, route, "{line}"),
            LogLevel::Debug => tracing::debug!(target: "plugin", plugin, route, "{line}"),
            LogLevel::Info => tracing::info!(target: "plugin", plugin, route, "{line}"),
            LogLevel::Warn => tracing::warn!(target: "plugin", plugin, route, "{line}"),
            LogLevel::Error => tracing::error!(target: "plugin", plugin, route, "{line}"),
        }
        self.ring.push(&self.route, level, text);
    }
}

/// Keeps the first lines, for who tries a plugin: at most 1,000.
#[derive(Debug, Default)]
pub struct CapturedLog(Mutex<Vec<(LogLevel, String)>>);

impl CapturedLog {
    /// The lines so far; it is empty then.
    pub fn take(&self) -> Vec<(LogLevel, String)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl LogSink for CapturedLog {
    fn line(&self, level: LogLevel, text: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < LOG_LINES_MAX {
            lines.push((level, text.to_owned()));
        }
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_each_plugin_are_kept() {
        let rings = Rings::default();
        let ring = rings.of(&"p".into());
        for n in 1..=1_500 {
            let route = if n % 2 == 0 { "even" } else { "odd" };
            ring.push(&route.into(), LogLevel::Info, &format!("line\n{n}"));
        }
        let all = rings.read("p", None, 0);
        assert_eq!((all.len(), all[0].number, all[0].text.as_str()), (1_000, 501, "line\\n501"));
        assert_eq!(rings.read("p", Some("even"), 1_490).len(), 5);
        assert!(rings.read("q", None, 0).is_empty());
    }

    #[test]
    fn only_so_many_plugins_are_remembered() {
        let rings = Rings::default();
        let lively = rings.of(&"lively".into());
        lively.push(&"r".into(), LogLevel::Info, "here");
        for n in 0..500 {
            rings.of(&format!("p{n}").into());
        }
        assert_eq!(rings.0.lock().expect("a lock").len(), PLUGINS_MAX);
        assert_eq!(rings.read("lively", None, 0).len(), 1);
    }
}
