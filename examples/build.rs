//! Builds the plugins that the examples bring along, from source.

use quipu_plugin_builder::{Builder, GuestCrate};

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let guests = ["orders/plugin/1.0.0", "orders/plugin/1.0.1"].map(GuestCrate::at);
    Builder::for_build_script()?.build(&guests)?.iter().for_each(|guest| guest.set_env());
    Ok(())
}
