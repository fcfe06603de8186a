//! Write routing plugins for Quipu in Rust.
//!
//! A plugin is a type with its configuration as fields and a [`Plugin::process`] that gives a [`Verdict`] on the
//! message in hand:
//!
//! ```
//! use quipu_plugin::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct BigQuakes {
//!     at_least: f64,
//! }
//!
//! impl Plugin for BigQuakes {
//!     fn process(&mut self, message: &mut Message) -> Result<Verdict> {
//!         let magnitude: f64 = message.json_at("properties.mag")?;
//!         Ok(if magnitude >= self.at_least { forward() } else { drop("small") })
//!     }
//! }
//! plugin!(BigQuakes);
//! # fn main() {}
//! ```
//!
//! Built as a `cdylib` for `wasm32-unknown-unknown`, that is a whole plugin. Everywhere else the same code runs against
//! a mock of the router (`testing`), so that plugins have ordinary unit tests.
//!
//! What this crate is not: it shares nothing with the router but the contract, `../wit`.

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
mod config;
pub mod context;
#[cfg(target_arch = "wasm32")]
mod export;
mod header;
mod host;
pub mod json;
pub mod log;
mod message;
mod outgoing;
#[cfg(all(target_arch = "wasm32", feature = "getrandom"))]
mod random;
mod subject;
mod template;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod verdict;

pub use config::{ConfigError, parse_config};
pub use header::{HeaderError, HeaderName, KeyError};
pub use message::{Message, PartRefused};
pub use outgoing::{Outgoing, Refusal};
pub use serde;
pub use serde_json;
pub use subject::{Subject, SubjectError};
pub use template::{FillError, Template, TemplateError};
pub use verdict::{Otherwise, Verdict, drop, forward, reject, retry, retry_after, route};

/// What a plugin usually needs, for `use quipu_plugin::prelude::*`.
pub mod prelude {
    pub use crate::json::FieldPath;
    pub use crate::{
        Error, HeaderName, Message, Otherwise, Outgoing, Plugin, Refusal, Result, Subject, Template, Verdict, context,
        drop, forward, log, plugin, reject, retry, retry_after, route,
    };
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::{Value, json};
}

/// Any error. Text converts too: `message.key().ok_or("no key")?`.
pub type Error = Box<dyn std::error::Error>;

/// The result of plugin code; an `Err` out of [`Plugin::process`] rejects the message with its text.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A plugin, made once per instance from the configuration of its use and then asked about one message after another.
///
/// The fields that serde reads are the configuration; mark what is only state with `#[serde(skip)]`. State in fields is
/// a cache: an instance that trapped, or that the router no longer needs, takes it along.
pub trait Plugin: serde::de::DeserializeOwned {
    /// Makes the plugin from its configuration, a JSON object.
    ///
    /// As given here: [`parse_config`], then [`Plugin::check`].
    ///
    /// # Errors
    ///
    /// What is wrong and where. The router refuses the plugin and shows the text to whoever deployed it.
    fn configure(config: &str) -> Result<Self> {
        let plugin: Self = parse_config(config)?;
        plugin.check()?;
        Ok(plugin)
    }

    /// What types cannot say about the configuration: whether the values fit each other.
    ///
    /// # Errors
    ///
    /// What is wrong; begin with the key, as in `at_most: below at_least`.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Says what becomes of the message in hand.
    ///
    /// # Errors
    ///
    /// An error rejects the message with its text: it goes to the dead-letter queue, and edits and emitted messages are
    /// undone. A panic fails this attempt, and the route tries again.
    fn process(&mut self, message: &mut Message) -> Result<Verdict>;
}

/// Fails this attempt, as a panic does, with a text and a trace of one's own: for plugins that run another language, whose
/// exceptions have a stack of theirs.
///
/// # Panics
///
/// Always: on WebAssembly it traps, elsewhere it panics with text and trace.
pub fn fault(text: &str, trace: &str) -> ! {
    host::fault(text, trace)
}

/// Exports a type as the plugin of this crate: `plugin!(BigQuakes);`, once.
#[macro_export]
macro_rules! plugin {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            ::std::thread_local! {
                static PLUGIN: $crate::__private::Slot<$plugin> = const { $crate::__private::Slot::new(None) };
            }

            impl $crate::__private::Guest for Exported {
                fn configure() -> ::core::result::Result<(), ::std::string::String> {
                    $crate::__private::configure(&PLUGIN)
                }

                fn process() -> $crate::__private::WireVerdict {
                    $crate::__private::process(&PLUGIN)
                }
            }

    $crate::bindings::export!(Exported with_types_in $crate::bindings);
        };

        // Elsewhere nothing is exported, but what cannot be a plugin fails to compile all the same.
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::__private::is_plugin::<$plugin>();
    };
}

/// An error with all its causes, on one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Many errors repeat their cause in their own text.
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// What the expansion of [`plugin!`] needs; no part of the interface.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::export::{Guest, Slot, WireVerdict, configure, process};

    #[cfg(not(target_arch = "wasm32"))]
    pub const fn is_plugin<P: crate::Plugin>() {}
}
