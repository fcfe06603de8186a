//! The state file below redb: what redb reads is what was written.
//!
//! redb takes a page for what it claims to be. Of one that is altered it may take pages for free that are not, or panic
//! in the midst of a change, and once more while it puts that aside, which ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

use super::pages::{Pages, Verdict};
use crate::disk::StateBackend;

/// A file that remembers whether a sync of it failed, and keeps damaged pages from redb.
#[derive(Debug)]
pub(super) struct Watched {
    file: StateBackend,
    pages: Pages,
    health: Arc<Health>,
}

/// What is known of the file, over all times that it is opened.
#[derive(Debug, Default)]
pub(super) struct Health {
    unsynced: AtomicBool,
    writers: AtomicUsize,
    damage: Mutex<Option<String>>,
}

/// While there is one, reading a damaged page fails.
#[derive(Debug)]
pub(super) struct Writer<'a>(&'a Health);

impl Health {
    /// Whether a sync of the file failed.
    pub(super) fn is_unsynced(&self) -> bool {
        self.unsynced.load(Ordering::Acquire)
    }

    /// The first damaged page that was read since the file was opened.
    pub(super) fn damage(&self) -> Option<String> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn clear_damage(&self) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn note_damage(&self, text: &str) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| text.to_owned());
    }

    pub(super) fn begin_write(&self) -> Writer<'_> {
        self.writers.fetch_add(1, Ordering::AcqRel);
        Writer(self)
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watched {
    pub(super) fn new(file: StateBackend, health: Arc<Health>) -> Self {
        Self { file, pages: Pages::default(), health }
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)?;
        if self.pages.look(offset, out) != Verdict::Broken {
            return Ok(());
        }
        let text = format!("the page at byte {offset} is not what was written");
        self.health.note_damage(&text);
        if self.health.writers.load(Ordering::Acquire) > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        // After an error redb reads nothing else either. Zeros are no page to it, so that it gives up on this one alone;
        // while it looks for the last whole commit, as well.
        out.fill(0);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pages.cut(len);
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().inspect_err(|_| self.health.unsynced.store(true, Ordering::Release))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data).inspect_err(|_| self.pages.forget(offset))?;
        self.pages.note(offset, data);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
