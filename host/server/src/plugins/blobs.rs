//! Plugin files on disk, each under its digest: written whole or not at all, and checked as they are read.
//!
//! `plugins/<digest>.wasm` beside the store's own files, and `plugins/compiled/`, where only what can be made again is.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use quipu_runtime::Digest;

const WASM: &str = "wasm";
/// What is being written, and not there yet.
const PARTIAL: &str = "partial";
const CODE: &str = "code";

/// The directory.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    dir: PathBuf,
}

impl Blobs {
    /// Makes the directories where they are not there, and takes away what a stop left half written.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        let blobs = Self { dir };
        let compiled = blobs.compiled();
        fs::create_dir_all(&compiled).with_context(|| format!("cannot make {}", compiled.display()))?;
        for dir in [&blobs.dir, &compiled] {
            for (path, _) in files(dir, PARTIAL)? {
                remove(&path)?;
            }
        }
        Ok(blobs)
    }

    /// Where all of it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a file of this digest is.
    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(digest).with_extension(WASM)
    }

    /// A new name for what is not whole yet.
    pub(crate) fn partial(&self) -> PathBuf {
        self.dir.join(uuid::Uuid::now_v7().to_string()).with_extension(PARTIAL)
    }

    /// Writes a file. Once this is done a crash does not take it back.
    pub(crate) fn write(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(digest);
        // One that is damaged is written anew.
        if self.read(digest).is_err() {
            write(&self.partial(), &path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Reads a file, and checks it.
    pub(crate) fn read(&self, digest: &str) -> Result<Vec<u8>> {
        let path = self.path(digest);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let found = Digest::of(&bytes).to_string();
        ensure!(found == digest, "{} is damaged: push that version again", path.display());
        Ok(bytes)
    }

    /// Takes away a file with what was compiled from it; one that is not there is gone already.
    pub(crate) fn remove(&self, digest: &str) -> Result<()> {
        remove(&self.path(digest))?;
        for (path, name) in files(&self.compiled(), CODE)? {
            if name.starts_with(digest) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Takes away every file that the index does not have: a stop came before its entry.
    pub(crate) fn sweep(&self, kept: &BTreeSet<&str>) -> Result<()> {
        for (path, name) in files(&self.dir, WASM)?.into_iter().chain(files(&self.compiled(), CODE)?) {
            if !kept.contains(name.get(..64).unwrap_or(&name)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// What was kept as compiled from this file.
    pub(crate) fn read_code(&self, digest: &str) -> io::Result<Vec<u8>> {
        fs::read(self.code(digest))
    }

    /// Keeps what was compiled from this file, in place of what was kept before.
    pub(crate) fn write_code(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        let path = self.code(digest);
        write(&self.partial(), &path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies the files of these digests into another directory.
    pub(crate) fn copy(&self, digests: &BTreeSet<String>, to: &Path) -> Result<()> {
        fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
        let copy = Self { dir: to.to_owned() };
        for digest in digests {
            copy.write(digest, &self.read(digest)?)?;
        }
        Ok(())
    }

    /// Copies every file that is sound into another directory: how many, and which are not.
    pub(crate) fn salvage(from: &Path, to: &Path) -> Result<(usize, Vec<String>)> {
        let (source, mut copied, mut damaged) = (Self { dir: from.to_owned() }, 0, Vec::new());
        if !from.exists() {
            return Ok((copied, damaged));
        }
        let target = Self::open(to.to_owned())?;
        for (_, digest) in files(from, WASM)? {
            match source.read(&digest) {
                Ok(bytes) => {
                    target.write(&digest, &bytes)?;
                    copied += 1;
                }
                Err(_) => damaged.push(digest),
            }
        }
        Ok((copied, damaged))
    }

    /// What is wrong with the files that these records of a store speak of: each with its path, and what.
    pub(crate) fn verify(dir: &Path, records: &[String]) -> Vec<(PathBuf, String)> {
        let blobs = Self { dir: dir.to_owned() };
        let versions = records.iter().filter_map(|key| key.strip_prefix(super::store::VERSIONS)?.split_once('/'));
        let wrong = |(name, digest): (&str, &str)| {
            let error = blobs.read(digest).err()?;
            Some((blobs.path(digest), format!("version {digest} of plugin {name:?}: {error:#}")))
        };
        versions.filter_map(wrong).collect()
    }

    fn compiled(&self) -> PathBuf {
        self.dir.join("compiled")
    }

    fn code(&self, digest: &str) -> PathBuf {
        self.compiled().join(digest).with_extension(CODE)
    }
}

/// The files with this ending, and their names without it.
fn files(dir: &Path, ending: &str) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if path.extension().is_some_and(|found| found == ending)
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            found.push((path.clone(), name.to_owned()));
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Under another name first, so that a crash leaves all of it or nothing.
fn write(partial: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = File::create_new(partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(partial, path)
    });
    if written.is_err() {
        // What is left of it is swept at the next start.
        fs::remove_file(partial).ok();
    }
    written?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path().join("plugins")).expect("opened");
        let digest = Digest::of(b"one").to_string();
        blobs.write(&digest, b"one").expect("written");
        blobs.write_code(&digest, b"code").expect("written");
        assert_eq!(blobs.read(&digest).expect("read"), b"one");
        fs::write(blobs.path(&digest), b"two").expect("written");
        assert!(blobs.read(&digest).expect_err("damaged").to_string().contains("is damaged"));
        let records = ["route/r".to_owned(), format!("plugin/p/{digest}"), format!("plugin/q/{}", Digest::of(b"no"))];
        let wrong = Blobs::verify(blobs.dir(), &records);
        assert!(
            wrong.len() == 2 && wrong[0].1.contains("is damaged") && wrong[1].1.contains("cannot read"),
            "{wrong:?}"
        );
        blobs.write(&digest, b"one").expect("written anew");
        assert_eq!(Blobs::verify(blobs.dir(), &records[..2]), []);
        assert_eq!(blobs.read(&digest).expect("read"), b"one");
        let copy = directory.path().join("copy");
        blobs.copy(&BTreeSet::from([digest.clone()]), &copy).expect("copied");
        assert_eq!(Blobs::open(copy).expect("opened").read(&digest).expect("read"), b"one");
        let (saved, bad) = (directory.path().join("saved"), Digest::of(b"bad").to_string());
        fs::write(blobs.path(&bad), b"worse").expect("written");
        assert_eq!(Blobs::salvage(blobs.dir(), &saved).expect("salvaged"), (1, vec![bad]));
        assert_eq!(Blobs::open(saved).expect("opened").read(&digest).expect("read"), b"one");
        blobs.remove(&digest).expect("removed");
        assert!(blobs.read(&digest).is_err() && blobs.read_code(&digest).is_err());
    }

    #[test]
    fn what_the_index_does_not_have_is_swept() {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = Blobs::open(directory.path().into()).expect("opened");
        let [kept, gone] = [b"kept", b"gone"].map(|bytes| Digest::of(bytes).to_string());
        for (digest, bytes) in [(&kept, b"kept"), (&gone, b"gone")] {
            blobs.write(digest, bytes).expect("written");
            blobs.write_code(digest, b"code").expect("written");
        }
        fs::write(blobs.partial(), b"half").expect("written");
        let blobs = Blobs::open(directory.path().into()).expect("opened");
        blobs.sweep(&BTreeSet::from([kept.as_str()])).expect("swept");
        assert!(blobs.read(&kept).is_ok() && blobs.read_code(&kept).is_ok());
        assert!(blobs.read(&gone).is_err() && blobs.read_code(&gone).is_err());
        assert_eq!(files(directory.path(), PARTIAL).expect("read"), []);
    }
}
