//! Plugins written by hand against the canonical ABI, well-behaved and hostile, on the real engine.

mod compiled;
mod faults;
mod lifetime;
mod limits;
mod loading;
mod replay;
mod support;
mod verdicts;
