//! Lines for the router's log, under the plugin's and the route's name. Their number and length are limited.

use crate::host;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever is looking for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is off, and the plugin copes.
    Warn,
    /// Something is wrong.
    Error,
}

/// Logs a line; the functions named after the levels are shorter.
pub fn log(level: Level, text: impl AsRef<str>) {
    host::log(level, text.as_ref());
}

/// Logs at [`Level::Trace`].
pub fn trace(text: impl AsRef<str>) {
    log(Level::Trace, text);
}

/// Logs at [`Level::Debug`].
pub fn debug(text: impl AsRef<str>) {
    log(Level::Debug, text);
}

/// Logs at [`Level::Info`].
pub fn info(text: impl AsRef<str>) {
    log(Level::Info, text);
}

/// Logs at [`Level::Warn`].
pub fn warn(text: impl AsRef<str>) {
    log(Level::Warn, text);
}

/// Logs at [`Level::Error`].
pub fn error(text: impl AsRef<str>) {
    log(Level::Error, text);
}
