//! Writing a tree as an EROFS file system, the form in which a guest reads an image.
//!
//! The result is a pure function of the tree's names, metadata and contents: the same image gives
//! the same bytes, and so the same root hash ([`crate::verity`]), on every machine. Nothing depends
//! on time, on the order of entries in a layer, on where in a layer contents are, or on hashing.
//!
//! ```text
//!  block 0                                 a block's start       a block's start
//!  │    1024         1152                  │                     │
//!  ├────┼────────────┼──────┬───────┬──────┼─────────────┬───────┼────────────┬───────┐
//!  │ 0  │ superblock │ root │ inode │ …    │ blocks of   │ …     │ blocks of  │ …     │
//!  │    │ 128 bytes  │      │       │      │ directories │       │ files      │       │
//!  └────┴────────────┴──────┴───────┴──────┴─────────────┴───────┴────────────┴───────┘
//!                    └─ inodes in the order of a walk ──┐
//!  ┌──────────┬──────────────────┬──────────────────────┴───────────────┬─────────────┐
//!  │ inode    │ extended         │ the last part of the content,        │ zeros up to │
//!  │ 64 bytes │ attributes       │ or the block addresses of its chunks │ 32 bytes    │
//!  └──────────┴──────────────────┴──────────────────────────────────────┴─────────────┘
//! ```
//!
//! # Rules, and where they come from
//!
//! "rst" is Linux 6.12's Documentation/filesystems/erofs.rst, other names are files in its fs/erofs;
//! `erofs_fs.h` there defines every structure.
//!
//! - The superblock is at byte 1024. Its CRC32C, without the usual inversion at the end, is of the
//!   rest of block 0, its own field as zeros (`erofs_superblock_csum_verify`, super.c).
//! - An inode is found by its number: 32 times that, from `meta_blkaddr`, which is 0 here (rst,
//!   "Inode metadata space"). The superblock has 16 bits for the root's number, so the root is
//!   first. No inode crosses a block's border; the kernel would have to copy it (`erofs_read_inode`,
//!   inode.c).
//! - All inodes are extended ones, since others have no time of their own and 16 bits for owners
//!   (`struct erofs_inode_extended`).
//! - Extended attributes follow their inode: a header of 12 bytes, then entries, padded to 4 bytes.
//!   Names lose a prefix that has a number. An inode counts them in 16 bits, in units of 4 bytes,
//!   and a value's size has 16 bits (`erofs_xattr_ibody_size`, `struct erofs_xattr_entry`).
//! - Content is in whole blocks that follow each other; what is left after them may be behind the
//!   inode instead if it is in one block (`erofs_map_blocks_flatmode`, data.c). Where space for it
//!   would cost more than a block of its own, it gets that.
//! - Directories are blocks of entries, then their names. All names are in the order of their bytes
//!   over all blocks, `.` and `..` among them, since the kernel searches them in halves (rst,
//!   "Directories"; namei.c). A directory has two links, and one more for each directory in it.
//! - Files with holes are in chunks, each with a block address or, as a hole, 2^32 - 1 (rst,
//!   "Chunk-based files"; `erofs_map_blocks`, data.c). The size of chunks is the one that makes the
//!   least of addresses and data together.
//! - Block addresses have 32 bits: the file system has less than 16 TiB.
//!
//! # Memory
//!
//! Two passes: the first decides where everything is, in 40 bytes a file, the second writes from
//! beginning to end through one buffer. Contents are copied from their layers once.

mod chunks;
mod directory;
mod format;
mod layout;
mod output;
mod writer;
mod xattrs;

use crate::{
    Error, Progress, Text,
    layer::Extent,
    progress::{Cancelled, Reporter},
    tree::Tree,
    verity::BLOCK,
};
use layout::Layout;
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
};
use writer::Writer;

/// The version of all this: it changes when the same tree gives other bytes, and so another root
/// hash.
pub const VERSION: u32 = 1;

/// Writes `tree` as an EROFS file system to `to`, which is open for reading and writing and is
/// emptied first. `contents` holds the uncompressed layers that the tree's contents refer to, in
/// their order. Returns the file's size in bytes, a multiple of [`BLOCK`].
///
/// # Errors
/// [`Error::Filesystem`] if the tree has what such a file system can't hold, [`Error::Unpack`] if a
/// layer can't be read or the file not be written, [`Error::Cancelled`]. What was written is then of
/// no use.
pub fn write(
    tree: &Tree,
    contents: &[impl AsFd],
    to: &File,
    progress: &mut dyn Progress,
) -> Result<u64, Error> {
    let contents: Vec<BorrowedFd<'_>> = contents.iter().map(AsFd::as_fd).collect();
    let layout = Layout::new(tree)?;
    let mut reporter = Reporter::new(progress);
    Writer::new(tree, &layout, &contents, to, &mut reporter).write()?;
    Ok(u64::from(layout.blocks) * BLOCK)
}

/// What can be in the way of a file, before its path is put to it.
#[derive(Debug)]
enum Problem {
    /// It can't be in such a file system.
    Unfit(&'static str),
    Io(io::Error),
    Cancelled,
}

impl Problem {
    fn of(self, path: &[u8]) -> Error {
        let path = Text::new(path);
        match self {
            Self::Unfit(problem) => Error::Filesystem { path, problem },
            Self::Io(source) => Error::Unpack { path, source },
            Self::Cancelled => Error::Cancelled,
        }
    }
}

impl From<&'static str> for Problem {
    fn from(problem: &'static str) -> Self {
        Self::Unfit(problem)
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Cancelled> for Problem {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

/// The part of an extent that is in `start..end` of its file.
fn part_of(extent: Extent, start: u64, end: u64) -> Option<Extent> {
    let from = extent.offset.max(start);
    let to = (extent.offset + extent.length).min(end);
    let length = to.checked_sub(from).filter(|&length| length > 0)?;
    Some(Extent { offset: from, length, position: extent.position + (from - extent.offset) })
}
