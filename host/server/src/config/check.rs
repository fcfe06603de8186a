//! From what is written to what is meant: ranges, names, defaults. Queues and routes are in files of their own.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use quipu_protocol::{Subject, SubjectPattern};
use quipu_router::{TRACE_BYTES, TraceMode, WORKERS_DEFAULT};
use toml::Spanned;

use super::problem::{Problem, join};
use super::raw::{self, Given, Named, Raw, Table};
use super::routes::Checked;
use super::units::{ByteSize, HumanDuration};
use super::{
    Config, GRACE_MAX, ListenConfig, PluginConfig, PluginsConfig, StoreConfig, TlsFiles, TraceConfig, graph, limits,
    queues, routes, users,
};

const BACKOFF_STEPS_MAX: usize = 16;
const BACKOFF_MAX: HumanDuration = HumanDuration(Duration::from_hours(24));
const BACKOFF: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10)];
const NAME_BYTES_MAX: usize = 128;
const WORKERS_MAX: usize = 256;

/// Checks everything and gives the configuration, or all that is wrong in the file's order.
pub(super) fn check(raw: Raw, text: &str, base: &Path) -> Result<Config, Vec<Problem>> {
    let mut checker = Checker { text, base, problems: Vec::new() };
    let config = checker.config(raw);
    let mut problems = checker.problems;
    problems.sort();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

/// Collects what is wrong while the parts are taken over.
pub(super) struct Checker<'a> {
    text: &'a str,
    pub(super) base: &'a Path,
    problems: Vec<Problem>,
}

/// Something with its place in the file.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) key: String,
    pub(super) span: Range<usize>,
}

