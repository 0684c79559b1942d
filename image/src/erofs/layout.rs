//! The first pass: where everything will be.

use super::{
    Problem,
    chunks::{Chooser, Chunks, pieces},
    directory,
    format::{ADDRESS, FIRST_INODE_AT, HOLE, INODE, Kind, Place, SLOT},
    xattrs,
};
use crate::{
    Error,
    layer::Xattr,
    tree::{Node, NodeId, NodeKind, Tree},
    verity::BLOCK,
};

/// A file system before it is written.
pub(super) struct Layout {
    /// In the order in which they are written.
    pub(super) inodes: Vec<Inode>,
    /// Indices of inodes, by the numbers of nodes.
    by_node: Vec<u32>,
    /// Where the inodes end.
    pub(super) inodes_end: u64,
    /// Blocks of the file system.
    pub(super) blocks: u32,
}

/// An inode's place.
#[derive(Clone, Copy)]
pub(super) struct Inode {
    pub(super) node: NodeId,
    /// The index of the directory that has its first name.
    pub(super) parent: u32,
    pub(super) links: u32,
    /// Where its content begins, if it has blocks.
    pub(super) block: u32,
    /// Its number: where it is, in [`SLOT`]s.
    pub(super) slot: u64,
    /// Bytes of its content.
    pub(super) size: u64,
    pub(super) place: Place,
}

/// No inode has this index.
const NONE: u32 = u32::MAX;

impl Layout {
    pub(super) fn new(tree: &Tree) -> Result<Self, Error> {
        let mut layout = Self {
            inodes: Vec::new(),
            by_node: vec![NONE; tree.id_count()],
            inodes_end: FIRST_INODE_AT,
            blocks: 0,
        };
        layout.walk(tree).map_err(|problem| problem.of(b"/"))?;
        let mut chooser = Chooser::default();
        for index in 0..layout.inodes.len() {
            let placed = layout.place(tree, index, &mut chooser);
            placed.map_err(|problem| problem.of(&layout.path(tree, index)))?;
        }
        layout.assign_blocks(tree)?;
        Ok(layout)
    }

    /// The inode of a node that has a name.
    pub(super) fn inode_of(&self, node: NodeId) -> &Inode {
        &self.inodes[self.by_node[node.index()] as usize]
    }

