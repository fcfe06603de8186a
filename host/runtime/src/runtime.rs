//! The engine that all plugins share: its pool, its clock, and the code it compiled.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails,
};

use crate::bindings;
use crate::component::{Compiled, Component};
use crate::fault::FRAMES_MAX;
use crate::host::{Host, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::load::{self, LoadError};
use crate::logs::{LogLine, Rings};
use crate::plugin::Digest;
use crate::sealed::{self, EngineHash, Sealed};
use crate::slots::{Places, Slots};

/// Sizes of the runtime; each is a bound, not a reservation of memory, unless it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Most plugin instances at a time, one for each use and worker; 64.
    pub instances_max: u32,
    /// Most linear memories of all instances together; 192. Most plugins have one, a QuickJS plugin has three. Each
    /// takes about 4 GiB of address space from the start, though no memory.
    pub memories_max: u32,
    /// The most that [`Limits::memory_bytes`](crate::Limits) may grant to one use; 256 MiB.
    pub memory_bytes_max: usize,
    /// How much of a memory stays resident for the next instance once it has been used; 128 KiB.
    pub keep_resident_bytes: usize,
    /// How often deadlines are looked at; 5 ms. At most a tenth of the shortest deadline keeps that one sharp.
    pub tick: Duration,
    /// How many different compiled plugins stay in memory, in use or not; 32.
    pub compiled_max: usize,
    /// Whether traces of plugins that carry DWARF name files and lines; off. Reading it takes time at each trap, and it
    /// is the plugin's own say.
    pub trace_lines: bool,
    /// Whether instructions are counted, [`Guest::fuel_used`](crate::Guest::fuel_used); off. Costs time, so routers
    /// never have it.
    pub count_fuel: bool,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            instances_max: 64,
            memories_max: 192,
            memory_bytes_max: 256 << 20,
            keep_resident_bytes: 128 << 10,
            tick: Duration::from_millis(5),
            compiled_max: 32,
            trace_lines: false,
            count_fuel: false,
        }
    }
}

/// Why the runtime does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// A size that cannot be.
    #[error("plugin runtime: `{key}` must be {expected}")]
    Config {
        /// Which one.
        key: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// Most likely too little address space for the pool.
    #[error(
        "the plugin engine does not start: {reason} (its pool takes about {address_space_gib} GiB of address space; \
         `memories_max` lowers that)"
    )]
    Engine {
        /// What the engine says.
        reason: String,
        /// What was asked for.
        address_space_gib: u64,
    },
    /// No thread to watch over deadlines.
    #[error("the thread that watches over plugin deadlines does not start: {0}")]
    Thread(String),
}

/// The shared engine. Cloning is cheap; when the last clone, component and guest is gone, all of it ends.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<Host>,
    places: Arc<Places>,
    /// Most recently used last.
    compiled: Mutex<VecDeque<Arc<Compiled>>>,
    /// Held while compiling: one plugin compiles at a time, on every core.
    compiling: Mutex<()>,
    rings: Rings,
    config: RuntimeConfig,
}

impl Runtime {
    /// Starts the engine, its pool and the thread that watches over deadlines. Takes about 1 ms.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`] where a size cannot be, or the system does not give what the pool needs.
    pub fn new(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        check(&config)?;
        let failed = |e: wasmtime::Error| RuntimeError::Engine {
            reason: format!("{e:#}"),
            address_space_gib: u64::from(config.memories_max) * SLOT_GIB,
        };
        let engine = Engine::new(&engine_config(&config)).map_err(failed)?;
        let linker = linker(&engine).map_err(failed)?;
        let (weak, tick) = (engine.weak(), config.tick);
        thread::Builder::new()
            .name("quipu-deadlines".into())
            .spawn(move || watch_deadlines(&weak, tick))
            .map_err(|e| RuntimeError::Thread(e.to_string()))?;
        let places = Places::new(slots(&config));
        let (compiled, compiling, rings) = (Mutex::default(), Mutex::default(), Rings::default());
        Ok(Self(Arc::new(Inner { engine, linker, places, compiled, compiling, rings, config })))
    }

