//! A Quipu in a process of its own, on a port of its own and a store on the disk of the build.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use quipu_client::{Client, ClientConfig, Trust};
use tempfile::TempDir;

use crate::process::{self, Usage};

/// Where the binary is, and where data goes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The router.
    pub(crate) quipu: PathBuf,
    /// Temporary directories are made in here: on a disk, not in memory.
    pub(crate) data: PathBuf,
}

/// A running router. Killed, and its data removed, when dropped.
pub(crate) struct Router {
    quipu: PathBuf,
    directory: TempDir,
    process: Child,
    address: String,
}

impl Place {
    /// Builds the release binary where none is given. Data goes beside it.
    pub(crate) fn find(quipu: Option<PathBuf>) -> Result<Self> {
        let own = std::env::current_exe().context("where is this binary?")?;
        let release = own.parent().context("a binary has a directory")?;
        let data = release.join("bench-data");
        std::fs::create_dir_all(&data)?;
        let quipu = match quipu {
            Some(path) => path.canonicalize().with_context(|| format!("no {}", path.display()))?,
            None => build(release)?,
        };
        Ok(Self { quipu, data })
    }

    /// A new directory for data, removed when dropped.
    pub(crate) fn directory(&self) -> Result<TempDir> {
        tempfile::tempdir_in(&self.data).context("cannot make a directory for data")
    }
}

impl Router {
    /// Starts one with these tables of configuration; address and store are added.
    pub(crate) fn start(place: &Place, config: &str) -> Result<Self> {
        let directory = place.directory()?;
        configure(directory.path(), config)?;
        let (process, address) = spawn(&place.quipu, directory.path())?;
        Ok(Self { quipu: place.quipu.clone(), directory, process, address })
    }

    /// Writes these tables in the place of those that it has; it does not know of it yet.
    pub(crate) fn configure(&self, config: &str) -> Result<()> {
        configure(self.directory.path(), config)
    }

    /// Kills it with SIGKILL and starts it again on its data; how long the start took until it listened.
    pub(crate) fn kill_and_restart(&mut self) -> Result<Duration> {
        end(&mut self.process);
        let begun = Instant::now();
        (self.process, self.address) = spawn(&self.quipu, self.directory.path())?;
        Ok(begun.elapsed())
    }

    /// A connection of its own.
    pub(crate) async fn client(&self) -> Result<Client> {
        let trust = Trust::CertificateFile(self.directory.path().join("certificate.pem"));
        let config = ClientConfig { server: self.address.clone(), trust, name: "bench".into(), ..Default::default() };
        Client::connect(config).await.context("cannot connect to the router")
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        process::usage(self.process.id())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Kills a child and waits for it, so that its CPU time is counted as ours.
pub(crate) fn end(process: &mut Child) {
    // It may have ended by itself.
    process.kill().ok();
    process.wait().ok();
}

fn configure(directory: &Path, config: &str) -> Result<()> {
    let head = "[listen]\nquic = \"127.0.0.1:0\"\n[store]\npath = \"data\"\n";
    std::fs::write(directory.join("quipu.toml"), format!("{head}{config}")).context("cannot write the configuration")
}

fn build(release: &Path) -> Result<PathBuf> {
    ensure!(release.ends_with("release"), "a debug build measures nothing: cargo run --release -p bench");
    let target = release.parent().context("release is in a target directory")?;
    eprintln!("building the router");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What `cargo run` says of this package; some build scripts would take it for a change, and run again.
    for (name, _) in std::env::vars_os() {
        let told = |prefix: &&str| name.to_string_lossy().starts_with(*prefix);
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(told) {
            command.env_remove(name);
        }
    }
    let built = command
        .args(["build", "--release", "--quiet", "-p", "quipu", "--target-dir"])
        .arg(target)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .context("cannot run cargo; give a built router with --quipu")?;
    ensure!(built.success(), "the router does not build");
    Ok(release.join("quipu"))
}

fn spawn(quipu: &Path, directory: &Path) -> Result<(Child, String)> {
    let log = directory.join("log");
    let mut process = Command::new(quipu)
        .args(["serve", "--config", "quipu.toml"])
        .current_dir(directory)
        .env("QUIPU_DEV_CERTIFICATE", directory.join("certificate.pem"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::options().create(true).append(true).open(&log)?)
        .spawn()
        .with_context(|| format!("cannot run {}", quipu.display()))?;
    let mut line = String::new();
    let said = process.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    let address = line.trim_end().strip_prefix("quipu: listening on ").map(str::to_owned);
    match (said, address) {
        (Some(Ok(_)), Some(address)) => Ok((process, address)),
        _ => {
            end(&mut process);
            bail!("the router did not start: {line}{}", std::fs::read_to_string(&log).unwrap_or_default())
        }
    }
}
