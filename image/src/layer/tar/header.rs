use super::{Problem, TarError, Timestamp, sparse::SparseMap};

/// Size of a header, and what contents are padded to.
pub(super) const BLOCK: usize = 512;

/// A header block whose checksum is right (POSIX.1-2024, pax, "ustar Interchange Format").
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Before ustar; no magic.
    Version7,
    Ustar,
    /// Old GNU tar: no prefix, other fields in its place.
    Gnu,
}

const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 108);
const UID: (usize, usize) = (108, 116);
const GID: (usize, usize) = (116, 124);
const SIZE: (usize, usize) = (124, 136);
const MTIME: (usize, usize) = (136, 148);
const CHECKSUM: (usize, usize) = (148, 156);
const TYPEFLAG: usize = 156;
const LINK: (usize, usize) = (157, 257);
const MAGIC: (usize, usize) = (257, 265);
const PREFIX: (usize, usize) = (345, 500);
const GNU_SPARSE: (usize, usize) = (386, 482);
const GNU_MORE_SPARSE: usize = 482;
const GNU_REAL_SIZE: (usize, usize) = (483, 495);

impl<'a> Header<'a> {
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Result<Self, &'static str> {
        let format = match field(block, MAGIC) {
            b"ustar\x0000" => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            b"\0\0\0\0\0\0\0\0" => Format::Version7,
            _ => return Err("not a tar header"),
        };
        let header = Self { block, format };
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, &byte)| if (CHECKSUM.0..CHECKSUM.1).contains(&at) { b' ' } else { byte })
            .map(u64::from)
            .sum();
        match number(field(block, CHECKSUM)) {
            Ok(said) if said == sum => Ok(header),
            _ => Err("the header's checksum is wrong"),
        }
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.block[TYPEFLAG]
    }

    /// Name, with its prefix if there is one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(field(self.block, NAME));
        let prefix = text(field(self.block, PREFIX));
        if self.format != Format::Ustar || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, name].join(&b'/')
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(field(self.block, LINK)).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u16, &'static str> {
        // Some writers put the type of the file above the permission bits.
        Ok((number(field(self.block, MODE))? & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Result<u64, &'static str> {
        number(field(self.block, UID))
    }

    pub(super) fn gid(&self) -> Result<u64, &'static str> {
        number(field(self.block, GID))
    }

    pub(super) fn size(&self) -> Result<u64, &'static str> {
        number(field(self.block, SIZE))
    }

    pub(super) fn mtime(&self) -> Result<Timestamp, &'static str> {
        let field = field(self.block, MTIME);
        // Only a time can be negative: binary, in two's complement.
        let seconds = if field[0] == 0xff {
            let low = field[field.len() - 8..].try_into().map(i64::from_be_bytes);
            let low = low.map_err(|_| NOT_A_NUMBER)?;
            if low >= 0 || field[..field.len() - 8].iter().any(|&byte| byte != 0xff) {
                return Err(NOT_A_NUMBER);
            }
            low
        } else {
            i64::try_from(number(field)?).map_err(|_| NOT_A_NUMBER)?
        };
        Ok(Timestamp { seconds, nanoseconds: 0 })
    }

    /// The map of a sparse file in the old GNU format; `next_block` gives the blocks after the
    /// header.
    pub(super) fn sparse_map(
        &self,
        mut next_block: impl FnMut() -> Result<[u8; BLOCK], TarError>,
    ) -> Result<SparseMap, Problem> {
        if self.format != Format::Gnu {
            return Err("a sparse file outside the GNU format".into());
        }
        let mut map = SparseMap::new(number(field(self.block, GNU_REAL_SIZE))?);
        let mut ended = add_to(&mut map, field(self.block, GNU_SPARSE), false)?;
        let mut more = self.block[GNU_MORE_SPARSE];
        while more != 0 {
            let block = next_block()?;
            ended = add_to(&mut map, &block[..504], ended)?;
            more = block[504];
        }
        Ok(map)
    }
}

/// Adds the pieces in `fields` up to the first empty one; says whether there was one.
fn add_to(map: &mut SparseMap, fields: &[u8], mut ended: bool) -> Result<bool, &'static str> {
    for piece in fields.chunks_exact(24) {
        if piece[0] == 0 {
            ended = true;
        } else if ended {
            return Err("a sparse map goes on after its end");
        } else {
            map.add(number(&piece[..12])?, number(&piece[12..])?)?;
        }
    }
    Ok(ended)
}

fn field(block: &[u8; BLOCK], (start, end): (usize, usize)) -> &[u8] {
    &block[start..end]
}

/// Text up to the first NUL, or the whole field.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

const NOT_A_NUMBER: &str = "a field of the header is not a number";

/// A number in octal digits, with spaces before it and spaces or NULs after it, or in binary after
/// a byte 0x80 (GNU and star). An empty field is 0.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        return match (high, low.try_into()) {
            ([0x80, zeros @ ..], Ok(low)) if zeros.iter().all(|&byte| byte == 0) => {
                Ok(u64::from_be_bytes(low))
            }
            // In the fields of 8 bytes the mark is part of the number.
            ([], Ok(low)) if field[0] == 0x80 => Ok(u64::from_be_bytes(low) & !(1 << 63)),
            _ => Err(NOT_A_NUMBER),
        };
    }
    let start = field.iter().position(|&byte| byte != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if !digits.iter().all(|byte| matches!(byte, b'0'..=b'7'))
        || !rest.iter().all(|byte| matches!(byte, b' ' | 0))
    {
        return Err(NOT_A_NUMBER);
    }
    // At most 12 digits of 3 bits.
    Ok(digits.iter().fold(0, |number, digit| number << 3 | u64::from(digit - b'0')))
}
