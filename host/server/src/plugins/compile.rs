//! Compiles plugins in a process of their own, with limits: a file's author decides what compiling it takes.
//!
//! The process is this binary again (`quipu compile-plugin`). It reads the file from standard input, which stays open for
//! as long as its parent lives, and writes the code to standard output. Sealed, that is kept beside the plugin's file, so
//! that the next start compiles nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use quipu_runtime::{Component, Digest, Runtime, Sealed};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::blobs::Blobs;
use crate::config::{ByteSize, PluginsConfig};

/// The most that a plugin's code may take, in bytes.
const CODE_BYTES_MAX: u64 = 512 << 20;
/// Longest error of the compiling process, in bytes.
const ERROR_BYTES_MAX: u64 = 8 << 10;
/// On the clock it may take so many times its processor time: others are at work too.
const CLOCK_FACTOR: u32 = 4;

/// What compiling one plugin may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CompileLimits {
    /// Of the processor; on the clock four times as long.
    pub(crate) time: Duration,
    /// Address space.
    pub(crate) memory_bytes: u64,
}

/// Makes components of files.
pub(crate) struct Compiler {
    runtime: Runtime,
    limits: CompileLimits,
    /// Where code is kept, and the key that it is sealed with.
    cache: Option<(Blobs, [u8; 32])>,
    /// One at a time: each takes every core.
    turn: tokio::sync::Mutex<()>,
}

/// A component, and what it took to get it.
pub(crate) struct Loaded {
    pub(crate) component: Component,
    /// None: nothing was compiled.
    pub(crate) compiled: Option<Duration>,
    /// Code that is on no disk yet.
    fresh: Option<Sealed>,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { time: Duration::from_mins(1), memory_bytes: 4 << 30 }
    }
}

impl CompileLimits {
    pub(crate) fn of(config: &PluginsConfig) -> Self {
        Self { time: config.compile_time, memory_bytes: config.compile_memory_bytes }
    }
}

impl Compiler {
    /// One that keeps the code, sealed with this key; or keeps nothing.
    pub(crate) fn new(runtime: Runtime, limits: CompileLimits, cache: Option<(Blobs, [u8; 32])>) -> Self {
        Self { runtime, limits, cache, turn: tokio::sync::Mutex::default() }
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// A plugin of which the store has the file: from the code that is kept, or else compiled.
    pub(crate) async fn load_kept(&self, name: &str, source: &str, digest: &str, bytes: u64) -> Result<Loaded> {
        let Some((blobs, _)) = self.cache.clone() else { bail!("there is no store of plugins") };
        let size = usize::try_from(bytes)?;
        if let Some(component) = self.kept(name, source, digest.parse()?, size).await {
            return Ok(Loaded { component, compiled: None, fresh: None });
        }
        let digest = digest.to_owned();
        let bytes = tokio::task::spawn_blocking(move || blobs.read(&digest)).await??;
        let mut loaded = self.load(name, source, bytes).await?;
        self.keep(&mut loaded).await;
        Ok(loaded)
    }

    /// Keeps the code of a plugin whose file is kept, so that the next start compiles nothing.
    pub(crate) async fn keep(&self, loaded: &mut Loaded) {
        let (Some((blobs, _)), Some(sealed)) = (self.cache.clone(), loaded.fresh.take()) else { return };
        let name = loaded.component.name().to_owned();
        let written = move || {
            let written = blobs.write_code(&sealed.digest().to_string(), sealed.as_bytes());
            written.inspect_err(|e| {
                tracing::warn!(plugin = name, "compiled code is not kept, the next start compiles again: {e:#}");
            })
        };
        // What failed was said.
        tokio::task::spawn_blocking(written).await.ok();
    }

    /// A plugin of a file's bytes. Nothing of it is on disk before [`Compiler::keep`]: it may be one that is only tried, or
    /// is refused.
    pub(crate) async fn load(&self, name: &str, source: &str, bytes: Vec<u8>) -> Result<Loaded> {
        let (digest, size) = (Digest::of(&bytes), bytes.len());
        if let Some(component) = self.kept(name, source, digest, size).await {
            return Ok(Loaded { component, compiled: None, fresh: None });
        }
        let _turn = self.turn.lock().await;
        let begun = Instant::now();
        let code = compile(source, &bytes, self).await?;
        let compiled = Some(begun.elapsed());
        // Without a store the code goes no further than this: any key will do.
        let key = self.cache.as_ref().map_or_else(one_time_key, |(_, key)| *key);
        let runtime = self.runtime.clone();
        let (name, source) = (name.to_owned(), source.to_owned());
        let loaded = tokio::task::spawn_blocking(move || -> Result<Loaded> {
            let sealed = Sealed::open(&key, &digest, Sealed::seal(&key, &digest, &code), &runtime)?;
            let component = runtime.load_compiled(&name, &source, digest, size, &sealed)?;
            Ok(Loaded { component, compiled, fresh: Some(sealed) })
        });
        loaded.await?
    }

    /// From the code that is kept, where there is any that fits.
    async fn kept(&self, name: &str, source: &str, digest: Digest, size: usize) -> Option<Component> {
        let ((blobs, key), runtime) = (self.cache.clone()?, self.runtime.clone());
        let (name, source) = (name.to_owned(), source.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let sealed = blobs.read_code(&digest.to_string()).ok()?;
            let opened = Sealed::open(&key, &digest, sealed, &runtime)
                .map_err(anyhow::Error::from)
                .and_then(|code| Ok(runtime.load_compiled(&name, &source, digest, size, &code)?));
            opened.map_err(|e| tracing::info!(plugin = name, "compiled again: {e:#}")).ok()
        });
        read.await.ok().flatten()
    }
}

