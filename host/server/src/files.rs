//! Files that are read whole, and files that are for their owner alone. What is read has a limit that holds for whatever the
//! path names: a pipe or a device has no size to ask for.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Owner may read and write, nobody else anything.
const PRIVATE: u32 = 0o600;

/// A file's bytes, at most so many.
///
/// # Errors
///
/// It cannot be read, or has more.
pub(crate) fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|open| open.take(bytes_max + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(bytes.len() as u64 <= bytes_max, "{} has more than {bytes_max} bytes, which is the most", file.display());
    Ok(bytes)
}

/// As [`read`], of a text.
///
/// # Errors
///
/// As for [`read`], and where it is not UTF-8.
pub(crate) fn read_text(file: &Path, bytes_max: u64) -> Result<String> {
    String::from_utf8(read(file, bytes_max)?).with_context(|| format!("{} is not UTF-8", file.display()))
}

/// Writes a file that may have secrets in it: nobody but its owner reads it.
///
/// # Errors
///
/// It cannot be written.
pub(crate) fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let mut open = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(file)?;
    // One that was there keeps its mode.
    open.set_permissions(Permissions::from_mode(PRIVATE))?;
    open.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_read_by_nobody_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "longer than the other").expect("written");
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("set");
        for file in [file, dir.path().join("new")] {
            write_private(&file, "secret").expect("written");
            let mode = std::fs::metadata(&file).expect("there").permissions().mode();
            assert_eq!((mode & 0o777, std::fs::read_to_string(&file).expect("read").as_str()), (0o600, "secret"));
        }
    }

    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "12345").expect("written");
        assert_eq!(read_text(&file, 5).expect("read"), "12345");
        let error = |file: &Path| read(file, 4).expect_err("refused").to_string();
        assert_eq!(error(&file), format!("{} has more than 4 bytes, which is the most", file.display()));
        // It has no size, and no end.
        assert_eq!(error(Path::new("/dev/zero")), "/dev/zero has more than 4 bytes, which is the most");
        assert!(error(&dir.path().join("none")).starts_with("cannot read "));
    }
}
