//! The journal over a real directory, and over a disk that loses what was not synced.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::*;
use crate::disk::{Disk as _, FaultyDisk, RealDisk};

const ID: [u8; 16] = [7; 16];
const CONFIG: JournalConfig = JournalConfig { segments: 3, segment_bytes: 16 << 10 };

type Replayed = Vec<(u64, Vec<u8>)>;

fn try_open(
    disk: &dyn crate::disk::Disk,
    config: JournalConfig,
    position: u64,
) -> Result<(SegmentJournal, Recovered, Replayed), RecoverError> {
    let mut replayed = Vec::new();
    let (journal, recovered) = SegmentJournal::open(disk, ID, config, position, |sequence, body| {
        replayed.push((sequence, body.to_vec()));
        Ok(())
    })?;
    assert_eq!(recovered.replayed, replayed.len() as u64);
    Ok((journal, recovered, replayed))
}

fn open(disk: &dyn crate::disk::Disk, position: u64) -> (SegmentJournal, Recovered, Replayed) {
    try_open(disk, CONFIG, position).expect("a journal")
}

fn damage(disk: &dyn crate::disk::Disk) -> String {
    try_open(disk, CONFIG, 0).expect_err("damage").to_string()
}

fn real() -> (tempfile::TempDir, RealDisk) {
    let directory = tempfile::tempdir().expect("a directory");
    let disk = RealDisk::open(directory.path()).expect("a disk");
    (directory, disk)
}

fn body(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(100)
}

fn records(sequences: impl IntoIterator<Item = u64>) -> Replayed {
    sequences.into_iter().map(|n| (n, body(n))).collect()
}

#[test]
fn what_was_appended_is_replayed_from_the_position() {
    let (_directory, disk) = real();
    let (mut journal, ..) = open(&disk, 0);
    (1..=9).for_each(|n| journal.append(n, &body(n), n % 2 == 0).expect("room"));
    let (_, recovered, replayed) = open(&disk, 4);
    assert_eq!((recovered.last, recovered.cut, replayed), (9, None, records(5..=9)));
}

#[test]
fn a_full_journal_says_so_and_goes_on_after_a_release() {
    let (_directory, disk) = real();
    let (mut journal, ..) = open(&disk, 0);
    (1..=12).for_each(|n| journal.append(n, &body(n), true).expect("room"));
    assert!(matches!(journal.append(13, &body(13), true), Err(JournalError::Full)));
    journal.release(7);
    (13..=16).for_each(|n| journal.append(n, &body(n), true).expect("the first segment again"));
    assert!(matches!(journal.append(17, &body(17), true), Err(JournalError::Full)));
    let (_, recovered, replayed) = open(&disk, 7);
    assert_eq!((recovered.last, replayed.len()), (16, 9));
    let long = vec![0; 17 << 10];
    assert!(matches!(journal.append(17, &long, true), Err(JournalError::TooLarge { .. })));
    let longest = vec![0; journal.body_bytes_max()];
    journal.release(16);
    journal.append(17, &longest, true).expect("a whole segment");
}

