//! `cargo run --example notifications`: see README.md beside this file.

fn main() -> anyhow::Result<()> {
    quipu_examples::main("notifications", async |router| quipu_examples::notifications::run(router).await)
}
