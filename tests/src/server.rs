//! A router in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use quipu_client::{Client, ClientConfig, Reconnect, Trust};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::soon;

/// A router that was started from the real binary, on a port of its own and a store in a temporary directory. Killed
/// when dropped.
pub struct TestServer {
    binary: PathBuf,
    directory: TempDir,
    address: String,
    process: Child,
}

impl TestServer {
    /// Starts a router with this configuration, to which a port and a small store are added. It may begin with more keys
    /// of `[store]`, `journal_segment` the first of them.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub async fn start(binary: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self::start_in(binary, config, directory).await
    }

    /// As [`TestServer::start`], in this directory.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub async fn start_in(binary: &str, config: &str, directory: TempDir) -> Self {
        let head = "[listen]\nquic = \"127.0.0.1:0\"\n[store]\npath = \"data\"\n";
        let segment = if config.starts_with("journal_segment") { "" } else { "journal_segment = \"4MiB\"\n" };
        std::fs::write(directory.path().join("quipu.toml"), format!("{head}{segment}{config}")).expect("written");
        let (process, address) = spawn(Path::new(binary), directory.path(), "127.0.0.1:0").await;
        Self { binary: binary.into(), directory, address, process }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where configuration, store and certificate are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file to trust.
    pub fn certificate(&self) -> PathBuf {
        certificate(self.directory.path())
    }

    /// A client that reconnects quickly.
    ///
    /// # Panics
    ///
    /// Where it cannot connect.
    pub async fn client(&self) -> Client {
        soon("connecting", Client::connect(self.client_config())).await.expect("connected")
    }

    fn client_config(&self) -> ClientConfig {
        ClientConfig {
            server: self.address.clone(),
            trust: Trust::CertificateFile(self.certificate()),
            name: "test".into(),
            reconnect: Reconnect { delay_max: Duration::from_millis(200), ..Reconnect::default() },
            ..ClientConfig::default()
        }
    }

    /// As [`TestServer::client`], for who has this token.
    ///
    /// # Panics
    ///
    /// Where it cannot connect.
    pub async fn client_as(&self, token: &str) -> Client {
        let config = ClientConfig { token: Some(token.into()), ..self.client_config() };
        soon("connecting", Client::connect(config)).await.expect("connected")
    }

    /// SIGKILL: nothing is finished, nothing is written.
    ///
    /// # Panics
    ///
    /// Where the process was gone already.
    pub async fn kill(&mut self) {
        self.process.start_kill().expect("it runs");
        soon("the end of a killed router", self.process.wait()).await.expect("waited");
    }

    /// Starts it again on the same port and store, after a kill or stop.
    ///
    /// # Panics
    ///
    /// Where it does not start.
    pub async fn restart(&mut self) {
        let config = self.directory.path().join("quipu.toml");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        std::fs::write(&config, text.replace("127.0.0.1:0", &self.address)).expect("written");
        (self.process, self.address) = spawn(&self.binary, self.directory.path(), &self.address).await;
    }

    /// SIGTERM, and the exit code.
    ///
    /// # Panics
    ///
    /// Where it does not end within 10 s, the promise of a graceful shutdown.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal_terminate();
        self.ended().await
    }

    /// The exit code, once a signal was sent.
    ///
    /// # Panics
    ///
    /// Where it does not end within 10 s.
    pub async fn ended(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(Duration::from_secs(10), self.process.wait()).await;
        ended.expect("a router ends within 10 s of SIGTERM").expect("waited").code()
    }

    /// SIGTERM alone.
    ///
    /// # Panics
    ///
    /// Where the process is gone already.
    pub fn signal_terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP: it reads its configuration again.
    ///
    /// # Panics
    ///
    /// Where the process is gone already.
    pub fn signal_reload(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it runs");
    }

    /// Writes that pass this offset of any file fail from now on, as on a full disk; none: as many as fit.
    ///
    /// # Panics
    ///
    /// Where the system does not let this process say so.
    pub fn limit_file_bytes(&self, bytes: Option<u64>) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let before = getrlimit(Resource::Fsize);
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes.or(before.maximum), ..before }).expect("a limit");
    }

    /// The most memory that the process has had so far, in bytes.
    ///
    /// # Panics
    ///
    /// Where the process is gone already.
    pub fn memory_bytes_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the high-water mark");
        let kib = line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number of KiB") << 10
    }

    fn pid(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// Whether the process still runs.
    ///
    /// # Panics
    ///
    /// Where the system does not know it.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("a child of ours").is_none()
    }

    /// Runs a command of the binary against this router and returns what it printed on standard output.
    ///
    /// # Panics
    ///
    /// Where it fails.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let output = self.cli_output(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "quipu {arguments:?}: {}: {error}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    /// As [`TestServer::cli`] with `--json`: what it printed.
    ///
    /// # Panics
    ///
    /// Where it fails, or prints no JSON.
    pub async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.cli(&[arguments, &["--json"]].concat()).await).expect("JSON")
    }

    /// As [`TestServer::cli`], whatever it comes to.
    ///
    /// # Panics
    ///
    /// Where it cannot be run.
    pub async fn cli_output(&self, arguments: &[&str]) -> Output {
        let mut command = quipu(&self.binary, self.directory.path());
        command.env("QUIPU_SERVER", &self.address).args(arguments);
        soon("a command", command.output()).await.expect("it runs")
    }
}

/// The binary, with its certificate in this directory and nothing to read.
pub fn quipu(binary: impl AsRef<Path>, directory: &Path) -> Command {
    let mut command = Command::new(binary.as_ref());
    command.current_dir(directory).env("QUIPU_DEV_CERTIFICATE", certificate(directory));
    // Nobody's own contexts.
    command.env("XDG_CONFIG_HOME", directory.join("config")).env_remove("QUIPU_CONTEXT");
    command.env("NO_COLOR", "1").stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the binary to its end: exit code, standard output, standard error.
///
/// # Panics
///
/// Where it cannot be run.
pub async fn output_of(binary: &str, directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = soon("a command", quipu(binary, directory).args(arguments).output()).await.expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn certificate(directory: &Path) -> PathBuf {
    directory.join("certificate.pem")
}

async fn spawn(binary: &Path, directory: &Path, address: &str) -> (Child, String) {
    let mut command = quipu(binary, directory);
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log")).expect("a log");
    command.args(["serve", "--config", "quipu.toml"]).stdout(Stdio::piped()).stderr(log);
    let mut process = command.spawn().expect("the binary starts");
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let first = soon("the router's first line", lines.next_line()).await.expect("text");
    let log = || std::fs::read_to_string(directory.join("log")).unwrap_or_default();
    let first = first.unwrap_or_else(|| panic!("a router on {address} did not start:\n{}", log()));
    let address = first.strip_prefix("quipu: listening on ").unwrap_or_else(|| panic!("said: {first}"));
    (process, address.to_owned())
}
