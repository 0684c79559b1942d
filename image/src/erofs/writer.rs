//! The second pass: writes a [`Layout`] from beginning to end.

use super::{
    Problem,
    chunks::{Chunks, pieces},
    directory::{self, Target},
    format::{self, ADDRESS, DIRENT, HOLE, Kind, Place, SLOT, SUPERBLOCK_AT, Superblock},
    layout::{Inode, Layout, kind, xattrs_of},
    output::Output,
    part_of, xattrs,
};
use crate::{
    Error,
    layer::Content,
    progress::Reporter,
    tree::{NodeKind, Tree},
    verity::{BLOCK, BLOCK_BYTES},
};
use std::{fs::File, io, os::fd::BorrowedFd, os::unix::fs::FileExt as _};

pub(super) struct Writer<'a, 'b> {
    tree: &'a Tree,
    layout: &'a Layout,
    contents: &'a [BorrowedFd<'a>],
    to: &'a File,
    reporter: &'a mut Reporter<'b>,
}

impl<'a, 'b> Writer<'a, 'b> {
    pub(super) fn new(
        tree: &'a Tree,
        layout: &'a Layout,
        contents: &'a [BorrowedFd<'a>],
        to: &'a File,
        reporter: &'a mut Reporter<'b>,
    ) -> Self {
        Self { tree, layout, contents, to, reporter }
    }

    pub(super) fn write(self) -> Result<(), Error> {
        let Self { tree, layout, contents, to, reporter } = self;
        let of_all = |problem: Problem| problem.of(b"/");
        let total = u64::from(layout.blocks) * BLOCK;
        let output = Output::new(to, total, reporter).map_err(of_all)?;
        let mut parts = Parts { tree, layout, contents, output };

        parts.superblock().map_err(of_all)?;
        for (index, inode) in layout.inodes.iter().enumerate() {
            parts.inode(index, inode).map_err(|problem| problem.of(&layout.path(tree, index)))?;
        }
        for index in layout.by_block(tree) {
            let inode = &layout.inodes[index];
            parts.blocks(inode).map_err(|problem| problem.of(&layout.path(tree, index)))?;
        }
        parts.output.finish().map_err(of_all)?;
        seal(to).map_err(|error| of_all(error.into()))
    }
}

/// Puts the checksum in, which is of more than the superblock.
fn seal(to: &File) -> io::Result<()> {
    let mut block = [0; BLOCK_BYTES];
    to.read_exact_at(&mut block, 0)?;
    format::seal(&mut block);
    to.write_all_at(&block, 0)
}

struct Parts<'a, 'b> {
    tree: &'a Tree,
    layout: &'a Layout,
    contents: &'a [BorrowedFd<'a>],
    output: Output<'a, 'b>,
}

impl Parts<'_, '_> {
    fn superblock(&mut self) -> Result<(), Problem> {
        let inodes = &self.layout.inodes;
        let root = inodes.first().and_then(|root| u16::try_from(root.slot).ok());
        let superblock = Superblock {
            root: root.ok_or("the root directory is too far behind the superblock")?,
            inodes: inodes.len() as u64,
            blocks: self.layout.blocks,
            chunks: inodes.iter().any(|inode| matches!(inode.place, Place::Chunks(_))),
        };
        self.output.skip_to(SUPERBLOCK_AT)?;
        self.output.write(&superblock.bytes())
    }

    /// Writes an inode, its attributes, and what is behind them.
    fn inode(&mut self, index: usize, inode: &Inode) -> Result<(), Problem> {
        let node = self.tree.node(inode.node);
        let xattrs = xattrs::bytes(xattrs_of(node))?;
        self.output.skip_to(inode.slot * SLOT)?;
        let written = format::Inode {
            kind: kind(node),
            metadata: &node.metadata,
            size: inode.size,
            place: inode.place,
            block: inode.block,
            xattr_units: xattrs::units(xattrs.len() as u64).ok_or("its extended attributes")?,
            // There are fewer inodes than this can count; see `Layout`.
            serial: u32::try_from(index).unwrap_or(u32::MAX),
            links: inode.links,
        };
        self.output.write(&written.bytes())?;
        self.output.write(&xattrs)?;
        match (inode.place, &node.kind) {
            (Place::Blocks, _) => Ok(()),
            (Place::Chunks(bits), NodeKind::File { content, .. }) => {
                self.addresses(inode, &Chunks::new(inode.size, &pieces(content), bits))
            }
            (_, NodeKind::File { layer, content }) => {
                self.content(*layer, content, inode.size / BLOCK * BLOCK, inode.size)
            }
            (_, NodeKind::Symlink(target)) => self.output.write(target),
            (_, NodeKind::Directory(_)) => {
                let last = directory::blocks(self.tree, inode.node).last();
                last.map_or(Ok(()), |block| self.directory_block(inode, &block))
            }
            (_, NodeKind::Fifo) => Ok(()),
        }
    }

