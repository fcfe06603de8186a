//! Every altered page of a file that redb wrote is found, no whole one is, and redb never works with one.

use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, StorageBackend};

use super::*;
use crate::checkpoint::{CHUNKS, CheckpointError, Checkpoints, META, STATE_FILE};
use crate::disk::{Disk as _, RealDisk, StateBackend};

/// A file, and what is known of its pages.
#[derive(Debug)]
struct Looked(StateBackend, Arc<Pages>);

impl StorageBackend for Looked {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)?;
        assert_eq!(self.1.look(offset, out), Verdict::Whole);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

fn checkpoints(path: &Path) -> Result<Checkpoints, CheckpointError> {
    Checkpoints::open(Arc::new(RealDisk::open(path).expect("a directory")))
}

fn insert(checkpoints: &Checkpoints, rows: impl Iterator<Item = u64>) -> Result<(), CheckpointError> {
    checkpoints.transaction(|transaction| {
        let mut chunks = transaction.open_table(CHUNKS).map_err(redb::Error::from)?;
        for n in rows {
            chunks.insert((1, n * 7 % 600), &*vec![7; 700]).map_err(redb::Error::from)?;
        }
        let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
        meta.insert("meta", [1; 40].as_slice()).map_err(redb::Error::from)?;
        Ok(())
    })
}

/// A state file of many pages.
fn written() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let checkpoints = checkpoints(directory.path()).expect("made");
    (0..3).for_each(|part| insert(&checkpoints, part * 200..(part + 1) * 200).expect("written"));
    directory
}

fn read_all(database: &Database) -> Result<usize, redb::Error> {
    let transaction = database.begin_read()?;
    let mut count = 0;
    for row in transaction.open_table(CHUNKS)?.iter()? {
        row?;
        count += 1;
    }
    transaction.open_table(META)?.get("meta")?;
    Ok(count)
}

#[test]
fn every_altered_page_is_found() {
    let directory = written();
    let disk = RealDisk::open(directory.path()).expect("a directory");
    let pages = Arc::new(Pages::default());
    let looked = Looked(disk.state(STATE_FILE, false).expect("free"), pages.clone());
    let database = Database::builder().create_with_backend(looked).expect("opened");
    assert_eq!(read_all(&database).expect("read"), 600);
    let known: Vec<(u64, Page)> = pages.known().pages.iter().map(|(offset, page)| (*offset, page.clone())).collect();
    let file = std::fs::read(directory.path().join(STATE_FILE)).expect("the file");
    let (mut leaves, mut branches) = (0, 0);
    for (offset, page) in known {
        let Page::Named(links) = page else { panic!("nothing was written") };
        let at = usize::try_from(offset).expect("small");
        let was = &file[at..at + links[0].bytes];
        if pages.look(offset, was) == Verdict::Broken {
            // Of the commit before; redb has no use for it.
            continue;
        }
        let tree = links.iter().find(|link| checksum(was, link.tree) == Some(link.checksum)).expect("whole").tree;
        let altered = |at: usize| {
            let mut altered = was.to_vec();
            altered[at] ^= 4;
            pages.look(offset, &altered)
        };
        assert_eq!(altered(0), Verdict::Broken);
        // Fewer rows than there were may be well within the page.
        assert!(altered(2) == Verdict::Broken || altered(2) == Verdict::Rows && tree.of_user);
        let rows = tree.of_user && !tree.of_tables && was[0] == LEAF;
        let last = if was[0] == LEAF { value_end(was, tree, count(was) - 1).expect("its end") - 1 } else { 8 };
        assert_eq!(altered(last), if rows { Verdict::Rows } else { Verdict::Broken });
        assert_eq!(pages.look(offset, &vec![0; was.len()]), Verdict::Broken);
        *(if was[0] == LEAF { &mut leaves } else { &mut branches }) += 1;
    }
    assert!(leaves > 100 && branches >= 2, "{leaves} {branches}");
}

#[test]
fn redb_works_with_no_altered_page() {
    let directory = written();
    let path = directory.path().join(STATE_FILE);
    let file = std::fs::read(&path).expect("the file");
    let (mut refused, mut unwritten, mut whole) = (0, 0, 0);
    for page in (1..file.len() / 4096).filter(|n| file[n * 4096] != 0) {
        let mut altered = file.clone();
        altered[page * 4096..][..64].fill(0xA5);
        std::fs::write(&path, &altered).expect("written");
        let named = |e: CheckpointError| {
            assert!(e.to_string().contains("is not what was written; look at it with"), "page {page}: {e}");
        };
        match checkpoints(directory.path()) {
            Err(e) => {
                named(e);
                refused += 1;
            }
            Ok(opened) => match insert(&opened, 0..600) {
                Err(e) => {
                    named(e);
                    unwritten += 1;
                }
                // Of an earlier commit.
                Ok(()) => whole += 1,
            },
        }
    }
    // With its debug assertions redb walks all trees as it opens.
    assert!(refused >= 2 && refused + unwritten > 100 && whole > 0, "{refused} {unwritten} {whole}");
}

#[test]
fn a_commit_that_was_cut_off_is_put_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(STATE_FILE);
    let disk = RealDisk::open(directory.path()).expect("a directory");
    let database = Database::builder().create_with_backend(disk.state(STATE_FILE, true).expect("made")).expect("made");
    let commit = |rows: std::ops::Range<u64>| {
        let transaction = database.begin_write().expect("begun");
        let mut chunks = transaction.open_table(CHUNKS).expect("a table");
        rows.for_each(|n| drop(chunks.insert((1, n), [7; 700].as_slice()).expect("a row")));
        drop(chunks);
        transaction.commit().expect("committed");
        std::fs::read(&path).expect("the file")
    };
    let (before, mut after) = (commit(0..100), commit(100..300));
    drop(database);
    let is_new = |n: &usize| before.get(n * 4096..(n + 1) * 4096).is_none_or(|was| *was != after[n * 4096..][..4096]);
    let new: Vec<usize> = (1..after.len() / 4096).filter(is_new).filter(|n| after[n * 4096] == LEAF).collect();
    new.iter().step_by(2).for_each(|n| after[n * 4096..][..4096].fill(0));
    assert!(new.len() > 10);
    std::fs::write(&path, &after).expect("written");
    let opened = checkpoints(directory.path()).expect("opened");
    let database = opened.database.read();
    assert_eq!(read_all(database.as_ref().expect("open")).expect("read"), 100);
}
