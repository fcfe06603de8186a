//! The simulated disk loses what it may and keeps what it must, and redb on it keeps what it has committed.

use redb::{Database, ReadableDatabase as _, StorageBackend as _, TableDefinition};

use super::*;

const NAME: &str = "journal/000.journal";
const NUMBERS: TableDefinition<u64, u64> = TableDefinition::new("numbers");
const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("rows");

fn segment(disk: &FaultyDisk) -> Box<dyn SegmentFile> {
    disk.segment(NAME, 64 << 10).expect("room")
}

#[test]
fn a_crash_keeps_drops_and_tears_what_was_not_synced() {
    let (mut kept, mut dropped, mut torn, mut reordered) = (0, 0, 0, 0);
    for seed in 0..100 {
        let disk = FaultyDisk::new(seed);
        let mut file = segment(&disk);
        file.write(0, &[1; 4096], false).expect("written");
        file.write(4096, &[2; 4096], false).expect("written");
        assert_eq!(disk.read(NAME).expect("there")[..8192], [[1; 4096], [2; 4096]].concat());
        let disk = disk.crash();
        let bytes = disk.read(NAME).expect("there");
        assert_eq!(bytes.len(), 64 << 10);
        let whole_sectors = bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0]));
        assert!(whole_sectors, "seed {seed}");
        let survived = |value| bytes.iter().filter(|byte| **byte == value).count();
        match survived(1) {
            4096 => kept += 1,
            0 => dropped += 1,
            _ => torn += 1,
        }
        reordered += u32::from(survived(1) < 4096 && survived(2) == 4096);
    }
    assert!(kept > 20 && dropped > 20 && torn > 10 && reordered > 10, "{kept} {dropped} {torn} {reordered}");
}

#[test]
fn what_was_synced_survives_and_old_handles_are_dead() {
    for seed in 0..100 {
        let disk = FaultyDisk::new(seed);
        let mut file = segment(&disk);
        file.write(0, &[1; 4096], false).expect("written");
        file.write(4096, &[2; 4096], true).expect("written");
        file.write(0, &[3; 512], false).expect("written");
        file.sync().expect("synced");
        file.write(8192, &[4; 4096], false).expect("written");
        let after = disk.crash();
        let bytes = after.read(NAME).expect("there");
        let synced = [&[3; 512][..], &[1; 4096 - 512], &[2; 4096]].concat();
        assert_eq!(bytes[..8192], synced, "seed {seed}");
        assert!(file.write(0, &[5; 512], true).is_err() && file.sync().is_err());
        assert!(disk.read(NAME).is_err() && disk.state("state.redb", true).is_err());
        assert_eq!(after.read(NAME).expect("there"), bytes);
    }
}

#[test]
fn a_killed_process_loses_nothing() {
    let disk = FaultyDisk::new(1);
    let mut file = segment(&disk);
    file.write(0, &[1; 4096], false).expect("written");
    let disk = disk.kill();
    assert!(file.write(0, &[2; 4096], false).is_err());
    assert_eq!(disk.read(NAME).expect("there")[..4096], [1; 4096]);
    assert_eq!(disk.files()[NAME][..4096], [0; 4096]);
}

#[test]
fn a_failed_sync_forgets_what_it_should_have_written() {
    let lost = (0..50).filter(|seed| {
        let disk = FaultyDisk::new(*seed);
        let mut file = segment(&disk);
        file.write(0, &[1; 4096], false).expect("written");
        disk.fail_sync_after(0);
        file.sync().expect_err("failed");
        file.sync().expect("the next one has nothing to write");
        disk.crash().read(NAME).expect("there")[..4096] != [1; 4096]
    });
    assert!(lost.count() > 10);
}

#[test]
fn faults_strike_once_where_they_were_armed() {
    let disk = FaultyDisk::new(0);
    let mut file = segment(&disk);
    disk.fail_write_after(1);
    let written: Vec<_> = (0..3).map(|n| file.write(n * 512, &[1; 512], true).is_ok()).collect();
    assert_eq!(written, [true, false, true]);
    assert_eq!(disk.counters(), Counters { writes: 3, bytes: 1536, syncs: 3 });
    disk.fail_read_after(1);
    let read: Vec<_> = (0..3).map(|_| disk.read(NAME).is_ok()).collect();
    assert_eq!(read, [true, false, true]);
    disk.lose_power_after(3);
    let written: Vec<_> = (0..4).map(|n| file.write(n * 512, &[2; 512], true).is_ok()).collect();
    assert_eq!(written, [true, false, false, false]);
    let disk = disk.crash();
    assert_eq!(disk.read(NAME).expect("there")[..512], [2; 512]);
    disk.flip(NAME, 3, 0xff);
    disk.truncate(NAME, 8);
    assert_eq!(disk.read(NAME).expect("there"), [2, 2, 2, 0xfd, 2, 2, 2, 2]);
}

