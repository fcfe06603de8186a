//! redb's file as it stands, with whatever redb writes kept in memory: looking at a store changes nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PAGE_BYTES: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Overlay {
    file: File,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    bytes: u64,
    /// Of the file, so much is still meant.
    kept: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        Ok(Self { file, changed: Mutex::new(Changed { bytes, kept: bytes, pages: BTreeMap::new() }) })
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file has from an offset on; zeros where it has nothing.
    fn read_file(&self, offset: u64, kept: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(kept.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (there, beyond) = out.split_at_mut(there);
        beyond.fill(0);
        self.file.read_exact_at(there, offset)
    }
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changed().bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changed = self.changed();
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= changed.bytes);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.read_file(offset, changed.kept, out)?;
        for (n, page) in changed.pages.range(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES)) {
            let (from, to) = ((n * PAGE_BYTES).max(offset), ((n + 1) * PAGE_BYTES).min(end));
            out[within(from, offset)..within(to, offset)]
                .copy_from_slice(&page[within(from, n * PAGE_BYTES)..within(to, n * PAGE_BYTES)]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changed = self.changed();
        changed.bytes = len;
        changed.kept = changed.kept.min(len);
        drop(changed.pages.split_off(&len.div_ceil(PAGE_BYTES)));
        if let Some(last) = changed.pages.get_mut(&(len / PAGE_BYTES)) {
            last[within(len, len / PAGE_BYTES * PAGE_BYTES)..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changed = self.changed();
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= changed.bytes);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        for n in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            let (from, to) = ((n * PAGE_BYTES).max(offset), ((n + 1) * PAGE_BYTES).min(end));
            let mut page = match changed.pages.remove(&n) {
                Some(page) => page,
                None => {
                    let mut page = vec![0; within(PAGE_BYTES, 0)];
                    self.read_file(n * PAGE_BYTES, changed.kept, &mut page)?;
                    page.into()
                }
            };
            page[within(from, n * PAGE_BYTES)..within(to, n * PAGE_BYTES)]
                .copy_from_slice(&data[within(from, offset)..within(to, offset)]);
            changed.pages.insert(n, page);
        }
        Ok(())
    }
}

/// A place counted from another, both within one buffer.
fn within(place: u64, from: u64) -> usize {
    usize::try_from(place - from).expect("a buffer fits in memory")
}

#[cfg(test)]
mod tests {
    use redb::StorageBackend as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_the_file_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let before: Vec<u8> = (0..20_000u32).map(|n| n.to_le_bytes()[0]).collect();
        std::fs::write(&path, &before).expect("written");
        let overlay = Overlay::new(File::open(&path).expect("open")).expect("an overlay");
        let mut expected = before.clone();
        let read = |expected: &[u8]| {
            let mut out = vec![9; expected.len()];
            overlay.read(0, &mut out).expect("read");
            assert!(out == expected);
        };
        for (at, bytes) in [(4_000, 200), (8_192, 4_096), (19_000, 1_000), (3, 9_000)] {
            let data = vec![u8::try_from(at % 251).expect("small"); bytes];
            overlay.write(at as u64, &data).expect("written");
            expected[at..at + bytes].copy_from_slice(&data);
            read(&expected);
        }
        overlay.set_len(10_000).expect("cut");
        overlay.set_len(30_000).expect("grown");
        expected[10_000..].fill(0);
        expected.resize(30_000, 0);
        read(&expected);
        assert!(overlay.write(29_999, &[1, 2]).is_err() && overlay.read(29_999, &mut [0; 2]).is_err());
        assert!(std::fs::read(&path).expect("the file") == before);
    }
}
