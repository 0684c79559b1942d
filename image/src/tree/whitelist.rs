//! Leaving out of a tree what a list of paths does not name.

use super::{NodeId, Tree};
use std::collections::{BTreeSet, HashMap};

impl Tree {
    /// Leaves out all but these paths and the directories above them (appc, aci.md,
    /// "pathWhitelist": a complete set). A directory in the list does not bring what is in it; a path
    /// is taken as it is written, no symbolic link in it is followed; one that is not there is not
    /// missed.
    pub fn retain<'a>(&mut self, paths: impl IntoIterator<Item = &'a str>) {
        let mut kept: HashMap<NodeId, BTreeSet<&[u8]>> = HashMap::new();
        for path in paths {
            let components = path.split('/').filter(|name| !matches!(*name, "" | "."));
            let mut directory = Self::ROOT;
            let mut steps = Vec::new();
            for name in components.map(str::as_bytes) {
                let Some(link) = self.lookup(directory, name) else {
                    steps.clear();
                    break;
                };
                steps.push((directory, name));
                directory = link.node;
            }
            for (directory, name) in steps {
                kept.entry(directory).or_default().insert(name);
            }
        }
        let mut pending = vec![Self::ROOT];
        while let Some(id) = pending.pop() {
            let names = kept.get(&id);
            let Some(directory) = self.directory_mut(id) else {
                continue;
            };
            match names {
                Some(names) => directory.entries.retain(|name, _| names.contains(&**name)),
                None => directory.entries.clear(),
            }
            pending.extend(directory.entries.values().map(|link| link.node));
        }
    }
}
