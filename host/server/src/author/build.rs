//! From a project to a file that the router loads: the language's tool, then the runtime's own checks.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quipu_runtime::{Component, FILE_BYTES_MAX, RuntimeConfig};

use super::embedded::write_sdk;
use super::job::{BuildError, Job};
use super::project::Project;
use super::toolchains::Toolbox;
use super::wasm::{Import, Outline, outline, strip};
use crate::plugins::offline;
use crate::plugins::version::short;

/// The right edge of what is printed about builds and cases, in columns.
pub(crate) const LINE_WIDTH: usize = 111;
/// The name that core modules import WASI 0.1 by.
const WASI: &str = "wasi_snapshot_preview1";
/// Where the contract is, for those who built against another one.
const CONTRACT_DIR: &str = ".quipu/sdk/wit/0.1.0";

/// How to build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Keeps debug information, so that a trace has files and lines.
    pub(crate) debug: bool,
    /// For the language's tool.
    pub(crate) args: Vec<OsString>,
    /// Whether what the tool says is read on a terminal.
    pub(crate) colours: bool,
}

/// What a build came to.
pub(crate) struct Built {
    /// `.quipu/NAME.wasm`.
    pub(crate) file: PathBuf,
    /// Compiled from that file.
    pub(crate) component: Component,
    /// How long that took.
    pub(crate) compile: Duration,
    /// What it needs besides the contract, as `wasi 0.1`: answered by the router, but by no more than that.
    pub(crate) needs: Vec<String>,
    /// What the tools said although they did not fail; empty, or whole lines.
    pub(crate) said: String,
    /// All of it: tools and checks.
    pub(crate) took: Duration,
}

/// Builds a project, and takes over the file once it is known to load. Where that fails, the file of an earlier build is
/// still there.
///
/// # Errors
///
/// [`BuildError`], with what the compiler said word by word; or why the router would not load the file.
pub(crate) async fn build(project: &Project, options: Options, runtime: RuntimeConfig) -> Result<Built> {
    let begun = Instant::now();
    let made = project.clone();
    let made = tokio::task::spawn_blocking(move || make(&made, &options)).await??;
    let (name, shown) = (project.name.as_str(), format!("{}.wasm", project.name));
    let (component, compile) = offline::load_bytes(name, &shown, made.bytes.clone(), runtime).await?;
    let file = project.output();
    replace(&file, &made.bytes).with_context(|| file.display().to_string())?;
    Ok(Built { file, component, compile, needs: made.needs, said: made.said, took: begun.elapsed() })
}

impl Built {
    /// One line for people: what it is, how large, and how long it took.
    pub(crate) fn line(&self, project: &Project) -> String {
        let needs = if self.needs.is_empty() { "nothing".to_owned() } else { self.needs.join(", ") };
        let digest = self.component.digest().to_string();
        let left = format!(
            "build   {} {}  {}  {}  {}  needs {needs}",
            project.name,
            project.version,
            project.language.name,
            short(&digest),
            size(self.component.size_bytes()),
        );
        let took = format!("{:.1} s", self.took.as_secs_f64());
        let room = LINE_WIDTH.saturating_sub(left.chars().count()).max(took.len() + 2);
        format!("{left}{took:>room$}")
    }
}

/// Bytes as people read them: `84 KiB`, `1.7 MiB`.
pub(crate) fn size(bytes: usize) -> String {
    let tenths = |unit: usize| (bytes * 10).div_ceil(unit);
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1_024)),
        _ => format!("{}.{} MiB", tenths(1 << 20) / 10, tenths(1 << 20) % 10),
    }
}

/// What a language's tool made, made ready.
struct Made {
    bytes: Vec<u8>,
    needs: Vec<String>,
    said: String,
}

fn make(project: &Project, options: &Options) -> Result<Made, BuildError> {
    let _held = lock(&project.work_dir())?;
    let toolbox = Toolbox::of(&project.dir);
    let job = Job::new(project, &toolbox, options);
    write_sdk(&job.sdk(), project.language.sdk).map_err(BuildError::io(job.sdk()))?;
    let file = (project.language.build)(&job)?;
    let bytes = read(&file)?;
    let wrong = |e: &dyn std::fmt::Display| BuildError::Wrong(e.to_string());
    let bytes = if options.debug { bytes } else { strip(&bytes).map_err(|e| wrong(&e))? };
    let needs = needs(&outline(&bytes).map_err(|e| wrong(&e))?)?;
    Ok(Made { bytes, needs, said: job.into_said() })
}

