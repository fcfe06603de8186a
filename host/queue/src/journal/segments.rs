//! A journal of a few files of fixed size that are used in turn.
//!
//! Segments are written with zeros once, so that an append changes no file's size, and appended to with direct,
//! synchronous writes where the file system has them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::{self, RECORD_ALIGN, record_bytes};
use super::{Journal, JournalError};

/// Size and number of the segments.
#[derive(Debug, Clone, Copy)]
pub struct JournalConfig {
    /// How many; at least 2. Default 4.
    pub segments: usize,
    /// Bytes of each, rounded up to a multiple of 4 KiB and to at least 256 KiB. No commit may be larger, and no message
    /// larger than half of it. Default 64 MiB.
    pub segment_bytes: usize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { segments: 4, segment_bytes: 64 << 20 }
    }
}

impl JournalConfig {
    /// Less has no room for what a commit takes besides its messages.
    const SEGMENT_BYTES_MIN: usize = 256 << 10;

    pub(crate) fn sound(self) -> Self {
        let segment_bytes = self.segment_bytes.max(Self::SEGMENT_BYTES_MIN).next_multiple_of(RECORD_ALIGN);
        Self { segment_bytes, ..self }
    }
}

/// The journal of a store on disk.
#[derive(Debug)]
pub struct SegmentJournal {
    store_id: [u8; 16],
    segments: Vec<Segment>,
    /// Which one is appended to, and where.
    current: usize,
    at: usize,
    /// Records up to this one are in a checkpoint.
    released: u64,
    segment_bytes: usize,
    buffer: AlignedBuffer,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    /// Direct and synchronous; otherwise each write is followed by a sync.
    direct: bool,
    /// The last record in it; 0: none yet.
    last: u64,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The disk failed.
    #[error("journal {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A record that is damaged, with whole ones after it: more than a torn last write.
    #[error("journal {path}: damage at byte {at}: record {expected} is missing or altered, but {later} is there")]
    Damage {
        /// The file.
        path: String,
        /// Where it should begin.
        at: usize,
        /// The missing record.
        expected: u64,
        /// One that is there.
        later: u64,
    },
    /// A record that is whole but no commit, or does not fit the state.
    #[error("journal: record {sequence}: {why}")]
    Record {
        /// Which one.
        sequence: u64,
        /// What is wrong.
        why: String,
    },
}

impl SegmentJournal {
    /// Opens the journal in a directory, made if absent, and replays every record after `position`, in order.
    ///
    /// Afterwards the state must be written to a checkpoint before anything is appended: the segments are all free.
    /// Also the last sequence.
    ///
    /// # Errors
    ///
    /// [`RecoverError`] names the file and what is wrong. A torn last record is no error: it is cut and logged.
    pub fn open(
        directory: &Path,
        store_id: [u8; 16],
        config: JournalConfig,
        position: u64,
        mut replay: impl FnMut(u64, &[u8]) -> Result<(), String>,
    ) -> Result<(Self, u64), RecoverError> {
        let mut segments = Vec::new();
        std::fs::create_dir_all(directory).map_err(|source| recover_io(directory, source))?;
        for n in 0..config.segments.max(2) {
            let path = directory.join(format!("{n:03}.journal"));
            segments.push(Segment::open(&path, config.segment_bytes).map_err(|source| recover_io(&path, source))?);
        }
        // Every file there is read, also those beyond a configuration that has shrunk.
        let mut runs = Vec::new();
        for path in journal_files(directory).map_err(|source| recover_io(directory, source))? {
            let bytes = std::fs::read(&path).map_err(|source| recover_io(&path, source))?;
            runs.extend(Run::find(&store_id, path, bytes));
        }
        let last = replay_runs(&store_id, runs, position, &mut replay)?;
        let buffer = AlignedBuffer::default();
        let segment_bytes = config.segment_bytes;
        Ok((Self { store_id, segments, current: 0, at: 0, released: last, segment_bytes, buffer }, last))
    }
}

