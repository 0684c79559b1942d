use super::{Channel, Files, contents::merge};
use crate::{
    Error, Limits, erofs,
    layer::Spool,
    progress::Reporter,
    protocol::{Contents, Event},
    unpack::unpack,
    verity,
};
use rustix::fd::AsFd as _;

/// What the directory is called that an image's files are written to, as in an ACI.
const ROOTFS: &str = "rootfs";

/// Writes the image's files as an EROFS file system with a hash tree.
pub(super) fn erofs(
    contents: &Contents,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let (tree, spools) = merge(contents, &mut files, limits, &mut Reporter::new(channel))?;
    let into = files.next_file()?;
    let layers: Vec<_> = spools.iter().map(Spool::file).collect();
    let size = erofs::write(&tree, &layers, &into, channel)?;
    drop(tree);
    let verity = verity::append(&into, size / verity::BLOCK, channel);
    let verity = verity.map_err(|error| Error::hash_tree("write the hash tree of", error))?;
    let failed = |error| Error::io("examine", "the root file system", error);
    let size = into.metadata().map_err(failed)?.len();
    channel.say(&Event::Rendered { size, verity })
}

/// Writes the image's files to a directory.
pub(super) fn directory(
    contents: &Contents,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let mut reporter = Reporter::new(channel);
    let (tree, spools) = merge(contents, &mut files, limits, &mut reporter)?;
    let directory = files.next()?;
    let layers: Vec<_> = spools.iter().collect();
    unpack(&tree, &layers, directory.as_fd(), ROOTFS, &mut reporter)
}
