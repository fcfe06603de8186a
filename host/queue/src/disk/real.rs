//! A directory of the file system.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::state_file::StateFile;
use super::{Disk, SegmentFile, StateBackend};

/// The store's directory.
#[derive(Debug, Clone)]
pub struct RealDisk {
    path: PathBuf,
}

impl RealDisk {
    /// Uses a directory; made if absent.
    ///
    /// # Errors
    ///
    /// Where it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { path: path.to_owned() })
    }

    /// Uses a directory that is there.
    ///
    /// # Errors
    ///
    /// Where it is not.
    pub fn existing(path: &Path) -> io::Result<Self> {
        std::fs::read_dir(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

impl Disk for RealDisk {
    fn display(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.path.join(directory)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path.join(name))
    }

    fn segment(&self, name: &str, bytes: u64) -> io::Result<Box<dyn SegmentFile>> {
        let path = self.path.join(name);
        if let Some(directory) = path.parent().filter(|directory| !directory.is_dir()) {
            std::fs::create_dir_all(directory)?;
            self.sync_directory()?;
        }
        if !path.try_exists()? || std::fs::metadata(&path)?.len() < bytes {
            fill(&path, bytes)?;
        }
        Ok(Box::new(RealSegment::open(path)?))
    }

    fn state(&self, name: &str, create: bool) -> io::Result<StateBackend> {
        Ok(StateBackend::new(StateFile::open(&self.path.join(name), create)?))
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        free_bytes(&self.path)
    }

    fn state_bytes(&self, name: &str) -> io::Result<u64> {
        match std::fs::metadata(self.path.join(name)) {
            Ok(metadata) => Ok(metadata.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

/// Both descriptors pass by the page cache where the file system lets them, so that what one writes is never older than
/// what the other has.
#[derive(Debug)]
struct RealSegment {
    path: PathBuf,
    /// Each write is on stable storage when it returns, but says nothing of those before it on the other descriptor.
    durable: File,
    plain: File,
    /// Otherwise both are the same, and each durable write is followed by a sync.
    direct: bool,
    /// Something was written that no sync has followed.
    unsynced: bool,
}

impl RealSegment {
    fn open(path: PathBuf) -> io::Result<Self> {
        let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(&path);
        let direct = open(libc::O_DIRECT | libc::O_DSYNC).and_then(|durable| Ok((durable, open(libc::O_DIRECT)?)));
        let ((durable, plain), direct) = match direct {
            Ok(files) => (files, true),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => ((open(0)?, open(0)?), false),
            Err(e) => return Err(e),
        };
        Ok(Self { path, durable, plain, direct, unsynced: false })
    }

    fn write_once(&mut self, at: u64, record: &[u8], durable: bool) -> io::Result<()> {
        if durable && self.direct && !self.unsynced {
            return self.durable.write_all_at(record, at);
        }
        self.unsynced = true;
        self.plain.write_all_at(record, at)?;
        if durable { self.sync() } else { Ok(()) }
    }
}

impl SegmentFile for RealSegment {
    fn write(&mut self, at: u64, record: &[u8], durable: bool) -> io::Result<()> {
        match self.write_once(at, record, durable) {
            // Some file systems take the flag and refuse the write.
            Err(e) if self.direct && e.raw_os_error() == Some(libc::EINVAL) => {
                let open = || OpenOptions::new().write(true).open(&self.path);
                (self.durable, self.plain, self.direct) = (open()?, open()?, false);
                self.write_once(at, record, durable)
            }
            written => written,
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.plain.sync_data()?;
            self.unsynced = false;
        }
        Ok(())
    }
}

/// Makes a file of zeros under its final name only once it is whole, keeping what an earlier, shorter one holds.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let filled = fill_as(&temporary, path, bytes);
    if filled.is_err() {
        // On a full disk, what was written of it takes the room that others need.
        std::fs::remove_file(&temporary).ok();
    }
    filled
}

fn fill_as(temporary: &Path, path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    let kept = match File::open(path) {
        Ok(mut kept) => io::copy(&mut kept, &mut file)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e),
    };
    let zeros = vec![0; 1 << 20];
    let mut left = bytes.saturating_sub(kept);
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    file.sync_all()?;
    std::fs::rename(temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// What an unprivileged process can still write.
#[allow(unsafe_code, reason = "the standard library has no statvfs")]
#[allow(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
fn free_bytes(path: &Path) -> io::Result<Option<u64>> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and `found` is room for just what the call writes.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, so that it has filled it in.
    let found = unsafe { found.assume_init() };
    Ok((found.f_bavail as u64).checked_mul(found.f_frsize as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_made_of_zeros_and_grows_with_what_it_holds() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(&directory.path().join("store")).expect("made");
        assert!(disk.list("journal").expect("none yet").is_empty());
        let name = "journal/000.journal";
        let mut segment = disk.segment(name, 8192).expect("made");
        let (first, second) = ([1; 4096], [2; 4096]);
        segment.write(0, &first, false).expect("written");
        segment.write(4096, &second, true).expect("written");
        segment.sync().expect("synced");
        disk.segment(name, 12288).expect("longer");
        let bytes = disk.read(name).expect("there");
        assert_eq!(bytes, [first, second, [0; 4096]].concat());
        disk.segment(name, 4096).expect("as it is");
        assert_eq!(disk.read(name).expect("there").len(), 12288);
        assert_eq!(disk.list("journal").expect("there"), ["000.journal"]);
    }

    /// Enough rows for the file to grow several times and for writing out in between.
    #[test]
    fn redb_finds_what_it_wrote() {
        const ROWS: redb::TableDefinition<u64, &[u8]> = redb::TableDefinition::new("rows");
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("made");
        let database = || redb::Database::builder().create_with_backend(disk.state("state.redb", true).expect("free"));
        let first = database().expect("made");
        for n in 0..8 {
            let transaction = first.begin_write().expect("begun");
            let row = vec![7; 1 << 20];
            transaction.open_table(ROWS).expect("a table").insert(n, row.as_slice()).expect("room");
            transaction.commit().expect("committed");
        }
        assert_eq!(disk.state("state.redb", false).expect_err("locked").kind(), io::ErrorKind::WouldBlock);
        drop(first);
        let again = database().expect("opened");
        let rows = redb::ReadableDatabase::begin_read(&again).expect("begun").open_table(ROWS).expect("a table");
        for n in 0..8 {
            let row = rows.get(n).expect("read").expect("there");
            assert!(row.value().len() == 1 << 20 && row.value().iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_store_that_is_not_there_is_not_made_by_looking() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store");
        assert_eq!(RealDisk::existing(&path).expect_err("absent").kind(), io::ErrorKind::NotFound);
        RealDisk::open(&path).expect("made");
        RealDisk::existing(&path).expect("there");
    }

    #[test]
    fn the_system_tells_of_free_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("made");
        assert!(disk.free_bytes().expect("told").is_some_and(|bytes| bytes > 0));
        assert_eq!(disk.state_bytes("state.redb").expect("told"), 0);
        let state = disk.state("state.redb", true).expect("made");
        redb::StorageBackend::set_len(&state, 4096).expect("room");
        assert_eq!(disk.state_bytes("state.redb").expect("told"), 4096);
    }
}
