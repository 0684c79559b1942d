//! One tree over another: an image over those that it depends on.

use super::{
    LayerError, Link, Node, NodeId, NodeKind, Tree,
    merge::{Merge, Missing, Problem},
};
use crate::Limits;
use std::collections::HashMap;

impl Tree {
    /// Lays another tree down over this one, as if it were a layer that has its entries in the order
    /// of their names: they replace what has their paths; only a directory over a directory keeps
    /// what is in it. A directory that the other tree only has because something is below it changes
    /// nothing about the one that is here, and may be a symbolic link to one.
    ///
    /// Contents stay where they are: both trees refer to the same archives.
    ///
    /// # Errors
    /// If both together are over a limit, or the other tree can't be laid down over this one. This
    /// one is then of no use.
    pub fn overlay(&mut self, upper: &Self, limits: &Limits) -> Result<(), LayerError> {
        let number = self.next_merge(limits)?;
        if upper.root_said {
            self.nodes[Self::ROOT.index()].metadata = upper.node(Self::ROOT).metadata.clone();
            self.root_said = true;
        }
        // No contents are new, so there is no archive that they could be in.
        let mut merge = Merge::new(self, number, u16::MAX, limits);
        // Two names of one file stay that.
        let mut copies = HashMap::new();
        // Directories from the root to where we are, without the root's name. A tree's depth is
        // bounded, and so is this.
        let mut open = vec![upper.links(Self::ROOT)];
        let mut path: Vec<&[u8]> = Vec::new();
        while let Some(links) = open.last_mut() {
            let Some((name, link)) = links.next() else {
                open.pop();
                path.pop();
                continue;
            };
            path.push(name);
            let node = upper.node(link.node);
            merge.lay(&path, link, node, &mut copies).map_err(|it| it.at(&path.join(&b'/')))?;
            if let NodeKind::Directory(_) = node.kind {
                open.push(upper.links(link.node));
            } else {
                path.pop();
            }
        }
        Ok(())
    }

    /// What is in a directory, in the order of names.
    fn links(&self, directory: NodeId) -> impl Iterator<Item = (&[u8], Link)> + use<'_> {
        let entries = self.directory(directory).map(|directory| &directory.entries);
        entries.into_iter().flatten().map(|(name, link)| (&**name, *link))
    }
}

impl Merge<'_> {
    /// Lays a file of the other tree down at its path.
    fn lay(
        &mut self,
        path: &[&[u8]],
        link: Link,
        node: &Node,
        copies: &mut HashMap<NodeId, NodeId>,
    ) -> Result<(), Problem> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(());
        };
        let copy = copies.get(&link.node).copied();
        self.count_node(name, node, copy.is_some())?;
        let is_directory = matches!(node.kind, NodeKind::Directory(_));
        if is_directory && link.implied {
            self.walk(path, Missing::Make)?;
            return Ok(());
        }
        let parent = self.walk(parents, Missing::Make)?.ok_or("its directory is missing")?;
        if is_directory {
            return self.directory(parent, name, node.metadata.clone());
        }
        self.make_way(parent, name)?;
        let copy = match copy {
            Some(copy) => copy,
            None => self.tree.add(node.clone())?,
        };
        copies.insert(link.node, copy);
        let link = Link { node: copy, layer: self.layer, implied: false };
        self.tree.link(parent, name, link);
        Ok(())
    }

    /// Counts a name against the limits, and what it names unless that was counted.
    fn count_node(&mut self, name: &[u8], node: &Node, counted: bool) -> Result<(), Problem> {
        let used = &mut self.tree.used;
        used.names += name.len() as u64;
        if counted {
            used.files += 1;
            return self.check();
        }
        let (pieces, target) = match &node.kind {
            NodeKind::File { content, .. } => (content.extents().count().max(1), 0),
            NodeKind::Symlink(target) => (1, target.len()),
            NodeKind::Directory(_) | NodeKind::Fifo => (1, 0),
        };
        let xattrs = node.metadata.xattrs.iter();
        let xattrs: usize = xattrs.map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        used.files += pieces as u64;
        used.names += target as u64;
        used.xattrs += xattrs as u64;
        self.check()
    }
}
