//! What is to be tried: a plugin's file, with the configuration and limits that its project gives it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use quipu_runtime::{Component, Limits, RuntimeConfig, Use};
use serde_json::{Map, Value};

use super::project::{MANIFEST, Project, WORK_DIR};
use crate::plugins::offline;

/// Largest configuration file, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The route that a plugin is told it is in, while it is tried.
const ROUTE: &str = "trial";

/// A plugin that is to be tried.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// Where its cases are, and capsules go.
    pub(crate) dir: PathBuf,
    /// Of `plugin.toml`; without one, nothing.
    pub(crate) config: Map<String, Value>,
    pub(crate) limits: Limits,
    /// From the build, on the engine of [`Candidate::runtime`].
    built: Option<Component>,
}

impl Candidate {
    /// A project that was built; `dir` is how its directory was written.
    pub(crate) fn of_project(project: &Project, dir: &Path, component: Component) -> Self {
        let dir = dir.strip_prefix(".").unwrap_or(dir);
        let file = dir.join(WORK_DIR).join(format!("{}.wasm", project.name));
        let own = Self::of(project, file, dir);
        Self { built: Some(component), ..own }
    }

    /// A file, with configuration and limits of the project in this directory; the current one, unless said. Its name is
    /// the project's, where it is what the project's build gives.
    ///
    /// # Errors
    ///
    /// What is wrong with `plugin.toml`, where there is one.
    pub(crate) fn of_file(file: &Path, dir: Option<&Path>) -> Result<Self> {
        let dir = dir.unwrap_or(Path::new("."));
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("plugin");
        if dir.join(MANIFEST).exists() {
            let project = Project::open(dir)?;
            let own = file.canonicalize().is_ok_and(|file| file == project.output());
            let candidate = Self::of(&project, file.to_owned(), dir);
            return Ok(if own { candidate } else { Self { name: stem.to_owned(), ..candidate } });
        }
        let (file, dir) = (file.to_owned(), dir.to_owned());
        Ok(Self { name: stem.to_owned(), file, dir, config: Map::new(), limits: Limits::default(), built: None })
    }

    /// Another file, with the same configuration and limits.
    pub(crate) fn with_file(&self, name: &str, file: PathBuf) -> Self {
        Self { name: name.to_owned(), file, built: None, ..self.clone() }
    }

    fn of(project: &Project, file: PathBuf, dir: &Path) -> Self {
        let config = project.config.as_object().cloned().unwrap_or_default();
        let (name, dir) = (project.name.to_string(), dir.to_owned());
        Self { name, file, dir, config, limits: project.limits, built: None }
    }

    /// The engine that it is tried on: as of a router, with lines in traces where the file carries them.
    pub(crate) fn runtime(limits: &Limits) -> RuntimeConfig {
        let defaults = RuntimeConfig::default();
        let memory_bytes_max = defaults.memory_bytes_max.max(limits.memory_bytes);
        RuntimeConfig { trace_lines: true, instances_max: 4, memories_max: 32, memory_bytes_max, ..defaults }
    }

    /// Compiled, where it is not yet.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub(crate) async fn load(&self) -> Result<Component> {
        match &self.built {
            Some(component) => Ok(component.clone()),
            None => Ok(offline::load_as(&self.name, &self.file, Self::runtime(&self.limits)).await?.0),
        }
    }

    /// How it is used, with its own configuration.
    pub(crate) fn r#use(&self) -> Use {
        Use {
            route: ROUTE.into(),
            config_json: Value::Object(self.config.clone()).to_string(),
            limits: self.limits,
            ..Use::default()
        }
    }
}

/// A plugin's configuration from a file with a JSON object.
///
/// # Errors
///
/// It cannot be read, is too large, or something else.
pub(crate) fn read_config(file: &Path) -> Result<Map<String, Value>> {
    let text = read_text(file)?;
    serde_json::from_str(&text).with_context(|| format!("{}: a JSON object is expected", file.display()))
}

fn read_text(file: &Path) -> Result<String> {
    let size = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    ensure!(size <= CONFIG_BYTES_MAX, "{} has {size} bytes; at most {CONFIG_BYTES_MAX} are read", file.display());
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_project_gives_configuration_and_limits() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |text: &str| std::fs::write(dir.path().join(MANIFEST), text).expect("written");
        let of = || Candidate::of_file(Path::new("x/big.wasm"), Some(dir.path()));
        let bare = of().expect("a candidate");
        assert_eq!((bare.name.as_str(), bare.config.len(), bare.limits), ("big", 0, Limits::default()));
        let plugin = "[plugin]\nname = \"quakes\"\nversion = \"1\"\nlanguage = \"rust\"\n";
        write(&format!("{plugin}[config]\nat_least = 4.5\n[limits]\ndeadline = \"10ms\"\nmemory = \"1MiB\"\n"));
        let found = of().expect("a candidate");
        assert_eq!((found.name.as_str(), &found.config["at_least"]), ("big", &serde_json::json!(4.5)));
        let built = dir.path().join(".quipu/quakes.wasm");
        std::fs::create_dir_all(dir.path().join(WORK_DIR)).expect("made");
        std::fs::write(&built, "").expect("written");
        assert_eq!(Candidate::of_file(&built, Some(dir.path())).expect("a candidate").name, "quakes");
        assert_eq!((found.limits.deadline, found.limits.memory_bytes), (Duration::from_millis(10), 1 << 20));
        write(&format!("{plugin}[limits]\ndeadlin = \"10ms\"\n"));
        let error = of().expect_err("refused").to_string();
        assert!(error.contains("6:1: limits.deadlin: unknown key; did you mean `deadline`?"), "{error}");
    }
}
