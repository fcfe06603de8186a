//! redb asserts much that does not hold in a damaged file. That is an error of the file, and no end of the thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{Database, Table, TableDefinition, WriteTransaction};

use super::CheckpointError;
use super::watched::Health;

/// A database that may be closed. Closing it writes, so what that asserts is caught too.
#[derive(Debug)]
pub(super) struct Guarded {
    database: RwLock<Option<Database>>,
    health: Arc<Health>,
}

impl Guarded {
    pub(super) fn new(database: Database, health: Arc<Health>) -> Self {
        Self { database: RwLock::new(Some(database)), health }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        close(self.database.get_mut().unwrap_or_else(PoisonError::into_inner), &self.health);
    }
}

/// What it cannot write is in the journal.
pub(super) fn close(database: &mut Option<Database>, health: &Health) {
    let _writer = health.begin_write();
    close_one(database.take());
}

/// Drops what may panic then.
pub(super) fn close_one<T>(of_redb: T) {
    guarded(|| {
        drop(of_redb);
        Ok(())
    })
    .ok();
}

/// Works on a table, and closes it. That may panic as well, which would end the process while another panic unwinds: so
/// each is caught by itself.
pub(super) fn with_table<K: redb::Key + 'static, T>(
    transaction: &WriteTransaction,
    definition: TableDefinition<'_, K, &'static [u8]>,
    work: impl FnOnce(&mut Table<'_, K, &'static [u8]>) -> Result<T, CheckpointError>,
) -> Result<T, CheckpointError> {
    let mut table = transaction.open_table(definition).map_err(redb::Error::from)?;
    let done = guarded(|| work(&mut table));
    close_one(table);
    done
}

pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, CheckpointError>) -> Result<T, CheckpointError> {
    let done = catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|panic| Err(CheckpointError::Damaged(panic_text(panic.as_ref()))))
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("an assertion failed").to_owned()
}
