//! A disk in memory that fails when told to, the same way for the same seed.
//!
//! What is written is first only in the files' current bytes, as in a cache, and waits in order. A sync makes it stable.
//! A crash decides for each write that waits whether it is kept, dropped or torn, so that later ones may survive where
//! earlier ones do not. A failed sync decides so at once, since a system that failed to write a page forgets it.
//!
//! Lengths are kept in order, and no longer than a write that is kept behind them asks for. The name of a new file is
//! stable after [`Disk::sync_directory`]; a segment's is from the start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, SegmentFile, StateBackend};

mod file;
#[cfg(test)]
mod tests;

use file::Content;

/// A simulated disk. Cloning shares it; all clones and everything opened through them are dead after a crash.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    shared: Arc<Mutex<Shared>>,
    incarnation: u64,
}

/// What was asked of a disk so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Writes, durable ones included.
    pub writes: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Syncs of files, durable writes included.
    pub syncs: u64,
}

#[derive(Debug)]
struct Shared {
    incarnation: u64,
    random: Random,
    files: BTreeMap<String, Content>,
    /// State files that somebody has open.
    locked: BTreeSet<String>,
    capacity: Option<u64>,
    sync_lies: bool,
    /// The next but so many fails.
    fail_read: Option<u64>,
    fail_write: Option<u64>,
    fail_sync: Option<u64>,
    /// The power goes with the next operation but so many.
    lose_power: Option<u64>,
    /// It has.
    no_power: bool,
    counters: Counters,
}

impl FaultyDisk {
    /// An empty disk of any size.
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            incarnation: 0,
            random: Random(seed),
            files: BTreeMap::new(),
            locked: BTreeSet::new(),
            capacity: None,
            sync_lies: false,
            fail_read: None,
            fail_write: None,
            fail_sync: None,
            lose_power: None,
            no_power: false,
            counters: Counters::default(),
        };
        Self { shared: Arc::new(Mutex::new(shared)), incarnation: 0 }
    }

    /// Cuts the power and gives the disk as it is after it is back. Everything opened before refuses from now on.
    /// Faults that were armed are gone; capacity and lying syncs stay.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut shared = self.shared();
        let Shared { files, random, .. } = &mut *shared;
        files.retain(|_, content| content.crash(random));
        shared.locked.clear();
        (shared.fail_read, shared.fail_write, shared.fail_sync) = (None, None, None);
        (shared.lose_power, shared.no_power) = (None, false);
        shared.incarnation += 1;
        Self { shared: Arc::clone(&self.shared), incarnation: shared.incarnation }
    }

    /// Ends the process, not the power: everything opened before refuses from now on, what was written stays, and what
    /// waits goes on waiting for a sync.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut shared = self.shared();
        shared.locked.clear();
        shared.incarnation += 1;
        Self { shared: Arc::clone(&self.shared), incarnation: shared.incarnation }
    }

    /// Lets so many writes, syncs and changes of a length pass; the one after is under way when the power goes, and all
    /// from then on fail until [`FaultyDisk::crash`].
    pub fn lose_power_after(&self, operations: u64) {
        self.shared().lose_power = Some(operations);
    }

    /// Lets so many reads pass and fails the one after.
    pub fn fail_read_after(&self, reads: u64) {
        self.shared().fail_read = Some(reads);
    }

    /// Lets so many writes pass and fails the one after; part of it may be written.
    pub fn fail_write_after(&self, writes: u64) {
        self.shared().fail_write = Some(writes);
    }

    /// Lets so many syncs pass, durable writes among them, and fails the one after. What it should have made stable may
    /// be lost for good.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.shared().fail_sync = Some(syncs);
    }

    /// Holds so many bytes in all files together; none: any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared().capacity = bytes;
    }

    /// Syncs and durable writes do not make anything stable: what uses the disk must then lose data in some crash, or its
    /// test cannot fail.
    pub fn set_sync_lies(&self, lies: bool) {
        self.shared().sync_lies = lies;
    }

    /// What was asked of it so far.
    pub fn counters(&self) -> Counters {
        self.shared().counters
    }

    /// The stable bytes of every file.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let shared = self.shared();
        shared.files.iter().map(|(name, content)| (name.clone(), content.stable().to_vec())).collect()
    }

    /// Alters a byte, on the disk and in the cache. For a disk at rest: a write that waits would undo it.
    ///
    /// # Panics
    ///
    /// Where there is no such byte.
    pub fn flip(&self, name: &str, at: u64, mask: u8) {
        self.shared().files.get_mut(name).expect("a file of this name").flip(place(at), mask);
    }

    /// Cuts a file off, on the disk and in the cache.
    ///
    /// # Panics
    ///
    /// Where there is no such file.
    pub fn truncate(&self, name: &str, len: u64) {
        self.shared().files.get_mut(name).expect("a file of this name").truncate(place(len));
    }

    /// Also after a panic: tests are told of the panic itself.
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For what is opened through this handle, as long as it is alive.
    fn alive(&self) -> io::Result<MutexGuard<'_, Shared>> {
        let shared = self.shared();
        let alive = shared.incarnation == self.incarnation && !shared.no_power;
        if alive { Ok(shared) } else { Err(no_power()) }
    }
}

