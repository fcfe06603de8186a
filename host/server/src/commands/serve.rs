//! `quipu serve`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::say;
use crate::app::App;
use crate::config::Config;
use crate::tls;

/// Runs a router until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, short, default_value = "quipu.toml", value_name = "FILE")]
    config: PathBuf,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    ignore_file_size_signal();
    let (tls, certificate) = tls::server_config(config.listen.quic, config.tls.as_ref())?;
    let stop = CancellationToken::new();
    // Before anything is started, so that a signal on the way is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let app = App::start(config, tls).await?;
    let address = app.address()?;
    tracing::info!(%address, %certificate, "ready");
    // For scripts that wait until the router is there, and for the port where the configuration says 0.
    say!("quipu: listening on {address}")?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        stopping.cancel();
        // Who asks twice does not want to wait. The journal has everything that was acknowledged.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::warn!("a second signal: ending at once");
        std::process::exit(1);
    });
    app.run(stop).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// A limit on the size of files is then an error of the write that passes it, as a full disk is, not the end.
#[allow(unsafe_code, reason = "there is no other way to set the action of this signal to ignore")]
fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid action, SIGXFSZ may be ignored, and no handler runs for it.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
