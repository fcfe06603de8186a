//! Builds the stock plugins, and writes the table of them that `src/lib.rs` includes.

use anyhow::{Context, Result};
use quipu_plugin_builder::{Builder, GuestCrate};
use std::path::PathBuf;
use std::{env, fmt::Write, fs};

/// Their names, which are those of their folders.
const NAMES: [&str; 3] = ["filter-json", "redact-json", "route-by-field"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let guests = NAMES.map(|name| GuestCrate::at(format!("../{name}")));
    let artifacts = Builder::for_build_script()?.build(&guests)?;
    let mut table = String::from("&[\n");
    for (name, artifact) in NAMES.iter().zip(&artifacts) {
        // A copy of our own: the next build, of whatever else, may replace the original.
        let copy = out_dir.join(format!("{name}.wasm"));
        fs::copy(&artifact.wasm, &copy).with_context(|| format!("cannot copy {}", artifact.wasm.display()))?;
        writeln!(table, "StockPlugin {{ name: {name:?}, wasm: include_bytes!({copy:?}), path: {copy:?} }},")?;
    }
    table.push(']');
    fs::write(out_dir.join("stock.rs"), table).context("cannot write the table of stock plugins")
}
