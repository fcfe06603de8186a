//! Gets tools from the registries of their languages, into the folder of a [`Toolbox`] and nowhere else. A target of Rust
//! goes where rustup keeps it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Missing, Registry, Tool, Toolbox, Toolchains};

/// Why a tool was not got. What the installer itself said is on standard error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// What installs it is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// rustup is not there, and another Rust has its targets from elsewhere.
    #[error(
        "needs rustup, which gets the standard library for {0}; get it: https://rustup.rs, or have that library from \
         where your Rust is from"
    )]
    NoRustup(String),
    /// The installer failed.
    #[error("{0} failed; its own words are above")]
    Failed(String),
    /// The installer was content, and the tool is not there.
    #[error("{command} went well, but there is still no {tool} that will do: {missing}")]
    NotThere {
        /// What was run.
        command: String,
        /// What should be there.
        tool: String,
        /// What is wrong with it.
        missing: Missing,
    },
    /// A file or program cannot be used.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or program.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What a registry's packages are installed by.
pub(crate) fn installer(registry: Registry) -> Option<&'static str> {
    match registry {
        Registry::Pypi => Some("python3"),
        Registry::Npm => Some("npm"),
        Registry::System | Registry::Rustup => None,
    }
}

/// Gets those of these tools that are missing. Others who install into the same folder wait for each other. `say` hears
/// what is about to be got, and where it goes. What fails, of one registry or another, does not keep the others. Tools that
/// only the system can give are left to the caller.
pub(crate) fn install(toolbox: &Toolbox, tools: &[&str], say: &mut dyn FnMut(String)) -> Vec<InstallError> {
    let _held = match lock(toolbox.dir()) {
        Ok(held) => held,
        Err(e) => return vec![e],
    };
    let registries = [Registry::Rustup, Registry::Pypi, Registry::Npm];
    registries.into_iter().filter_map(|registry| install_from(registry, toolbox, tools, say).err()).collect()
}

fn install_from(
    registry: Registry,
    toolbox: &Toolbox,
    tools: &[&str],
    say: &mut dyn FnMut(String),
) -> Result<(), InstallError> {
    let missing: Vec<(&str, &Tool)> = tools
        .iter()
        .filter_map(|name| Some((*name, Toolchains::embedded().tool(name)?)))
        .filter(|(name, tool)| tool.registry == registry && toolbox.find(name).is_err())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if let Some(installer) = installer(registry) {
        toolbox.find(installer)?;
    }
    let names: Vec<String> =
        missing.iter().map(|(name, tool)| format!("{name} {}", tool.wanted()).trim_end().to_owned()).collect();
    let into = match registry {
        Registry::Rustup => "where rustup keeps it".to_owned(),
        _ => format!("into {}", toolbox.dir().display()),
    };
    say(format!("getting {} from {registry}, {into}", names.join(", ")));
    let command = match registry {
        Registry::Rustup => rustup(&tools_of(&missing))?,
        Registry::Pypi => pip(toolbox.dir(), &missing)?,
        _ => npm(toolbox.dir(), &missing)?,
    };
    for (name, _) in missing {
        let not_there = |missing| InstallError::NotThere { command: command.clone(), tool: name.into(), missing };
        toolbox.find(name).map_err(not_there)?;
    }
    Ok(())
}

fn tools_of<'a>(missing: &[(&'a str, &Tool)]) -> Vec<&'a str> {
    missing.iter().map(|(name, _)| *name).collect()
}

/// Packages as an installer takes them, with this between name and version.
fn pinned(missing: &[(&str, &Tool)], at: &str) -> Vec<String> {
    missing
        .iter()
        .map(|(_, tool)| format!("{}{at}{}", tool.package, tool.version.as_deref().unwrap_or_default()))
        .collect()
}

fn rustup(targets: &[&str]) -> Result<String, InstallError> {
    match run(Command::new("rustup").args(["target", "add"]).args(targets)) {
        Err(InstallError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(InstallError::NoRustup(targets.join(", ")))
        }
        other => other,
    }
}

fn pip(dir: &Path, missing: &[(&str, &Tool)]) -> Result<String, InstallError> {
    let venv = dir.join("venv");
    let python = venv.join("bin/python");
    // Without pip in it, it is what a system without `venv` leaves behind.
    if !venv.join("bin/pip").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"];
    // No other project needs what pip would keep in the home directory.
    run(Command::new(python).args(quiet).arg("--no-cache-dir").args(pinned(missing, "==")))
}

fn npm(dir: &Path, missing: &[(&str, &Tool)]) -> Result<String, InstallError> {
    let node = dir.join("node");
    fs::create_dir_all(&node).map_err(|source| InstallError::Io { path: node.clone(), source })?;
    let quiet = ["--save-exact", "--no-fund", "--no-audit", "--loglevel=error"];
    // npm has its downloads and its logs there, and cannot be without.
    let cache = dir.join("npm-cache");
    let mut npm = Command::new("npm");
    npm.arg("install").arg("--prefix").arg(&node).arg("--cache").arg(&cache).args(quiet).args(pinned(missing, "@"));
    let installed = run(&mut npm)?;
    // Nothing reads it again.
    match fs::remove_dir_all(&cache) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(InstallError::Io { path: cache, source }),
        _ => Ok(installed),
    }
}

/// Runs an installer; its command line, once it has gone well. Some say why they fail on standard output, where others say
/// how well all goes.
fn run(command: &mut Command) -> Result<String, InstallError> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| InstallError::Io { path: command.get_program().into(), source })?;
    if output.status.success() {
        return Ok(line);
    }
    // That nobody hears it is no other failure.
    io::stderr().write_all(&output.stdout).ok();
    Err(InstallError::Failed(line))
}

fn lock(dir: &Path) -> Result<File, InstallError> {
    let path = dir.join("lock");
    let open = || {
        fs::create_dir_all(dir)?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|source| InstallError::Io { path: path.clone(), source })
}
