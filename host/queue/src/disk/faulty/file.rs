//! One file of the simulated disk.

use super::Random;

/// What a disk writes whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Content {
    /// What a reader sees.
    current: Vec<u8>,
    /// What is on the disk itself.
    stable: Vec<u8>,
    /// What of the current bytes is not stable, in order.
    waiting: Vec<Change>,
    /// Whether the name is on the disk.
    named: bool,
}

#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn stable(&self) -> &[u8] {
        &self.stable
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        put(&mut self.current, at, bytes);
        self.waiting.push(Change::Write { at, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.current.resize(len, 0);
        self.waiting.push(Change::Length(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.waiting.drain(..) {
            match change {
                Change::Write { at, bytes } => put(&mut self.stable, at, &bytes),
                Change::Length(len) => self.stable.resize(len, 0),
            }
        }
    }

    pub(super) fn sync_name(&mut self) {
        self.named = true;
    }

    /// Makes it longer, stably and with its name; what waits goes on waiting.
    pub(super) fn extend_stable(&mut self, len: usize) {
        self.named = true;
        for bytes in [&mut self.current, &mut self.stable] {
            bytes.resize(len.max(bytes.len()), 0);
        }
    }

    pub(super) fn flip(&mut self, at: usize, mask: u8) {
        self.current[at] ^= mask;
        if let Some(byte) = self.stable.get_mut(at) {
            *byte ^= mask;
        }
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.current.truncate(len);
        self.stable.truncate(len);
    }

    /// Keeps, drops or tears each change that waits; what a reader sees stays.
    pub(super) fn lose(&mut self, random: &mut Random) {
        let waiting = std::mem::take(&mut self.waiting);
        let lengths = waiting.iter().filter(|change| matches!(change, Change::Length(_))).count();
        let mut lengths_kept = random.below(lengths as u64 + 1);
        let mut skipped = None;
        for change in waiting {
            match change {
                Change::Length(len) if lengths_kept > 0 => {
                    lengths_kept -= 1;
                    self.stable.resize(len, 0);
                }
                Change::Length(len) => skipped = Some(len),
                Change::Write { at, bytes } => {
                    for (at, bytes) in survivors(at, &bytes, random) {
                        // Its blocks were allocated after the length was changed, and both are kept in order.
                        if let Some(len) = skipped.filter(|_| at + bytes.len() > self.stable.len()) {
                            self.stable.resize(len.max(self.stable.len()), 0);
                        }
                        put(&mut self.stable, at, bytes);
                    }
                }
            }
        }
    }

    /// What is left after a crash; whether the file is.
    pub(super) fn crash(&mut self, random: &mut Random) -> bool {
        self.lose(random);
        self.current.clone_from(&self.stable);
        self.named || random.below(2) == 0
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if end > file.len() {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// What is left of a write: all, nothing, the sectors up to one, or some of them.
fn survivors<'a>(at: usize, bytes: &'a [u8], random: &mut Random) -> Vec<(usize, &'a [u8])> {
    let sectors = sectors(at, bytes);
    match random.below(6) {
        0 | 1 => sectors,
        2 | 3 => Vec::new(),
        4 => {
            let kept = usize::try_from(random.below(sectors.len() as u64 + 1)).expect("at most all of them");
            sectors.into_iter().take(kept).collect()
        }
        _ => sectors.into_iter().filter(|_| random.below(2) == 0).collect(),
    }
}

/// A write's parts by the disk's sectors, so that its first and its last may be shorter.
fn sectors(at: usize, bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let first = (SECTOR_BYTES - at % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let rest = rest.chunks(SECTOR_BYTES).enumerate().map(|(n, part)| (at + first + n * SECTOR_BYTES, part));
    std::iter::once((at, head)).filter(|(_, head)| !head.is_empty()).chain(rest).collect()
}
