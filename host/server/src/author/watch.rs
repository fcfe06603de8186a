//! The sources of a project, watched: says what changed, once it is quiet again.
//!
//! Files are compared by what is in them, so that a build which writes into the project, or an editor that only touches,
//! wakes nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use quipu_runtime::Digest;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// How long nothing may change until what changed is taken for whole: editors write files in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// How long it is waited for that quiet.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);
/// Most files of a project.
const FILES_MAX: usize = 5_000;
/// Largest file whose bytes are compared; of larger ones, size and time are.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Folders of builds and tools, beside those whose names begin with a dot.
const SKIPPED_FOLDERS: [&str; 7] =
    ["target", "node_modules", "site-packages", "__pycache__", "zig-out", "zig-cache", "build"];
/// What a virtual environment of Python has in it, whatever its name.
const ENVIRONMENT: &str = "pyvenv.cfg";
/// What builds write beside the sources.
const SKIPPED_FILES: [&str; 3] = ["Cargo.lock", "package-lock.json", "go.sum"];

/// A project that is watched.
pub(crate) struct Watch {
    dir: PathBuf,
    watcher: RecommendedWatcher,
    /// Whether something happened; more than one wake-up is not needed.
    wake: mpsc::Receiver<()>,
    seen: BTreeMap<PathBuf, State>,
}

/// What a file is compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Bytes(Digest),
    Large(u64, Option<SystemTime>),
}

impl Watch {
    /// Begins to watch; what is there now is known.
    ///
    /// # Errors
    ///
    /// The directory cannot be read, has too many files, or the system does not watch it.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let (sender, wake) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading is no change, and what went wrong may be one.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                // Full: it is known already. Closed: nobody waits any more.
                sender.try_send(()).ok();
            }
        });
        let watcher = watcher.context("the system does not watch files")?;
        let mut watch = Self { dir: dir.to_owned(), watcher, wake, seen: BTreeMap::new() };
        watch.seen = watch.look()?;
        Ok(watch)
    }

    /// Waits until sources are not as they were when this was called last: which.
    ///
    /// Cancelled, it has missed nothing.
    ///
    /// # Errors
    ///
    /// As for [`Watch::start`].
    pub(crate) async fn changed(&mut self) -> Result<Vec<PathBuf>> {
        loop {
            let now = self.look()?;
            let differs = |path: &&PathBuf| self.seen.get(*path) != now.get(*path);
            let mut changed: Vec<PathBuf> = now.keys().chain(self.seen.keys()).filter(differs).cloned().collect();
            if !changed.is_empty() {
                changed.sort();
                changed.dedup();
                self.seen = now;
                return Ok(changed);
            }
            self.wake.recv().await.context("the system watches the files no more")?;
            let until = Instant::now() + QUIET_WAIT_MAX;
            while Instant::now() < until && timeout(QUIET, self.wake.recv()).await.is_ok() {}
        }
    }

    /// What is there, each folder watched. Links are followed: what they lead to is the project's as well, each folder once.
    fn look(&mut self) -> Result<BTreeMap<PathBuf, State>> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![self.dir.clone()]);
        let mut known = BTreeSet::new();
        let mut at = 0;
        while let Some(folder) = folders.get(at).cloned() {
            at += 1;
            if !std::fs::canonicalize(&folder).is_ok_and(|real| known.insert(real)) && folder != self.dir {
                continue;
            }
            // Before it is read, so that nothing happens in between unseen; and each time, for a folder that was removed and
            // made again is another one.
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Err(_) if folder != self.dir && !folder.exists() => continue, // gone meanwhile
                watched => watched.with_context(|| format!("cannot watch {}", folder.display()))?,
            }
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(_) if folder != self.dir => continue, // gone meanwhile
                Err(e) => return Err(e).with_context(|| format!("cannot read {}", folder.display())),
            };
            for entry in entries.filter_map(Result::ok) {
                let (path, name) = (entry.path(), entry.file_name());
                let name = name.to_string_lossy();
                let Ok(facts) = std::fs::metadata(&path) else { continue };
                if facts.is_dir() && !is_skipped_folder(&path, &name) {
                    folders.push(path);
                } else if facts.is_file()
                    && !is_skipped(&name)
                    && let Some(state) = State::of(&path)
                {
                    self.watch_target(&entry);
                    files.insert(path, state);
                }
                if files.len() + folders.len() > FILES_MAX {
                    bail!("{} has more than {FILES_MAX} files and folders: watch the plugin's own", self.dir.display());
                }
            }
        }
        Ok(files)
    }

    /// Of a link, the folder that the file is in: editors put a new file in the place of the old one.
    fn watch_target(&mut self, entry: &DirEntry) {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let target = if is_link { std::fs::canonicalize(entry.path()).ok() } else { None };
        if let Some(folder) = target.as_deref().and_then(Path::parent) {
            // A link into a folder that cannot be watched is a file like any other, but for that.
            self.watcher.watch(folder, RecursiveMode::NonRecursive).ok();
        }
    }
}

