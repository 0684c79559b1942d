//! The pod's images: EROFS file systems on disks of the host, each read through dm-verity.
//!
//! The host says what the root hash is, and the host's launch decision was about that hash; the
//! disk is served by a process that trusts nobody, from a file that somebody may have changed since.
//! So every block that is read, files and hash tree alike, is checked here against the root hash. A
//! block that does not match is an I/O error for the app that reads it, and the host is told.

use crate::disk::{self, Device, Disk, Disks};
use crate::dm::{Mapper, Target};
use crate::error::{Error, Tried};
use crate::mounts::IMAGES;
use crate::uevent::{Corruption, Heard, Uevents};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::MountAttrFlags;
use sandbox_protocol::{ImageDisk, MAX_CORRUPTED, Verity};
use std::fmt::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// Bytes of a block, of data and of hashes.
const BLOCK: u64 = 4096;

/// Sectors of a block.
const SECTORS: u64 = BLOCK / 512;

/// Hashes in a block of the tree.
const FAN_OUT: u64 = BLOCK / 32;

/// The images of a pod, and what was found in them that was not verified.
#[derive(Debug, Default)]
pub(crate) struct Images {
    uevents: Option<Uevents>,
    /// By index of the image, as far as they were set up.
    images: Vec<Image>,
    /// What the host was not told yet.
    news: Vec<News>,
    /// Whether it is known that announcements were lost.
    lost: bool,
}

#[derive(Debug)]
struct Image {
    device: Device,
    /// Blocks that the host knows of, or will.
    corrupted: Vec<u64>,
}

/// What the host is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A block of an image is not what was verified.
    Corrupted { image: u16, block: u64 },
    /// Announcements of such blocks may have been lost.
    Lost,
}

impl Images {
    /// Mounts every image once, whatever the number of its apps.
    pub(crate) fn mount(&mut self, images: &[ImageDisk], disks: &mut Disks) -> Result<(), Error> {
        if images.is_empty() {
            return Ok(());
        }
        let targets = images.iter().map(|image| target(&image.verity, &disks.take(&image.serial)?));
        let targets: Vec<Target> = targets.collect::<Result<_, _>>()?;
        self.uevents = Some(Uevents::open()?);
        let mapper = Mapper::open()?;
        for (index, (image, target)) in (0..).zip(images.iter().zip(targets)) {
            let device = mapper.make(&format!("image-{index}"), &target)?;
            self.images.push(Image { device, corrupted: Vec::new() });
            mount(device, index).map_err(|error| match self.corrupted_block(index) {
                Some(block) => Error::Refused(format!(
                    "the content of the disk \"{}\" is not what was verified, its block {block} \
                     for one: {error}",
                    image.serial
                )),
                None => error,
            })?;
        }
        Ok(())
    }

    /// What becomes readable when there may be news.
    pub(crate) fn announcements(&self) -> Option<BorrowedFd<'_>> {
        self.uevents.as_ref().map(|uevents| uevents.as_fd())
    }

    /// What was found since the last call.
    pub(crate) fn news(&mut self) -> Vec<News> {
        self.listen();
        std::mem::take(&mut self.news)
    }

    /// A block of an image that was found to be not what was verified, if there is one.
    pub(crate) fn corrupted_block(&mut self, image: u16) -> Option<u64> {
        self.listen();
        self.images.get(usize::from(image))?.corrupted.first().copied()
    }

    fn listen(&mut self) {
        while let Some(heard) = self.uevents.as_ref().and_then(Uevents::next) {
            match heard {
                Heard::Corruption(corruption) => self.note(corruption),
                Heard::Lost if self.lost => {}
                Heard::Lost => {
                    self.lost = true;
                    self.news.push(News::Lost);
                }
            }
        }
    }

    fn note(&mut self, Corruption { device, block }: Corruption) {
        let found = (0..).zip(&mut self.images).find(|(_, image)| image.device == device);
        let Some((index, image)) = found else { return };
        if image.corrupted.len() < MAX_CORRUPTED && !image.corrupted.contains(&block) {
            image.corrupted.push(block);
            self.news.push(News::Corrupted { image: index, block });
        }
    }
}

/// Opens the root directory of an image.
pub(crate) fn open_root(image: u16) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(directory(image), flags, Mode::empty()).tried(format_args!("opening image {image}"))
}

fn directory(image: u16) -> String {
    format!("{IMAGES}/{image}")
}

fn mount(device: Device, image: u16) -> Result<(), Error> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    disk::mount(device, "erofs", &[("ro", "")], attributes, &directory(image))
}

/// The dm-verity device of an image (Documentation/admin-guide/device-mapper/verity.rst of the
/// kernel). It ends where the data end: the tree is not part of it.
fn target(verity: &Verity, disk: &Disk) -> Result<Target, Error> {
    let Verity { data_blocks, hash_start, root_hash } = verity;
    if *data_blocks == 0 || hash_start < data_blocks {
        return Err(Error::Refused(format!(
            "an image of {data_blocks} blocks cannot have its hash tree at block {hash_start}"
        )));
    }
    let there = disk.sectors / SECTORS;
    let end = hash_start.saturating_add(tree_blocks(*data_blocks));
    if end > there {
        return Err(Error::Refused(format!(
            "the disk \"{}\" holds {there} blocks, and with its hash tree the image has {end}",
            disk.serial
        )));
    }
    // Not more than the disk has.
    let sectors = data_blocks * SECTORS;
    let mut root = String::new();
    for byte in root_hash {
        // Writing to a string does not fail.
        let _ = write!(root, "{byte:02x}");
    }
    let device = disk.device;
    let parameters =
        format!("1 {device} {device} {BLOCK} {BLOCK} {data_blocks} {hash_start} sha256 {root} -");
    Ok(Target { kind: "verity", sectors, parameters })
}

/// Blocks of a hash tree: each level has one hash for each block of the level below, up to the one
/// block whose hash is the root hash.
fn tree_blocks(data_blocks: u64) -> u64 {
    let (mut level, mut tree) = (data_blocks, 0);
    while level > 1 {
        level = level.div_ceil(FAN_OUT);
        tree += level;
    }
    tree
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
