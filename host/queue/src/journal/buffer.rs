//! Memory for direct I/O.

use super::record::RECORD_ALIGN;

/// Memory that begins at a multiple of 4 KiB, as direct I/O asks, without `unsafe`: a larger buffer, used from its
/// first aligned byte.
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
}

impl AlignedBuffer {
    /// Kept between records; more is given back.
    const KEPT_BYTES: usize = 4 << 20;

    pub(crate) fn of(&mut self, bytes: usize) -> &mut [u8] {
        let wanted = bytes + RECORD_ALIGN;
        if self.bytes.len() < wanted || (self.bytes.len() > Self::KEPT_BYTES && wanted <= Self::KEPT_BYTES) {
            self.bytes = vec![0; wanted.max(1 << 20)];
        }
        let start = self.bytes.as_ptr().align_offset(RECORD_ALIGN);
        &mut self.bytes[start..start + bytes]
    }
}
