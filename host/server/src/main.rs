//! `quipu`: the message router, and the command line for it.

mod app;
mod commands;
mod config;
mod listener;
mod plugins;
mod services;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::run()
}
