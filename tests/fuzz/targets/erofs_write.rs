//! An image's files as an EROFS file system with its dm-verity tree: from the layers' archives, over
//! their merged tree.
#![no_main]

mod tar;

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};
use sandbox_image::{
    Error, Limits, Progress, Step, erofs,
    tree::{LayerFormat, Tree},
    verity,
};
use std::{
    fs::File,
    io::{Cursor, Write as _},
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
};
use tar::{Block, archive};

/// Larger file systems, which a few lines of a sparse map can ask for, are not written: they only
/// cost time.
const LARGEST: u64 = 4 << 20;

struct Small;

impl Progress for Small {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        match step {
            Step::Write { total, .. } if total > LARGEST => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn memory() -> File {
    memfd_create("fuzz", MemfdFlags::CLOEXEC).expect("a file in memory").into()
}

fuzz_target!(|input: (Vec<Block<'_>>, Vec<Block<'_>>)| {
    let layers = [archive(&input.0), archive(&input.1)];
    let limits = Limits::default();
    let mut tree = Tree::new();
    for layer in &layers {
        if tree.apply(Cursor::new(layer), LayerFormat::Changeset, &limits).is_err() {
            return;
        }
    }
    let spools = layers.map(|layer| {
        let mut spool = memory();
        spool.write_all(&layer).expect("it is in memory");
        spool
    });
    let image = memory();
    let size = match erofs::write(&tree, &spools, &image, &mut Small) {
        Ok(size) => size,
        Err(Error::Filesystem { .. } | Error::Cancelled) => return,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(image.metadata().expect("it is in memory").len(), size);
    let blocks = size / verity::BLOCK;
    assert!(blocks > 0 && size % verity::BLOCK == 0);

    let mut superblock = [0; 128];
    image.read_exact_at(&mut superblock, 1024).expect("a superblock");
    let number =
        |at: usize| u32::from_le_bytes(superblock[at..at + 4].try_into().expect("4 bytes"));
    assert_eq!(number(0), 0xe0f5_e1e2);
    assert_eq!(u64::from(number(36)), blocks);
    assert_eq!(number(16) as usize, tree.link_counts().len() + 1);
    let root = u64::from(number(12) >> 16) * 32;
    let mut inode = [0; 64];
    image.read_exact_at(&mut inode, root).expect("a root directory");
    assert_eq!((inode[0] & 1, inode[5] >> 4), (1, 4));

    let tree = verity::append(&image, blocks, &mut ()).expect("a hash tree");
    verity::check(&image, &tree, &mut ()).expect("what was written just now");
});
