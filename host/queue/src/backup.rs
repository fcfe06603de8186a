//! A copy of a store while it is in use.

use std::path::Path;

use redb::{Database, ReadableTable as _, TableDefinition, WriteTransaction};

use crate::checkpoint::{
    CHUNKS, CheckpointError, Checkpoints, DEDUP, INDEX, META, PUBLISHERS, QUEUES, RECORDS, STATE_FILE,
};
use crate::store::BackupError;

/// Copies the last checkpoint into a new directory. One read transaction is open as long as that takes, so that the state
/// file may grow meanwhile.
pub(crate) fn copy(checkpoints: &Checkpoints, to: &Path) -> Result<(), BackupError> {
    let failed = |e: String| BackupError::Copy(format!("{}: {e}", to.display()));
    std::fs::create_dir(to).map_err(|e| failed(e.to_string()))?;
    let copied = copy_into(checkpoints, &to.join(STATE_FILE));
    copied.and_then(|()| sync(to)).map_err(|e| {
        // What was copied so far is of no use, and the error is the one to tell.
        std::fs::remove_dir_all(to).ok();
        failed(e.to_string())
    })
}

fn copy_into(checkpoints: &Checkpoints, file: &Path) -> Result<(), CheckpointError> {
    let source = checkpoints.begin_read()?;
    let database = Database::create(file).map_err(redb::Error::from)?;
    let mut transaction = database.begin_write().map_err(redb::Error::from)?;
    transaction.set_quick_repair(true);
    table(&source, &transaction, META)?;
    table(&source, &transaction, QUEUES)?;
    table(&source, &transaction, CHUNKS)?;
    table(&source, &transaction, INDEX)?;
    table(&source, &transaction, DEDUP)?;
    table(&source, &transaction, PUBLISHERS)?;
    table(&source, &transaction, RECORDS)?;
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

fn table<K: redb::Key + 'static>(
    source: &redb::ReadTransaction,
    transaction: &WriteTransaction,
    definition: TableDefinition<'static, K, &'static [u8]>,
) -> Result<(), CheckpointError> {
    let from = source.open_table(definition).map_err(redb::Error::from)?;
    let mut to = transaction.open_table(definition).map_err(redb::Error::from)?;
    for row in from.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        to.insert(key.value(), value.value()).map_err(redb::Error::from)?;
    }
    Ok(())
}

fn sync(directory: &Path) -> Result<(), CheckpointError> {
    let synced = std::fs::File::open(directory).and_then(|handle| handle.sync_all());
    synced.map_err(|e| CheckpointError::Redb(redb::Error::Io(e)))
}
