//! `cargo run --example sensors`: see README.md beside this file.

fn main() -> anyhow::Result<()> {
    quipu_examples::main("sensors", async |router| quipu_examples::sensors::run(router).await)
}
