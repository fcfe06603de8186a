//! What is to be tried: a plugin's file, with the configuration and limits that its project gives it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quipu_runtime::{Component, Limits, RuntimeConfig, Use};
use serde_json::{Map, Value};

use super::project::{MANIFEST, Project, WORK_DIR};
use crate::files;
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
    /// Whether it is what the build of that project gives.
    pub(crate) is_own: bool,
    /// From the build, on the engine of [`Candidate::runtime`], and how long it took to compile.
    built: Option<(Component, Duration)>,
}

impl Candidate {
    /// What the build of a project gives; `dir` is how its directory was written.
    ///
    /// # Errors
    ///
    /// What its configuration takes in is not there.
    pub(crate) fn of_project(project: &Project, dir: &Path) -> Result<Self> {
        let dir = dir.strip_prefix(".").unwrap_or(dir);
        let file = dir.join(WORK_DIR).join(format!("{}.wasm", project.name));
        Self::of(project, file, dir)
    }

    /// A file, with configuration and limits of the project in this directory. Unless said it is the project whose build
    /// gives the file, or else the one in the current directory. Its name is the project's, where it is what the project's
    /// build gives.
    ///
    /// # Errors
    ///
    /// What is wrong with `plugin.toml`, where there is one.
    pub(crate) fn of_file(file: &Path, dir: Option<&Path>) -> Result<Self> {
        let dir = dir.or_else(|| project_of(file)).unwrap_or(Path::new("."));
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("plugin");
        if dir.join(MANIFEST).exists() {
            let project = Project::open(dir)?;
            let is_own = project.gives(file);
            let candidate = Self::of(&project, file.to_owned(), dir)?;
            return Ok(if is_own { candidate } else { Self { name: stem.to_owned(), is_own, ..candidate } });
        }
        let (name, file, dir) = (stem.to_owned(), file.to_owned(), dir.to_owned());
        Ok(Self { name, file, dir, config: Map::new(), limits: Limits::default(), is_own: false, built: None })
    }

    /// Another file, with the same configuration and limits.
    pub(crate) fn with_file(&self, name: &str, file: PathBuf) -> Self {
        Self { name: name.to_owned(), file, is_own: false, built: None, ..self.clone() }
    }

    /// As it was built just now, and how long it took to compile.
    pub(crate) fn built(self, component: Component, compile: Duration) -> Self {
        Self { built: Some((component, compile)), ..self }
    }

    fn of(project: &Project, file: PathBuf, dir: &Path) -> Result<Self> {
        let (name, dir, config) = (project.name.to_string(), dir.to_owned(), project.config()?.clone());
        Ok(Self { name, file, dir, config, limits: project.limits, is_own: true, built: None })
    }

    /// The engine that it is tried on: as of a router, with lines in traces where the file carries them.
    pub(crate) fn runtime(limits: &Limits) -> RuntimeConfig {
        let defaults = RuntimeConfig::default();
        let memory_bytes_max = defaults.memory_bytes_max.max(limits.memory_bytes);
        RuntimeConfig { trace_lines: true, instances_max: 4, memories_max: 32, memory_bytes_max, ..defaults }
    }

    /// Compiled, where it is not yet, and how long that took.
    ///
    /// # Errors
    ///
    /// What is wrong with the file.
    pub(crate) async fn load(&self) -> Result<(Component, Duration)> {
        self.load_for(&self.limits).await
    }

    /// As [`Candidate::load`], for an instance with these limits.
    ///
    /// # Errors
    ///
    /// As there.
    pub(crate) async fn load_for(&self, limits: &Limits) -> Result<(Component, Duration)> {
        let room = Self::runtime(&self.limits).memory_bytes_max;
        match &self.built {
            Some(built) if limits.memory_bytes <= room => Ok(built.clone()),
            _ => offline::load_as(&self.name, &self.file, Self::runtime(limits)).await,
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
    let text = files::read_text(file, CONFIG_BYTES_MAX)?;
    serde_json::from_str(&text).with_context(|| format!("{}: a JSON object is expected", file.display()))
}

/// The directory of the project that has this file in its `.quipu`.
pub(crate) fn project_of(file: &Path) -> Option<&Path> {
    let dir = file.parent().filter(|dir| dir.file_name().is_some_and(|name| name == WORK_DIR))?.parent()?;
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    dir.join(MANIFEST).exists().then_some(dir)
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
        for given in [Some(dir.path()), None] {
            let own = Candidate::of_file(&built, given).expect("a candidate");
            assert_eq!((own.name.as_str(), own.is_own, own.dir.as_path()), ("quakes", true, dir.path()));
        }
        assert_eq!((found.limits.deadline, found.limits.memory_bytes), (Duration::from_millis(10), 1 << 20));
        write(&format!("{plugin}[limits]\ndeadlin = \"10ms\"\n"));
        let error = of().expect_err("refused").to_string();
        assert!(error.contains("6:1: limits.deadlin: unknown key; did you mean `deadline`?"), "{error}");
    }
}
