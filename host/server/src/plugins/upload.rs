//! Files on their way into the store, piece by piece: an admin call takes a mebibyte at most.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use quipu_runtime::FILE_BYTES_MAX;

use super::lock;

/// At a time.
const UPLOADS_MAX: usize = 4;
/// One that nothing came for is given up.
const IDLE_MAX: Duration = Duration::from_mins(10);
/// Largest piece, in bytes.
pub(crate) const PIECE_BYTES_MAX: usize = 512 << 10;

/// What is being uploaded, by a name that its client was given.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, Upload>>);

#[derive(Debug)]
struct Upload {
    /// Without a name: gone when it is dropped, and after a crash.
    file: File,
    size: u64,
    received: u64,
    touched: Instant,
}

impl Uploads {
    /// Begins with a file of so many bytes. What has come of it waits in this directory.
    pub(crate) fn begin(&self, size: u64, dir: &Path) -> Result<String> {
        ensure!((1..=FILE_BYTES_MAX as u64).contains(&size), "{size} bytes; a plugin has 1 to {FILE_BYTES_MAX}");
        let file = tempfile::tempfile_in(dir).context("cannot make a file for the upload")?;
        let mut uploads = lock(&self.0);
        uploads.retain(|_, upload| upload.touched.elapsed() < IDLE_MAX);
        ensure!(uploads.len() < UPLOADS_MAX, "{UPLOADS_MAX} plugins are being uploaded; try again later");
        let name = uuid::Uuid::now_v7().to_string();
        uploads.insert(name.clone(), Upload { file, size, received: 0, touched: Instant::now() });
        Ok(name)
    }

    /// Adds a piece, in order; one that came already, whole, is taken for what it is.
    pub(crate) fn add(&self, name: &str, offset: u64, piece: &[u8]) -> Result<u64> {
        let mut uploads = lock(&self.0);
        let upload = uploads.get_mut(name).context("no such upload: it was given up, or the router restarted")?;
        let end = offset + piece.len() as u64;
        ensure!(piece.len() <= PIECE_BYTES_MAX && end <= upload.size, "the piece is too large");
        ensure!(offset == upload.received || end <= upload.received, "the upload goes on at {}", upload.received);
        if offset == upload.received {
            // Small, and into the page cache.
            upload.file.write_all(piece).context("cannot write the upload")?;
            upload.received = end;
        }
        upload.touched = Instant::now();
        Ok(upload.received)
    }

    /// The whole file; the upload is over.
    pub(crate) fn finish(&self, name: &str) -> Result<Vec<u8>> {
        let upload = lock(&self.0).remove(name);
        let mut upload = upload.context("no such upload: it was given up, or the router restarted")?;
        let Upload { size, received, .. } = upload;
        ensure!(received == size, "{received} of {size} bytes have come");
        let mut bytes = Vec::new();
        upload.file.seek(SeekFrom::Start(0)).and_then(|_| upload.file.read_to_end(&mut bytes)).context("the upload")?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_a_file() {
        let uploads = Uploads::default();
        let name = uploads.begin(6, &std::env::temp_dir()).expect("begun");
        assert_eq!(uploads.add(&name, 0, b"abcd").expect("taken"), 4);
        assert_eq!(uploads.add(&name, 0, b"abcd").expect("sent again"), 4);
        assert!(uploads.add(&name, 5, b"f").expect_err("a gap").to_string().contains("goes on at 4"));
        assert!(uploads.add(&name, 4, b"efg").is_err(), "more than was said");
        assert_eq!(uploads.add(&name, 4, b"ef").expect("taken"), 6);
        assert_eq!(uploads.finish(&name).expect("whole"), b"abcdef");
        assert!(uploads.finish(&name).is_err(), "it is over");
    }

    #[test]
    fn uploads_are_limited() {
        let uploads = Uploads::default();
        assert!(
            uploads.begin(0, &std::env::temp_dir()).is_err() && uploads.begin(65 << 20, &std::env::temp_dir()).is_err()
        );
        let names: Vec<String> =
            (0..UPLOADS_MAX).map(|_| uploads.begin(1, &std::env::temp_dir()).expect("begun")).collect();
        assert!(uploads.begin(1, &std::env::temp_dir()).is_err(), "one too many");
        assert!(uploads.finish(&names[0]).expect_err("nothing came").to_string().contains("0 of 1"));
        uploads.begin(1, &std::env::temp_dir()).expect("there is room again");
    }
}