    /// Makes a plugin of a file's bytes: a component, or a core module that keeps to the contract's names.
    ///
    /// `name` is the plugin's own, `source` the file's, for errors. Compiles on all cores, which takes from milliseconds
    /// to seconds by size, and one plugin at a time; a file seen before costs its digest only. A file that nobody vouches
    /// for is better compiled by [`compile`] in a process with limits, since its author decides what compiling it takes.
    ///
    /// # Errors
    ///
    /// [`LoadError`] names the file and what is wrong with it.
    pub fn load(&self, name: &str, source: &str, bytes: &[u8]) -> Result<Component, LoadError> {
        load::check_size(source, bytes)?;
        let digest = Digest::of(bytes);
        let compiled = match self.known(&digest) {
            Some(known) => known,
            None => self.compile(source, bytes, digest)?,
        };
        self.component(name, source, compiled)
    }

    /// Makes a plugin of what [`compile`] made of a file of so many bytes, in another process perhaps. Compiles nothing:
    /// takes well under a millisecond.
    ///
    /// # Errors
    ///
    /// [`LoadError`]; `Compiled` where the code is of another file.
    pub fn load_compiled(
        &self,
        name: &str,
        source: &str,
        digest: Digest,
        size: usize,
        code: &Sealed,
    ) -> Result<Component, LoadError> {
        let refused = |reason: String| LoadError::Compiled { file: source.into(), reason };
        if *code.digest() != digest {
            return Err(refused("it is of another file".into()));
        }
        let compiled = match self.known(&digest) {
            Some(known) => known,
            None => {
                let component = deserialize(&self.0.engine, code).map_err(|e| refused(format!("{e:#}")))?;
                let built = (component, code.facts().clone());
                Arc::new(load::link(&self.0.linker, source, built, (digest, size))?)
            }
        };
        self.component(name, source, compiled)
    }

    /// The last lines that a plugin logged, at most 1,000 of all routes together: those of this route, if one is named,
    /// with a higher number than this.
    pub fn logs(&self, plugin: &str, route: Option<&str>, after: u64) -> Vec<LogLine> {
        self.0.rings.read(plugin, route, after)
    }

    /// Whether there is room for so many more chains of these plugins, each use with an instance and its memories. It is
    /// not kept for them.
    ///
    /// # Errors
    ///
    /// [`Room`] says what is to be raised.
    pub fn room_for(&self, chain: &[Component], chains: u32) -> Result<(), Room> {
        let (total, free) = (self.0.places.total(), self.0.places.free());
        let wanted = |each: fn(&Slots) -> u32| {
            let one = chain.iter().fold(0_u32, |sum, component| sum.saturating_add(each(&component.slots())));
            one.saturating_mul(chains)
        };
        let room = |setting, what, needed: u32, free: u32, total: u32| match needed <= free {
            true => Ok(()),
            false => {
                let at_least = u64::from(total) + u64::from(needed - free);
                let mut plugins: Vec<String> =
                    chain.iter().map(|component| format!("`{}`", component.name())).collect();
                plugins.dedup();
                let plugins = plugins.join(", ");
                Err(Room { plugins, chains, what, setting, needed, free, total, at_least })
            }
        };
        let (instances, memories) = (wanted(|slots| slots.instances), wanted(|slots| slots.memories));
        room("plugins.instances", "instances", instances, free.instances, total.instances)?;
        room("plugins.memories", "linear memories", memories, free.memories, total.memories)?;
        // Tables come with the instances.
        let tables = wanted(|slots| slots.tables).div_ceil(TABLES_PER_INSTANCE);
        let free_tables = free.tables / TABLES_PER_INSTANCE;
        room("plugins.instances", "instances' tables", tables, free_tables, total.instances)
    }