impl Checker<'_> {
    fn config(&mut self, raw: Raw) -> Config {
        let base = self.base;
        let quic = raw.listen.0.quic.as_ref().map_or(0..0, Spanned::span);
        let listen = self.listen(raw.listen.0);
        let tls = raw.tls.map(|Table(tls)| TlsFiles {
            certificate: base.join(tls.certificate),
            key: base.join(tls.key),
            client_ca: tls.client_ca.map(|file| base.join(file)),
        });
        let users = users::check(self, raw.user, tls.as_ref());
        users::check_listening(self, listen.quic, &quic, tls.is_some(), &users);
        let limits = limits::check(self, raw.limits.0);
        let store = self.store(raw.store.0);
        let plugins = self.plugins(raw.plugins.0);
        let trace = self.trace(raw.trace.0);
        let plugin = self.each_plugin(raw.plugin);
        let defined: Vec<String> = raw.queue.keys().cloned().collect();
        let Checked { routes, outputs } = routes::check(self, raw.route, &defined);
        let before = self.problems.len();
        let queues = queues::check(self, raw.queue, &routes);
        // A queue with something wrong takes who knows what; its own problem comes first.
        if self.problems.len() == before {
            graph::check(&queues, &outputs, &mut |place, message| self.report(&place.span, &place.key, message));
            routes::check_dead_letters(self, &routes, &queues);
        }
        let routes = routes.into_iter().map(|route| route.value).collect();
        Config { listen, tls, users, limits, store, plugins, trace, plugin, queues, routes }
    }

    fn listen(&mut self, raw: raw::Listen) -> ListenConfig {
        let mut quic = ([127, 0, 0, 1], 4433).into();
        if let Some(given) = raw.quic {
            match given.as_ref().parse() {
                Ok(address) => quic = address,
                Err(_) => {
                    let found = given.as_ref();
                    let message = format!("expected an address such as \"127.0.0.1:4433\", found {found:?}");
                    self.report(&given.span(), "listen.quic", message);
                }
            }
        }
        let range = HumanDuration(Duration::ZERO)..=HumanDuration(GRACE_MAX);
        let grace = self.within(raw.grace, "listen.grace", range);
        ListenConfig { quic, grace: grace.map_or(Duration::from_secs(8), |grace| grace.0) }
    }

    fn store(&mut self, raw: raw::Store) -> StoreConfig {
        let key = "store.journal_segment";
        let segment = raw.journal_segment.clone();
        if let Some(uneven) = segment.filter(|size| !size.as_ref().0.is_multiple_of(4 << 10)) {
            self.report(&uneven.span(), key, format!("expected a multiple of 4KiB, found {}", uneven.as_ref()));
        }
        let segment = self.within(raw.journal_segment, key, ByteSize(1 << 20)..=ByteSize(1 << 30));
        let memory = self.within(raw.memory, "store.memory", ByteSize(0)..=ByteSize(usize::MAX as u64));
        let reserve = self.within(raw.disk_reserve, "store.disk_reserve", ByteSize(0)..=ByteSize(1 << 40));
        StoreConfig {
            path: self.base.join(raw.path.as_deref().unwrap_or(Path::new("data"))),
            journal_segments: self.within(raw.journal_segments, "store.journal_segments", 2..=16).unwrap_or(4),
            journal_segment_bytes: segment.map_or(32 << 20, bytes),
            memory_bytes: memory.map_or(64 << 20, bytes),
            disk_reserve_bytes: reserve.map_or(64 << 20, |reserve| reserve.0),
        }
    }

    fn plugins(&mut self, raw: raw::Plugins) -> PluginsConfig {
        let kept = self.within(raw.store_max, "plugins.store_max", ByteSize(64 << 20)..=ByteSize(1 << 40));
        let time = HumanDuration(Duration::from_secs(1))..=HumanDuration(Duration::from_hours(1));
        let time = self.within(raw.compile_time, "plugins.compile_time", time);
        let memory = ByteSize(256 << 20)..=ByteSize(1 << 40);
        let memory = self.within(raw.compile_memory, "plugins.compile_memory", memory);
        PluginsConfig {
            dir: raw.dir.map(|dir| self.base.join(dir)),
            workers: self.within(raw.workers, "plugins.workers", 2..=WORKERS_MAX).unwrap_or(*WORKERS_DEFAULT),
            watch: raw.watch.map(|dir| self.base.join(dir)),
            store_bytes_max: kept.map_or(1 << 30, |kept| kept.0),
            instances: self.within(raw.instances, "plugins.instances", 1..=10_000),
            memories: self.within(raw.memories, "plugins.memories", 1..=20_000),
            compile_time: time.map_or(Duration::from_mins(1), |time| time.0),
            compile_memory_bytes: memory.map_or(4 << 30, |memory| memory.0),
        }
    }

    fn trace(&mut self, raw: raw::Trace) -> TraceConfig {
        if let Some(one_in) = raw.one_in.as_ref().filter(|_| raw.mode != raw::Traced::Sampled) {
            self.report(&one_in.span(), "trace.one_in", "it is for `mode = \"sampled\"`");
        }
        let one_in = self.within(raw.one_in, "trace.one_in", 1..=1_000_000).unwrap_or(100);
        let memory = self.within(raw.memory, "trace.memory", ByteSize(64 << 10)..=ByteSize(1 << 30));
        let mode = match raw.mode {
            raw::Traced::Off => TraceMode::Off,
            raw::Traced::Sampled => TraceMode::Sampled(one_in),
            raw::Traced::All => TraceMode::All,
        };
        TraceConfig { mode, memory_bytes: memory.map_or(TRACE_BYTES, bytes) }
    }

    fn each_plugin(&mut self, raw: Named<raw::Plugin>) -> BTreeMap<String, PluginConfig> {
        let mut plugins = BTreeMap::new();
        for (name, plugin) in raw {
            let key = join("plugin", &name);
            self.name(&name, &plugin.span(), &key);
            let Table(raw) = plugin.into_inner();
            let deadline = HumanDuration(Duration::from_millis(1))..=HumanDuration(Duration::from_mins(1));
            let deadline = self.within(raw.deadline, &join(&key, "deadline"), deadline);
            let memory = self.within(raw.memory, &join(&key, "memory"), ByteSize(1 << 20)..=ByteSize(4 << 30));
            let output = self.within(raw.output, &join(&key, "output"), ByteSize(0)..=ByteSize(64 << 20));
            let recycle = ByteSize(64 << 10)..=ByteSize(4 << 30);
            let recycle_memory = self.within(raw.recycle_memory, &join(&key, "recycle_memory"), recycle);
            let recycle_messages =
                self.within(raw.recycle_messages, &join(&key, "recycle_messages"), 1..=1_000_000_000);
            let default = PluginConfig::default();
            let limits = PluginConfig {
                file: raw.file.map(|file| self.base.join(file)),
                deadline: deadline.map_or(default.deadline, |deadline| deadline.0),
                memory_bytes: memory.map_or(default.memory_bytes, bytes),
                output_bytes: output.map_or(default.output_bytes, bytes),
                isolation: raw.isolation,
                recycle_memory_bytes: recycle_memory.map(bytes),
                recycle_messages,
            };
            plugins.insert(name, limits);
        }
        plugins
    }

    pub(super) fn report(&mut self, span: &Range<usize>, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::at(self.text, span, key, message));
    }

    /// What is given, if it is; reported where it is out of range.
    pub(super) fn within<T: PartialOrd + Display>(
        &mut self,
        given: Given<T>,
        key: &str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let given = given?;
        if !range.contains(given.as_ref()) {
            let (least, most, found) = (range.start(), range.end(), given.as_ref());
            self.report(&given.span(), key, format!("expected {least} to {most}, found {found}"));
        }
        Some(given.into_inner())
    }

    /// The delays of a `backoff`, or the default ones.
    pub(super) fn backoff(&mut self, given: Given<Vec<Spanned<HumanDuration>>>, key: &str) -> Vec<Duration> {
        let Some(given) = given else { return BACKOFF.to_vec() };
        self.at_most(given.as_ref().len(), BACKOFF_STEPS_MAX, "delays", &given.span(), key);
        let range = HumanDuration(Duration::ZERO)..=BACKOFF_MAX;
        let steps = given.into_inner().into_iter().enumerate();
        steps
            .filter_map(|(n, step)| self.within(Some(step), &format!("{key}[{n}]"), range.clone()))
            .map(|s| s.0)
            .collect()
    }

    /// Each text of a list, parsed; what cannot be is reported and left out.
    pub(super) fn list<T, E: Display>(
        &mut self,
        texts: Vec<Spanned<String>>,
        key: &str,
        max: usize,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<Placed<T>> {
        if let Some(beyond) = texts.get(max) {
            self.at_most(texts.len(), max, "subjects", &beyond.span(), key);
        }
        let mut parsed = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            let (key, span) = (format!("{key}[{n}]"), text.span());
            match parse(text.as_ref()) {
                Ok(value) => parsed.push(Placed { value, key, span }),
                Err(e) => self.report(&span, &key, e.to_string()),
            }
        }
        parsed
    }

    pub(super) fn at_most(&mut self, count: usize, max: usize, what: &str, span: &Range<usize>, key: &str) {
        if count > max {
            self.report(span, key, format!("{count} {what}; at most {max} are allowed"));
        }
    }

    /// A name of a route or plugin.
    pub(super) fn name(&mut self, name: &str, span: &Range<usize>, key: &str) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(allowed) {
            let message =
                format!("expected a name of 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`, found {name:?}");
            self.report(span, key, message);
        }
    }

    /// The name of a queue, which need not be in the file.
    pub(super) fn queue_name(&mut self, name: &str, span: &Range<usize>, key: &str) -> Option<Subject> {
        match Subject::new(name) {
            Ok(name) if name.is_internal() => {
                self.report(span, key, format!("queue `{name}`: names that begin with `$` are the router's own"));
                None
            }
            Ok(name) => Some(name),
            Err(e) => {
                self.report(span, key, e.to_string());
                None
            }
        }
    }
}

/// A pattern of what a queue or an inline route takes.
pub(super) fn taken(text: &str) -> Result<SubjectPattern, String> {
    match SubjectPattern::new(text) {
        Ok(pattern) if pattern.is_of_inboxes() => {
            Err(format!("`{pattern}`: replies go to who asked alone, and no queue and no route takes them"))
        }
        pattern => pattern.map_err(|e| e.to_string()),
    }
}

/// Saturates where memory cannot have as many bytes; ranges have been checked.
pub(super) fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}
