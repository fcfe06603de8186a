//! The author's side of plugins: a project, its language and tools, and how a file that the router loads is made of it.
//!
//! Needs no router and, but for installing tools, no network. What a project's language does is in `languages/`; what
//! it is compiled with comes from [`toolchains`], and what it is compiled against is carried in this binary
//! ([`embedded`]) and written into the project's `.quipu/`. Printing is for the commands.

pub(crate) mod bench;
pub(crate) mod bless;
pub(crate) mod build;
pub(crate) mod candidate;
pub(crate) mod embedded;
pub(crate) mod job;
pub(crate) mod languages;
pub(crate) mod new;
pub(crate) mod project;
pub(crate) mod report;
mod splice;
pub(crate) mod toolchains;
pub(crate) mod trial;
pub(crate) mod wasm;
pub(crate) mod watch;
