//! The directory of a store, as the journal and the state file see it: a real one, or one that fails when told to.
//!
//! Names are relative to the directory, with `/` between parts: `state.redb`, `journal/000.journal`.

use std::{fmt, io};

#[cfg(any(test, feature = "simulation"))]
mod faulty;
mod real;
mod state_file;

#[cfg(any(test, feature = "simulation"))]
pub use faulty::{Counters, FaultyDisk};
pub use real::RealDisk;

/// Where a store keeps its files.
#[allow(clippy::missing_errors_doc, reason = "each fails with what the system says of the disk")]
pub trait Disk: fmt::Debug + Send + Sync {
    /// How a file is named to the user.
    fn display(&self, name: &str) -> String {
        name.to_owned()
    }

    /// The names of the files in a directory, without it, in order; none where it is absent.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// A whole file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Opens a file for writing, made of zeros where it is absent and filled up with them where it is shorter. Its length
    /// and its name are on stable storage afterwards.
    fn segment(&self, name: &str, bytes: u64) -> io::Result<Box<dyn SegmentFile>>;

    /// Opens a file for redb and locks it against others, this process included; [`io::ErrorKind::WouldBlock`] where
    /// somebody has it. Where it is absent it is made empty or, without `create`, [`io::ErrorKind::NotFound`].
    fn state(&self, name: &str, create: bool) -> io::Result<StateBackend>;

    /// Bytes that can still be written; none where nobody knows.
    fn free_bytes(&self) -> io::Result<Option<u64>>;

    /// The length of the state file; 0 where it is absent.
    fn state_bytes(&self, name: &str) -> io::Result<u64>;

    /// Puts the names of new files on stable storage.
    fn sync_directory(&self) -> io::Result<()>;
}

/// A file of fixed length that the journal writes to.
#[allow(clippy::missing_errors_doc, reason = "each fails with what the system says of the disk")]
pub trait SegmentFile: fmt::Debug + Send {
    /// Writes a record. Where `durable`, it and everything written to this file before is on stable storage on return.
    ///
    /// For direct I/O the place, the length and the address of the record must be multiples of 4 KiB.
    fn write(&mut self, at: u64, record: &[u8], durable: bool) -> io::Result<()>;

    /// Puts everything written so far on stable storage.
    fn sync(&mut self) -> io::Result<()>;
}

/// What redb reads and writes its file through.
#[derive(Debug)]
pub struct StateBackend(Box<dyn redb::StorageBackend>);

impl StateBackend {
    /// Wraps it, since redb takes no boxed one.
    pub fn new(backend: impl redb::StorageBackend) -> Self {
        Self(Box::new(backend))
    }
}

impl redb::StorageBackend for StateBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
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
