//! `cargo run --example peer-to-peer`: see README.md beside this file.

use anyhow::{Result, bail};
use quipu_examples::peer_to_peer;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => quipu_examples::main("peer-to-peer", async |router| {
            peer_to_peer::run(router, &std::env::current_exe()?).await
        }),
        [own, other, server, certificate] => peer_to_peer::peer(own, other, server, certificate.into()),
        _ => bail!(
            "usage: peer-to-peer [OWN OTHER SERVER CERTIFICATE]; without arguments it starts a router and two peers"
        ),
    }
}