    /// The inodes in the order of their blocks: directories first, so that a search reads few places.
    pub(super) fn by_block<'a>(&'a self, tree: &'a Tree) -> impl Iterator<Item = usize> {
        let is_directory = |index: &usize| kind(tree.node(self.inodes[*index].node));
        let all = 0..self.inodes.len();
        let directories = all.clone().filter(move |index| is_directory(index) == Kind::Directory);
        directories.chain(all.filter(move |index| is_directory(index) != Kind::Directory))
    }

    /// A path of an inode, from the image's root.
    pub(super) fn path(&self, tree: &Tree, index: usize) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self.inodes[index];
        while at.node != tree.root() {
            let parent = self.inodes[at.parent as usize];
            let mut children = tree.children(parent.node);
            names.push(children.find(|(_, child)| *child == at.node).map_or(&b"?"[..], |it| it.0));
            at = parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() { b"/".to_vec() } else { path }
    }

    /// Finds the inodes and counts their names. The root is first; what is in a directory is
    /// together, in the order of names, and is followed by what is in its first directory. A file
    /// with several names is where the first of them is.
    fn walk(&mut self, tree: &Tree) -> Result<(), Problem> {
        self.add(tree, tree.root(), 0)?;
        let mut pending = vec![0];
        let mut found = Vec::new();
        while let Some(directory) = pending.pop() {
            for (_, child) in tree.children(self.inodes[directory as usize].node) {
                let known = self.by_node[child.index()];
                if known != NONE {
                    self.inodes[known as usize].links += 1;
                    continue;
                }
                let index = self.add(tree, child, directory)?;
                if kind(tree.node(child)) == Kind::Directory {
                    self.inodes[directory as usize].links += 1;
                    found.push(index);
                }
            }
            pending.extend(found.drain(..).rev());
        }
        Ok(())
    }

    fn add(&mut self, tree: &Tree, node: NodeId, parent: u32) -> Result<u32, Problem> {
        let index = u32::try_from(self.inodes.len()).ok().filter(|&index| index != NONE);
        let index = index.ok_or("there are too many files")?;
        let links = if kind(tree.node(node)) == Kind::Directory { 2 } else { 1 };
        let place = Place::Blocks;
        self.inodes.push(Inode { node, parent, links, block: 0, slot: 0, size: 0, place });
        self.by_node[node.index()] = index;
        Ok(index)
    }

    /// Puts the next inode behind those before it.
    fn place(&mut self, tree: &Tree, index: usize, chooser: &mut Chooser) -> Result<(), Problem> {
        let inode = &mut self.inodes[index];
        let node = tree.node(inode.node);
        inode.size = match &node.kind {
            NodeKind::Directory(_) => {
                let mut blocks = directory::blocks(tree, inode.node);
                let first = blocks.next().map_or(0, |block| block.used);
                blocks.fold(first, |size, block| size.next_multiple_of(BLOCK) + block.used)
            }
            NodeKind::File { content, .. } => content.size,
            NodeKind::Symlink(target) => target.len() as u64,
            NodeKind::Fifo => 0,
        };
        // The kernel rounds sizes up to blocks, in 63 bits.
        if inode.size > i64::MAX.unsigned_abs() / BLOCK * BLOCK {
            return Err("its size is beyond that of any file".into());
        }
        let chunks = match &node.kind {
            NodeKind::File { content, .. } => chooser.choose(content)?,
            _ => None,
        };
        let head = INODE + xattrs::size(xattrs_of(node))?;
        let tail = inode.size % BLOCK;
        let whole = start(self.inodes_end, INODE, 0).unwrap_or(self.inodes_end);
        let (at, end);
        if let (Some(bits), NodeKind::File { content, .. }) = (chunks, &node.kind) {
            inode.place = Place::Chunks(bits);
            let count = Chunks::new(inode.size, &pieces(content), bits).count();
            (at, end) = (whole, whole + head + count * ADDRESS);
        } else {
            // Behind the inode if that leaves less room unused than a block of its own does.
            let fits = start(self.inodes_end, head, tail);
            let fits = fits.filter(|at| tail > 0 && at - whole < BLOCK - tail);
            inode.place = if fits.is_some() { Place::Inline } else { Place::Blocks };
            at = fits.unwrap_or(whole);
            end = at + head + if fits.is_some() { tail } else { 0 };
        }
        inode.slot = at / SLOT;
        self.inodes_end = end;
        Ok(())
    }

    /// Gives everything its blocks.
    fn assign_blocks(&mut self, tree: &Tree) -> Result<(), Error> {
        const TOO_LARGE: &str = "the image has 16 TiB or more, which its file system can't hold";
        // No block may have the address that stands for holes.
        let below_limit = |blocks: u64| u32::try_from(blocks).ok().filter(|&it| it < HOLE);
        let mut next = self.inodes_end.div_ceil(BLOCK);
        let order: Vec<u32> = self.by_block(tree).filter_map(|it| u32::try_from(it).ok()).collect();
        for index in order {
            let index = index as usize;
            let blocks = self.blocks_of(tree, index);
            let end = next.checked_add(blocks).and_then(below_limit);
            if end.is_none() {
                return Err(Problem::Unfit(TOO_LARGE).of(&self.path(tree, index)));
            }
            if let Some(first) = below_limit(next).filter(|_| blocks > 0) {
                self.inodes[index].block = first;
            }
            next += blocks;
        }
        self.blocks = below_limit(next).ok_or_else(|| Problem::Unfit(TOO_LARGE).of(b"/"))?;
        Ok(())
    }

    /// Blocks of a content, without what is behind the inode.
    fn blocks_of(&self, tree: &Tree, index: usize) -> u64 {
        let inode = &self.inodes[index];
        match (inode.place, &tree.node(inode.node).kind) {
            (Place::Chunks(bits), NodeKind::File { content, .. }) => {
                Chunks::new(inode.size, &pieces(content), bits).blocks()
            }
            (Place::Inline, _) => inode.size / BLOCK,
            _ => inode.size.div_ceil(BLOCK),
        }
    }
}

/// The first place from `from` on where an inode can be whose `head`, itself and its attributes, is
/// followed by `tail`: neither the inode nor the tail may cross a block's border. There is none for
/// some tails of almost a block behind attributes.
fn start(from: u64, head: u64, tail: u64) -> Option<u64> {
    let in_one_block = |at: u64, length| at % BLOCK + length <= BLOCK;
    let first = from.next_multiple_of(SLOT);
    let mut places = (0..=BLOCK / SLOT).map(|slots| first + slots * SLOT);
    places.find(|&at| in_one_block(at, INODE) && in_one_block(at + head, tail))
}

pub(super) fn kind(node: &Node) -> Kind {
    match node.kind {
        NodeKind::Directory(_) => Kind::Directory,
        NodeKind::File { .. } => Kind::File,
        NodeKind::Symlink(_) => Kind::Symlink,
        NodeKind::Fifo => Kind::Fifo,
    }
}

/// The attributes of a file that can have those that an image may give: not a symbolic link, and
/// not a named pipe (as in [`crate::Store::tree`]).
pub(super) fn xattrs_of(node: &Node) -> &[Xattr] {
    match node.kind {
        NodeKind::Directory(_) | NodeKind::File { .. } => &node.metadata.xattrs,
        NodeKind::Symlink(_) | NodeKind::Fifo => &[],
    }
}
