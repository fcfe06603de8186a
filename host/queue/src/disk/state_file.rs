//! redb's file on a real disk.
//!
//! Locked from when it is opened until it is closed. What is written goes to the disk piece by piece, so that the sync at
//! the end of a checkpoint has little left to do and does not stand before the journal's next write.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::journal::AlignedBuffer;

/// After so many bytes the system is told to begin writing them out.
const WRITE_OUT_BYTES: u64 = 1 << 20;
/// Of a growth, so much is allocated at once. redb grows by up to 4 GiB, which a disk with room for what is really
/// written may not have.
const RESERVE_BYTES: u64 = 64 << 20;

/// Writes of so many bytes and more, chunks of messages, do not go through the system's cache.
const DIRECT_BYTES_MIN: usize = 64 << 10;
/// Bytes written at once then.
const DIRECT_BYTES_MAX: usize = 1 << 20;
/// What suits direct I/O on any disk in use.
const DIRECT_ALIGN: u64 = 4_096;

#[derive(Debug)]
pub(crate) struct StateFile {
    file: File,
    /// The same file without the system's cache, and a buffer for it; none where the file system has no such thing.
    direct: Option<Mutex<(File, AlignedBuffer)>>,
    /// Bytes written since the last time it was told to.
    waiting: AtomicU64,
}

impl StateFile {
    pub(crate) fn open(path: &Path, create: bool) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(create).truncate(false).open(path)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "in use by another process"),
            TryLockError::Error(source) => source,
        })?;
        let direct = File::options().write(true).custom_flags(libc::O_DIRECT).open(path).ok();
        let direct = direct.map(|direct| Mutex::new((direct, AlignedBuffer::default())));
        Ok(Self { file, direct, waiting: AtomicU64::new(0) })
    }

    /// Writes past the system's cache, which would take as much time again as the disk; false where that cannot be.
    fn write_direct(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        let aligned = offset.is_multiple_of(DIRECT_ALIGN) && (data.len() as u64).is_multiple_of(DIRECT_ALIGN);
        let Some(direct) = self.direct.as_ref().filter(|_| aligned && data.len() >= DIRECT_BYTES_MIN) else {
            return Ok(false);
        };
        let mut direct = direct.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *direct;
        let mut at = offset;
        for piece in data.chunks(DIRECT_BYTES_MAX) {
            let out = buffer.of(piece.len());
            out.copy_from_slice(piece);
            match file.write_all_at(out, at) {
                // Some file systems take the flag and refuse the write.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(false),
                written => written?,
            }
            at += piece.len() as u64;
        }
        Ok(true)
    }

    /// Takes room for the start of a growth, so that a full disk shows before the file has changed.
    fn reserve(&self, from: u64, to: u64) -> io::Result<()> {
        match allocate(&self.file, from, (to - from).min(RESERVE_BYTES)) {
            // The file system has no such call, or a signal came in between; writes then tell of a full disk.
            Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::Interrupted) => Ok(()),
            reserved => reserved,
        }
    }
}

impl redb::StorageBackend for StateFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now = self.file.metadata()?.len();
        if len <= now {
            return self.file.set_len(len);
        }
        self.reserve(now, len).and_then(|()| self.file.set_len(len)).inspect_err(|_| {
            // Gives back what was allocated behind the end. A failure leaves some room unused, no more.
            self.file.set_len(now).ok();
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.waiting.store(0, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.write_direct(offset, data)? {
            return Ok(());
        }
        self.file.write_all_at(data, offset)?;
        let waiting = self.waiting.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
        if waiting >= WRITE_OUT_BYTES {
            self.waiting.store(0, Ordering::Relaxed);
            write_out(&self.file);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.unlock()
    }
}

/// Allocates blocks without changing the length.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no fallocate")]
fn allocate(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let (Ok(from), Ok(bytes)) = (libc::off_t::try_from(from), libc::off_t::try_from(bytes)) else {
        return Err(io::ErrorKind::FileTooLarge.into());
    };
    // SAFETY: the call takes no pointers, and the descriptor is open as long as `file` is borrowed.
    let failed = unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) } != 0;
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_: &File, _: u64, _: u64) -> io::Result<()> {
    Ok(())
}

/// Begins to write out all that is dirty, without waiting for it.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the standard library has no sync_file_range")]
fn write_out(file: &File) {
    // SAFETY: the call takes no pointers, and the descriptor is open as long as `file` is borrowed.
    let failed = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) } != 0;
    if failed {
        // Only a hint: a write that is lost is told of by the sync that follows.
        tracing::debug!(error = %io::Error::last_os_error(), "sync_file_range");
    }
}

#[cfg(not(target_os = "linux"))]
fn write_out(_: &File) {}

#[cfg(test)]
mod tests {
    use redb::StorageBackend as _;

    use super::*;

    #[test]
    fn a_file_is_locked_until_it_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.redb");
        assert_eq!(StateFile::open(&path, false).expect_err("absent").kind(), io::ErrorKind::NotFound);
        let file = StateFile::open(&path, true).expect("made");
        assert_eq!(StateFile::open(&path, true).expect_err("locked").kind(), io::ErrorKind::WouldBlock);
        file.close().expect("unlocked");
        StateFile::open(&path, false).expect("free");
    }

    #[test]
    fn growing_and_shrinking_keeps_what_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::open(&directory.path().join("state.redb"), true).expect("made");
        file.set_len(8 << 20).expect("room");
        let piece = vec![7; 1 << 20];
        (0..4).for_each(|n| file.write(n << 20, &piece).expect("written"));
        file.set_len(3 << 20).expect("shrunk");
        file.set_len(4 << 20).expect("grown");
        let mut read = vec![1; 2 << 20];
        file.read(2 << 20, &mut read).expect("read");
        assert!(read[..1 << 20] == piece[..] && read[1 << 20..].iter().all(|byte| *byte == 0));
        assert_eq!(file.len().expect("a length"), 4 << 20);
        assert!(file.read(3 << 20, &mut read).is_err());
    }

    /// More than any file system takes, so that the growth fails as on a full disk.
    #[test]
    fn a_growth_that_fails_leaves_the_length() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::open(&directory.path().join("state.redb"), true).expect("made");
        file.set_len(4096).expect("room");
        assert!(file.set_len(1 << 62).is_err());
        assert_eq!(file.len().expect("a length"), 4096);
    }
}
