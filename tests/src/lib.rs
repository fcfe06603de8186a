//! What the integration tests stand on: a real router process, a client for it, and a peer that breaks the rules.
//!
//! The tests themselves are in `integration/`. They are a test target of the package `quipu`, because cargo tells only
//! that package's tests where its binary is.

mod raw;
mod server;

pub use raw::{RawClient, RawStream};
pub use server::{TestServer, output_of, quipu};

use std::time::Duration;

/// For anything that must happen: far longer than it takes, so that only what never happens fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The guest that misbehaves in the way its configuration says.
pub const HOSTILE_WASM: &str = env!("WASM_QUIPU_GUEST_HOSTILE");

/// Waits for something that must happen.
///
/// # Panics
///
/// Where it does not within [`PATIENCE`].
pub async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, happens).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}
