//! The router as its users meet it: the real binary, over real QUIC, on a real disk, with plugins built from source.

mod access;
mod author;
mod bad_input;
mod changes;
mod commands;
mod crash;
mod credit;
mod demo;
mod disk;
mod examples;
mod explain;
mod fingerprints;
mod hostile;
mod inline;
mod languages;
mod limits;
mod live;
mod memory;
mod mistakes;
mod operations;
mod plugins;
mod publishers;
mod requests;
mod scripted;
mod shell;
mod shutdown;
mod stock;
mod subscriptions;
mod trial;

/// The binary under test.
const QUIPU: &str = env!("CARGO_BIN_EXE_quipu");