/// Hidden folders, and those of builds and tools.
fn is_skipped_folder(path: &Path, name: &str) -> bool {
    name.starts_with('.') || SKIPPED_FOLDERS.contains(&name) || path.join(ENVIRONMENT).exists()
}

/// Hidden files, those of editors, and those of builds.
fn is_skipped(name: &str) -> bool {
    name.starts_with(['.', '#'])
        || name.ends_with(['~', '#'])
        || name.ends_with(".swp")
        || SKIPPED_FILES.contains(&name)
}

impl State {
    /// None where it is gone.
    fn of(path: &Path) -> Option<Self> {
        let facts = std::fs::metadata(path).ok()?;
        if facts.len() > FILE_BYTES_MAX {
            return Some(Self::Large(facts.len(), facts.modified().ok()));
        }
        std::fs::read(path).ok().map(|bytes| Self::Bytes(Digest::of(&bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far longer than it takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(dir.join(name).parent().expect("a folder")).expect("made");
        std::fs::write(dir.join(name), text).expect("written");
    }

    async fn changed(watch: &mut Watch) -> Vec<String> {
        let changed = timeout(PATIENCE, watch.changed()).await.expect("a change").expect("watched");
        changed.iter().map(|path| path.strip_prefix(&watch.dir).expect("inside").display().to_string()).collect()
    }

    #[tokio::test]
    async fn what_differs_wakes_and_what_builds_write_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "src/a.rs", "one");
        let mut watch = Watch::start(dir.path()).expect("watched");
        // All but the last is not worth a word, and is written before it.
        write(dir.path(), "env/pyvenv.cfg", "home = /usr/bin");
        for name in [".quipu/x.wasm", "target/x", "env/lib/x.py", "Cargo.lock", "src/.a.rs.swp", "src/a.rs~"] {
            write(dir.path(), name, "built");
        }
        write(dir.path(), "src/a.rs", "one");
        write(dir.path(), "src/b.rs", "new");
        assert_eq!(changed(&mut watch).await, ["src/b.rs"]);
        write(dir.path(), "deep/er/c.rs", "in new folders");
        std::fs::remove_file(dir.path().join("src/a.rs")).expect("removed");
        let mut all = changed(&mut watch).await;
        while all.len() < 2 {
            all.extend(changed(&mut watch).await);
        }
        all.sort();
        assert_eq!(all, ["deep/er/c.rs", "src/a.rs"]);
    }

    #[tokio::test]
    async fn a_folder_that_is_made_again_is_watched_again() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "src/a.rs", "one");
        let mut watch = Watch::start(dir.path()).expect("watched");
        // As a change of branch does.
        std::fs::remove_dir_all(dir.path().join("src")).expect("removed");
        write(dir.path(), "src/a.rs", "two");
        assert_eq!(changed(&mut watch).await, ["src/a.rs"]);
        write(dir.path(), "src/a.rs", "three");
        assert_eq!(changed(&mut watch).await, ["src/a.rs"]);
    }

    #[tokio::test]
    async fn what_links_lead_to_is_watched() {
        let [dir, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        write(dir.path(), "a", "1");
        write(other.path(), "shared/b", "1");
        write(other.path(), "lone/c", "1");
        let link = |to: &str, name: &str| {
            std::os::unix::fs::symlink(other.path().join(to), dir.path().join(name)).expect("linked");
        };
        link("shared", "shared");
        link("lone/c", "c");
        link("nowhere", "dangling");
        // Round in a circle.
        std::os::unix::fs::symlink(dir.path(), other.path().join("shared/back")).expect("linked");
        let mut watch = Watch::start(dir.path()).expect("watched");
        for name in ["shared/b", "lone/c"] {
            write(other.path(), name, "2");
            assert_eq!(changed(&mut watch).await, [name.replace("lone/", "")]);
        }
    }

    #[tokio::test]
    async fn changes_while_nobody_waits_are_told_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "a", "1");
        let mut watch = Watch::start(dir.path()).expect("watched");
        write(dir.path(), "a", "2");
        assert_eq!(changed(&mut watch).await, ["a"]);
        write(dir.path(), "a", "3");
        assert_eq!(changed(&mut watch).await, ["a"]);
    }
}
