//! Files with holes: which parts get blocks.

use super::{Problem, format::ADDRESS};
use crate::{
    layer::{Content, Data, Extent},
    verity::BLOCK,
};
use std::{borrow::Cow, ops::Range};

/// The largest chunk is 2^this blocks (`EROFS_CHUNK_FORMAT_BLKBITS_MASK`).
const MAX_BITS: u8 = 31;

/// What holes may cost in an image beyond the data between them, over two blocks for each piece of
/// data, which the limit on the number of files bounds. A few lines of a sparse map can ask for any
/// number of blocks.
const MAX_WASTE: u64 = 1 << 30;

/// A file's data. A whole one is one piece, an empty one none.
pub(super) fn pieces(content: &Content) -> Cow<'_, [Extent]> {
    match &content.data {
        Data::Sparse(pieces) => Cow::Borrowed(pieces),
        Data::Whole { .. } => Cow::Owned(content.extents().collect()),
    }
}

/// A file in chunks.
pub(super) struct Chunks<'a> {
    bits: u8,
    size: u64,
    pieces: &'a [Extent],
}

impl<'a> Chunks<'a> {
    pub(super) fn new(size: u64, pieces: &'a [Extent], bits: u8) -> Self {
        Self { bits, size, pieces }
    }

    /// Bytes in a chunk.
    pub(super) fn bytes(&self) -> u64 {
        BLOCK << self.bits
    }

    /// How many there are, holes included.
    pub(super) fn count(&self) -> u64 {
        self.size.div_ceil(self.bytes())
    }

    /// Blocks of a chunk. The file's last one ends with the file.
    pub(super) fn blocks_of(&self, chunk: u64) -> u64 {
        (self.size - chunk * self.bytes()).min(self.bytes()).div_ceil(BLOCK)
    }

    /// The chunks that hold data, in ascending order. Chunks that pieces share are in one of the
    /// ranges.
    pub(super) fn with_data(&self) -> impl Iterator<Item = Range<u64>> {
        let bytes = self.bytes();
        let mut next = 0;
        self.pieces.iter().filter_map(move |piece| {
            let start = (piece.offset / bytes).max(next);
            let end = (piece.offset + piece.length).div_ceil(bytes);
            next = next.max(end);
            (start < end).then_some(start..end)
        })
    }

    /// Blocks of all chunks that hold data.
    pub(super) fn blocks(&self) -> u64 {
        let whole = 1 << self.bits;
        let of_range = |range: Range<u64>| {
            (range.end - range.start - 1) * whole + self.blocks_of(range.end - 1)
        };
        self.with_data().map(of_range).sum()
    }

    /// Bytes that it takes.
    fn cost(&self) -> u64 {
        self.count() * ADDRESS + self.blocks() * BLOCK
    }
}

/// Decides about files with holes.
#[derive(Default)]
pub(super) struct Chooser {
    waste: u64,
}

impl Chooser {
    /// The size of chunks, in bits, that makes least of a file; `None` if it takes less without
    /// holes.
    pub(super) fn choose(&mut self, content: &Content) -> Result<Option<u8>, Problem> {
        let Data::Sparse(pieces) = &content.data else {
            return Ok(None);
        };
        let cost = |bits| Chunks::new(content.size, pieces, bits).cost();
        // Of several, the largest, which has the fewest addresses.
        let best =
            (0..=MAX_BITS).rev().map(|bits| (cost(bits), bits)).min_by_key(|&(cost, _)| cost);
        let flat = content.size.div_ceil(BLOCK) * BLOCK;
        let (cost, bits) = match best {
            Some((cost, bits)) if cost < flat => (cost, Some(bits)),
            _ => (flat, None),
        };
        let data: u64 = pieces.iter().map(|piece| piece.length + 2 * BLOCK).sum();
        self.waste += cost.saturating_sub(data);
        if self.waste > MAX_WASTE {
            return Err("its holes are cut so that they would take more than 1 GiB to write".into());
        }
        Ok(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::{Chooser, Chunks};
    use crate::layer::{Content, Data, Extent};

    fn content(size: u64, pieces: &[(u64, u64)]) -> Content {
        let extent = |&(offset, length): &(u64, u64)| Extent { offset, length, position: 0 };
        Content { size, data: Data::Sparse(pieces.iter().map(extent).collect()) }
    }

    fn choice(size: u64, pieces: &[(u64, u64)]) -> Option<u8> {
        Chooser::default().choose(&content(size, pieces)).unwrap()
    }

    #[test]
    fn the_cheapest_chunks_are_chosen() {
        // One chunk holds it all; of those that do, the largest.
        assert_eq!(choice(1 << 40, &[]), Some(31));
        assert_eq!(choice(1 << 43, &[]), Some(31));
        assert_eq!(choice(4096, &[(0, 4096)]), None);
        assert_eq!(choice(8192, &[(0, 10)]), Some(0));
        assert_eq!(choice(8192, &[(4000, 100)]), None);
        // 2 MiB of data and as much of addresses.
        assert_eq!(choice(1 << 40, &[(1 << 30, 1)]), Some(9));
        assert_eq!(choice(0, &[]), None);
    }

    #[test]
    fn every_size_can_be_had() {
        let max = i64::MAX.unsigned_abs();
        assert_eq!(choice(max, &[]), Some(31));
        // Addresses and data are 1 GiB together.
        assert_eq!(choice(1 << 56, &[((1 << 56) - 1, 1)]), Some(17));
        assert!(Chooser::default().choose(&content(max, &[(max - 1, 1)])).is_err());
    }

    #[test]
    fn pieces_share_chunks() {
        let content = content(100_000, &[(0, 1), (1, 1), (4095, 2), (20_000, 1), (99_999, 1)]);
        let Data::Sparse(pieces) = &content.data else { panic!() };
        let chunks = Chunks::new(content.size, pieces, 0);
        assert_eq!(chunks.with_data().flatten().collect::<Vec<_>>(), [0, 1, 4, 24]);
        assert_eq!((chunks.count(), chunks.blocks()), (25, 4));
        let chunks = Chunks::new(content.size, pieces, 2);
        assert_eq!(chunks.with_data().flatten().collect::<Vec<_>>(), [0, 1, 6]);
        // The last one has one block.
        assert_eq!(chunks.blocks(), 9);
    }

    #[test]
    fn holes_that_cost_too_much_are_refused() {
        let pieces: Vec<_> = (0..65536).map(|piece| (piece << 40, 1)).collect();
        let hostile = content(1 << 56, &pieces);
        assert!(Chooser::default().choose(&hostile).is_err());
        let cheap = content(1 << 40, &[(1 << 30, 1)]);
        let mut chooser = Chooser::default();
        assert!((0..200).all(|_| chooser.choose(&cheap).is_ok()));
        assert!((0..200).any(|_| chooser.choose(&cheap).is_err()));
    }
}
