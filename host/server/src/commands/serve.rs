//! `quipu serve`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::output::say;
use crate::access::{Access, Prepared};
use crate::app::App;
use crate::config::Config;
use crate::live::{Applied, RouteSwap};
use crate::services::Services;

/// Runs a router until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  quipu serve --config quipu.toml")]
pub(crate) struct Args {
    /// The configuration file.
    #[arg(long, short, default_value = "quipu.toml", value_name = "FILE")]
    config: PathBuf,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let config = Config::load(&args.config)?;
    ignore_file_size_signal();
    let prepared = Prepared::new(config.listen.quic, &config)?;
    let certificate = prepared.certificate.clone();
    warn(&prepared);
    let access = Access::new(config.listen.quic, prepared);
    let stop = CancellationToken::new();
    // Before anything is started, so that a signal on the way is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let app = App::start(config, Some(args.config), access).await?;
    let (address, services) = (app.address()?, app.services());
    drop(tokio::spawn(reload_on_hangup(hangup, services, stop.clone())));
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

/// As `quipu reload`, whose answer goes to the log.
async fn reload_on_hangup(mut hangup: Signal, services: Arc<Services>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            came = hangup.recv() => if came.is_none() { return },
        }
        match services.live.reload(&services).await {
            Ok(Applied { differences, swaps, notes }) => {
                tracing::info!(changes = differences.len(), "SIGHUP: read the configuration and its files again");
                differences.iter().for_each(|difference| tracing::info!(%difference, "SIGHUP: changed"));
                for RouteSwap { route, queue, offset, drained, .. } in &swaps {
                    tracing::info!(route, queue, offset, drained, "SIGHUP: swapped");
                }
                notes.iter().for_each(|note| tracing::info!(note, "SIGHUP: to know"));
            }
            Err(e) => tracing::error!("SIGHUP: the configuration is not taken, and the one before stays: {e}"),
        }
    }
}

fn warn(prepared: &Prepared) {
    for note in &prepared.notes {
        tracing::warn!("{note}");
    }
}

/// A limit on the size of files is then an error of the write that passes it, as a full disk is, not the end.
#[allow(unsafe_code, reason = "there is no other way to set the action of this signal to ignore")]
fn ignore_file_size_signal() {
    // SAFETY: SIG_IGN is a valid action, SIGXFSZ may be ignored, and no handler runs for it.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}
