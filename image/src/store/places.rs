//! The folders of the store, and who locks what.
//!
//! ```text
//! cas/blob/sha256/4f/sha256-4f0c…     a blob as it was shipped: a layer, a document; one copy each
//! cas/blob/sha512/4f/sha512-4f0c…     an ACI, uncompressed, named by the first 64 digits as in rkt
//! cas/imageManifest/sha512/4f/sha512-4f0c…   an ACI's manifest, where rkt has it
//! cas/image/<folder>/                 an image: record.json, rootfs.erofs
//! cas/ref/<digest>.json               what a reference led to
//! cas/part/<digest>                   a blob that is being fetched
//! cas/tmp/<random>/                   an image that is being made
//! cas/lock
//! ```
//!
//! All of it appears whole or not at all: it is made in `part` or `tmp`, synced, and renamed to its
//! place. The record comes last: an image without one is none. What was renamed is synced before
//! anything that needs it is: blobs before the record that names them, the removal of an image
//! before that of its blobs. What another process has renamed, and perhaps not synced yet, is synced
//! with the whole file system before a record names it.
//!
//! Locks (flock), in the order in which one process may wait for them:
//!
//! 1. `cas/lock`: shared by whoever fetches, from the first look for a blob until the record that
//!    names it and what led to it are in their places; exclusive for whoever removes blobs and
//!    references that no record needs. That one waits for no other lock, so nobody who has others
//!    and waits for this one waits for ever.
//! 2. `cas/image/<folder>`: shared by whoever uses the image, or is making one that depends on it;
//!    exclusive for whoever removes it, or makes it: on an empty folder in its place, which the
//!    finished one replaces, so that of two processes that want the same image one waits. Whoever
//!    removes it looks for images that depend on it once it is locked, since none can come then.
//! 3. `cas/part/<digest>`: exclusive for whoever writes it; of several in the order of their names.
//! 4. `cas/image/<folder>/record.json`: exclusive for whoever puts another in its place, which
//!    those who use the image may do.
//! 5. `cas/tmp/<random>`: shared by whoever made it. What nobody has locked is garbage.

use super::{
    staging::{self, FOLDER, is_linked, try_lock_shared},
    stored::Shared,
};
use crate::{Algorithm, Digest, Error};
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fsync, openat, statat},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Digits of a blob's name in rkt.
const DIGITS: usize = 64;

/// How often to look whether an image that somebody may be removing is gone.
const PAUSE: Duration = Duration::from_millis(2);
/// How long to wait for that. It takes as long as reading the records of new images.
const PATIENCE: Duration = Duration::from_secs(5);

/// The file with an image's files in its folder.
pub(super) const ROOTFS: &str = "rootfs.erofs";
/// The file that says that the folder holds an image.
pub(super) const RECORD: &str = "record.json";

/// The folders of the store.
#[derive(Debug)]
pub(super) struct Places {
    path: PathBuf,
    /// Folders of images.
    pub(super) image: OwnedFd,
    /// Blobs that are being fetched.
    pub(super) part: OwnedFd,
    /// What is being made.
    pub(super) tmp: OwnedFd,
    lock: PathBuf,
    pub(super) shared: Shared,
}

