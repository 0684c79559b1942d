//! Layers of an image: two tar archives, merged into one tree. Contents stay inside the archives.
#![no_main]

mod tar;

use libfuzzer_sys::fuzz_target;
use sandbox_image::{
    Limits,
    tree::{LayerFormat, NodeKind, Tree},
};
use std::io::Cursor;
use tar::{Block, archive};

fuzz_target!(|input: (Vec<Block<'_>>, Vec<Block<'_>>)| {
    let layers = [archive(&input.0), archive(&input.1)];
    let limits = Limits::default();
    let mut tree = Tree::new();
    for layer in &layers {
        if tree.apply(Cursor::new(layer), LayerFormat::Changeset, &limits).is_err() {
            return;
        }
    }
    for id in tree.link_counts().into_keys() {
        if let NodeKind::File { layer, content } = &tree.node(id).kind {
            let length = layers[usize::from(*layer)].len() as u64;
            for extent in content.extents() {
                assert!(extent.position + extent.length <= length);
                assert!(extent.offset + extent.length <= content.size);
            }
        }
        for (name, _) in tree.children(id) {
            assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
        }
    }
});