impl Journal for SegmentJournal {
    fn append(&mut self, sequence: u64, body: &[u8]) -> Result<(), JournalError> {
        let bytes = record_bytes(body.len());
        if bytes > self.segment_bytes {
            return Err(JournalError::TooLarge { bytes, segment: self.segment_bytes });
        }
        if self.at + bytes > self.segment_bytes {
            let next = (self.current + 1) % self.segments.len();
            if self.segments[next].last > self.released {
                return Err(JournalError::Full);
            }
            (self.current, self.at) = (next, 0);
        }
        let record = self.buffer.of(bytes);
        record::write(&self.store_id, sequence, body, record);
        let segment = &mut self.segments[self.current];
        segment.write(record, self.at as u64).map_err(|source| journal_io(&segment.path, source))?;
        segment.last = sequence;
        self.at += bytes;
        Ok(())
    }

    fn release(&mut self, through: u64) {
        self.released = self.released.max(through);
    }

    fn body_bytes_max(&self) -> usize {
        self.segment_bytes - record::HEAD_BYTES
    }

    fn bytes(&self) -> u64 {
        (self.segment_bytes * self.segments.len()) as u64
    }
}

impl Segment {
    fn open(path: &Path, bytes: usize) -> io::Result<Self> {
        if !path.try_exists()? || std::fs::metadata(path)?.len() < bytes as u64 {
            fill(path, bytes)?;
        }
        let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT | libc::O_DSYNC).open(path);
        let (file, direct) = match direct {
            Ok(file) => (file, true),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (OpenOptions::new().write(true).open(path)?, false),
            Err(e) => return Err(e),
        };
        Ok(Self { path: path.to_owned(), file, direct, last: 0 })
    }

    fn write(&mut self, record: &[u8], at: u64) -> io::Result<()> {
        match self.file.write_all_at(record, at) {
            // Some file systems take the flag and refuse the write.
            Err(e) if self.direct && e.raw_os_error() == Some(libc::EINVAL) => {
                (self.file, self.direct) = (OpenOptions::new().write(true).open(&self.path)?, false);
                self.file.write_all_at(record, at)?;
            }
            written => written?,
        }
        if self.direct { Ok(()) } else { self.file.sync_data() }
    }
}

