//! A broker in processes of its own, started by `peers.sh`.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::{self, Usage};
use crate::router::Place;

/// Installs and starts them.
pub(super) const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers.sh");

/// How long one may take until it answers.
const START_TIME: Duration = Duration::from_secs(60);

/// A running broker. It and what it started are killed, and its data removed, when dropped.
pub(super) struct Server {
    process: Child,
    directory: TempDir,
    port: u16,
}

/// Installs what is missing.
pub(super) fn install() -> Result<()> {
    let installed = Command::new(SCRIPT).arg("install").stdout(std::io::stderr()).status();
    ensure!(installed.context("cannot run peers.sh")?.success(), "peers.sh cannot install the brokers");
    Ok(())
}

impl Server {
    /// Starts one on free ports of the loopback. Whether it answers yet is for who connects to find out.
    pub(super) fn start(place: &Place, name: &str) -> Result<Self> {
        let directory = place.directory()?;
        // All three are held at once, so that they differ.
        let held = [listener()?, listener()?, listener()?];
        let mut ports = Vec::new();
        for listener in &held {
            ports.push(listener.local_addr()?.port());
        }
        drop(held);
        let log = File::create(directory.path().join("log"))?;
        let process = Command::new(SCRIPT)
            .args(["serve", name])
            .arg(directory.path())
            .args(ports.iter().map(u16::to_string))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(Self { process, directory, port: ports[0] })
    }

    /// Where it answers.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What its processes have used so far.
    pub(super) fn usage(&self) -> Result<Usage> {
        process::usage(self.process.id())
    }

    /// Tries until it answers.
    pub(super) async fn ready<T, E: std::fmt::Display>(&self, attempt: impl AsyncFn() -> Result<T, E>) -> Result<T> {
        let begun = Instant::now();
        loop {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(e) if begun.elapsed() > START_TIME => {
                    let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                    bail!("it did not answer: {e}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let below = process::tree(self.process.id()).unwrap_or_default();
        for pid in below.into_iter().filter_map(|pid| i32::try_from(pid).ok().and_then(Pid::from_raw)) {
            // One that has ended meanwhile needs no killing.
            kill_process(pid, Signal::KILL).ok();
        }
        self.process.wait().ok();
    }
}

fn listener() -> Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").context("no free port")
}