/// A build at a time: two would write over each other's files.
fn lock(work_dir: &Path) -> Result<File, BuildError> {
    let path = work_dir.join("lock");
    let open = || {
        fs::create_dir_all(work_dir)?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(BuildError::io(&path))
}

fn read(file: &Path) -> Result<Vec<u8>, BuildError> {
    let bytes = fs::metadata(file).map_err(BuildError::io(file))?.len();
    // With debug information it may be larger than what a router takes; more than this is a mistake.
    if bytes > 4 * FILE_BYTES_MAX as u64 {
        let limit = size(FILE_BYTES_MAX);
        return Err(BuildError::Wrong(format!("{} has {bytes} bytes; a plugin has at most {limit}", file.display())));
    }
    fs::read(file).map_err(BuildError::io(file))
}

/// What a file needs besides the contract; refused where no router has it, in the author's terms.
fn needs(outline: &Outline) -> Result<Vec<String>, BuildError> {
    let exports = outline.exports.iter().map(String::as_str);
    let names = outline.imports.iter().map(|import| import.module.as_str()).chain(exports);
    if let Some(version) = names.filter_map(contract_version).find(|version| !version.starts_with("0.1.")) {
        return Err(BuildError::Wrong(format!(
            "the plugin is made for version {version} of the contract; this quipu runs 0.1: build it against {CONTRACT_DIR}"
        )));
    }
    let mut needs = Vec::new();
    for import in &outline.imports {
        let need = match import.module.as_str() {
            WASI => "wasi 0.1".to_owned(),
            module if contract_version(module).is_some() => continue,
            module if module.starts_with("wasi:") => {
                let version = module.rsplit_once('@').map_or("", |(_, version)| version);
                format!("wasi {}", version.rsplit_once('.').map_or(version, |(minor, _)| minor))
            }
            _ => return Err(BuildError::Wrong(undeclared(import))),
        };
        if !needs.contains(&need) {
            needs.push(need);
        }
    }
    Ok(needs)
}

fn undeclared(Import { module, name }: &Import) -> String {
    let import = if name.is_empty() || module.contains('/') { module.clone() } else { format!("{module}::{name}") };
    format!(
        "the plugin imports `{import}`, which no router gives it: it may import the interfaces of {CONTRACT_DIR} and \
         nothing else. A function that is declared and nowhere defined becomes such an import"
    )
}

/// `0.1.0` of `quipu:plugin/log@0.1.0` and `quipu:plugin/handler@0.1.0#process`.
fn contract_version(name: &str) -> Option<&str> {
    let (_, version) = name.strip_prefix("quipu:plugin/")?.split_once('@')?;
    version.split('#').next()
}

/// In one step: who reads the file has the whole of either.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = file.with_extension("wasm.new");
    fs::write(&new, bytes)?;
    fs::rename(&new, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(modules: &[(&str, &str)]) -> Outline {
        let import = |(module, name): &(&str, &str)| Import { module: (*module).into(), name: (*name).into() };
        Outline { imports: modules.iter().map(import).collect(), exports: Vec::new() }
    }

    #[test]
    fn what_a_file_needs_is_told() {
        let contract = ("quipu:plugin/log@0.1.7", "log");
        let found = |outline: &Outline| needs(outline).map_err(|e| e.to_string());
        assert_eq!(found(&imports(&[contract])), Ok(Vec::new()));
        assert_eq!(found(&imports(&[contract, (WASI, "fd_write")])), Ok(vec!["wasi 0.1".into()]));
        let stock = imports(&[("wasi:cli/exit@0.2.0", ""), ("wasi:io/poll@0.2.3", "")]);
        assert_eq!(found(&stock), Ok(vec!["wasi 0.2".into()]));
    }

    #[test]
    fn what_no_router_has_is_refused_in_the_authors_terms() {
        let refused = |outline: &Outline| needs(outline).expect_err("refused").to_string();
        let error = refused(&imports(&[("env", "system")]));
        assert!(error.starts_with("the plugin imports `env::system`, which no router gives it"), "{error}");
        let error = refused(&imports(&[("quipu:plugin/log@0.2.0", "log")]));
        assert!(
            error.starts_with("the plugin is made for version 0.2.0 of the contract; this quipu runs 0.1"),
            "{error}"
        );
        let exports = Outline { exports: vec!["quipu:plugin/handler@1.0.0#process".into()], ..Outline::default() };
        assert!(refused(&exports).contains("version 1.0.0"));
    }

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!([1, 86_016, 1_048_575, 1_782_579].map(size), ["1 KiB", "84 KiB", "1024 KiB", "1.7 MiB"]);
    }
}