#[test]
fn a_full_disk_takes_no_more_and_a_state_file_is_locked() {
    let disk = FaultyDisk::new(0);
    disk.set_capacity(Some(96 << 10));
    segment(&disk);
    assert_eq!(disk.free_bytes().expect("told"), Some(32 << 10));
    let full = disk.segment("journal/001.journal", 64 << 10).expect_err("full");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.state("state.redb", false).expect_err("absent").kind(), io::ErrorKind::NotFound);
    let state = disk.state("state.redb", true).expect("made");
    assert_eq!(disk.state("state.redb", true).expect_err("locked").kind(), io::ErrorKind::WouldBlock);
    state.set_len(32 << 10).expect("just room");
    assert_eq!(state.set_len(33 << 10).expect_err("full").kind(), io::ErrorKind::StorageFull);
    state.write(32 << 10, &[1]).expect_err("full");
    assert_eq!(disk.state_bytes("state.redb").expect("told"), 32 << 10);
    state.set_len(16 << 10).expect("shorter");
    assert_eq!(disk.free_bytes().expect("told"), Some(16 << 10));
    state.close().expect("unlocked");
    disk.state("state.redb", false).expect("free again");
    assert_eq!(disk.list("journal").expect("there"), ["000.journal"]);
}

#[test]
fn a_new_name_is_sure_only_after_the_directory_is_synced() {
    let there = |sync: bool| {
        let survives = move |seed: &u64| {
            let disk = FaultyDisk::new(*seed);
            disk.state("state.redb", true).expect("made");
            if sync {
                disk.sync_directory().expect("synced");
            }
            disk.crash().read("state.redb").is_ok()
        };
        (0..50).filter(survives).count()
    };
    assert!((10..40).contains(&there(false)));
    assert_eq!(there(true), 50);
}

fn database(disk: &FaultyDisk) -> Result<Database, redb::DatabaseError> {
    Database::builder().create_with_backend(disk.state("state.redb", true).expect("unlocked"))
}

/// Adds a number and a row, and removes most rows now and then, so that the file grows and shrinks.
fn commit(database: &Database, n: u64, row_bytes: usize) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(NUMBERS)?.insert(n, n)?;
    let mut rows = transaction.open_table(ROWS)?;
    if n % 7 == 6 {
        rows.retain(|_, _| false)?;
    }
    rows.insert(n, vec![u8::try_from(n % 251).expect("small"); row_bytes].as_slice())?;
    drop(rows);
    Ok(transaction.commit()?)
}

/// How many of the numbers from 0 on are there; every row must be as it was written.
fn count(disk: &FaultyDisk) -> Result<u64, redb::Error> {
    let database = database(disk)?;
    let transaction = database.begin_read()?;
    let numbers = transaction.open_table(NUMBERS)?;
    let mut count = 0;
    while numbers.get(count)?.is_some_and(|number| number.value() == count) {
        count += 1;
    }
    let first = if count >= 7 { count - 1 - count % 7 } else { 0 };
    let rows = transaction.open_table(ROWS)?;
    for n in first..count {
        let row = rows.get(n)?.unwrap_or_else(|| panic!("row {n} of {count}"));
        assert!(row.value().iter().all(|byte| u64::from(*byte) == n % 251), "row {n} of {count}");
    }
    Ok(count)
}

/// Commits until the power goes during one of the disk's operations; what was acknowledged then, and what is there.
fn survivors(seed: u64, lies: bool) -> (u64, Result<u64, redb::Error>) {
    let disk = FaultyDisk::new(seed);
    let mut random = Random(!seed);
    let first = database(&disk).expect("a database");
    commit(&first, 0, 8).expect("committed");
    disk.sync_directory().expect("synced");
    disk.set_sync_lies(lies);
    disk.lose_power_after(random.below(400));
    let mut acknowledged = 1;
    while commit(&first, acknowledged, 1 << random.below(20)).is_ok() {
        acknowledged += 1;
    }
    let disk = disk.crash();
    drop(first);
    // Once more, while it is opened or closed again.
    disk.lose_power_after(random.below(30));
    drop(database(&disk));
    (acknowledged, count(&disk.crash()))
}

#[test]
fn redb_keeps_what_it_committed_through_crashes() {
    for seed in 0..100 {
        let (acknowledged, found) = survivors(seed, false);
        let found = found.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert!(found == acknowledged || found == acknowledged + 1, "seed {seed}: {found} of {acknowledged}");
    }
}

#[test]
fn redb_on_a_disk_that_lies_loses_something() {
    let lost = (0..30).filter(|seed| {
        // redb panics over some pages that are not what it wrote, and so does a row that is not.
        let survivors = std::panic::catch_unwind(|| survivors(*seed, true));
        survivors.map_or(true, |(acknowledged, found)| found.map_or(true, |found| found < acknowledged))
    });
    let lost = lost.count();
    assert!(lost > 10, "{lost}");
}
