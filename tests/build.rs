//! Builds the guests that the tests run, from source.

use quipu_plugin_builder::{Builder, GuestCrate};

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    Builder::for_build_script()?.build(&[GuestCrate::at("guests/hostile")])?.iter().for_each(|guest| guest.set_env());
    Ok(())
}
