//! `quipu`: the message router, and the command line for it.

mod access;
mod app;
mod author;

mod commands;
mod config;
mod files;
mod listener;
mod live;
mod memory;
mod nearest;
mod pause;
mod plugins;
mod services;
mod tls;

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Messages are allocated on one thread and freed on another, at which the system's allocator is slow.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// What mimalloc calls `mi_option_purge_delay`; its bindings have no name for it.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Freed memory goes back to the system after this time, in milliseconds. At its default of 10 ms a load of messages spent
/// a quarter of the router's time on getting the same pages back.
const PURGE_DELAY_MS: std::ffi::c_long = 1_000;

fn main() -> ExitCode {
    keep_freed_memory();
    commands::run()
}

#[allow(unsafe_code, reason = "the allocator's options are set by a C function")]
fn keep_freed_memory() {
    // SAFETY: the function takes two numbers, checks the first, and may be called at any time.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
}
