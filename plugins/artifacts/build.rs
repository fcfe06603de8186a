//! Builds the stock plugins, and writes the table of them that `src/lib.rs` includes.

use anyhow::{Context, Result, ensure};
use quipu_plugin_builder::{Artifact, Builder, GuestCrate};
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
    let mut table = String::from("&[\n");
    for (name, artifact) in build(&names)? {
        // A copy of our own: the next build, of whatever else, may replace the original.
        let copy = out_dir.join(format!("{name}.wasm"));
        fs::copy(&artifact.wasm, &copy).with_context(|| format!("cannot copy {}", artifact.wasm.display()))?;
        let kib_max = metadata(&name)?.kib_max;
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

/// Each with its file, in order.
fn build(names: &[String]) -> Result<Vec<(String, Artifact)>> {
    let (mut together, mut alone) = (Vec::new(), Vec::new());
    for name in names {
        if metadata(name)?.alone { alone.push(vec![name.clone()]) } else { together.push(name.clone()) }
    }
    let builder = Builder::for_build_script()?;
    let mut built = Vec::new();
    for names in std::iter::once(together).chain(alone) {
        let guests: Vec<GuestCrate> = names.iter().map(|name| GuestCrate::at(format!("../{name}"))).collect();
        let artifacts = builder.build(&guests)?;
        built.extend(names.into_iter().zip(artifacts));
    }
    built.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(built)
}

/// `package.metadata.quipu` of a manifest.
struct Metadata {
    kib_max: u32,
    /// Built by itself: cargo gives crates that are built together the features of all of them, and some dependencies have
    /// many.
    alone: bool,
}

fn metadata(name: &str) -> Result<Metadata> {
    let path = Path::new("..").join(name).join("Cargo.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: toml::Table = text.parse().with_context(|| path.display().to_string())?;
    let of = |key: &str| manifest.get("package")?.get("metadata")?.get("quipu")?.get(key);
    let kib_max = of("kib_max").and_then(toml::Value::as_integer);
    let kib_max = kib_max.with_context(|| format!("{}: no package.metadata.quipu.kib_max", path.display()))?;
    let kib_max = u32::try_from(kib_max).with_context(|| format!("{}: kib_max = {kib_max}", path.display()))?;
    Ok(Metadata { kib_max, alone: of("alone").and_then(toml::Value::as_bool).unwrap_or(false) })
}
