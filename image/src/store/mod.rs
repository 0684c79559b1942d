//! The images of a data directory.

mod staging;

use crate::{
    Algorithm, Error, Image, Limit, Limits, Progress, Reference, Step, Text,
    error::LayerProblem,
    format::{self, check_digest},
    image::{Layer, LayerPlace, Layers},
    layer::{Compression, Spool, Spooling},
    progress::Reporter,
    tree::{LayerError, LayerFormat, Tree},
    unpack::unpack,
};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Mode, OFlags, fsync, mkdirat, openat, renameat, statat, syncfs, unlinkat},
    io::Errno,
};
use staging::{FOLDER, Staging, is_linked, lock, try_lock};
use std::{
    fs::{DirBuilder, File},
    io::BufReader,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// The images of a data directory.
///
/// ```text
/// cas/tree/<image ID>/rootfs     an image's files; beside it the file `rendered`
/// cas/tmp/<random>               what is being unpacked; garbage if nobody holds its lock
/// ```
///
/// A tree appears whole or not at all: it is made in `tmp`, synced, and renamed to its place. Whoever
/// uses one holds a shared lock (`flock`) on its folder. Whoever makes one holds an exclusive lock
/// on an empty folder in its place, which the rename replaces, so that two processes that want the
/// same image unpack it once. Both `tree` and `tmp` are for their owner alone, since they hold
/// set-user-ID programs (rkt let a group write to all of `cas`).
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    tree: OwnedFd,
    tmp: OwnedFd,
}

/// An image's files, as long as this value is held.
#[derive(Debug)]
pub struct StoredTree {
    rootfs: PathBuf,
    /// Holds the shared lock on the tree's folder.
    _lock: OwnedFd,
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

const TREE: &str = "tree";
const TMP: &str = "tmp";
const ROOTFS: &str = "rootfs";
/// In the folder of a tree that is whole.
const RENDERED: &str = "rendered";
/// How often to look whether another process has finished.
const PAUSE: Duration = Duration::from_millis(50);

impl Store {
    /// Opens the store of a data directory, and makes what is missing of it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::NotPrivate`] if others could write to the store's folders.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("cas");
        DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(data_dir)
            .map_err(|error| Error::io("make directory", data_dir, error))?;
        // Whoever could write to this one could put another `tree` in place.
        staging::open_owned(&path, Mode::from_raw_mode(0o750))?;
        let tree = staging::open_owned(&path.join(TREE), Mode::RWXU)?;
        let tmp = staging::open_owned(&path.join(TMP), Mode::RWXU)?;
        Ok(Self { path, tree, tmp })
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
        format::open(reference, &|| self.temporary(), limits, &mut Reporter::new(progress))
    }

    /// The image's files: unpacked now, or found as they were unpacked before. Waits if another
    /// process is unpacking them.
    ///
    /// # Errors
    /// Any of [`Error`]; nothing is left behind then.
    pub fn tree(
        &self,
        image: &Image,
        limits: &Limits,
        progress: &mut dyn Progress,
    ) -> Result<StoredTree, Error> {
        let mut reporter = Reporter::new(progress);
        let name = image.id().file_name();
        let folder = self.path.join(TREE).join(&name);
        let failed = |error: Errno| Error::io("use", &folder, error);
        loop {
            match mkdirat(&self.tree, &name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
            let place = match self.open_tree(&name) {
                Ok(place) => place,
                // Whoever made or removed it was faster.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if is_rendered(&place).map_err(failed)? {
                lock(&place).map_err(failed)?;
                if is_linked(&self.tree, &name, &place).map_err(failed)? {
                    return Ok(StoredTree { rootfs: folder.join(ROOTFS), _lock: place });
                }
                continue;
            }
            while !try_lock(&place).map_err(failed)? {
                reporter.report(Step::Wait)?;
                std::thread::sleep(PAUSE);
            }
            if is_linked(&self.tree, &name, &place).map_err(failed)? {
                self.collect();
                let made = self.make_tree(image, &name, limits, &mut reporter);
                if made.is_err() {
                    // Removed by name while it is locked: nobody else can have replaced it.
                    let _ = unlinkat(&self.tree, &name, AtFlags::REMOVEDIR);
                }
                let lock = made?;
                return Ok(StoredTree { rootfs: folder.join(ROOTFS), _lock: lock });
            }
        }
    }

    /// Removes what killed processes left behind.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn gc(&self) -> Result<Collected, Error> {
        let mut collected = Collected::default();
        staging::collect(&self.tmp, &self.path.join(TMP), &mut collected)?;
        self.collect_places(&mut collected)?;
        Ok(collected)
    }

    /// The same by the way: what can't be removed is no reason not to run an image.
    fn collect(&self) {
        let _ = staging::collect(&self.tmp, &self.path.join(TMP), &mut Collected::default());
    }