    /// Writes the addresses of a file's chunks.
    fn addresses(&mut self, inode: &Inode, chunks: &Chunks<'_>) -> Result<(), Problem> {
        let (mut chunk, mut block) = (0, u64::from(inode.block));
        for range in chunks.with_data() {
            self.holes(range.start - chunk)?;
            chunk = range.end;
            for chunk in range {
                let address = u32::try_from(block).map_err(|_| "its blocks are beyond 16 TiB")?;
                self.output.write(&address.to_le_bytes())?;
                block += chunks.blocks_of(chunk);
            }
        }
        self.holes(chunks.count() - chunk)
    }

    fn holes(&mut self, count: u64) -> Result<(), Problem> {
        // Their address is bytes of one value.
        let [byte, ..] = HOLE.to_le_bytes();
        self.output.fill(byte, count * ADDRESS)
    }

    /// Writes what an inode has in blocks.
    fn blocks(&mut self, inode: &Inode) -> Result<(), Problem> {
        let end = match inode.place {
            Place::Inline => inode.size / BLOCK * BLOCK,
            Place::Blocks | Place::Chunks(_) => inode.size,
        };
        if end == 0 {
            return Ok(());
        }
        self.output.skip_to(self.output.position().next_multiple_of(BLOCK))?;
        match (inode.place, &self.tree.node(inode.node).kind) {
            (Place::Chunks(bits), NodeKind::File { layer, content }) => {
                let pieces = pieces(content);
                let chunks = Chunks::new(inode.size, &pieces, bits);
                for range in chunks.with_data() {
                    let blocks = chunks.blocks_of(range.end - 1) * BLOCK;
                    let (start, last) =
                        (range.start * chunks.bytes(), (range.end - 1) * chunks.bytes());
                    let next = self.output.position() + (last - start) + blocks;
                    self.content(*layer, content, start, (last + blocks).min(inode.size))?;
                    self.output.skip_to(next)?;
                }
                Ok(())
            }
            (_, NodeKind::File { layer, content }) => self.content(*layer, content, 0, end),
            (_, NodeKind::Symlink(target)) => self.output.write(target),
            (_, NodeKind::Directory(_)) => {
                let count = usize::try_from(end.div_ceil(BLOCK)).unwrap_or(usize::MAX);
                for block in directory::blocks(self.tree, inode.node).take(count) {
                    self.output.skip_to(self.output.position().next_multiple_of(BLOCK))?;
                    self.directory_block(inode, &block)?;
                }
                Ok(())
            }
            (_, NodeKind::Fifo) => Ok(()),
        }
    }

    /// Writes a part of a file, with zeros for its holes.
    fn content(
        &mut self,
        layer: u16,
        content: &Content,
        start: u64,
        end: u64,
    ) -> Result<(), Problem> {
        let missing = || Problem::Io(io::Error::from(io::ErrorKind::NotFound));
        let from = *self.contents.get(usize::from(layer)).ok_or_else(missing)?;
        let base = self.output.position();
        let pieces = pieces(content);
        let first = pieces.partition_point(|piece| piece.offset + piece.length <= start);
        for piece in pieces[first..].iter().map_while(|piece| part_of(*piece, start, end)) {
            self.output.skip_to(base + (piece.offset - start))?;
            self.output.copy(from, piece.position, piece.length)?;
        }
        self.output.skip_to(base + (end - start))
    }

    fn directory_block(
        &mut self,
        inode: &Inode,
        block: &directory::Block<'_>,
    ) -> Result<(), Problem> {
        let mut name_at = block.entries.len() * DIRENT;
        for (name, target) in &block.entries {
            let target = match target {
                Target::Own => inode,
                Target::Parent => &self.layout.inodes[inode.parent as usize],
                Target::Child(child) => self.layout.inode_of(*child),
            };
            let kind: Kind = kind(self.tree.node(target.node));
            let at = u16::try_from(name_at).map_err(|_| "its block is too large")?;
            self.output.write(&format::dirent(target.slot, at, kind))?;
            name_at += name.len();
        }
        block.entries.iter().try_for_each(|(name, _)| self.output.write(name))
    }
}