impl Places {
    /// Opens the folders below a data directory, and makes what is missing.
    pub(super) fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("cas");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o750);
        builder.create(data_dir).map_err(|error| Error::io("make directory", data_dir, error))?;
        // Whoever could write to this one could put others in place of those in it.
        staging::open_owned(&path, Mode::from_raw_mode(0o750))?;
        let folder = |name| staging::open_owned(&path.join(name), Mode::RWXU);
        let (image, part, tmp) = (folder("image")?, folder("part")?, folder("tmp")?);
        for name in ["blob", "imageManifest", "ref"] {
            folder(name)?;
        }
        let lock = path.join("lock");
        Ok(Self { path, image, part, tmp, lock, shared: Shared::default() })
    }

    /// The store's own folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a folder or file in the store's folder, for messages and for `std::fs`.
    pub(super) fn in_store(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// The path of an image's folder.
    pub(super) fn image_path(&self, folder: &str) -> PathBuf {
        self.path.join("image").join(folder)
    }

    /// Opens an image's folder.
    pub(super) fn open_image(&self, folder: &str) -> rustix::io::Result<OwnedFd> {
        openat(&self.image, folder, FOLDER, Mode::empty())
    }

    /// Where a blob is.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blob").join(key(digest))
    }

    /// Where an ACI's manifest is.
    pub(super) fn aci_manifest(&self, id: &Digest) -> PathBuf {
        self.path.join("imageManifest").join(key(id))
    }

    /// Opens a blob, if it is there.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<File>, Error> {
        open_file(&self.blob(digest))
    }

    /// Takes the lock of those who fetch, and waits for whoever removes blobs just now.
    pub(super) fn lock_to_fetch(&self) -> Result<File, Error> {
        let file = self.lock_file()?;
        let locked = rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared));
        locked.map_err(|error| Error::io("lock", &self.lock, error))?;
        Ok(file)
    }

    /// Takes the lock of who removes blobs, unless somebody is fetching.
    pub(super) fn try_lock_to_sweep(&self) -> Result<Option<File>, Error> {
        let file = self.lock_file()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Error::io("lock", &self.lock, error)),
        }
    }

    fn lock_file(&self) -> Result<File, Error> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(&self.lock).map_err(|error| Error::io("open", &self.lock, error))
    }

    /// Puts a finished file in its place, whose folders are made. [`Self::sync_ways_to`] makes that
    /// durable.
    pub(super) fn put(&self, from: &Path, to: &Path) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("put a file in its place as", to, error);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(to.parent().unwrap_or(&self.path)).map_err(failed)?;
        std::fs::rename(from, to).map_err(failed)
    }

    /// Makes the names of files durable, and those of the folders on the way to them: who made these
    /// may be another process that has not got so far.
    pub(super) fn sync_ways_to(&self, files: &[PathBuf]) -> Result<(), Error> {
        let is_ours = |folder: &&Path| folder.starts_with(&self.path);
        let folders = files.iter().flat_map(|file| file.ancestors().skip(1).take_while(is_ours));
        // The deepest first: a folder whose name is durable has what was put into it.
        let folders: BTreeSet<_> = folders.collect();
        folders.into_iter().rev().try_for_each(sync_folder)
    }

    /// Opens an image's folder with a shared lock; `None` if it is not there, or somebody is making
    /// or removing it.
    pub(super) fn lock_image(&self, folder: &str) -> Result<Option<OwnedFd>, Error> {
        let failed = |error: Errno| Error::io("open", self.image_path(folder), error);
        let place = match self.open_image(folder) {
            Ok(place) => place,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let begin = Instant::now();
        while !try_lock_shared(&place).map_err(failed)? {
            // Whoever removes an image looks at it once more when it is locked, and may leave it.
            let may_stay = has_record(&place).map_err(failed)?
                && is_linked(&self.image, folder, &place).map_err(failed)?;
            if !may_stay || begin.elapsed() > PATIENCE {
                return Ok(None);
            }
            thread::sleep(PAUSE);
        }
        let is_there = is_linked(&self.image, folder, &place).map_err(failed)?;
        Ok(Some(place).filter(|_| is_there))
    }
}

/// Whether there is an image in a folder, or an empty place for one.
pub(super) fn has_record(folder: &OwnedFd) -> rustix::io::Result<bool> {
    match statat(folder, RECORD, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), Error> {
    let failed = |error: io::Error| Error::io("sync", folder, error);
    fsync(File::open(folder).map_err(failed)?).map_err(|error| failed(error.into()))
}

/// Opens a regular file of the store for reading, if it is there.
pub(super) fn open_file(path: &Path) -> Result<Option<File>, Error> {
    let mut options = File::options();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.read(true).custom_flags(flags.bits().cast_signed());
    match options.open(path) {
        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => Ok(Some(file)),
        Ok(_) => Err(Error::io("open", path, io::Error::other("it is not a regular file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}

/// `sha256/4f/sha256-4f0c…`
fn key(digest: &Digest) -> PathBuf {
    let algorithm = match digest.algorithm() {
        Algorithm::Sha256 => "sha256",
        Algorithm::Sha512 => "sha512",
    };
    let hex = digest.hex();
    let digits = &hex[..DIGITS.min(hex.len())];
    Path::new(algorithm).join(&hex[..2]).join(format!("{algorithm}-{digits}"))
}
