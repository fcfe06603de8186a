//! What clients and routers agree on: messages, subjects, limits, and the frames of `quipu/1`.
//!
//! Pure: no sockets, no files, no clock, no randomness. Nothing here allocates by a length that a peer only claims; see
//! [`frame`] for the exact bound. `PROTOCOL.md` beside this crate is the specification for people.

pub mod code;
pub mod frame;
mod headers;
mod id;
pub mod limits;
mod message;
pub mod pattern;
mod publisher;
mod scan;
pub mod subject;
mod text;

pub use headers::{HeaderError, Headers};
pub use id::{IdError, MessageId};
pub use message::{Key, KeyError, Message, MessageError};
pub use pattern::SubjectPattern;
pub use publisher::{PublisherName, PublisherNameError};
pub use subject::{Subject, SubjectError};

/// The ALPN of this protocol, version 1.
pub const ALPN: &[u8] = b"quipu/1";

/// The version spoken in `Hello` and `Welcome`.
pub const VERSION: u32 = 1;

/// Types compiled from `quipu.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated from quipu.proto, documented there")]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/quipu.v1.rs"));
}
