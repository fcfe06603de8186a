//! `cargo run --example orders`: see README.md beside this file.

fn main() -> anyhow::Result<()> {
    quipu_examples::main("orders", async |router| quipu_examples::orders::run(router).await)
}
