//! An image's files as one tree in memory, merged from its layers.
//!
//! The tree knows names and metadata; contents stay in the layers, by position. Whoever writes a
//! root file system walks it from [`Tree::root`]. It can't hold what a file system can't: names
//! have no `/` and no NUL, are not `.` or `..` and have at most 255 bytes; directories have one
//! place; hard links are two names with one [`NodeId`].
//!
//! # How layers are merged
//!
//! As if they were unpacked one over the other (OCI image-spec, layer.md, "Applying Changesets"):
//!
//! - An entry replaces what has its path, with all that is below, also a symbolic link to a
//!   directory; only a directory over a directory keeps what is below.
//! - `.wh.NAME` hides NAME and what is below it, `.wh..wh..opq` all that is in its directory, in
//!   either case only what lower layers put there, wherever in its layer the whiteout comes.
//! - Symbolic links among the parents of an entry are followed inside the tree, as for a process
//!   whose root directory it is; nothing is ever looked up on the host. `..` in an entry's own path
//!   is refused.
//! - Two entries of a layer with one path are refused (layer.md, "MUST NOT include duplicate
//!   entries"), unless they say the same directory twice. Parents that a layer leaves out are made
//!   with mode 0755 for root.
//! - What is below `/dev` is left out: the runtime provides it. A device node elsewhere is refused:
//!   on the host the unpacked file would open the host's own device.
//! - Of extended attributes those are kept that describe the file to whoever runs the image:
//!   `user.*`, `security.capability` and POSIX ACLs. Labels and signatures (`security.*`) are the
//!   host's to give; `trusted.*` would speak to the overlay file system in the guest.
//!
//! App Container Images are laid over those that they depend on ([`render`]).

mod dependencies;
mod merge;
mod overlay;
mod path;
mod whitelist;

use crate::layer::{Content, Timestamp, Xattr};
use std::collections::{BTreeMap, HashMap};

pub use dependencies::{Aci, Dependent, OrderError, RenderError, in_order, render};
pub use merge::{LayerError, LayerFormat};

/// An image's files.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// Number of the next archive.
    layers: u16,
    /// How often something was merged into it: layers and other trees.
    merges: u16,
    /// Whether anything said what the root directory is.
    root_said: bool,
    used: Used,
}

/// Names a [`Node`] of a [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

/// A file of any kind: what an inode is to a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Owner, mode and so on.
    pub metadata: Metadata,
    /// What it is.
    pub kind: NodeKind,
}

/// What every file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, with set-user-ID, set-group-ID and sticky bit.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Timestamp,
    /// Extended attributes, in the order of their names.
    pub xattrs: Box<[Xattr]>,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory.
    Directory(Directory),
    /// A regular file.
    File {
        /// Which layer holds its content, from 0.
        layer: u16,
        /// Where in that layer.
        content: Content,
    },
    /// A symbolic link with its target, never followed.
    Symlink(Box<[u8]>),
    /// A named pipe.
    Fifo,
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    entries: BTreeMap<Box<[u8]>, Link>,
    parent: NodeId,
    /// Directories above it.
    depth: u16,
}

/// A name's way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    node: NodeId,
    /// The last of the merges that said it.
    layer: u16,
    /// Whether that one only put something below it.
    implied: bool,
}

/// What counts against limits, over all layers.
#[derive(Clone, Debug, Default)]
struct Used {
    files: u64,
    names: u64,
    xattrs: u64,
    link_steps: u64,
}

impl Metadata {
    /// A directory that nothing is said about.
    fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Box::default() }
    }
}

impl Tree {
    /// A root directory and nothing else.
    pub fn new() -> Self {
        let directory = Directory { entries: BTreeMap::new(), parent: Self::ROOT, depth: 0 };
        let root = Node { metadata: Metadata::implied(), kind: NodeKind::Directory(directory) };
        Self { nodes: vec![root], layers: 0, merges: 0, root_said: false, used: Used::default() }
    }

    const ROOT: NodeId = NodeId(0);

    /// The root directory.
    pub fn root(&self) -> NodeId {
        Self::ROOT
    }

    /// The file that `id` names.
    ///
    /// # Panics
    /// If `id` is of another tree.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// What is in a directory, in the order of names; nothing if it is not one.
    pub fn children(&self, id: NodeId) -> impl Iterator<Item = (&[u8], NodeId)> {
        let entries = self.directory(id).map(|directory| &directory.entries);
        entries.into_iter().flatten().map(|(name, link)| (&**name, link.node))
    }

    /// How many names each file other than the root has. Files without a name, which later layers
    /// replaced, are not in it.
    pub fn link_counts(&self) -> HashMap<NodeId, u32> {
        let mut counts = HashMap::new();
        let mut pending = vec![self.root()];
        while let Some(directory) = pending.pop() {
            for (_, child) in self.children(directory) {
                let count = counts.entry(child).or_insert(0);
                *count += 1;
                if self.directory(child).is_some() {
                    pending.push(child);
                }
            }
        }
        counts
    }

    /// How many files the tree has had; those that were replaced are among them.
    pub(crate) fn id_count(&self) -> usize {
        self.nodes.len()
    }

    fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.nodes[id.index()].kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, id: NodeId) -> Option<&mut Directory> {
        match &mut self.nodes[id.index()].kind {
            NodeKind::Directory(directory) => Some(directory),
            _ => None,
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeId {
    /// A number below [`Tree::id_count`].
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}
