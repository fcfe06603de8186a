//! redb's file format, as far as it takes to tell whether a page is what was written: a page names its children together
//! with their checksums, but redb compares them only while it repairs a file.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Of the header, with both commit slots.
const HEADER_BYTES: usize = 320;
const SLOT_BYTES: usize = 128;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
const NORMAL_TABLE: u8 = 3;
/// A root or a child: the page's number and its checksum.
const LINK_BYTES: usize = 24;

/// What is known of the pages of a file: of each that was written since it was opened, what that was, and of each other
/// one that has been reached, what its parent says of it.
#[derive(Debug, Default)]
pub(super) struct Pages(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    geometry: Option<Geometry>,
    pages: HashMap<u64, Page>,
}

/// Where pages are.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    page_bytes: u64,
    header_pages: u64,
    pages_max: u64,
}

#[derive(Debug, Clone)]
enum Page {
    Written {
        bytes: usize,
        hash: u64,
    },
    /// More than one where the roots of two commits lead to different ones: redb chooses.
    Named(Vec<Link>),
}

/// What a parent says of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    bytes: usize,
    checksum: u128,
    tree: Tree,
}

/// A tree's kind, and how wide its keys and values are where they are of one width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tree {
    /// The tree of the tables; its values are their roots.
    of_tables: bool,
    /// Not redb's own.
    of_user: bool,
    key: Option<usize>,
    value: Option<usize>,
}

/// What became of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it was written, or nothing is known of it.
    Whole,
    /// Rows are altered, which their own checksums tell, and nothing that redb goes by.
    Rows,
    /// Not to be worked with.
    Broken,
}

impl Pages {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what was read.
    pub(super) fn look(&self, offset: u64, read: &[u8]) -> Verdict {
        if offset == 0 {
            if read.len() >= HEADER_BYTES {
                self.known().learn_roots(read);
            }
            return Verdict::Whole;
        }
        let page = self.known().pages.get(&offset).cloned();
        let links = match page {
            Some(Page::Written { bytes, hash }) if bytes == read.len() && hash != xxh3_64(read) => Vec::new(),
            Some(Page::Named(links)) if links.iter().all(|link| link.bytes == read.len()) => links,
            _ => return Verdict::Whole,
        };
        match links.iter().find(|link| checksum(read, link.tree) == Some(link.checksum)) {
            Some(link) => {
                self.known().learn_children(read, link.tree);
                Verdict::Whole
            }
            None if links.iter().any(|link| link.tree.of_user && !link.tree.of_tables && is_leaf(read, link.tree)) => {
                Verdict::Rows
            }
            None => Verdict::Broken,
        }
    }

    /// Notes what is written. Its children are not learned: redb fills in their checksums last.
    pub(super) fn note(&self, offset: u64, written: &[u8]) {
        if offset != 0 {
            let page = Page::Written { bytes: written.len(), hash: xxh3_64(written) };
            self.known().pages.insert(offset, page);
        }
    }

    /// Nobody knows what is there.
    pub(super) fn forget(&self, offset: u64) {
        self.known().pages.remove(&offset);
    }

    pub(super) fn cut(&self, file_bytes: u64) {
        self.known().pages.retain(|offset, _| *offset < file_bytes);
    }
}

impl Known {
    fn learn_roots(&mut self, header: &[u8]) {
        let number = |at| u32_at(header, at).map(u64::from);
        let (Some(page_bytes), Some(header_pages), Some(pages_max)) = (number(12), number(16), number(20)) else {
            return;
        };
        self.geometry = Some(Geometry { page_bytes, header_pages, pages_max });
        for slot in header[64..HEADER_BYTES].chunks(SLOT_BYTES) {
            let (said, sum) = slot.split_at(SLOT_BYTES - 16);
            if sum != xxh3_128(said).to_le_bytes() {
                continue;
            }
            for (is_there, at, of_user) in [(slot[1], 8, true), (slot[2], 40, false)] {
                if is_there != 0 {
                    self.learn(slot, (at, at + 8), Tree { of_tables: true, of_user, key: None, value: None });
                }
            }
        }
    }

    fn learn_children(&mut self, page: &[u8], tree: Tree) {
        let count = count(page);
        match page.first() {
            Some(&BRANCH) => {
                for n in 0..=count {
                    self.learn(page, (8 + 16 * (count + 1) + 8 * n, 8 + 16 * n), tree);
                }
            }
            Some(&LEAF) if tree.of_tables => {
                let values: Vec<usize> = (0..count).filter_map(|n| value_end(page, tree, n)).collect();
                let starts = key_end(page, tree, count.saturating_sub(1)).into_iter().chain(values.iter().copied());
                for table in starts.zip(&values).filter_map(|(start, end)| page.get(start..*end)) {
                    self.learn_table(table, tree.of_user);
                }
            }
            _ => {}
        }
    }

