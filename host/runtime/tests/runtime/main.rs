//! Plugins written by hand against the canonical ABI, well-behaved and hostile, on the real engine.

mod faults;
mod limits;
mod loading;
mod support;
mod verdicts;
