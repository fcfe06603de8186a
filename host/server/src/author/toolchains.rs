//! The tools that plugins are built with: which ones, where they are, and how they get there.
//!
//! The list is `plugin-sdk/toolchains.toml`. What comes from PyPI or npm is looked for in one folder, `$QUIPU_TOOLS` or the
//! project's `.quipu/tools`, and then on the PATH. Only [`install`] uses a network.

pub(crate) mod install;
mod version;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde::Deserialize;

use super::embedded::TOOLCHAINS;
pub(crate) use version::at_least;
use version::first_version;

/// Names the folder of tools that is used instead of the project's.
pub(crate) const TOOLS_VARIABLE: &str = "QUIPU_TOOLS";

static EMBEDDED: LazyLock<Toolchains> = LazyLock::new(|| Toolchains(toml::from_str(TOOLCHAINS).expect("our own list")));

/// Every tool, by name.
#[derive(Debug)]
pub(crate) struct Toolchains(BTreeMap<String, Tool>);

/// One tool, as the list has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    pub(crate) registry: Registry,
    #[serde(default)]
    package: String,
    version: Option<String>,
    at_least: Option<String>,
    #[serde(default)]
    program: String,
    #[serde(default)]
    ask: Vec<String>,
    #[serde(default)]
    pub(crate) get: String,
}

/// Where a tool comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registry {
    /// Not from here.
    System,
    Rustup,
    Pypi,
    Npm,
}

/// The tools at hand for one project.
#[derive(Debug, Clone)]
pub(crate) struct Toolbox {
    /// `venv/` and `node/` are in it. Absolute.
    dir: PathBuf,
    /// Where tools are asked from: a project may choose its own Rust toolchain.
    asked_from: PathBuf,
}

/// A tool that is there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Empty for what is no program.
    pub(crate) program: PathBuf,
    pub(crate) version: String,
    /// As people read it: a path, or `PATH`.
    pub(crate) place: String,
}

/// A tool that is not there, or not as it is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("needs {wanted}{}; {get}", instead(.found))]
pub(crate) struct Missing {
    /// Its name and version.
    pub(crate) wanted: String,
    /// What is there instead.
    pub(crate) found: Option<String>,
    /// The command that gets it, or how else.
    pub(crate) get: String,
}

fn instead(found: &Option<String>) -> String {
    found.as_ref().map(|version| format!(", found {version}")).unwrap_or_default()
}

impl Toolchains {
    /// The list that this binary carries.
    pub(crate) fn embedded() -> &'static Self {
        &EMBEDDED
    }

    pub(crate) fn tool(&self, name: &str) -> Option<&Tool> {
        self.0.get(name)
    }
}

impl Tool {
    /// The version that will do, as people read it; empty where any will.
    pub(crate) fn wanted(&self) -> String {
        match (&self.version, &self.at_least) {
            (Some(version), _) => version.clone(),
            (None, Some(least)) => format!("{least} or later"),
            (None, None) => String::new(),
        }
    }

    /// Whether a version from the PATH will do.
    fn will_do(&self, version: &str) -> bool {
        match (&self.at_least, &self.version) {
            (Some(least), _) => at_least(version, least),
            (None, Some(exactly)) => version == exactly,
            (None, None) => true,
        }
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Rustup => "rustup",
            Self::Pypi => "PyPI",
            Self::Npm => "npm",
        })
    }
}