impl Disk for FaultyDisk {
    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let inside = |name: &String| Some(name.strip_prefix(directory)?.strip_prefix('/')?.to_owned());
        Ok(self.alive()?.files.keys().filter_map(inside).collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.alive()?.read(name)?.to_vec())
    }

    fn segment(&self, name: &str, bytes: u64) -> io::Result<Box<dyn SegmentFile>> {
        let mut shared = self.alive()?;
        let there = shared.files.get(name).map_or(0, Content::len);
        if there < bytes {
            shared.take_room(bytes - there)?;
            shared.operation()?;
            shared.count_sync()?;
            shared.files.entry(name.to_owned()).or_default().extend_stable(place(bytes));
        }
        Ok(Box::new(FaultyFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn state(&self, name: &str, create: bool) -> io::Result<StateBackend> {
        let mut shared = self.alive()?;
        if !create {
            shared.file(name)?;
        }
        if !shared.locked.insert(name.to_owned()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "in use by another process"));
        }
        shared.files.entry(name.to_owned()).or_default();
        Ok(StateBackend::new(FaultyFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        let shared = self.alive()?;
        Ok(shared.capacity.map(|capacity| capacity.saturating_sub(shared.used())))
    }

    fn state_bytes(&self, name: &str) -> io::Result<u64> {
        Ok(self.alive()?.files.get(name).map_or(0, Content::len))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut shared = self.alive()?;
        shared.operation()?;
        if !shared.sync_lies {
            shared.files.values_mut().for_each(Content::sync_name);
        }
        Ok(())
    }
}

impl Shared {
    fn file(&mut self, name: &str) -> io::Result<&mut Content> {
        self.files.get_mut(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(&mut self, name: &str) -> io::Result<&[u8]> {
        if strikes(&mut self.fail_read) {
            return Err(io::Error::other("injected: the read failed"));
        }
        Ok(self.file(name)?.current())
    }

    fn used(&self) -> u64 {
        self.files.values().map(Content::len).sum()
    }

    fn take_room(&self, bytes: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.used() + bytes > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// Before an operation that leaves no trace when the power goes during it.
    fn operation(&mut self) -> io::Result<()> {
        if self.operation_ends_power() { Err(no_power()) } else { Ok(()) }
    }

    /// Whether the power goes during this operation.
    fn operation_ends_power(&mut self) -> bool {
        self.no_power |= strikes(&mut self.lose_power);
        self.no_power
    }

    fn count_sync(&mut self) -> io::Result<()> {
        self.counters.syncs += 1;
        if strikes(&mut self.fail_sync) { Err(io::Error::other("injected: the sync failed")) } else { Ok(()) }
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.counters.writes += 1;
        self.counters.bytes += bytes.len() as u64;
        let grows = (at + bytes.len() as u64).saturating_sub(self.file(name)?.len());
        self.take_room(grows)?;
        if strikes(&mut self.fail_write) {
            let written = self.random.below(bytes.len() as u64 + 1);
            self.file(name)?.write(place(at), &bytes[..place(written)]);
            return Err(io::Error::other("injected: the write failed"));
        }
        let ends_power = self.operation_ends_power();
        self.file(name)?.write(place(at), bytes);
        if ends_power { Err(no_power()) } else { Ok(()) }
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.operation()?;
        let synced = self.count_sync();
        let Self { files, random, sync_lies, .. } = self;
        let file = files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        match synced {
            Err(_) => file.lose(random),
            Ok(()) if *sync_lies => {}
            Ok(()) => file.sync(),
        }
        synced
    }
}

/// A file that somebody has opened.
#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    name: String,
}

impl SegmentFile for FaultyFile {
    fn write(&mut self, at: u64, record: &[u8], durable: bool) -> io::Result<()> {
        let mut shared = self.disk.alive()?;
        shared.write(&self.name, at, record)?;
        if durable { shared.sync(&self.name) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.alive()?.sync(&self.name)
    }
}

impl redb::StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.file(&self.name)?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut shared = self.disk.alive()?;
        let bytes = shared.read(&self.name)?;
        let read = bytes.get(place(offset)..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(read.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut shared = self.disk.alive()?;
        let grows = len.saturating_sub(shared.file(&self.name)?.len());
        shared.take_room(grows)?;
        let ends_power = shared.operation_ends_power();
        shared.file(&self.name)?.set_len(place(len));
        if ends_power { Err(no_power()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.alive()?.sync(&self.name)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.alive()?.write(&self.name, offset, data)
    }

    fn close(&self) -> io::Result<()> {
        let mut shared = self.disk.shared();
        // A file of an earlier incarnation must not unlock that of a later one.
        if shared.incarnation == self.disk.incarnation {
            shared.locked.remove(&self.name);
        }
        Ok(())
    }
}

/// Splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Whether a fault that is armed strikes now; it does so once.
fn strikes(armed: &mut Option<u64>) -> bool {
    match armed {
        None => false,
        Some(0) => {
            *armed = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("injected: the power is off")
}

fn place(at: u64) -> usize {
    usize::try_from(at).expect("a file that fits memory")
}
