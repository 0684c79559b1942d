//! An image over another that it depends on, and a whitelist over both: two tar archives, each a
//! tree of its own.
#![no_main]

mod tar;

use libfuzzer_sys::fuzz_target;
use sandbox_image::{
    Limits,
    tree::{LayerFormat, Node, NodeId, NodeKind, Tree},
};
use std::{
    collections::{BTreeMap, HashSet},
    io::Cursor,
};
use tar::{Block, archive};

/// The tree as paths; a file's further names are told apart by the path of its first one.
fn listing(tree: &Tree) -> BTreeMap<Vec<u8>, (Vec<u8>, Node)> {
    let mut found = BTreeMap::new();
    let mut directories = HashSet::new();
    let mut first: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
    let mut open = vec![(Vec::new(), tree.root())];
    while let Some((path, directory)) = open.pop() {
        assert!(directories.insert(directory), "a directory has two places");
        for (name, id) in tree.children(directory) {
            assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
            let path = [&path[..], b"/", name].concat();
            let node = tree.node(id);
            let known = first.entry(id).or_insert_with(|| path.clone()).clone();
            if let NodeKind::Directory(_) = node.kind {
                open.push((path.clone(), id));
                // What is in it is listed by itself, with numbers that differ between trees.
                let node = Node { kind: NodeKind::Fifo, ..node.clone() };
                found.insert([&path[..], b"/"].concat(), (known, node));
            } else {
                found.insert(path, (known, node.clone()));
            }
        }
    }
    found
}

fuzz_target!(|input: (Vec<Block<'_>>, Vec<Block<'_>>, Vec<Vec<bool>>)| {
    let limits = Limits::default();
    let tree = |blocks: &[Block<'_>]| {
        let mut tree = Tree::new();
        let applied = tree.apply(Cursor::new(archive(blocks)), LayerFormat::Changeset, &limits);
        applied.ok().map(|()| tree)
    };
    let (Some(mut lower), Some(upper)) = (tree(&input.0), tree(&input.1)) else {
        return;
    };
    let mut copy = Tree::new();
    copy.overlay(&upper, &limits).expect("it fits where nothing is");
    assert_eq!(listing(&copy), listing(&upper));
    if lower.overlay(&upper, &limits).is_err() {
        return;
    }
    let all = listing(&lower);

    let paths: Vec<String> = input
        .2
        .iter()
        .map(|path| path.iter().map(|&name| if name { "/a" } else { "/b" }).collect())
        .collect();
    lower.retain(paths.iter().map(String::as_str));
    for (path, (_, node)) in listing(&lower) {
        assert_eq!(all.get(&path).map(|(_, node)| node), Some(&node));
        let path = path.strip_suffix(b"/").unwrap_or(&path);
        assert!(paths.iter().any(|kept| {
            let below = kept.as_bytes().strip_prefix(path);
            below.is_some_and(|below| below.is_empty() || below.starts_with(b"/"))
        }));
    }
});