fn one_time_key() -> [u8; 32] {
    *Digest::of(uuid::Uuid::now_v7().as_bytes()).as_bytes()
}

async fn compile(source: &str, bytes: &[u8], compiler: &Compiler) -> Result<Vec<u8>> {
    let limits = compiler.limits;
    let clock = limits.time * CLOCK_FACTOR;
    let mut process = spawn(source, bytes.len(), compiler).context("cannot start the process that compiles")?;
    let outcome = tokio::time::timeout(clock, converse(&mut process, bytes)).await;
    let Ok(outcome) = outcome else {
        process.kill().await.ok();
        bail!(
            "{source}: compiling takes more than {} on the clock (`plugins.compile_time` × {CLOCK_FACTOR})",
            human(clock)
        );
    };
    let (code, error, status) = outcome.with_context(|| format!("{source}: the process that compiles"))?;
    if status.success() && code.len() as u64 <= CODE_BYTES_MAX {
        return Ok(code);
    }
    Err(failure(source, status, &error, limits))
}

fn spawn(source: &str, bytes: usize, compiler: &Compiler) -> Result<Child> {
    let (limits, has_others, runtime) = (compiler.limits, compiler.cache.is_some(), compiler.runtime.config());
    // Beside a router at work, messages come first. The file that runs now, even where an update has put another in its place.
    let binary = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
    let mut command = Command::new(binary);
    command.args(["compile-plugin", "--bytes", &bytes.to_string(), "--source", source]);
    command.args(["--seconds", &limits.time.as_secs().max(1).to_string()]);
    command.args(["--memory", &limits.memory_bytes.to_string()]);
    let for_whom = [(has_others, "--polite"), (runtime.trace_lines, "--lines"), (runtime.count_fuel, "--fuel")];
    command.args(for_whom.into_iter().filter(|(is_set, _)| *is_set).map(|(_, argument)| argument));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Its memory is limited as address space, of which the allocator (mimalloc; this one in KiB) and a runtime with a
    // thread for each core would take a gibibyte in advance.
    let sparing = [("MIMALLOC_ARENA_RESERVE", "32768"), ("MIMALLOC_ARENA_EAGER_COMMIT", "0")];
    command.envs(sparing).env("TOKIO_WORKER_THREADS", "1");
    Ok(command.env("RUST_BACKTRACE", "0").spawn()?)
}

/// Hands over the file and takes the code, what was said, and how it ended.
async fn converse(process: &mut Child, bytes: &[u8]) -> Result<(Vec<u8>, String, ExitStatus)> {
    let (stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
    let (mut stdin, stdout) = (stdin.context("no standard input")?, stdout.context("no standard output")?);
    let stderr = stderr.context("no standard error")?;
    let (mut code, mut error) = (Vec::new(), Vec::new());
    let (mut stdout, mut stderr) = (stdout.take(CODE_BYTES_MAX + 1), stderr.take(ERROR_BYTES_MAX));
    let (_, code_read, error_read) = tokio::join!(
        // One that has ended takes no more, and its status says why.
        async { stdin.write_all(bytes).await.ok() },
        stdout.read_to_end(&mut code),
        stderr.read_to_end(&mut error),
    );
    code_read?;
    error_read?;
    drop((stdout, stderr));
    let status = process.wait().await?;
    drop(stdin);
    Ok((code, String::from_utf8_lossy(&error).trim().to_owned(), status))
}

fn failure(source: &str, status: ExitStatus, error: &str, limits: CompileLimits) -> anyhow::Error {
    let memory = ByteSize(limits.memory_bytes);
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if is(Signal::XCPU) || is(Signal::KILL) {
        let time = human(limits.time);
        anyhow!("{source}: compiling takes more than {time} of processor time (`plugins.compile_time`)")
    } else if error.contains("memory allocation of") || error.contains("Cannot allocate memory") {
        anyhow!("{source}: compiling takes more than {memory} of memory (`plugins.compile_memory`)")
    } else if error.contains("Resource temporarily unavailable") {
        // What a thread that finds no room for its stack is told (`pthread_create`, `EAGAIN`), and one too many as well.
        anyhow!(
            "{source}: no thread for compiling: it takes more than {memory} of memory (`plugins.compile_memory`), or the \
             system has as many processes as it may"
        )
    } else if status.code() == Some(1) && !error.is_empty() {
        anyhow!("{error}")
    } else if status.success() {
        anyhow!("{source}: compiled, it takes more than {}", ByteSize(CODE_BYTES_MAX))
    } else {
        anyhow!(
            "{source}: the process that compiles ended ({status}), with {memory} (`plugins.compile_memory`): {error}"
        )
    }
}

fn human(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the standard library says of a thread that was not made, as it came from a process at its limit.
    #[test]
    fn a_thread_without_room_for_its_stack_is_a_matter_of_memory() {
        let limits = CompileLimits { time: Duration::from_secs(1), memory_bytes: 384 << 20 };
        let said = "large.wasm cannot be compiled now: Resource temporarily unavailable (os error 11)";
        let failed = failure("large.wasm", ExitStatus::from_raw(1 << 8), said, limits).to_string();
        assert!(failed.contains("384MiB") && failed.contains("`plugins.compile_memory`"), "{failed}");
    }
}
