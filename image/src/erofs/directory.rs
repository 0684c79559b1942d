//! A directory's entries, in blocks.

use super::format::DIRENT;
use crate::{
    tree::{NodeId, Tree},
    verity::BLOCK,
};
use std::iter::Peekable;

/// Whom an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The directory itself: `.`
    Own,
    /// The one above it: `..`
    Parent,
    Child(NodeId),
}

/// One block of a directory.
pub(super) struct Block<'a> {
    pub(super) entries: Vec<(&'a [u8], Target)>,
    /// Bytes of the entries with their names.
    pub(super) used: u64,
}

/// A directory's blocks. None is empty.
pub(super) fn blocks(
    tree: &Tree,
    directory: NodeId,
) -> Blocks<'_, impl Iterator<Item = (&[u8], Target)>> {
    let children = tree.children(directory).map(|(name, id)| (name, Target::Child(id)));
    let dots = [(&b"."[..], Target::Own), (b"..", Target::Parent)];
    Blocks {
        entries: Sorted { one: children.peekable(), other: dots.into_iter().peekable() }.peekable(),
    }
}

pub(super) struct Blocks<'a, I: Iterator<Item = (&'a [u8], Target)>> {
    entries: Peekable<I>,
}

impl<'a, I: Iterator<Item = (&'a [u8], Target)>> Iterator for Blocks<'a, I> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let mut block = Block { entries: Vec::new(), used: 0 };
        // Names have at most 255 bytes, so at least one fits.
        while let Some((name, target)) =
            self.entries.next_if(|(name, _)| block.used + (DIRENT + name.len()) as u64 <= BLOCK)
        {
            block.used += (DIRENT + name.len()) as u64;
            block.entries.push((name, target));
        }
        (!block.entries.is_empty()).then_some(block)
    }
}

/// Two sorted sequences as one.
struct Sorted<A: Iterator, B: Iterator> {
    one: Peekable<A>,
    other: Peekable<B>,
}

impl<'a, A, B> Iterator for Sorted<A, B>
where
    A: Iterator<Item = (&'a [u8], Target)>,
    B: Iterator<Item = (&'a [u8], Target)>,
{
    type Item = (&'a [u8], Target);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.one.peek(), self.other.peek()) {
            (Some((one, _)), Some((other, _))) if other < one => self.other.next(),
            (Some(_), _) => self.one.next(),
            (None, _) => self.other.next(),
        }
    }
}