fn alter(directory: &Path, file: &str, at: u64) {
    let path = directory.join("journal").join(file);
    let file = OpenOptions::new().read(true).write(true).open(path).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("in the file");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

#[test]
fn a_torn_last_record_is_cut_and_damage_before_it_is_named() {
    let (directory, disk) = real();
    let (mut journal, ..) = open(&disk, 0);
    (1..=6).for_each(|n| journal.append(n, &body(n), true).expect("room"));
    alter(directory.path(), "001.journal", 4096 + 300);
    let (_, recovered, replayed) = open(&disk, 0);
    assert_eq!((recovered.last, replayed), (6, records(1..=5)));
    let path = disk.display("journal/001.journal");
    assert_eq!(recovered.cut, Some(Cut { path, at: 4096, sequence: 6, records: 1 }));
    alter(directory.path(), "000.journal", 8192 + 20);
    let text = damage(&disk);
    assert!(text.contains("000.journal: damage at byte 8192: record 3 is missing or altered, but 4"), "{text}");
}

#[test]
fn damage_at_the_start_of_the_last_segment_is_named() {
    let (directory, disk) = real();
    let (mut journal, ..) = open(&disk, 0);
    (1..=6).for_each(|n| journal.append(n, &body(n), true).expect("room"));
    alter(directory.path(), "001.journal", 20);
    let text = damage(&disk);
    assert!(text.contains("001.journal: damage at byte 0: record 5 is missing"), "{text}");
}

#[test]
fn damage_at_the_end_of_a_segment_is_named() {
    let (directory, disk) = real();
    let (mut journal, ..) = open(&disk, 0);
    (1..=6).for_each(|n| journal.append(n, &body(n), true).expect("room"));
    alter(directory.path(), "000.journal", 12288 + 20);
    let text = damage(&disk);
    assert!(text.contains("000.journal: damage at byte 12288: record 4 is missing or altered, but 5"), "{text}");
}

/// The second one was begun after the first was on disk: that cannot be a torn write.
#[test]
fn two_durable_records_that_are_not_whole_are_damage() {
    let (directory, disk) = real();
    let (mut journal, ..) = open(&disk, 0);
    (1..=3).for_each(|n| journal.append(n, &body(n), true).expect("room"));
    alter(directory.path(), "000.journal", 4096 + 300);
    alter(directory.path(), "000.journal", 8192 + 300);
    let text = damage(&disk);
    assert!(text.contains("damage at byte 4096: record 2 is missing or altered, but 3"), "{text}");
}

#[test]
fn segments_are_used_again_and_resized_without_losing_a_record() {
    let (_directory, disk) = real();
    let (mut position, mut next) = (0, 1);
    for (segments, kib, count) in [(3, 16, 9), (2, 16, 7), (5, 8, 8), (3, 32, 20), (2, 16, 1), (4, 16, 16)] {
        let config = JournalConfig { segments, segment_bytes: kib << 10 };
        let (mut journal, recovered, replayed) = try_open(&disk, config, position).expect("a journal");
        assert_eq!(recovered.last + 1, next);
        assert_eq!(replayed, records(position + 1..next));
        position = recovered.last;
        for _ in 0..count {
            journal.append(next, &body(next), true).expect("room");
            next += 1;
            // A checkpoint now and then, the last one some records ago.
            if next % 3 == 0 {
                position = next - 3;
                journal.release(position);
            }
        }
    }
}

#[test]
fn records_of_another_store_are_nothing() {
    let (_directory, disk) = real();
    let (mut journal, ..) = open(&disk, 0);
    journal.append(1, &body(1), true).expect("room");
    let (_, recovered) = SegmentJournal::open(&disk, [8; 16], CONFIG, 0, |_, _| Ok(())).expect("a journal");
    assert_eq!(recovered, Recovered { last: 0, replayed: 0, cut: None });
}

#[test]
fn records_of_format_1_are_read_and_each_says_that_those_before_were_durable() {
    let disk = FaultyDisk::new(0);
    let mut segment = disk.segment("journal/000.journal", 16 << 10).expect("made");
    let mut write = |n: u64| segment.write((n - 1) * 4096, &record::format_1(&ID, n, &body(n)), true).expect("written");
    (1..=3).for_each(&mut write);
    let (_, recovered, replayed) = open(&disk, 0);
    assert_eq!((recovered.last, recovered.cut, replayed), (3, None, records(1..=3)));
    disk.flip("journal/000.journal", 8192 + 100, 1);
    let (_, recovered, replayed) = open(&disk, 0);
    assert_eq!((recovered.cut.map(|cut| cut.sequence), replayed), (Some(3), records(1..=2)));
    disk.flip("journal/000.journal", 4096 + 100, 1);
    let text = damage(&disk);
    assert!(text.contains("damage at byte 4096: record 2 is missing or altered, but 3 is there"), "{text}");
}

/// The durable one is in another segment than the first of those before.
#[test]
fn a_durable_record_makes_those_before_it_durable() {
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        let (mut journal, ..) = open(&disk, 0);
        (1..=9).for_each(|n| journal.append(n, &body(n), n == 9).expect("room"));
        let (_, recovered, replayed) = open(&disk.crash(), 0);
        assert_eq!((recovered.last, recovered.cut, replayed), (9, None, records(1..=9)), "seed {seed}");
    }
}

/// Of what nobody had synced a first part is left, and no cut record comes back later.
#[test]
fn a_crash_takes_unsynced_records_from_the_end_only() {
    let (mut lost, mut cut, mut most) = (0, 0, 0);
    for seed in 0..300 {
        let disk = FaultyDisk::new(seed);
        let (mut journal, ..) = open(&disk, 0);
        (1..=3).for_each(|n| journal.append(n, &body(n), false).expect("room"));
        journal.sync().expect("synced");
        (4..=6).for_each(|n| journal.append(n, &body(n), false).expect("room"));
        let disk = disk.crash();
        let (mut journal, recovered, replayed) = open(&disk, 0);
        let kept = replayed.len() as u64;
        assert_eq!(replayed, records(1..=kept), "seed {seed}");
        assert!(kept >= 3 && recovered.last >= kept, "seed {seed}: {recovered:?}");
        lost += u64::from(kept < 6);
        most = most.max(kept);
        cut += recovered.cut.as_ref().map_or(0, |cut| cut.records);
        // After a checkpoint the same sequences are never used again.
        let next = recovered.last + 1;
        journal.append(next, &body(next), true).expect("room");
        let (_, again, replayed) = open(&disk.crash(), recovered.last);
        assert_eq!((again.last, again.cut, replayed), (next, None, records([next])), "seed {seed}");
    }
    assert!(lost > 100 && cut > 100 && most == 6, "{lost} {cut} {most}");
}