    fn compile(&self, source: &str, bytes: &[u8], digest: Digest) -> Result<Arc<Compiled>, LoadError> {
        let _one = self.0.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // Another may have been at it meanwhile.
        if let Some(known) = self.known(&digest) {
            return Ok(known);
        }
        let built = load::compile(&self.0.engine, source, bytes)?;
        load::link(&self.0.linker, source, built, (digest, bytes.len())).map(Arc::new)
    }

    fn known(&self, digest: &Digest) -> Option<Arc<Compiled>> {
        let cache = self.0.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        cache.iter().find(|compiled| compiled.digest == *digest).map(Arc::clone)
    }

    fn component(&self, name: &str, source: &str, compiled: Arc<Compiled>) -> Result<Component, LoadError> {
        let mut cache = self.0.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|other| other.digest != compiled.digest);
        cache.push_back(Arc::clone(&compiled));
        if cache.len() > self.0.config.compiled_max {
            cache.pop_front();
        }
        drop(cache);
        load::check_slots(source, compiled.slots, self.0.places.total())?;
        Ok(Component::new(name, compiled, self.clone()))
    }

    pub(crate) fn rings(&self) -> &Rings {
        &self.0.rings
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.0.places
    }

    /// The sizes that it was made with.
    pub fn config(&self) -> &RuntimeConfig {
        &self.0.config
    }
}

/// Compiles a file to what [`Sealed::seal`] seals: looks through it, compiles it, checks that it fits the contract, and
/// runs nothing of it. Meant for a process of its own with limits of time and memory: the file's author decides what it
/// takes. Needs none of the pool's address space; of the configuration only `trace_lines` matters.
///
/// # Errors
///
/// [`LoadError`] names the file and what is wrong with it.
pub fn compile(file: &str, bytes: &[u8], config: &RuntimeConfig) -> Result<Vec<u8>, LoadError> {
    load::check_size(file, bytes)?;
    let failed = |e: wasmtime::Error| LoadError::System { file: file.into(), reason: format!("{e:#}") };
    let engine = Engine::new(&code_config(config)).map_err(failed)?;
    let linker = linker(&engine).map_err(failed)?;
    let (component, facts) = load::compile(&engine, file, bytes)?;
    load::link(&linker, file, (component.clone(), facts.clone()), (Digest::of(bytes), bytes.len()))?;
    let code = component.serialize().map_err(failed)?;
    Ok(sealed::pack(EngineHash::of(&engine), &facts, &code))
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    bindings::Plugin::add_to_linker::<_, HasSelf<Host>>(&mut linker, |host| host)?;
    Ok(linker)
}

#[allow(unsafe_code, reason = "the only way to load compiled code")]
fn deserialize(engine: &Engine, code: &Sealed) -> wasmtime::Result<wasmtime::component::Component> {
    // SAFETY: the bytes must be what the engine itself serialised. A `Sealed` is made by `Sealed::open` alone, which
    // has compared a keyed hash over all of them: who has the key has sealed them, and that is this router, with what
    // `compile` answered. The engine itself compares its version and settings once more.
    unsafe { wasmtime::component::Component::deserialize(engine, code.code()) }
}

/// Too little room in the pool of instances.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no room for {chains} more of {plugins}: {needed} {what} are needed, {free} of {total} are free; set `{setting}` to at \
     least {at_least}"
)]
pub struct Room {
    /// Their names.
    pub plugins: String,
    /// How many chains of them were asked for.
    pub chains: u32,
    /// Of what there is too little.
    pub what: &'static str,
    /// The key of the configuration that says how many there are.
    pub setting: &'static str,
    /// How many are needed.
    pub needed: u32,
    /// How many are free.
    pub free: u32,
    /// How many there are.
    pub total: u32,
    /// What the setting must be.
    pub at_least: u64,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("config", &self.0.config).finish_non_exhaustive()
    }
}

/// What a memory reserves of the address space, with its guard region, about.
const SLOT_GIB: u64 = 4;

