//! Directories of files as text: hexadecimal rows of 32 bytes, without those that are all zeros.

use std::fmt::Write as _;
use std::path::Path;

const ROW_BYTES: usize = 32;

/// The files of a directory and of those within, by name.
pub(crate) fn dump(directory: &Path) -> String {
    let mut text = String::new();
    for name in ["journal/000.journal", "journal/001.journal", "state.redb"] {
        let bytes = std::fs::read(directory.join(name)).expect("a file of a store with two segments");
        writeln!(text, "file {name} {}", bytes.len()).expect("text");
        for (n, row) in bytes.chunks(ROW_BYTES).enumerate().filter(|(_, row)| row.iter().any(|byte| *byte != 0)) {
            let row: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
            // Zeros at the end of a row go without saying too.
            let row = row.trim_end_matches("00");
            writeln!(text, "{:x}: {row}", n * ROW_BYTES).expect("text");
        }
    }
    text
}

/// Writes what a dump says into a directory.
pub(crate) fn restore(text: &str, directory: &Path) {
    std::fs::create_dir_all(directory.join("journal")).expect("a directory");
    let mut file: Option<(&str, Vec<u8>)> = None;
    let write = |file: Option<(&str, Vec<u8>)>| {
        if let Some((name, bytes)) = file {
            std::fs::write(directory.join(name), bytes).expect("written");
        }
    };
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("file ") {
            let (name, bytes) = head.split_once(' ').expect("a name and a length");
            write(file.replace((name, vec![0; bytes.parse().expect("a length")])));
            continue;
        }
        let (at, row) = line.split_once(": ").expect("a place and its bytes");
        let at = usize::from_str_radix(at, 16).expect("a place");
        let (_, bytes) = file.as_mut().expect("a file before its rows");
        for (n, pair) in row.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).expect("digits");
            bytes[at + n] = u8::from_str_radix(pair, 16).expect("a byte");
        }
    }
    write(file);
}
