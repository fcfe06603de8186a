//! `cargo run --example request-reply`: see README.md beside this file.

fn main() -> anyhow::Result<()> {
    quipu_examples::main("request-reply", async |router| quipu_examples::request_reply::run(router).await)
}
