//! Maps of sparse files, as GNU tar writes them (GNU tar manual, "Storing Sparse Files").

use super::{Extent, Problem, TarError, header::BLOCK, pax::number};

/// Most pieces of one sparse file. A piece costs a few bytes in the archive and more in memory.
const MAX_PIECES: usize = 1 << 16;

/// Which parts of a file hold data.
pub(super) struct SparseMap {
    /// Size of the file.
    pub(super) size: u64,
    /// Offset and length.
    pieces: Vec<(u64, u64)>,
}

impl SparseMap {
    pub(super) fn new(size: u64) -> Self {
        Self { size, pieces: Vec::new() }
    }

    /// Adds the next piece. Writers mark the file's end with an empty one.
    pub(super) fn add(&mut self, offset: u64, length: u64) -> Result<(), &'static str> {
        let end = offset.checked_add(length).filter(|&end| end <= self.size);
        let after = self.pieces.last().map_or(0, |(offset, length)| offset + length);
        if end.is_none() || offset < after {
            return Err("its sparse map is out of order or beyond its size");
        }
        if self.pieces.len() == MAX_PIECES {
            return Err("its sparse map has more than 65536 pieces");
        }
        if length > 0 {
            self.pieces.push((offset, length));
        }
        Ok(())
    }

    /// The pieces, whose data is from `start` to `end` in the archive and fills that exactly.
    pub(super) fn place(self, start: u64, end: u64) -> Result<Vec<Extent>, &'static str> {
        let mut position = start;
        let mut extents = Vec::with_capacity(self.pieces.len());
        for (offset, length) in self.pieces {
            extents.push(Extent { offset, length, position });
            position = position.saturating_add(length);
        }
        if position != end {
            return Err("its sparse map does not fit its data");
        }
        Ok(extents)
    }
}

/// What an extended header says about a sparse file: versions 0.0, 0.1 and 1.0.
#[derive(Default)]
pub(super) struct PaxSparse {
    /// The file's path (0.1 and 1.0).
    pub(super) name: Option<Vec<u8>>,
    used: bool,
    major: Option<u64>,
    minor: Option<u64>,
    /// Size of the file (`size` in 0.0 and 0.1, `realsize` in 1.0).
    size: Option<u64>,
    /// Number of pieces.
    count: Option<u64>,
    /// Offsets and lengths in turn.
    map: Vec<u64>,
}

impl PaxSparse {
    pub(super) fn is_used(&self) -> bool {
        self.used
    }

    /// Takes a record whose key begins with `GNU.sparse.`
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        self.used = true;
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.major = Some(number(value)?),
            b"minor" => self.minor = Some(number(value)?),
            b"size" | b"realsize" => {
                if self.size.replace(number(value)?).is_some() {
                    return Err("a sparse file has two sizes");
                }
            }
            b"numblocks" => self.count = Some(number(value)?),
            b"offset" if self.map.len().is_multiple_of(2) => self.push(number(value)?)?,
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.push(number(value)?)?,
            b"map" if self.map.is_empty() => {
                for field in value.split(|&byte| byte == b',') {
                    self.push(number(field)?)?;
                }
            }
            _ => return Err("an extended header about a sparse file is out of order"),
        }
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<(), &'static str> {
        if self.map.len() >= 2 * MAX_PIECES {
            return Err("its sparse map has more than 65536 pieces");
        }
        self.map.push(number);
        Ok(())
    }

    /// The map; in version 1.0 it is in the first blocks of the file's data.
    pub(super) fn map(
        &self,
        mut next_block: impl FnMut() -> Result<[u8; BLOCK], TarError>,
    ) -> Result<SparseMap, Problem> {
        let size = self.size.ok_or("a sparse file without its size")?;
        let mut map = SparseMap::new(size);
        match (self.major, self.minor) {
            (None | Some(0), None | Some(0 | 1)) => {
                if !self.map.len().is_multiple_of(2)
                    || self.count.is_some_and(|count| count != self.pieces())
                {
                    return Err("its sparse map is not whole".into());
                }
                for piece in self.map.chunks_exact(2) {
                    map.add(piece[0], piece[1])?;
                }
            }
            (Some(1), Some(0)) if self.map.is_empty() && self.count.is_none() => {
                let mut lines = Lines { block: [0; BLOCK], at: BLOCK };
                let count = lines.number(&mut next_block)?;
                for _ in 0..count {
                    let offset = lines.number(&mut next_block)?;
                    let length = lines.number(&mut next_block)?;
                    map.add(offset, length)?;
                }
                if lines.block[lines.at..].iter().any(|&byte| byte != 0) {
                    return Err("its sparse map is not padded with zeros".into());
                }
            }
            _ => return Err("a sparse file of an unknown version".into()),
        }
        Ok(map)
    }

    fn pieces(&self) -> u64 {
        u64::try_from(self.map.len() / 2).unwrap_or(u64::MAX)
    }
}

/// Numbers, one in a line, in blocks.
struct Lines {
    block: [u8; BLOCK],
    at: usize,
}

impl Lines {
    fn number(
        &mut self,
        next_block: &mut impl FnMut() -> Result<[u8; BLOCK], TarError>,
    ) -> Result<u64, Problem> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                self.block = next_block()?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return Ok(number(&digits)?),
                // As long as 2^64.
                _ if digits.len() == 20 => return Err("a number in its sparse map".into()),
                _ => digits.push(byte),
            }
        }
    }
}
