//! The files of `plugin-sdk/` that this binary carries, and how they get into a project.

#![allow(dead_code, reason = "a language may have its files before it is listed, and not every language has both")]

use std::fs;
use std::io;
use std::path::Path;

use quipu_runtime::Digest;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Where [`write_sdk`] notes what it wrote.
const STAMP: &str = "stamp";

/// A file that this binary carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Embedded {
    /// Where it is written to, with `/` between folders.
    pub(crate) path: &'static str,
    pub(crate) bytes: &'static [u8],
}

/// Sees to it that a folder holds the contract and these files, and nothing else: authors do not keep it, and another
/// version of this binary may have written it. What is as it should be is not touched, so that compilers find nothing new.
pub(crate) fn write_sdk(dir: &Path, sdk: &[Embedded]) -> io::Result<()> {
    let files: Vec<&Embedded> = CONTRACT.iter().chain(sdk).collect();
    let stamp = stamp(&files);
    let at = dir.join(STAMP);
    if fs::read_to_string(&at).ok().as_deref() != Some(&stamp) {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::create_dir_all(dir)?,
        }
    }
    for file in files {
        let path = dir.join(file.path);
        if fs::read(&path).ok().as_deref() != Some(file.bytes) {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, file.bytes)?;
        }
    }
    fs::write(at, stamp)
}

/// Changes with every path and byte.
fn stamp(files: &[&Embedded]) -> String {
    let mut all = Vec::new();
    for file in files {
        all.extend_from_slice(file.path.as_bytes());
        all.extend_from_slice(&file.bytes.len().to_le_bytes());
        all.extend_from_slice(file.bytes);
    }
    format!("quipu {} {}\n", env!("CARGO_PKG_VERSION"), Digest::of(&all))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Embedded = Embedded { path: "a/b.h", bytes: b"one" };
    const B: Embedded = Embedded { path: "c.h", bytes: b"two" };

    #[test]
    fn a_folder_is_made_what_it_should_be() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path().join("sdk");
        write_sdk(&dir, &[A, B]).expect("written");
        assert_eq!(fs::read(dir.join("a/b.h")).expect("there"), b"one");
        assert!(dir.join("wit/0.1.0/plugin.wit").exists());
        fs::write(dir.join("c.h"), "edited").expect("written");
        fs::remove_file(dir.join("a/b.h")).expect("removed");
        write_sdk(&dir, &[A, B]).expect("mended");
        assert_eq!(fs::read(dir.join("c.h")).expect("there"), b"two");
        assert_eq!(fs::read(dir.join("a/b.h")).expect("there"), b"one");
    }

    #[test]
    fn what_another_version_wrote_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        write_sdk(dir.path(), &[A, B]).expect("written");
        write_sdk(dir.path(), &[A]).expect("written again");
        assert!(dir.path().join("a/b.h").exists() && !dir.path().join("c.h").exists());
    }

    #[test]
    fn what_is_right_is_not_written_again() {
        let dir = tempfile::tempdir().expect("a folder");
        write_sdk(dir.path(), &[A]).expect("written");
        let before = fs::metadata(dir.path().join("a/b.h")).expect("there").modified().expect("a time");
        write_sdk(dir.path(), &[A]).expect("looked at");
        let after = fs::metadata(dir.path().join("a/b.h")).expect("there").modified().expect("a time");
        assert_eq!(before, after);
    }

    #[test]
    fn the_rust_sdk_stands_alone() {
        let find = |path: &str| RUST_SDK.iter().find(|file| file.path == path).expect("carried");
        let manifest = std::str::from_utf8(find("rust/Cargo.toml").bytes).expect("text");
        assert!(!manifest.contains("workspace"), "{manifest}");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        assert_eq!(manifest["package"]["name"].as_str(), Some("quipu-plugin"));
        assert_eq!(manifest["dependencies"]["serde_json"]["features"][0].as_str(), Some("raw_value"));
        find("rust/src/lib.rs");
        let lock = RUST_TEMPLATE.iter().find(|file| file.path == "Cargo.lock").expect("carried");
        let lock = std::str::from_utf8(lock.bytes).expect("text");
        assert!(lock.contains("wit-bindgen") && !lock.contains("wasmtime"), "the SDK's closure and no more");
    }
}
