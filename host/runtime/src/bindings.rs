//! Generated from the contract. Every import may trap, so that misuse ends the call instead of the router.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated from plugin.wit")]

wasmtime::component::bindgen!({
    path: "../../plugin-sdk/wit/0.1.0",
    world: "plugin",
    imports: { default: trappable },
});
