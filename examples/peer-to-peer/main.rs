//! `cargo run --example peer-to-peer`: see README.md beside this file.

fn main() -> anyhow::Result<()> {
    quipu_examples::main("peer-to-peer", async |router| quipu_examples::peer_to_peer::run(router).await)
}