impl Toolbox {
    /// `$QUIPU_TOOLS`, or else the folder's `.quipu/tools`.
    pub(crate) fn of(project_dir: &Path) -> Self {
        let given = env::var_os(TOOLS_VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let dir = given.unwrap_or_else(|| project_dir.join(super::project::WORK_DIR).join("tools"));
        let here = Path::new(".");
        let asked_from = if project_dir.is_dir() { project_dir } else { here };
        Self { dir: std::path::absolute(&dir).unwrap_or(dir), asked_from: asked_from.into() }
    }

    /// Whose tools are in this folder, for tests.
    #[cfg(test)]
    pub(crate) fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), asked_from: ".".into() }
    }

    /// The folder that tools are installed to.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A tool's program, ready for its arguments.
    ///
    /// # Errors
    ///
    /// It is not there; the error says what to do.
    pub(crate) fn command(&self, name: &str) -> Result<Command, Missing> {
        let mut command = Command::new(self.find(name)?.program);
        // What npm installs looks for `node` on the PATH, and what a language runs may look for its neighbours.
        command.env("PATH", self.path());
        Ok(command)
    }

    /// Where a tool is, once its version will do.
    ///
    /// # Errors
    ///
    /// It is not there, or not as it is needed.
    pub(crate) fn find(&self, name: &str) -> Result<Found, Missing> {
        let tool = self.tool(name)?;
        let mut other = None;
        let here = match tool.registry {
            Registry::System => None,
            Registry::Rustup => self.rust_target(name),
            Registry::Pypi | Registry::Npm => self.installed(tool),
        };
        for found in [here, self.on_path(tool)].into_iter().flatten() {
            let exact = found.place != ON_PATH && tool.version.is_some();
            let will_do =
                if exact { Some(&found.version) == tool.version.as_ref() } else { tool.will_do(&found.version) };
            if will_do {
                return Ok(found);
            }
            other.get_or_insert(found.version);
        }
        let wanted = format!("{name} {}", tool.wanted()).trim_end().to_owned();
        Err(Missing { wanted, found: other, get: get(name, tool) })
    }

    fn tool(&self, name: &str) -> Result<&'static Tool, Missing> {
        let none = || Missing { wanted: name.into(), found: None, get: "toolchains.toml does not name it".into() };
        Toolchains::embedded().tool(name).ok_or_else(none)
    }

    /// What a registry's package came to in the folder of tools.
    fn installed(&self, tool: &Tool) -> Option<Found> {
        let program = the_one(&self.dir, &tool.program)?;
        let version = match tool.registry {
            Registry::Npm => npm_version(&self.dir.join("node/node_modules").join(&tool.package)),
            _ => pypi_version(&self.dir.join("venv/lib"), &tool.package),
        };
        Some(Found { program, version: version?, place: self.dir.display().to_string() })
    }

    /// Asks the tool of this name on the PATH.
    fn on_path(&self, tool: &Tool) -> Option<Found> {
        let (program, arguments) = tool.ask.split_first()?;
        let said = self.ask(Command::new(program).args(arguments))?;
        let version = first_version(&said)?.to_owned();
        Some(Found { program: program.into(), version, place: ON_PATH.into() })
    }

    /// Whether the toolchain in use has the standard library for a target.
    fn rust_target(&self, target: &str) -> Option<Found> {
        let sysroot = PathBuf::from(self.ask(Command::new("rustc").args(["--print", "sysroot"]))?.trim_end());
        let there = sysroot.join("lib/rustlib").join(target).join("lib").is_dir();
        let place = sysroot.file_name().unwrap_or_default().to_string_lossy().into_owned();
        there.then(|| Found { program: PathBuf::new(), version: String::new(), place })
    }

    /// What a program says of itself, if it is there and well.
    fn ask(&self, command: &mut Command) -> Option<String> {
        let output = command.current_dir(&self.asked_from).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The PATH, with the folders of programs that are installed here in front.
    fn path(&self) -> std::ffi::OsString {
        let own = ["venv/bin", "node/node_modules/.bin"].map(|dir| self.dir.join(dir));
        let path = env::var_os("PATH").unwrap_or_default();
        env::join_paths(own.into_iter().chain(env::split_paths(&path))).unwrap_or(path)
    }
}

const ON_PATH: &str = "PATH";

/// The command or place that a missing tool is had from.
fn get(name: &str, tool: &Tool) -> String {
    match tool.registry {
        Registry::System => format!("get it: {}", tool.get),
        Registry::Rustup => format!("get it: rustup target add {name}"),
        Registry::Pypi | Registry::Npm => "get it: quipu plugin doctor --install".into(),
    }
}

/// The one path below a folder that this stands for; `*` is any one name.
fn the_one(dir: &Path, pattern: &str) -> Option<PathBuf> {
    let mut path = dir.to_path_buf();
    for part in pattern.split('/') {
        match part.split_once('*') {
            Some((start, end)) => {
                let fits = |name: &OsStr| name.to_str().is_some_and(|n| n.starts_with(start) && n.ends_with(end));
                let names = fs::read_dir(&path).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
                path = path.join(names.filter(|name| fits(name)).max()?);
            }
            None => path.push(part),
        }
    }
    path.exists().then_some(path)
}

/// Of a package in a virtual environment, by the name of the folder that pip writes about it.
fn pypi_version(lib: &Path, package: &str) -> Option<String> {
    let packages = the_one(lib, "python*/site-packages")?;
    let prefix = format!("{}-", package.replace(['-', '.'], "_").to_ascii_lowercase());
    fs::read_dir(packages).ok()?.find_map(|entry| {
        let name = entry.ok()?.file_name().to_str()?.to_ascii_lowercase();
        name.strip_prefix(&prefix)?.strip_suffix(".dist-info").map(str::to_owned)
    })
}

fn npm_version(package: &Path) -> Option<String> {
    let manifest = fs::read_to_string(package.join("package.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_str(&manifest).ok()?;
    manifest["version"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests;
