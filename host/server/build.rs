//! Puts the files of `plugin-sdk/` that plugin authors need into the binary: the contract, each language's SDK and
//! template, and the list of toolchains. Gives `embedded.rs` in `OUT_DIR`, which `author/embedded.rs` takes in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use toml::{Table, Value};

/// What tools leave behind in folders of sources.
const SKIPPED: [&str; 6] = [".quipu", "target", "node_modules", "__pycache__", ".zig-cache", "Cargo.lock"];
/// Largest file that is meant to be carried, in bytes. A larger one is in these folders by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../..").canonicalize()?;
    let (sdks, out) = (root.join("plugin-sdk"), PathBuf::from(env::var("OUT_DIR")?));
    // A language is carried once it is listed: that is when a new folder is looked for.
    for changes in ["build.rs", "src/author/languages.rs", "../../Cargo.toml", "../../Cargo.lock"] {
        println!("cargo:rerun-if-changed={changes}");
    }
    let mut code = String::from("// Written by build.rs.\n");
    let toolchains = sdks.join("toolchains.toml");
    println!("cargo:rerun-if-changed={}", toolchains.display());
    writeln!(code, "pub(crate) static TOOLCHAINS: &str = include_str!({toolchains:?});")?;
    list(&mut code, "CONTRACT", &files_in(&sdks.join("wit"), "wit/")?)?;
    for folder in folders(&sdks)? {
        let name = folder.file_name().and_then(|name| name.to_str()).context("a folder's name is text")?;
        let (mut sdk, mut template) = (files_in(&folder.join("sdk"), "")?, files_in(&folder.join("template"), "")?);
        if name == "rust" {
            sdk = rust_crate(&root, &folder, &out)?;
            template.push(("Cargo.lock".into(), out.join("Cargo.lock")));
        }
        if !template.is_empty() || !sdk.is_empty() {
            list(&mut code, &format!("{}_SDK", name.to_ascii_uppercase()), &sdk)?;
            list(&mut code, &format!("{}_TEMPLATE", name.to_ascii_uppercase()), &template)?;
        }
    }
    fs::write(out.join("embedded.rs"), code)?;
    Ok(())
}

/// A file by the path it is written to, and where it is.
type File = (String, PathBuf);

fn list(code: &mut String, name: &str, files: &[File]) -> Result<()> {
    writeln!(code, "pub(crate) static {name}: &[Embedded] = &[")?;
    for (path, file) in files {
        writeln!(code, "    Embedded {{ path: {path:?}, bytes: include_bytes!({file:?}) }},")?;
    }
    writeln!(code, "];")?;
    Ok(())
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        found.push(entry?.path());
    }
    found.retain(|path| path.is_dir());
    found.sort();
    Ok(found)
}

/// Every file below a folder, in order, with a prefix to its path; none where there is no folder.
fn files_in(dir: &Path, prefix: &str) -> Result<Vec<File>> {
    let mut files = Vec::new();
    if !dir.exists() {
        return Ok(files);
    }
    println!("cargo:rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a file's name is text")?.to_owned();
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            files.extend(files_in(&path, &format!("{prefix}{name}/"))?);
            continue;
        }
        let bytes = fs::metadata(&path)?.len();
        ensure!(bytes <= FILE_BYTES_MAX, "{} has {bytes} bytes: not meant for the binary", path.display());
        files.push((format!("{prefix}{name}"), path));
    }
    files.sort();
    Ok(files)
}

/// The Rust SDK is a member of this workspace; authors get the same crate with all that it inherits written out, and a
/// lock file with the versions that are used here.
fn rust_crate(root: &Path, folder: &Path, out: &Path) -> Result<Vec<File>> {
    let read = |path: &Path| -> Result<Table> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        text.parse().with_context(|| path.display().to_string())
    };
    println!("cargo:rerun-if-changed={}", folder.join("Cargo.toml").display());
    let workspace = read(&root.join("Cargo.toml"))?;
    let manifest = standalone(read(&folder.join("Cargo.toml"))?, &workspace["workspace"])?;
    let lock = locked(&read(&root.join("Cargo.lock"))?, "quipu-plugin", &manifest)?;
    fs::write(out.join("Cargo.toml"), toml::to_string(&manifest)?)?;
    fs::write(out.join("Cargo.lock"), toml::to_string(&lock)?)?;
    let mut files = files_in(&folder.join("src"), "rust/src/")?;
    files.push(("rust/Cargo.toml".into(), out.join("Cargo.toml")));
    Ok(files)
}