    fn learn_table(&mut self, table: &[u8], of_user: bool) {
        let width = |at: usize| match table.get(at) {
            Some(0) => Some(None),
            Some(_) => u32_at(table, at + 1).map(|width| usize::try_from(width).ok()),
            None => None,
        };
        let (Some(&NORMAL_TABLE), Some(&is_there)) = (table.first(), table.get(9)) else { return };
        let (Some(key), Some(value)) = (width(42), width(47)) else { return };
        if is_there != 0 {
            self.learn(table, (10, 18), Tree { of_tables: false, of_user, key, value });
        }
    }

    fn learn(&mut self, parent: &[u8], (number_at, checksum_at): (usize, usize), tree: Tree) {
        let number = parent.get(number_at..number_at + 8).and_then(|bytes| bytes.try_into().ok());
        let checksum = parent.get(checksum_at..checksum_at + 16).and_then(|bytes| bytes.try_into().ok());
        let (Some(number), Some(checksum)) = (number.map(u64::from_le_bytes), checksum.map(u128::from_le_bytes)) else {
            return;
        };
        let Some((offset, bytes)) = self.geometry.and_then(|geometry| geometry.place(number)) else { return };
        let link = Link { bytes, checksum, tree };
        match self.pages.entry(offset).or_insert_with(|| Page::Named(Vec::new())) {
            Page::Named(links) if !links.contains(&link) => links.push(link),
            _ => {}
        }
    }
}

impl Geometry {
    /// Where a page begins, and how long it is. Its number is 20 bits of index, 20 of region and, on top, 5 of order.
    fn place(&self, number: u64) -> Option<(u64, usize)> {
        let order = u32::try_from(number >> 59).ok()?;
        let (index, region) = (number & (0xF_FFFF >> order), number >> 20 & 0xF_FFFF);
        let bytes = self.page_bytes.checked_mul(1 << order)?;
        let region_pages = self.header_pages + self.pages_max;
        let region_at = self.page_bytes.checked_mul(region_pages)?.checked_mul(region)?;
        let first = self.page_bytes.checked_mul(1 + self.header_pages)?;
        let offset = region_at.checked_add(first)?.checked_add(bytes.checked_mul(index)?)?;
        Some((offset, usize::try_from(bytes).ok()?))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn end_at(page: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32_at(page, at)?).ok()
}

/// Of a leaf's rows, or a branch's keys.
fn count(page: &[u8]) -> usize {
    page.get(2..4).map_or(0, |bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
}

/// The checksum as redb makes it: over what is used. None where that cannot be told.
fn checksum(page: &[u8], tree: Tree) -> Option<u128> {
    let last = count(page).checked_sub(1)?;
    let end = match *page.first()? {
        LEAF => value_end(page, tree, last)?,
        BRANCH => {
            let ends = 8 + LINK_BYTES * (last + 2);
            match tree.key {
                Some(width) => ends + width * (last + 1),
                None => end_at(page, ends + 4 * last)?,
            }
        }
        _ => return None,
    };
    Some(xxh3_128(page.get(..end)?))
}

/// Where the keys of a leaf begin.
fn keys_start(page: &[u8], tree: Tree) -> usize {
    4 + 4 * count(page) * (usize::from(tree.key.is_none()) + usize::from(tree.value.is_none()))
}

fn key_end(page: &[u8], tree: Tree, n: usize) -> Option<usize> {
    match tree.key {
        Some(width) => Some(keys_start(page, tree) + width * (n + 1)),
        None => end_at(page, 4 + 4 * n),
    }
}

fn value_end(page: &[u8], tree: Tree, n: usize) -> Option<usize> {
    match tree.value {
        Some(width) => Some(key_end(page, tree, count(page).checked_sub(1)?)? + width * (n + 1)),
        None => end_at(page, 4 + 4 * n + if tree.key.is_none() { 4 * count(page) } else { 0 }),
    }
}

/// Whether every row is within the page, one behind the other.
fn is_leaf(page: &[u8], tree: Tree) -> bool {
    let rows = count(page);
    let keys = (0..rows).map(|n| key_end(page, tree, n));
    let ends: Option<Vec<usize>> = keys.chain((0..rows).map(|n| value_end(page, tree, n))).collect();
    let start = keys_start(page, tree);
    page.first() == Some(&LEAF)
        && ends.is_some_and(|ends| {
            ends.first().is_some_and(|first| start <= *first)
                && ends.is_sorted()
                && ends.last().is_some_and(|last| *last <= page.len())
        })
}

#[cfg(test)]
mod tests;