    /// Removes the empty folders that hold the places of trees that nobody makes any more.
    fn collect_places(&self, collected: &mut Collected) -> Result<(), Error> {
        let path = self.path.join(TREE);
        for name in staging::names(&self.tree, &path)? {
            let failed = |error: Errno| Error::io("remove", path.join(&name), error);
            let place = match self.open_tree(&name) {
                Ok(place) => place,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if !is_rendered(&place).map_err(failed)?
                && try_lock(&place).map_err(failed)?
                && is_linked(&self.tree, &name, &place).map_err(failed)?
            {
                unlinkat(&self.tree, &name, AtFlags::REMOVEDIR).map_err(failed)?;
                collected.staging += 1;
            }
        }
        Ok(())
    }

    fn open_tree(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        openat(&self.tree, name, FOLDER, Mode::empty())
    }

    /// Unpacks the image and puts it in its place, which is locked. Returns the folder with a
    /// shared lock on it.
    fn make_tree(
        &self,
        image: &Image,
        name: &str,
        limits: &Limits,
        reporter: &mut Reporter<'_>,
    ) -> Result<OwnedFd, Error> {
        let mut tree = Tree::new();
        let spools;
        let contents: Vec<&Spool> = match &image.layers {
            Layers::Aci(spool) => {
                let name = Text::new(image.id().to_string());
                apply(&mut tree, spool, LayerFormat::Aci, &name, limits)?;
                vec![spool]
            }
            Layers::InContainer(container, layers) => {
                spools = self.merge(container, layers, &mut tree, limits, reporter)?;
                spools.iter().collect()
            }
        };

        let staging = Staging::new(&self.tmp, &self.path.join(TMP))?;
        unpack(&tree, &contents, staging.folder().as_fd(), ROOTFS, reporter)?;
        let failed = |error: Errno| Error::io("complete", self.path.join(TREE).join(name), error);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(staging.folder(), RENDERED, flags, Mode::RUSR).map_err(failed)?;
        reporter.report(Step::Sync)?;
        // The whole file system at once: one call per file takes as long as unpacking.
        syncfs(staging.folder()).map_err(failed)?;
        // That can take long, on a busy disk.
        reporter.report(Step::Sync)?;
        // Its shared lock goes with it.
        let folder = staging.share().map_err(failed)?;
        renameat(&self.tmp, staging.name(), &self.tree, name).map_err(failed)?;
        fsync(&self.tree).map_err(failed)?;
        Ok(folder)
    }

    /// Reads layers and merges them into the tree, whose contents are in what is returned.
    fn merge(
        &self,
        container: &format::Container,
        layers: &[Layer],
        tree: &mut Tree,
        limits: &Limits,
        reporter: &mut Reporter<'_>,
    ) -> Result<Vec<Spool>, Error> {
        let mut spools: Vec<Spool> = Vec::with_capacity(layers.len());
        for (index, layer) in layers.iter().enumerate() {
            let spooled = spools.iter().map(Spool::size).sum();
            let at = At { index, count: layers.len(), spooled };
            let spool = self.spool(container, layer, at, limits, reporter)?;
            apply(tree, &spool, LayerFormat::Changeset, &layer.name, limits)?;
            spools.push(spool);
        }
        Ok(spools)
    }

    /// Decompresses and checks a layer.
    fn spool(
        &self,
        container: &format::Container,
        layer: &Layer,
        at: At,
        limits: &Limits,
        reporter: &mut Reporter<'_>,
    ) -> Result<Spool, Error> {
        let (section, digest) = match &layer.place {
            LayerPlace::Blob { digest, size } => (container.blob(digest, *size)?, Some(digest)),
            LayerPlace::Member(file) => {
                let section = container.open(file)?.ok_or_else(|| Error::Layer {
                    layer: layer.name.clone(),
                    problem: LayerProblem::Missing,
                })?;
                (section, None)
            }
        };
        let how = Spooling {
            compressions: &[Compression::Gzip, Compression::Zstd],
            file_algorithm: digest.map_or(Algorithm::Sha256, |digest| digest.algorithm()),
            algorithm: layer.diff_id.algorithm(),
            budget: limits.get(Limit::Size).saturating_sub(at.spooled),
            size_limit: limits.get(Limit::Size),
            index: at.index,
            count: at.count,
            total: section.size(),
            reporter,
        };
        let (spool, found) = Spool::fill(self.temporary()?, section, how)
            .map_err(|error| error.into_error(|| layer.name.clone()))?;
        if let Some(digest) = digest {
            check_digest(digest, &found)?;
        }
        if *spool.digest() != layer.diff_id {
            let expected = layer.diff_id.clone();
            let problem = LayerProblem::DiffId { expected, found: spool.digest().clone() };
            return Err(Error::Layer { layer: layer.name.clone(), problem });
        }
        Ok(spool)
    }

    /// A new temporary file without a name.
    fn temporary(&self) -> Result<File, Error> {
        let path = self.path.join(TMP);
        staging::temporary(&self.tmp)
            .map_err(|error| Error::io("make a temporary file in", &path, error))
    }
}

/// Which layer of how many it is, and how many bytes those before it have.
struct At {
    index: usize,
    count: usize,
    spooled: u64,
}

/// Merges a layer into the tree.
fn apply(
    tree: &mut Tree,
    spool: &Spool,
    format: LayerFormat,
    name: &Text,
    limits: &Limits,
) -> Result<(), Error> {
    let archive = BufReader::with_capacity(64 << 10, spool.file());
    tree.apply(archive, format, limits).map_err(|error| match error {
        LayerError::Limit(limit) => limit.into(),
        error => Error::Layer { layer: name.clone(), problem: LayerProblem::Archive(error) },
    })
}

fn is_rendered(folder: &OwnedFd) -> rustix::io::Result<bool> {
    match statat(folder, RENDERED, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
