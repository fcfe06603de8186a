//! A router in a process of its own, for one example.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use quipu_client::{Client, ClientConfig, Trust};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::PATIENCE;

/// A router that runs with the configuration of an example, on a free port. Killed when dropped.
#[derive(Debug)]
pub struct Router {
    binary: PathBuf,
    directory: TempDir,
    address: String,
    process: Child,
}

/// The router's binary: the one that `QUIPU_BINARY` names, or else it is built, in the profile of the running program.
pub(crate) async fn build() -> Result<PathBuf> {
    match std::env::var_os("QUIPU_BINARY") {
        Some(binary) => std::path::absolute(&binary).context("QUIPU_BINARY"),
        None => cargo_build(&["--bin", "quipu"], "quipu").await,
    }
}

/// Builds an example's program in the profile of the running one; the file.
///
/// # Errors
///
/// Where it cannot be built; cargo has said why.
pub async fn build_example(name: &str) -> Result<PathBuf> {
    cargo_build(&["--example", name], &format!("examples/{name}")).await
}

async fn cargo_build(what: &[&str], file: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("where is this program?")?;
    // target/PROFILE/examples/NAME, or target/PROFILE/deps/NAME of a test
    let profile = program.parent().and_then(Path::parent).context("this is no program that cargo built")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).args(what);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    ensure!(cargo.status().await.context("cannot run cargo")?.success(), "cargo cannot build {file}");
    Ok(profile.join(format!("{file}{}", std::env::consts::EXE_SUFFIX)))
}

impl Router {
    /// Starts this binary with `quipu.toml` of the example of this name.
    ///
    /// # Errors
    ///
    /// Where it does not start; the router itself has said why.
    pub async fn start(binary: &Path, example: &str) -> Result<Self> {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(example).join("quipu.toml");
        let config = std::fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
        let directory = tempfile::tempdir()?;
        let head = "[listen]\nquic = \"127.0.0.1:0\"\n[store]\njournal_segment = \"4MiB\"\n";
        std::fs::write(directory.path().join("quipu.toml"), format!("{head}{config}"))?;
        let mut command = quipu(binary, directory.path());
        command.arg("serve").env("QUIPU_LOG", "error").stdout(Stdio::piped());
        let mut process = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
        let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("the router does not start")??;
        let first = first.context("the router did not start")?;
        let address = first.strip_prefix("quipu: listening on ").context("the router says something else")?.to_owned();
        Ok(Self { binary: binary.into(), directory, address, process })
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The file of its certificate, which whoever connects must know.
    pub fn certificate(&self) -> PathBuf {
        certificate(self.directory.path())
    }

    /// A connection of its own for a program of this name.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub async fn client(&self, name: &str) -> Result<Client> {
        connect(&self.address, self.certificate(), name).await
    }

    /// Runs a command of `quipu` against it, prints what was typed and what it said, and returns that.
    ///
    /// # Errors
    ///
    /// Where it fails.
    pub async fn quipu(&self, arguments: &[&str]) -> Result<String> {
        let mut command = quipu(&self.binary, self.directory.path());
        command.env("QUIPU_SERVER", &self.address).args(arguments);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.context("a command does not end")??;
        let said = String::from_utf8(output.stdout)?;
        let typed = arguments.iter().map(|argument| argument.rsplit('/').next().unwrap_or(argument));
        println!("$ quipu {}\n{said}", typed.collect::<Vec<_>>().join(" "));
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(said)
    }

    /// Stops it as it should be.
    ///
    /// # Errors
    ///
    /// Where it does not end.
    pub async fn stop(mut self) -> Result<()> {
        // The store is thrown away with the directory, so nothing is worth a graceful end.
        self.process.kill().await.context("the router does not end")
    }
}

/// A connection to the router at this address, with this certificate, for a program of this name.
pub(crate) async fn connect(server: &str, certificate: PathBuf, name: &str) -> Result<Client> {
    let trust = Trust::CertificateFile(certificate);
    let config = ClientConfig { server: server.into(), trust, name: name.into(), ..ClientConfig::default() };
    Ok(Client::connect(config).await?)
}

fn quipu(binary: &Path, directory: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(directory).env("QUIPU_DEV_CERTIFICATE", certificate(directory));
    command.env("NO_COLOR", "1").stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn certificate(directory: &Path) -> PathBuf {
    directory.join("certificate.pem")
}