/// Tables that each instance may take from the pool on average. Plugins have one, the glue around a core module a
/// second, QuickJS plugins half a dozen.
const TABLES_PER_INSTANCE: u32 = 8;

/// Core instances that one plugin may consist of: a component from a core module has four, one of QuickJS 11, and a Python
/// interpreter 38, one for each of its libraries. They take no room until used.
pub(crate) const CORE_INSTANCES_MAX: u32 = 64;

/// Memories that one plugin may have.
pub(crate) const MEMORIES_MAX: u32 = 8;

fn check(config: &RuntimeConfig) -> Result<(), RuntimeError> {
    let invalid = |key, expected| Err(RuntimeError::Config { key, expected });
    match config {
        c if !(1..=10_000).contains(&c.instances_max) => invalid("instances_max", "1 to 10,000"),
        c if !(1..=20_000).contains(&c.memories_max) => invalid("memories_max", "1 to 20,000"),
        c if !(64 << 10..=4 << 30).contains(&c.memory_bytes_max) => invalid("memory_bytes_max", "64 KiB to 4 GiB"),
        c if !(Duration::from_micros(100)..=Duration::from_secs(1)).contains(&c.tick) => {
            invalid("tick", "0.1 ms to 1 s")
        }
        c if c.compiled_max == 0 => invalid("compiled_max", "at least 1"),
        _ => Ok(()),
    }
}

fn slots(config: &RuntimeConfig) -> Slots {
    Slots {
        instances: config.instances_max,
        memories: config.memories_max,
        tables: config.instances_max * TABLES_PER_INSTANCE,
    }
}

fn engine_config(config: &RuntimeConfig) -> Config {
    let total = slots(config);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(total.instances)
        .total_core_instances(total.instances * CORE_INSTANCES_MAX)
        .total_memories(total.memories)
        .total_tables(total.tables)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(config.memory_bytes_max)
        .linear_memory_keep_resident(config.keep_resident_bytes)
        .pagemap_scan(Enabled::Auto);
    let mut engine = code_config(config);
    engine.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    engine
}

/// What compiled code depends on. A replay must see what was seen, so a number that is none has the same bits on every
/// processor.
fn code_config(config: &RuntimeConfig) -> Config {
    let lines = if config.trace_lines { WasmBacktraceDetails::Enable } else { WasmBacktraceDetails::Disable };
    let mut engine = Config::new();
    engine
        .concurrency_support(false)
        .consume_fuel(config.count_fuel)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .epoch_interruption(true)
        .wasm_backtrace_details(lines)
        .wasm_backtrace_max_frames(Some(FRAMES_MAX))
        .wasm_memory64(false);
    engine
}

/// One tick a wake-up, also after a long pause of the whole machine, so that a guest that was paused too is not blamed.
fn watch_deadlines(engine: &EngineWeak, tick: Duration) {
    loop {
        thread::sleep(tick);
        match engine.upgrade() {
            Some(engine) => engine.increment_epoch(),
            None => return, // no runtime, component or guest is left
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_by_name() {
        let text = |config| Runtime::new(config).expect_err("refused").to_string();
        let none = RuntimeConfig { instances_max: 0, ..RuntimeConfig::default() };
        assert_eq!(text(none), "plugin runtime: `instances_max` must be 1 to 10,000");
        let slow = RuntimeConfig { tick: Duration::from_secs(2), ..RuntimeConfig::default() };
        assert_eq!(text(slow), "plugin runtime: `tick` must be 0.1 ms to 1 s");
    }

    #[test]
    fn nothing_outlives_the_last_handle() {
        let runtime = Runtime::new(RuntimeConfig { memories_max: 1, ..RuntimeConfig::default() }).expect("a runtime");
        let engine = runtime.engine().weak();
        drop(runtime);
        // The thread that watches over deadlines may hold it for one more look at the clock.
        while engine.upgrade().is_some() {
            thread::yield_now();
        }
    }
}
