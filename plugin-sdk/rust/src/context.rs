//! What a plugin may know of where it runs. Callable in `configure` and in `process`.

use crate::host;

/// The plugin's name, as the route knows it.
pub fn plugin() -> String {
    host::plugin()
}

/// Name of the route that uses it.
pub fn route() -> String {
    host::route()
}

/// Unix time in milliseconds. Stands still within an attempt, so that a replay sees the same.
pub fn now_ms() -> u64 {
    host::now_ms()
}

/// A random number, the same throughout an attempt and its replay.
pub fn seed() -> u64 {
    host::seed()
}
