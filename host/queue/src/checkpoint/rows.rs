//! The tables of the state file. Every row is sealed, because redb checks nothing on reads.

use redb::{Key, ReadTransaction, ReadableTable as _, TableDefinition};
use serde::Deserialize;

use super::CheckpointError;
use crate::chunk::open;

pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const QUEUES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("queues");
/// By queue and last offset, so that all below a floor is one range.
pub(crate) const CHUNKS: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("chunks");
/// What each chunk is, so that a start need not read them.
pub(crate) const INDEX: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("index");
/// By journal position.
pub(crate) const DEDUP: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("dedup");
pub(crate) const PUBLISHERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("publishers");

/// By key.
pub(crate) const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Calls for each row of a table.
pub(crate) fn each<K: Key + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    mut take: impl FnMut(K::SelfType<'_>, &[u8]) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let table = transaction.open_table(table).map_err(redb::Error::from)?;
    for row in table.iter().map_err(redb::Error::from)? {
        let (key, value) = row.map_err(redb::Error::from)?;
        take(key.value(), value.value())?;
    }
    Ok(())
}

pub(crate) fn read<T: for<'de> Deserialize<'de>>(
    table: &'static str,
    row: impl ToString,
    value: &[u8],
) -> Result<T, CheckpointError> {
    open(value).map_err(|source| CheckpointError::row(table, row, source))
}