/// A manifest without its workspace, and without what only tests need.
fn standalone(mut manifest: Table, workspace: &Value) -> Result<Table> {
    for unneeded in ["lints", "example", "dev-dependencies"] {
        manifest.remove(unneeded);
    }
    if let Some(package) = manifest.get_mut("package").and_then(Value::as_table_mut) {
        inherit(package, &workspace["package"])?;
    }
    let dependencies = &workspace["dependencies"];
    if let Some(own) = manifest.get_mut("dependencies").and_then(Value::as_table_mut) {
        inherit(own, dependencies)?;
    }
    let targets = manifest.get_mut("target").and_then(Value::as_table_mut);
    for target in targets.into_iter().flatten().filter_map(|(_, target)| target.as_table_mut()) {
        target.remove("dev-dependencies");
        if let Some(own) = target.get_mut("dependencies").and_then(Value::as_table_mut) {
            inherit(own, dependencies)?;
        }
    }
    if let Some(targets) = manifest.get_mut("target").and_then(Value::as_table_mut) {
        targets.retain(|_, target| target.as_table().is_some_and(|target| !target.is_empty()));
    }
    Ok(manifest)
}

/// Puts the workspace's entry where one says `workspace = true`; what stands beside that is kept.
fn inherit(entries: &mut Table, workspace: &Value) -> Result<()> {
    for (name, entry) in entries.iter_mut() {
        let Some(own) = entry.as_table_mut().filter(|own| own.get("workspace") == Some(&Value::Boolean(true))) else {
            continue;
        };
        own.remove("workspace");
        let inherited = workspace.get(name).with_context(|| format!("the workspace has no `{name}`"))?;
        if own.is_empty() {
            *entry = inherited.clone();
            continue;
        }
        let mut whole = match inherited {
            Value::String(version) => Table::from_iter([("version".to_owned(), Value::String(version.clone()))]),
            Value::Table(table) => table.clone(),
            other => bail!("`{name}` of the workspace is {other}"),
        };
        for (key, value) in std::mem::take(own) {
            ensure!(!whole.contains_key(&key), "`{key}` of `{name}` is in the workspace and in the crate");
            whole.insert(key, value);
        }
        *entry = Value::Table(whole);
    }
    Ok(())
}

/// The part of a lock file that one package needs, with what its manifest no longer asks for left out. Cargo adds the
/// project itself, and takes out what is still too much.
fn locked(lock: &Table, package: &str, manifest: &Table) -> Result<Table> {
    let all = lock["package"].as_array().context("a lock file lists packages")?;
    let is = |entry: &Value, wanted: &str| {
        let mut words = wanted.split(' ');
        let (name, version) = (words.next(), words.next());
        entry["name"].as_str() == name && (version.is_none() || entry["version"].as_str() == version)
    };
    let find = |wanted: &str| {
        all.iter().find(|entry| is(entry, wanted)).with_context(|| format!("the lock file has no {wanted}"))
    };
    let mut root = find(package)?.clone();
    let wanted = wanted_by(manifest);
    if let Some(dependencies) = root.get_mut("dependencies").and_then(Value::as_array_mut) {
        // With the version behind the name, where there are several.
        let is_wanted = |entry: &str| entry.split(' ').next().is_some_and(|name| wanted.contains(&name));
        dependencies.retain(|entry| entry.as_str().is_some_and(is_wanted));
    }
    let (mut kept, mut next) = (vec![root], 0);
    while let Some(entry) = kept.get(next) {
        let dependencies = entry.get("dependencies").and_then(Value::as_array).cloned().unwrap_or_default();
        for dependency in dependencies.iter().filter_map(Value::as_str) {
            let found = find(dependency)?;
            if !kept.contains(found) {
                kept.push(found.clone());
            }
        }
        next += 1;
    }
    Ok(Table::from_iter([("version".to_owned(), lock["version"].clone()), ("package".to_owned(), Value::Array(kept))]))
}

fn wanted_by(manifest: &Table) -> Vec<&str> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten().map(|(_, target)| target);
    let tables = targets.filter_map(|target| target.get("dependencies")).chain(manifest.get("dependencies"));
    tables.filter_map(Value::as_table).flat_map(|table| table.keys().map(String::as_str)).collect()
}
