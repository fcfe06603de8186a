//! What a plugin may know of where it runs. Callable in `configure` and in `process`.

use crate::host;
use std::time::{Duration, UNIX_EPOCH};

/// The last millisecond that RFC 3339 has a text for, in the year 9999.
const RFC3339_MS_MAX: u64 = 253_402_300_799_999;

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

/// A time in Unix milliseconds as RFC 3339, in UTC with milliseconds: `2026-05-28T20:26:40.000Z`. Past the year 9999,
/// for which it has no text, its last millisecond.
pub fn rfc3339(unix_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(unix_ms.min(RFC3339_MS_MAX));
    humantime::format_rfc3339_millis(time).to_string()
}
