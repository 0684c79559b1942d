//! The structures of fs/erofs/erofs_fs.h, as bytes. All numbers are little-endian.

use crate::{
    tree::Metadata,
    verity::{BLOCK, BLOCK_BYTES},
};

/// Inodes are numbered by places of this size.
pub(super) const SLOT: u64 = 32;
/// `EROFS_SUPER_OFFSET`
pub(super) const SUPERBLOCK_AT: u64 = OFFSET as u64;
/// Where the first inode is: behind the superblock.
pub(super) const FIRST_INODE_AT: u64 = SUPERBLOCK_AT + SUPERBLOCK as u64;
/// Bytes in an extended inode.
pub(super) const INODE: u64 = INODE_BYTES as u64;
/// Bytes in a directory's entry, without its name.
pub(super) const DIRENT: usize = 12;
/// The address of a chunk that is a hole (`EROFS_NULL_ADDR`). No block has it.
pub(super) const HOLE: u32 = u32::MAX;
/// Bytes in the address of a chunk.
pub(super) const ADDRESS: u64 = 4;

const OFFSET: usize = 1024;
const SUPERBLOCK: usize = 128;
const INODE_BYTES: usize = 64;
const MAGIC: u32 = 0xe0f5_e1e2;
const FEATURE_SB_CHKSUM: u32 = 1;
const FEATURE_MTIME: u32 = 2;
const FEATURE_INCOMPAT_CHUNKED_FILE: u32 = 4;

/// The kind of a file: in an inode's mode, and in a directory's entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
}

impl Kind {
    fn mode(self) -> u16 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Fifo => 0o010_000,
        }
    }

    /// `FT_…` of include/linux/fs_types.h
    fn dirent(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Fifo => 5,
            Self::Symlink => 7,
        }
    }
}

/// Where a file's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// All of it in blocks (`EROFS_INODE_FLAT_PLAIN`).
    Blocks,
    /// Whole blocks in blocks, the rest behind the inode (`EROFS_INODE_FLAT_INLINE`).
    Inline,
    /// In chunks of 2^this blocks, at most 2^31 (`EROFS_INODE_CHUNK_BASED`).
    Chunks(u8),
}

impl Place {
    fn layout(self) -> u16 {
        match self {
            Self::Blocks => 0,
            Self::Inline => 2,
            Self::Chunks(_) => 4,
        }
    }
}

/// `struct erofs_super_block`. No UUID, no time, no name: they would be the writer's.
pub(super) struct Superblock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    /// Whether any file is in chunks.
    pub(super) chunks: bool,
}

impl Superblock {
    pub(super) fn bytes(&self) -> [u8; SUPERBLOCK] {
        let mut bytes = [0; SUPERBLOCK];
        put(&mut bytes, 0, &MAGIC.to_le_bytes());
        put(&mut bytes, 8, &(FEATURE_SB_CHKSUM | FEATURE_MTIME).to_le_bytes());
        bytes[12] = u8::try_from(BLOCK.trailing_zeros()).unwrap_or(0);
        put(&mut bytes, 14, &self.root.to_le_bytes());
        put(&mut bytes, 16, &self.inodes.to_le_bytes());
        put(&mut bytes, 36, &self.blocks.to_le_bytes());
        let incompatible = if self.chunks { FEATURE_INCOMPAT_CHUNKED_FILE } else { 0 };
        put(&mut bytes, 80, &incompatible.to_le_bytes());
        bytes
    }
}

/// Puts the superblock's checksum into block 0, which has none yet.
pub(super) fn seal(block: &mut [u8; BLOCK_BYTES]) {
    let checksum = crc32c(&block[OFFSET..]);
    put(block, OFFSET + 4, &checksum.to_le_bytes());
}

/// `struct erofs_inode_extended`
pub(super) struct Inode<'a> {
    pub(super) kind: Kind,
    pub(super) metadata: &'a Metadata,
    pub(super) size: u64,
    pub(super) place: Place,
    /// The first block of the content; of no meaning in chunks.
    pub(super) block: u32,
    /// As `i_xattr_icount`.
    pub(super) xattr_units: u16,
    /// Only for 32-bit programs; the kernel goes by place.
    pub(super) serial: u32,
    pub(super) links: u32,
}

impl Inode<'_> {
    pub(super) fn bytes(&self) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        let extended = 1;
        put(&mut bytes, 0, &(extended | self.place.layout() << 1).to_le_bytes());
        put(&mut bytes, 2, &self.xattr_units.to_le_bytes());
        // As Linux has it: a symbolic link has no permissions of its own.
        let permissions = if self.kind == Kind::Symlink { 0o777 } else { self.metadata.mode };
        put(&mut bytes, 4, &(self.kind.mode() | permissions & 0o7777).to_le_bytes());
        put(&mut bytes, 8, &self.size.to_le_bytes());
        let union = match self.place {
            Place::Chunks(bits) => u32::from(bits),
            Place::Blocks | Place::Inline => self.block,
        };
        put(&mut bytes, 16, &union.to_le_bytes());
        put(&mut bytes, 20, &self.serial.to_le_bytes());
        put(&mut bytes, 24, &self.metadata.uid.to_le_bytes());
        put(&mut bytes, 28, &self.metadata.gid.to_le_bytes());
        put(&mut bytes, 32, &self.metadata.mtime.seconds.to_le_bytes());
        put(&mut bytes, 40, &self.metadata.mtime.nanoseconds.to_le_bytes());
        put(&mut bytes, 44, &self.links.to_le_bytes());
        bytes
    }
}

/// `struct erofs_dirent`; `name_at` is where the name begins in the block.
pub(super) fn dirent(slot: u64, name_at: u16, kind: Kind) -> [u8; DIRENT] {
    let mut bytes = [0; DIRENT];
    put(&mut bytes, 0, &slot.to_le_bytes());
    put(&mut bytes, 8, &name_at.to_le_bytes());
    bytes[10] = kind.dirent();
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// As the kernel's `crc32c(~0, …)`: the Castagnoli polynomial, reflected, not inverted at the end.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |mut sum, &byte| {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            let carry = sum & 1;
            sum = (sum >> 1) ^ (carry * 0x82f6_3b78);
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of RFC 3720, which inverts it at the end.
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
