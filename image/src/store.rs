use crate::{Error, Image, Limits, Progress, Reference};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// The images of a data directory.
///
/// ```text
/// cas/tree/<image ID>/rootfs     an image's files; beside it the file `rendered`, written last
/// cas/tmp/<random>               what is being unpacked; garbage if nobody holds its lock
/// ```
///
/// A tree appears whole or not at all. Whoever uses one holds a shared lock (`flock`) on its
/// folder, whoever makes one an exclusive lock on its place, so that two processes that want the
/// same image unpack it once.
#[derive(Debug)]
pub struct Store {
    cas: PathBuf,
}

/// An image's files, as long as this value is held.
#[derive(Debug)]
pub struct StoredTree {
    rootfs: PathBuf,
    /// Holds the shared lock on the tree's folder.
    _lock: File,
}

impl StoredTree {
    /// The directory that is the image's root. It must not be written to: other pods use it.
    pub fn rootfs(&self) -> &Path {
        &self.rootfs
    }
}

/// What [`Store::gc`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Unfinished work of processes that are gone.
    pub staging: usize,
}

impl Store {
    /// Opens the store of a data directory. What is missing is made, with rkt's modes; the
    /// folders of trees are for root alone, since trees hold set-user-ID programs.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        Ok(Self { cas: data_dir.join("cas") })
    }

    /// Opens an image and reads its documents. Nothing of it is in the store afterwards.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn image(
        &self,
        reference: &Reference,
        limits: &Limits,
        progress: &mut dyn Progress,
    ) -> Result<Image, Error> {
        let _ = (reference, limits, progress, &self.cas);
        todo!()
    }

    /// The image's files: unpacked now, or found as they were unpacked before. Removes what
    /// killed processes left in the staging folder.
    ///
    /// # Errors
    /// Any of [`Error`]; nothing is left behind then.
    pub fn tree(
        &self,
        image: &Image,
        limits: &Limits,
        progress: &mut dyn Progress,
    ) -> Result<StoredTree, Error> {
        let _ = (image, limits, progress, &self.cas);
        todo!()
    }

    /// Removes what killed processes left behind.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn gc(&self) -> Result<Collected, Error> {
        let _ = &self.cas;
        todo!()
    }
}
