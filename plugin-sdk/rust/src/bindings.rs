//! The contract as generated code, and nothing else.
#![allow(clippy::all, missing_docs, unreachable_pub, unsafe_code, reason = "generated")]

wit_bindgen::generate!({
    path: "../wit/0.1.0",
    world: "plugin",
    pub_export_macro: true,
});
