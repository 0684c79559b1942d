use super::{Image, Images, News, target, tree_blocks};
use crate::disk::{Device, Disk};
use crate::uevent::Corruption;
use proptest::prelude::*;
use sandbox_protocol::{MAX_CORRUPTED, Verity};

fn disk(sectors: u64) -> Disk {
    Disk { serial: "image-0".into(), device: Device { major: 254, minor: 16 }, sectors }
}

fn verity(data_blocks: u64, hash_start: u64) -> Verity {
    let mut root_hash = [0xa5; 32];
    root_hash[0] = 0x0f;
    Verity { data_blocks, hash_start, root_hash }
}

/// The line that `veritysetup` loads for such a disk, with `dmsetup table --showkeys` to see it.
#[test]
fn the_target_is_verity_without_salt_and_superblock() {
    let target = target(&verity(300, 304), &disk(8 * 308)).unwrap();
    assert_eq!((target.kind, target.sectors), ("verity", 2400));
    let root = format!("0f{}", "a5".repeat(31));
    assert_eq!(target.parameters, format!("1 254:16 254:16 4096 4096 300 304 sha256 {root} -"));
}

#[test]
fn trees_have_a_hash_for_each_block_below() {
    for (data, tree) in
        [(1, 0), (2, 1), (128, 1), (129, 3), (16_384, 129), (16_385, 132), (1 << 21, 16_513)]
    {
        assert_eq!(tree_blocks(data), tree, "{data}");
    }
}

#[test]
fn images_that_their_disk_does_not_hold_are_refused() {
    for (data_blocks, hash_start, sectors, reason) in [
        (0, 0, 80, "cannot have its hash tree at block 0"),
        (0, 5, 80, "cannot have its hash tree at block 5"),
        (5, 4, 80, "cannot have its hash tree at block 4"),
        (5, 0, 80, "cannot have its hash tree at block 0"),
        // The tree of 5 blocks takes one more; a disk that ends inside it does not do.
        (5, 5, 40, "holds 5 blocks, and with its hash tree the image has 6"),
        (5, 5, 47, "holds 5 blocks, and with its hash tree the image has 6"),
        (1, 2, 8, "holds 1 blocks, and with its hash tree the image has 2"),
        (u64::MAX, u64::MAX, u64::MAX, "holds 2305843009213693951 blocks"),
        (1, u64::MAX, 80, "holds 10 blocks"),
    ] {
        let error = target(&verity(data_blocks, hash_start), &disk(sectors)).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(target(&verity(5, 5), &disk(48)).is_ok());
    assert!(target(&verity(1, 1), &disk(8)).is_ok());
}

fn images(count: u32) -> Images {
    let image = |minor| Image { device: Device { major: 253, minor }, corrupted: Vec::new() };
    Images { images: (0..count).map(image).collect(), ..Images::default() }
}

fn found(minor: u32, block: u64) -> Corruption {
    Corruption { device: Device { major: 253, minor }, block }
}

#[test]
fn each_block_of_an_image_is_news_once() {
    let mut images = images(2);
    for corruption in [found(1, 7), found(1, 7), found(0, 7), found(1, 8), found(2, 1)] {
        images.note(corruption);
    }
    let corrupted = |image, block| News::Corrupted { image, block };
    assert_eq!(images.news(), [corrupted(1, 7), corrupted(0, 7), corrupted(1, 8)]);
    images.note(found(1, 8));
    assert_eq!(images.news(), []);
    assert_eq!(images.corrupted_block(1), Some(7));
    assert_eq!(images.corrupted_block(2), None);
}

#[test]
fn an_image_is_news_sixteen_times_at_most() {
    let mut images = images(2);
    (0..1000).for_each(|block| images.note(found(0, block)));
    images.note(found(1, 0));
    assert_eq!(MAX_CORRUPTED, 16);
    assert_eq!(images.news().len(), 17);
}

proptest! {
    #[test]
    fn what_is_accepted_fits(data_blocks: u64, hash_start: u64, sectors: u64, shift in 0_u32..64) {
        let (data_blocks, hash_start) = (data_blocks >> shift, hash_start >> shift);
        if let Ok(target) = target(&verity(data_blocks, hash_start), &disk(sectors)) {
            prop_assert!(target.sectors == data_blocks * 8 && data_blocks > 0);
            prop_assert!(data_blocks <= hash_start);
            prop_assert!((hash_start + tree_blocks(data_blocks)) * 8 <= sectors);
            prop_assert!(target.parameters.len() < 256);
        }
    }

    /// A tree is the hashes of all blocks but the topmost of itself, 128 to a block.
    #[test]
    fn trees_are_large_enough(data_blocks in 2_u64..1 << 52) {
        let tree = tree_blocks(data_blocks);
        prop_assert!(tree * 128 >= data_blocks + tree - 1);
        prop_assert!((tree - 8) * 127 <= data_blocks || tree < 9);
    }
}
