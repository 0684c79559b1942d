use super::{
    Directory, Link, Metadata, Node, NodeId, NodeKind, Tree,
    path::{check_name, components},
};
use crate::{
    Limit, LimitExceeded, Limits, Text,
    layer::{Entry, EntryKind, TarError, TarReader, Xattr},
};
use std::{
    collections::{BTreeMap, HashSet},
    io::{Read, Seek},
    mem,
};

/// What an archive's paths mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerFormat {
    /// A layer of an OCI or Docker image: paths are from the image's root, whiteouts hide what is in
    /// lower layers.
    Changeset,
    /// An ACI: the root is in `rootfs`; beside it is `manifest` and nothing else.
    Aci,
}

/// Why a layer is refused.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It can't be read as a tar archive.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The image is over a limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// An entry of it can't be taken over.
    #[error("entry '{path}' is refused: {problem}")]
    Entry {
        /// The entry's path.
        path: Text,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// What can be wrong with an entry, before its path is put to it.
#[derive(Debug)]
pub(super) enum Problem {
    Entry(&'static str),
    Limit(LimitExceeded),
}

impl Problem {
    /// The error for the entry with this path.
    pub(super) fn at(self, path: &[u8]) -> LayerError {
        match self {
            Self::Entry(problem) => LayerError::Entry { path: Text::new(path), problem },
            Self::Limit(limit) => limit.into(),
        }
    }
}

impl From<&'static str> for Problem {
    fn from(problem: &'static str) -> Self {
        Self::Entry(problem)
    }
}

impl From<LimitExceeded> for Problem {
    fn from(limit: LimitExceeded) -> Self {
        Self::Limit(limit)
    }
}

/// As Linux: more symbolic links in a path are taken for a loop.
const MAX_LINKS: usize = 40;

/// Most components that are walked in targets of symbolic links, over all layers. A few thousand
/// entries whose parents are long chains of links could keep this process busy for hours.
const MAX_LINK_STEPS: u64 = 1 << 24;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that begin so are notes of the AUFS file system to itself.
const AUFS: &[u8] = b".wh..wh.";

impl Tree {
    /// Merges the next layer, an uncompressed tar archive, into the tree. Its contents are referred
    /// to as those of the layer with the next number, from 0.
    ///
    /// # Errors
    /// See [`LayerError`]; the tree is then of no use.
    pub fn apply<R: Read + Seek>(
        &mut self,
        layer: R,
        format: LayerFormat,
        limits: &Limits,
    ) -> Result<(), LayerError> {
        let number = self.layers;
        limits.check(Limit::Layers, u64::from(number) + 1)?;
        self.layers += 1;
        let merged = self.next_merge(limits)?;
        let mut archive = TarReader::new(layer, limits)?;
        if format == LayerFormat::Changeset {
            archive = archive.without_end_marker();
        }
        let mut merge = Merge::new(self, merged, number, limits);
        let mut parts = AciParts::default();
        while let Some(mut entry) = archive.next_entry()? {
            let path = mem::take(&mut entry.path);
            let merged = match format {
                LayerFormat::Changeset => merge.entry(&path, entry),
                LayerFormat::Aci => merge.entry_of_aci(&path, entry, &mut parts),
            };
            merged.map_err(|problem| problem.at(&path))?;
        }
        if format == LayerFormat::Aci && !parts.rootfs {
            let problem = "an ACI without the directory rootfs";
            return Err(LayerError::Entry { path: Text::new("rootfs"), problem });
        }
        Ok(())
    }

    /// The number of what is merged next.
    pub(super) fn next_merge(&mut self, limits: &Limits) -> Result<u16, LimitExceeded> {
        let number = self.merges;
        let most = LimitExceeded { limit: Limit::Layers, value: limits.get(Limit::Layers) };
        self.merges = number.checked_add(1).ok_or(most)?;
        Ok(number)
    }

    pub(super) fn add(&mut self, node: Node) -> Result<NodeId, Problem> {
        let id = u32::try_from(self.nodes.len()).map_err(|_| "there are too many files")?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    pub(super) fn lookup(&self, directory: NodeId, name: &[u8]) -> Option<Link> {
        self.directory(directory)?.entries.get(name).copied()
    }

    pub(super) fn link(&mut self, directory: NodeId, name: &[u8], link: Link) {
        if let Some(directory) = self.directory_mut(directory) {
            directory.entries.insert(name.into(), link);
        }
    }
}

/// What was found in an ACI.
#[derive(Default)]
struct AciParts {
    manifest: bool,
    rootfs: bool,
}

/// Merging one layer, or one tree over another.
pub(super) struct Merge<'a> {
    pub(super) tree: &'a mut Tree,
    /// Its number among what was merged.
    pub(super) layer: u16,
    /// The number of the archive that contents are in.
    archive: u16,
    limits: &'a Limits,
    /// What whiteouts of this layer hid: directory and name, an empty one for all of them. A
    /// whiteout may walk far, so none may come twice.
    whiteouts: HashSet<(NodeId, Vec<u8>)>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(tree: &'a mut Tree, layer: u16, archive: u16, limits: &'a Limits) -> Self {
        Self { tree, layer, archive, limits, whiteouts: HashSet::new() }
    }

    /// Merges an entry of a changeset.
    fn entry(&mut self, path: &[u8], entry: Entry) -> Result<(), Problem> {
        let components = components(path, self.limits)?;
        self.count(&components, &entry)?;
        if is_below_dev(&components) || components.iter().any(|name| is_aufs(name)) {
            return Ok(());
        }
        let Some((name, parents)) = components.split_last() else {
            return self.root(entry);
        };
        if parents.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err("a whiteout is not a directory".into());
        }
        if *name == OPAQUE {
            return self.whiteout(parents, None);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            check_name(hidden)?;
            return self.whiteout(parents, Some(hidden));
        }
        if let EntryKind::HardLink(target) = &entry.kind {
            let target = components_of_target(target, self.limits)?;
            return self.hard_link(parents, name, &target);
        }
        self.file(parents, name, entry)
    }

    /// Merges an entry of an ACI.
    fn entry_of_aci(
        &mut self,
        path: &[u8],
        entry: Entry,
        parts: &mut AciParts,
    ) -> Result<(), Problem> {
        let components = components(path, self.limits)?;
        self.count(&components, &entry)?;
        match components.as_slice() {
            [] => Ok(()),
            [b"manifest"] if parts.manifest => Err("an ACI has one manifest".into()),
            [b"manifest"] => {
                parts.manifest = true;
                Ok(())
            }
            [b"rootfs"] => {
                parts.rootfs = true;
                self.root(entry)
            }
            [b"rootfs", path @ ..] if is_below_dev(path) => Ok(()),
            [b"rootfs", parents @ .., name] => {
                parts.rootfs = true;
                if let EntryKind::HardLink(target) = &entry.kind {
                    let target = components_of_target(target, self.limits)?;
                    let target = target.strip_prefix(&[&b"rootfs"[..]]);
                    let target = target.ok_or("it is a hard link to something outside rootfs")?;
                    return self.hard_link(parents, name, target);
                }
                self.file(parents, name, entry)
            }
            _ => Err("an ACI holds 'manifest' and 'rootfs', and nothing else".into()),
        }
    }

    /// Counts an entry against the limits.
    fn count(&mut self, components: &[&[u8]], entry: &Entry) -> Result<(), Problem> {
        let pieces = match &entry.kind {
            EntryKind::File(content) => content.extents().count().max(1),
            _ => 1,
        };
        let link = match &entry.kind {
            EntryKind::Symlink(target) => target.len(),
            _ => 0,
        };
        let xattrs = entry.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len());
        let used = &mut self.tree.used;
        used.files += pieces as u64;
        used.names += (components.last().map_or(0, |name| name.len()) + link) as u64;
        used.xattrs += xattrs.sum::<usize>() as u64;
        self.check()
    }

    /// Holds what was counted against the limits.
    pub(super) fn check(&self) -> Result<(), Problem> {
        self.limits.check(Limit::Files, self.tree.used.files)?;
        self.limits.check(Limit::Names, self.tree.used.names)?;
        self.limits.check(Limit::Xattrs, self.tree.used.xattrs)?;
        Ok(())
    }

    /// The entry of the root directory itself.
    fn root(&mut self, entry: Entry) -> Result<(), Problem> {
        if entry.kind != EntryKind::Directory {
            return Err("the root of an image is a directory".into());
        }
        self.tree.nodes[Tree::ROOT.index()].metadata = metadata_of(entry);
        self.tree.root_said = true;
        Ok(())
    }

    /// An entry that is a file of its own.
    fn file(&mut self, parents: &[&[u8]], name: &[u8], mut entry: Entry) -> Result<(), Problem> {
        let parent = self.walk(parents, Missing::Make)?.ok_or("its directory is missing")?;
        let kind = match mem::replace(&mut entry.kind, EntryKind::Directory) {
            EntryKind::Directory => return self.directory(parent, name, metadata_of(entry)),
            EntryKind::File(content) => NodeKind::File { layer: self.archive, content },
            EntryKind::Symlink(target) => NodeKind::Symlink(target.into()),
            EntryKind::Fifo => NodeKind::Fifo,
            EntryKind::Device => {
                return Err("it is a device node outside /dev; an image must not bring any".into());
            }
            EntryKind::HardLink(_) => return Err("it is a hard link".into()),
        };
        self.make_way(parent, name)?;
        let node = self.tree.add(Node { metadata: metadata_of(entry), kind })?;
        self.tree.link(parent, name, Link { node, layer: self.layer, implied: false });
        Ok(())
    }

    pub(super) fn directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        metadata: Metadata,
    ) -> Result<(), Problem> {
        let existing = self.tree.lookup(parent, name);
        let existing = existing.filter(|link| self.tree.directory(link.node).is_some());
        let Some(mut link) = existing else {
            self.make_way(parent, name)?;
            let link = self.add_directory(parent, metadata)?;
            self.tree.link(parent, name, link);
            return Ok(());
        };
        let node = &mut self.tree.nodes[link.node.index()];
        if link.layer == self.layer && !link.implied {
            return if node.metadata == metadata {
                Ok(())
            } else {
                Err("the layer has it twice, and differently".into())
            };
        }
        node.metadata = metadata;
        (link.layer, link.implied) = (self.layer, false);
        self.tree.link(parent, name, link);
        Ok(())
    }

    fn hard_link(
        &mut self,
        parents: &[&[u8]],
        name: &[u8],
        target: &[&[u8]],
    ) -> Result<(), Problem> {
        const MISSING: &str = "it is a hard link to something that is not in the image";
        let (target_name, target_parents) = target.split_last().ok_or(MISSING)?;
        let directory = self.walk(target_parents, Missing::Leave)?.ok_or(MISSING)?;
        // As link(2): a symbolic link is linked itself.
        let target = self.tree.lookup(directory, target_name).ok_or(MISSING)?;
        if self.tree.directory(target.node).is_some() {
            return Err("it is a hard link to a directory".into());
        }
        let parent = self.walk(parents, Missing::Make)?.ok_or("its directory is missing")?;
        self.make_way(parent, name)?;
        let link = Link { node: target.node, layer: self.layer, implied: false };
        self.tree.link(parent, name, link);
        Ok(())
    }

    /// Hides what lower layers have under a name, or under all names of a directory.
    fn whiteout(&mut self, parents: &[&[u8]], name: Option<&[u8]>) -> Result<(), Problem> {
        let Some(parent) = self.walk(parents, Missing::Leave)? else {
            return Ok(());
        };
        if !self.whiteouts.insert((parent, name.unwrap_or_default().to_vec())) {
            return Err("the layer has this whiteout twice".into());
        }
        match name {
            Some(name) => self.hide(parent, name),
            None => self.hide_children(parent),
        }
        Ok(())
    }

    /// Removes what lower layers have in a directory.
    fn hide_children(&mut self, directory: NodeId) {
        let names = self
            .tree
            .directory(directory)
            .map(|directory| directory.entries.keys().cloned().collect::<Vec<_>>());
        for name in names.unwrap_or_default() {
            self.hide(directory, &name);
        }
    }

    /// Removes what lower layers have under a name. What this layer put there or below stays. The
    /// depth of directories is bounded, so the recursion is.
    fn hide(&mut self, parent: NodeId, name: &[u8]) {
        let Some(link) = self.tree.lookup(parent, name) else {
            return;
        };
        self.hide_children(link.node);
        if link.layer == self.layer {
            return;
        }
        if self.tree.directory(link.node).is_some_and(|rest| !rest.entries.is_empty()) {
            // What is left was put below it by this layer, as if nothing had been there.
            self.tree.nodes[link.node.index()].metadata = Metadata::implied();
            let link = Link { node: link.node, layer: self.layer, implied: true };
            self.tree.link(parent, name, link);
        } else if let Some(parent) = self.tree.directory_mut(parent) {
            parent.entries.remove(name);
        }
    }

    /// Prepares that something new gets this name: what this layer put there itself is refused to
    /// be replaced.
    pub(super) fn make_way(&self, parent: NodeId, name: &[u8]) -> Result<(), Problem> {
        match self.tree.lookup(parent, name) {
            Some(link) if link.layer == self.layer || self.has_own_below(link.node) => {
                Err("the layer has it twice".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether this layer put something below a directory.
    fn has_own_below(&self, node: NodeId) -> bool {
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            let entries = self.tree.directory(node).map(|directory| &directory.entries);
            for link in entries.into_iter().flat_map(BTreeMap::values) {
                if link.layer == self.layer {
                    return true;
                }
                pending.push(link.node);
            }
        }
        false
    }

    /// Walks from the root to a directory. Symbolic links are followed in the tree alone; `..` in
    /// their targets stops at its root.
    pub(super) fn walk(
        &mut self,
        path: &[&[u8]],
        missing: Missing,
    ) -> Result<Option<NodeId>, Problem> {
        let mut directory = Tree::ROOT;
        let mut pending: Vec<Box<[u8]>> = path.iter().rev().map(|&name| name.into()).collect();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if *name == *b".." {
                directory = self.tree.directory(directory).map_or(Tree::ROOT, |it| it.parent);
                continue;
            }
            let link = self.tree.lookup(directory, &name);
            match link.map(|link| (link, &self.tree.node(link.node).kind)) {
                Some((link, NodeKind::Directory(_))) => directory = link.node,
                Some((_, NodeKind::Symlink(target))) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err("its path has a loop of symbolic links".into());
                    }
                    if target.starts_with(b"/") {
                        directory = Tree::ROOT;
                    }
                    let steps = target
                        .rsplit(|&byte| byte == b'/')
                        .filter(|name| !matches!(*name, b"" | b"."));
                    let before = pending.len();
                    pending.extend(steps.map(Box::from));
                    self.tree.used.link_steps += (pending.len() - before) as u64;
                    if self.tree.used.link_steps > MAX_LINK_STEPS {
                        return Err("too many paths go through symbolic links".into());
                    }
                }
                _ if missing == Missing::Leave => return Ok(None),
                Some((link, _)) if link.layer == self.layer => {
                    return Err("the layer has a file where its directory should be".into());
                }
                _ => directory = self.imply(directory, &name)?,
            }
        }
        Ok(Some(directory))
    }

    /// Makes a directory that only something below it speaks of.
    fn imply(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId, Problem> {
        check_name(name)?;
        self.tree.used.files += 1;
        self.tree.used.names += name.len() as u64;
        self.check()?;
        let link = Link { implied: true, ..self.add_directory(parent, Metadata::implied())? };
        self.tree.link(parent, name, link);
        Ok(link.node)
    }

    fn add_directory(&mut self, parent: NodeId, metadata: Metadata) -> Result<Link, Problem> {
        let depth = self.tree.directory(parent).map_or(0, |parent| parent.depth) + 1;
        self.limits.check(Limit::Depth, u64::from(depth))?;
        let directory = Directory { entries: BTreeMap::new(), parent, depth };
        let node = self.tree.add(Node { metadata, kind: NodeKind::Directory(directory) })?;
        Ok(Link { node, layer: self.layer, implied: false })
    }
}

/// What to do about missing directories on a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Leave,
}

fn is_below_dev(components: &[&[u8]]) -> bool {
    matches!(components, [b"dev", _, ..])
}

fn is_aufs(name: &[u8]) -> bool {
    name.starts_with(AUFS) && name != OPAQUE
}

fn components_of_target<'a>(target: &'a [u8], limits: &Limits) -> Result<Vec<&'a [u8]>, Problem> {
    components(target, limits).map_err(|problem| match problem {
        Problem::Entry(_) => Problem::Entry("it is a hard link to a path that no entry can have"),
        limit => limit,
    })
}

fn metadata_of(entry: Entry) -> Metadata {
    let mut xattrs: Vec<Xattr> =
        entry.xattrs.into_iter().filter(|xattr| is_kept(&xattr.name)).collect();
    xattrs.sort();
    Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: xattrs.into(),
    }
}

/// Whether an extended attribute is the image's to give; see the module's documentation.
fn is_kept(name: &[u8]) -> bool {
    const KEPT: [&[u8]; 3] =
        [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    KEPT.contains(&name) || name.strip_prefix(b"user.").is_some_and(|rest| !rest.is_empty())
}