/// Makes a file of zeros under its final name only once it is whole, keeping what an earlier, shorter one holds.
fn fill(path: &Path, bytes: usize) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    let kept = match std::fs::read(path) {
        Ok(kept) => kept,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e),
    };
    file.write_all(&kept)?;
    let zeros = vec![0; 1 << 20];
    let mut left = bytes.saturating_sub(kept.len());
    while left > 0 {
        let piece = left.min(zeros.len());
        file.write_all(&zeros[..piece])?;
        left -= piece;
    }
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn journal_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "journal") {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The whole records at the start of a segment; behind them there may be older ones, or a torn one.
struct Run {
    path: PathBuf,
    bytes: Vec<u8>,
    first: u64,
    /// Sequence and place of each.
    records: Vec<(u64, usize)>,
    end: usize,
}

impl Run {
    fn find(store_id: &[u8; 16], path: PathBuf, bytes: Vec<u8>) -> Option<Self> {
        let first = match record::read_head(store_id, &bytes) {
            Some(head) => head.sequence,
            // A damaged first record, perhaps with whole ones behind it.
            None => later_record(store_id, &bytes, RECORD_ALIGN, 0)?,
        };
        let mut run = Self { path, bytes, first, records: Vec::new(), end: 0 };
        while let Some(head) = record::read_head(store_id, run.bytes.get(run.end..).unwrap_or_default()) {
            let contiguous = head.sequence == run.first + run.records.len() as u64;
            if !contiguous || head.body(&run.bytes[run.end..]).is_none() {
                break;
            }
            run.records.push((head.sequence, run.end));
            run.end += record_bytes(head.body_bytes);
        }
        Some(run)
    }
}

fn replay_runs(
    store_id: &[u8; 16],
    mut runs: Vec<Run>,
    position: u64,
    replay: &mut impl FnMut(u64, &[u8]) -> Result<(), String>,
) -> Result<u64, RecoverError> {
    runs.sort_by_key(|run| run.first);
    let mut last = position;
    for (n, run) in runs.iter().enumerate() {
        for &(sequence, at) in run.records.iter().filter(|(sequence, _)| *sequence > position) {
            if sequence != last + 1 {
                return Err(damage(run, at, last + 1, sequence));
            }
            let head = record::read_head(store_id, &run.bytes[at..]);
            let body = head.and_then(|head| head.body(&run.bytes[at..])).unwrap_or_default();
            replay(sequence, body).map_err(|why| RecoverError::Record { sequence, why })?;
            last = sequence;
        }
        if let Some(later) = later_record(store_id, &run.bytes, run.end, last) {
            return Err(damage(run, run.end, last + 1, later));
        }
        let torn = record::read_head(store_id, run.bytes.get(run.end..).unwrap_or_default());
        if torn.is_some_and(|head| head.sequence == last + 1) && n + 1 == runs.len() {
            tracing::warn!(path = %run.path.display(), at = run.end, sequence = last + 1, "cut a torn last record");
        }
    }
    Ok(last)
}

/// A record of this store behind a place that is newer than `than`. One that is to follow at once may be torn; but a head
/// beyond that was written after its predecessor was whole, so it tells of damage even where its own body is not whole.
fn later_record(store_id: &[u8; 16], bytes: &[u8], from: usize, than: u64) -> Option<u64> {
    let places = (from..bytes.len()).step_by(RECORD_ALIGN);
    let heads = places.filter_map(|at| Some((record::read_head(store_id, &bytes[at..])?, at)));
    let mut newer = heads
        .filter(|(head, at)| head.sequence > than && (head.sequence > than + 1 || head.body(&bytes[*at..]).is_some()));
    newer.next().map(|(head, _)| head.sequence)
}

fn damage(run: &Run, at: usize, expected: u64, later: u64) -> RecoverError {
    RecoverError::Damage { path: run.path.display().to_string(), at, expected, later }
}

fn recover_io(path: &Path, source: io::Error) -> RecoverError {
    RecoverError::Io { path: path.display().to_string(), source }
}

fn journal_io(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { path: path.display().to_string(), source }
}

/// Memory that begins at a multiple of 4 KiB, as direct I/O asks, without `unsafe`: a larger buffer, used from its
/// first aligned byte.
#[derive(Debug, Default)]
struct AlignedBuffer {
    bytes: Vec<u8>,
}

impl AlignedBuffer {
    /// Kept between records; more is given back.
    const KEPT_BYTES: usize = 4 << 20;

    fn of(&mut self, bytes: usize) -> &mut [u8] {
        let wanted = bytes + RECORD_ALIGN;
        if self.bytes.len() < wanted || (self.bytes.len() > Self::KEPT_BYTES && wanted <= Self::KEPT_BYTES) {
            self.bytes = vec![0; wanted.max(1 << 20)];
        }
        let start = self.bytes.as_ptr().align_offset(RECORD_ALIGN);
        &mut self.bytes[start..start + bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [7; 16];
    const CONFIG: JournalConfig = JournalConfig { segments: 3, segment_bytes: 16 << 10 };

    fn open(directory: &Path, position: u64) -> (SegmentJournal, u64, Vec<(u64, Vec<u8>)>) {
        let mut replayed = Vec::new();
        let (journal, last) = SegmentJournal::open(directory, ID, CONFIG, position, |sequence, body| {
            replayed.push((sequence, body.to_vec()));
            Ok(())
        })
        .expect("a journal");
        (journal, last, replayed)
    }

    fn body(n: u64) -> Vec<u8> {
        n.to_le_bytes().repeat(100)
    }

    #[test]
    fn what_was_appended_is_replayed_from_the_position() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, ..) = open(directory.path(), 0);
        (1..=9).for_each(|n| journal.append(n, &body(n)).expect("room"));
        let (_, last, replayed) = open(directory.path(), 4);
        assert_eq!((last, replayed), (9, (5..=9).map(|n| (n, body(n))).collect()));
    }

    #[test]
    fn a_full_journal_says_so_and_goes_on_after_a_release() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, ..) = open(directory.path(), 0);
        (1..=12).for_each(|n| journal.append(n, &body(n)).expect("room"));
        assert!(matches!(journal.append(13, &body(13)), Err(JournalError::Full)));
        journal.release(7);
        (13..=16).for_each(|n| journal.append(n, &body(n)).expect("the first segment again"));
        assert!(matches!(journal.append(17, &body(17)), Err(JournalError::Full)));
        let (_, last, replayed) = open(directory.path(), 7);
        assert_eq!((last, replayed.len()), (16, 9));
        let long = vec![0; 17 << 10];
        assert!(matches!(journal.append(17, &long), Err(JournalError::TooLarge { .. })));
    }

    fn alter(directory: &Path, file: &str, at: u64) {
        let file = OpenOptions::new().read(true).write(true).open(directory.join(file)).expect("a segment");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("in the file");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    }

    #[test]
    fn a_torn_last_record_is_cut_and_damage_before_it_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, ..) = open(directory.path(), 0);
        (1..=6).for_each(|n| journal.append(n, &body(n)).expect("room"));
        alter(directory.path(), "001.journal", 4096 + 300);
        let (_, last, _) = open(directory.path(), 0);
        assert_eq!(last, 5);
        alter(directory.path(), "000.journal", 8192 + 20);
        let error = SegmentJournal::open(directory.path(), ID, CONFIG, 0, |_, _| Ok(())).expect_err("damage");
        let text = error.to_string();
        assert!(text.contains("000.journal: damage at byte 8192: record 3 is missing or altered, but 4"), "{text}");
    }

    #[test]
    fn damage_at_the_start_of_the_last_segment_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, ..) = open(directory.path(), 0);
        (1..=6).for_each(|n| journal.append(n, &body(n)).expect("room"));
        alter(directory.path(), "001.journal", 20);
        let error = SegmentJournal::open(directory.path(), ID, CONFIG, 0, |_, _| Ok(())).expect_err("damage");
        assert!(error.to_string().contains("001.journal: damage at byte 0: record 5 is missing"), "{error}");
    }

    /// The second one was begun after the first was on disk: that cannot be a torn write.
    #[test]
    fn two_records_that_are_not_whole_are_damage() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, ..) = open(directory.path(), 0);
        (1..=3).for_each(|n| journal.append(n, &body(n)).expect("room"));
        alter(directory.path(), "000.journal", 4096 + 300);
        alter(directory.path(), "000.journal", 8192 + 300);
        let error = SegmentJournal::open(directory.path(), ID, CONFIG, 0, |_, _| Ok(())).expect_err("damage");
        assert!(error.to_string().contains("damage at byte 4096: record 2 is missing or altered, but 3"), "{error}");
    }

    #[test]
    fn segments_are_used_again_and_resized_without_losing_a_record() {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut position, mut next) = (0, 1);
        for (segments, kib, records) in [(3, 16, 9), (2, 16, 7), (5, 8, 8), (3, 32, 20), (2, 16, 1), (4, 16, 16)] {
            let config = JournalConfig { segments, segment_bytes: kib << 10 };
            let mut replayed = Vec::new();
            let replay = |sequence, bytes: &[u8]| {
                replayed.push((sequence, bytes.to_vec()));
                Ok(())
            };
            let (mut journal, last) =
                SegmentJournal::open(directory.path(), ID, config, position, replay).expect("a journal");
            assert_eq!(last + 1, next);
            assert_eq!(replayed, (position + 1..next).map(|n| (n, body(n))).collect::<Vec<_>>());
            position = last;
            for _ in 0..records {
                journal.append(next, &body(next)).expect("room");
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
        let directory = tempfile::tempdir().expect("a directory");
        let (mut journal, ..) = open(directory.path(), 0);
        journal.append(1, &body(1)).expect("room");
        let (_, last) = SegmentJournal::open(directory.path(), [8; 16], CONFIG, 0, |_, _| Ok(())).expect("a journal");
        assert_eq!(last, 0);
    }
}
