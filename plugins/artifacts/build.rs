//! Builds the stock plugins, and writes the table of them that `src/lib.rs` includes.

use anyhow::{Context, Result, ensure};
use quipu_plugin_builder::{Builder, GuestCrate};
use std::path::{Path, PathBuf};
use std::{env, fmt::Write, fs};

/// Folders beside the plugins that are none.
const NO_PLUGINS: [&str; 2] = ["artifacts", "builder"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    // Its time changes with a folder that comes or goes.
    println!("cargo:rerun-if-changed=..");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let names = names()?;
    let guests: Vec<GuestCrate> = names.iter().map(|name| GuestCrate::at(format!("../{name}"))).collect();
    let artifacts = Builder::for_build_script()?.build(&guests)?;
    let mut table = String::from("&[\n");
    for (name, artifact) in names.iter().zip(&artifacts) {
        // A copy of our own: the next build, of whatever else, may replace the original.
        let copy = out_dir.join(format!("{name}.wasm"));
        fs::copy(&artifact.wasm, &copy).with_context(|| format!("cannot copy {}", artifact.wasm.display()))?;
        let kib_max = kib_max(name)?;
        writeln!(
            table,
            "StockPlugin {{ name: {name:?}, wasm: include_bytes!({copy:?}), path: {copy:?}, kib_max: {kib_max} }},"
        )?;
    }
    table.push(']');
    fs::write(out_dir.join("stock.rs"), table).context("cannot write the table of stock plugins")
}

/// The folders with a package, in order.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("..").context("cannot read the folder of the plugins")? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a folder's name is no UTF-8")?;
        if entry.path().join("Cargo.toml").is_file() && !NO_PLUGINS.contains(&name.as_str()) {
            names.push(name);
        }
    }
    ensure!(!names.is_empty(), "there are no plugins");
    names.sort();
    Ok(names)
}

/// `package.metadata.quipu.kib_max` of its manifest.
fn kib_max(name: &str) -> Result<u32> {
    let path = Path::new("..").join(name).join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let kib_max = || manifest.get("package")?.get("metadata")?.get("quipu")?.get("kib_max")?.as_integer();
    let kib_max = kib_max().with_context(|| format!("{}: no package.metadata.quipu.kib_max", path.display()))?;
    u32::try_from(kib_max).with_context(|| format!("{}: kib_max = {kib_max}", path.display()))
}