/// The process ends, the system goes on: what was handed to it is read again, and is in the checkpoint that follows.
#[test]
fn a_killed_process_leaves_every_record() {
    for seed in 0..100 {
        let disk = FaultyDisk::new(seed);
        let (mut journal, ..) = open(&disk, 0);
        (1..=6).for_each(|n| journal.append(n, &body(n), false).expect("room"));
        let disk = disk.kill();
        assert!(journal.append(7, &body(7), false).is_err());
        let (mut journal, recovered, replayed) = open(&disk, 2);
        assert_eq!((recovered.last, recovered.cut, replayed), (6, None, records(3..=6)));
        (7..=9).for_each(|n| journal.append(n, &body(n), n == 9).expect("room"));
        let (_, recovered, replayed) = open(&disk.crash(), 6);
        assert_eq!((recovered.last, recovered.cut, replayed), (9, None, records(7..=9)), "seed {seed}");
    }
}

/// Where a sync does nothing, a crash is found out.
#[test]
fn a_disk_that_lies_loses_durable_records() {
    let lost = (0..50).filter(|seed| {
        let disk = FaultyDisk::new(*seed);
        disk.set_sync_lies(true);
        let (mut journal, ..) = open(&disk, 0);
        (1..=4).for_each(|n| journal.append(n, &body(n), true).expect("room"));
        try_open(&disk.crash(), CONFIG, 0).map_or(true, |(_, _, replayed)| replayed.len() < 4)
    });
    assert!(lost.count() > 10);
}

#[test]
fn a_power_cut_during_a_durable_record_leaves_the_ones_before() {
    for seed in 0..200 {
        let disk = FaultyDisk::new(seed);
        let (mut journal, ..) = open(&disk, 0);
        disk.lose_power_after(seed % 12);
        let acknowledged = (1..=9).take_while(|n| journal.append(*n, &body(*n), *n % 3 != 0).is_ok()).count() as u64;
        let durable = (0..=acknowledged).rev().find(|n| n % 3 != 0).unwrap_or(0);
        let (_, _, replayed) = open(&disk.crash(), 0);
        let kept = replayed.len() as u64;
        assert_eq!(replayed, records(1..=kept), "seed {seed}");
        assert!(kept >= durable && kept <= acknowledged + 1, "seed {seed}: {durable} {kept} {acknowledged}");
    }
}

#[test]
fn a_failed_sync_and_a_full_disk_are_told_of() {
    let disk = FaultyDisk::new(0);
    disk.set_capacity(Some(40 << 10));
    let error = try_open(&disk, CONFIG, 0).expect_err("no room for the third segment");
    assert!(error.to_string().starts_with("journal journal/002.journal: "), "{error}");
    disk.set_capacity(None);
    let (mut journal, ..) = open(&disk, 0);
    journal.append(1, &body(1), false).expect("room");
    disk.fail_sync_after(0);
    let error = journal.sync().expect_err("failed");
    assert_eq!(error.to_string(), "journal journal/000.journal: injected: the sync failed");
}

#[test]
fn an_inspection_finds_whole_records_behind_damage() {
    let disk = FaultyDisk::new(0);
    let (mut journal, ..) = open(&disk, 0);
    (1..=10).for_each(|n| journal.append(n, &body(n), true).expect("room"));
    disk.flip("journal/000.journal", 4096 + 300, 1);
    disk.flip("journal/000.journal", 8192 + 20, 1);
    disk.flip("journal/001.journal", 12288 + 20, 1);
    disk.flip("journal/002.journal", 4096 + 300, 1);
    let before = disk.files();
    let inspection = inspect(&disk, None, Some(0)).expect("read");
    assert_eq!(inspection.store_id, Some(ID));
    let damage: Vec<_> = inspection.damage.iter().map(ToString::to_string).collect();
    let expected = [
        "journal journal/000.journal: byte 4096: record 2 is missing or altered, but 4 is there",
        "journal journal/000.journal: byte 4096: record 3 is missing or altered, but 4 is there",
        "journal journal/001.journal: byte 12288: record 8 is missing or altered, but 9 is there",
    ];
    assert_eq!(damage, expected);
    assert_eq!(inspection.cut.as_ref().map(|cut| (cut.sequence, cut.at)), Some((10, 4096)));
    let mut reader = Reader::new(&disk);
    let read = inspection.records.iter().map(|record| (record.sequence, reader.body(record).expect("whole").to_vec()));
    assert_eq!(read.collect::<Vec<_>>(), records([1, 4, 5, 6, 7, 9]));
    assert_eq!(disk.files(), before);
    // From a later checkpoint on the old damage is nothing; without one, nobody knows what is missing.
    let inspection = inspect(&disk, Some(ID), Some(8)).expect("read");
    assert_eq!((inspection.damage, inspection.cut.map(|cut| cut.sequence)), (Vec::new(), Some(10)));
    let inspection = inspect(&disk, Some([8; 16]), None).expect("read");
    assert!(inspection.records.is_empty() && inspection.damage.is_empty());
}
