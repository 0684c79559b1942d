use super::{
    Judged, Kind, Record, Stamp,
    member::{Member, READ},
    places::{Places, ROOTFS, open_file},
    staging::{self, FOLDER},
};
use crate::{
    Digest, Error, ImageConfig, Limits, Part, Progress, Reference, Step,
    digest::Hasher,
    evidence::Signature,
    fetch::{Child, borrow},
    format::to_ac_name,
    progress::Reporter,
    protocol::{AciContents, Contents, LayerContents, Task},
    verity::{self, Verity, VerityError},
};
use rustix::{
    fd::{AsFd as _, OwnedFd},
    fs::{Mode, Timespec, Timestamps, UTIME_NOW, futimens, open, openat},
    io::Errno,
};
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _, Write as _},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// An image of the store. It is not removed as long as this value is held.
#[derive(Debug)]
pub struct StoredImage {
    places: Arc<Places>,
    /// The image itself.
    own: Member,
    parts: Vec<Part>,
    /// The images that an ACI depends on, in the order of its manifest.
    dependencies: Vec<Arc<Self>>,
}

/// Images by their folders that others depend on and that are open now. Each is opened once: there
/// are many more ways down to what images depend on than images.
pub(super) type Shared = Mutex<HashMap<String, Weak<StoredImage>>>;

/// An image's files: an EROFS file system with a dm-verity tree behind it.
#[derive(Debug)]
pub struct Rootfs {
    /// The file, open for reading. Its size is a multiple of [`crate::verity::BLOCK`].
    pub file: File,
    /// Where the hash tree is in it, and its root.
    pub verity: Verity,
}

impl Places {
    /// Has others that depend on an image use this value from now on, as long as somebody holds it.
    pub(super) fn share(&self, image: &Arc<StoredImage>) {
        let mut shared = self.shared();
        shared.retain(|_, image| image.strong_count() > 0);
        shared.insert(image.folder().to_owned(), Arc::downgrade(image));
    }

    fn shared(&self) -> MutexGuard<'_, HashMap<String, Weak<StoredImage>>> {
        // It is a cache: whoever panicked has left it whole.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredImage {
    /// Opens the image of a folder; `None` if there is none in it, or somebody is making or
    /// removing it.
    pub(super) fn open_folder(places: &Arc<Places>, folder: &str) -> Result<Option<Self>, Error> {
        let own = Member::open(places, folder)?;
        own.map(|own| Self::new(places, own)).transpose()
    }

    /// The same for an image that others depend on, which may be open already: then it is the one
    /// in its folder still, since that can't be removed.
    pub(super) fn open_shared(
        places: &Arc<Places>,
        folder: &str,
    ) -> Result<Option<Arc<Self>>, Error> {
        let shared = places.shared().get(folder).and_then(Weak::upgrade);
        if shared.is_some() {
            return Ok(shared);
        }
        // Not locked meanwhile, since this opens others.
        let Some(image) = Self::open_folder(places, folder)? else {
            return Ok(None);
        };
        let image = Arc::new(image);
        places.share(&image);
        Ok(Some(image))
    }

    /// An image whose folder is open already, over those that it depends on. How deep these are
    /// nested is bounded when an image comes into the store.
    pub(super) fn new(places: &Arc<Places>, own: Member) -> Result<Self, Error> {
        let mut dependencies = Vec::with_capacity(own.record.dependencies.len());
        for dependency in &own.record.dependencies {
            let image = Self::open_shared(places, &dependency.folder)?;
            dependencies.push(image.ok_or_else(|| Error::Tampered {
                image: own.record.id.clone(),
                problem: format!("image {}, which it depends on, is missing", dependency.id),
            })?);
        }
        let mut parts = vec![own.said.part(&own.record)];
        let mut known = HashSet::from([&own.record.id]);
        for part in dependencies.iter().flat_map(|dependency| dependency.parts()) {
            if known.insert(&part.id) {
                parts.push(part.clone());
            }
        }
        Ok(Self { places: places.clone(), own, parts, dependencies })
    }

    /// Takes over what was found when the image was fetched once more: the signatures that came with
    /// it then, if they were looked for, and what was decided.
    pub(super) fn renew(
        &mut self,
        from: &Reference,
        signatures: Option<Vec<Signature>>,
        judged: Option<Judged>,
    ) -> Result<(), Error> {
        if signatures.is_none() && judged.is_none() {
            return Ok(());
        }
        self.own.record = self.own.rewrite(&self.places, |record| {
            if let Some(signatures) = signatures {
                record.take_signatures(from, signatures);
            }
            record.judged = judged.or(record.judged.take());
        })?;
        self.parts[0].signatures = self.own.record.all_signatures();
        Ok(())
    }

    /// Says how the image was asked for.
    pub(super) fn asked_for_as(mut self, reference: &Reference) -> Self {
        if !matches!(reference, Reference::Id { .. }) {
            self.parts[0].reference = reference.clone();
        }
        self
    }

    /// See [`crate::Staged::id`].
    pub fn id(&self) -> &Digest {
        &self.own.record.id
    }

    /// See [`Part::name`]. Comes from the image: show it through [`crate::Text`].
    pub fn name(&self) -> &str {
        &self.own.record.name
    }

    /// The app's name if none is given: the last component of the image's name as an ACName, as
    /// rkt makes it; `app` if nothing is left of it.
    pub fn app_name(&self) -> String {
        app_name(self.name())
    }

    /// How it was asked for, with paths resolved; or how it was fetched if it was asked for by ID.
    pub fn reference(&self) -> &Reference {
        &self.parts[0].reference
    }

    /// What the image says about its program.
    pub fn config(&self) -> &ImageConfig {
        &self.own.said.config
    }

    /// What the store knows about it.
    pub fn record(&self) -> &Record {
        &self.own.record
    }

    /// Its folder, with a shared lock on it.
    pub(super) fn lock(&self) -> &OwnedFd {
        &self.own.lock
    }

    /// The images that an ACI depends on, in the order of its manifest.
    pub(super) fn dependencies(&self) -> &[Arc<Self>] {
        &self.dependencies
    }

    /// The name of its folder in the store.
    pub(super) fn folder(&self) -> &str {
        &self.own.folder
    }

    /// All that has to be judged: the image itself, then the ACIs that it depends on.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The image's files, for a pod: counts as a use of the image. Unless the file looks as it did
    /// when it was last known to be whole, it is read and checked first.
    ///
    /// # Errors
    /// [`Error::Tampered`] if it was changed, [`Error::Cancelled`], or [`Error::Io`].
    pub fn rootfs(&self, progress: &mut dyn Progress) -> Result<Rootfs, Error> {
        let path = self.places.image_path(&self.own.folder).join(ROOTFS);
        let failed = |error: io::Error| Error::io("open", &path, error);
        let verity = self.own.record.rootfs.verity.clone();
        let file = self.open_rootfs()?;
        if !self.own.record.rootfs.checked.is_still_of(&file).map_err(failed)? {
            self.check_rootfs(&file, progress)?;
            // Of an image that can't be written to, all of it is read at every launch.
            let _ = self.renew_stamp(&file);
        }
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // When it was used last is for gc alone, which then may remove it too early.
        let _ = futimens(&self.own.lock, &Timestamps { last_access: now, last_modification: now });
        Ok(Rootfs { file, verity })
    }

    fn open_rootfs(&self) -> Result<File, Error> {
        match openat(&self.own.lock, ROOTFS, READ, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(error @ (Errno::NOENT | Errno::LOOP)) => Err(self.tampered(error.to_string())),
            Err(error) => {
                Err(Error::io("open", self.places.image_path(&self.own.folder).join(ROOTFS), error))
            }
        }
    }

    fn check_rootfs(&self, file: &File, progress: &mut dyn Progress) -> Result<(), Error> {
        verity::check(file, &self.own.record.rootfs.verity, progress).map_err(|error| match error {
            VerityError::Cancelled => Error::Cancelled,
            VerityError::Io(error) => Error::io("read", ROOTFS, error),
            problem => self.tampered(format!("{ROOTFS}: {problem}")),
        })
    }

    fn tampered(&self, problem: String) -> Error {
        Error::Tampered { image: self.own.record.id.clone(), problem }
    }

    /// Keeps how the file looks that was just found to be whole.
    fn renew_stamp(&self, file: &File) -> Result<(), Error> {
        let checked = Stamp::settled(file);
        let checked = checked.map_err(|error| Error::io("examine", ROOTFS, error))?;
        self.own.rewrite(&self.places, |record| record.rootfs.checked = checked).map(drop)
    }

    /// The bytes of an ACI's manifest.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Blob`] if it was changed.
    pub fn aci_manifest(&self) -> Result<Option<Vec<u8>>, Error> {
        if self.own.record.kind != Kind::Aci {
            return Ok(None);
        }
        super::said::aci_manifest(&self.places, &self.own.record).map(Some)
    }

    /// Writes an uncompressed ACI: an ACI's own tar as it is; for other images one that holds
    /// `manifest` and the image's files.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn export(
        &self,
        program: &Path,
        manifest: &[u8],
        mut to: &File,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("write", "the archive", error);
        if self.own.record.kind == Kind::Aci {
            let mut archive = self.open_layer(&self.own.record.layers[0].digest)?;
            io::copy(&mut archive, &mut to).map_err(failed)?;
            return Ok(());
        }
        let mut document = self.temporary()?;
        document.write_all(manifest).map_err(failed)?;
        let (contents, layers) = self.contents(false)?;
        let empty = self.temporaries(layers.len())?;
        let mut files = borrow(layers.iter().chain(&empty));
        files.extend([to.as_fd(), document.as_fd()]);
        let task = Task::Export { contents };
        self.child(program, task, &files, &empty, progress)
    }

    /// Writes the image's files to `rootfs` in the empty directory `to`, or only those of an ACI
    /// itself, without what it depends on.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn unpack(
        &self,
        program: &Path,
        to: &Path,
        alone: bool,
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let directory = open(to, FOLDER, Mode::empty());
        let directory = directory.map_err(|error| Error::io("open directory", to, error))?;
        let (contents, layers) = self.contents(alone)?;
        let empty = self.temporaries(layers.len())?;
        let mut files = borrow(layers.iter().chain(&empty));
        files.push(directory.as_fd());
        let task = Task::Unpack { contents };
        self.child(program, task, &files, &empty, progress)
    }

    fn child(
        &self,
        program: &Path,
        task: Task,
        files: &[rustix::fd::BorrowedFd<'_>],
        written: &[File],
        progress: &mut dyn Progress,
    ) -> Result<(), Error> {
        let mut reporter = Reporter::new(progress);
        let limits = Limits::default();
        let mut child = Child::start(program, task, &limits, files, self.temporary()?)?;
        child.watch(written)?;
        child.finish(&mut reporter)
    }

    /// Where the image's files are from.
    fn contents(&self, alone: bool) -> Result<(Contents, Vec<File>), Error> {
        if self.own.record.kind != Kind::Aci {
            let layers = self.own.said.layers(&self.own.record);
            let files = self.own.record.layers.iter().map(|layer| self.open_layer(&layer.digest));
            return Ok((Contents::Layers { layers }, files.collect::<Result<_, _>>()?));
        }
        let (mut acis, mut files) = (Vec::new(), Vec::new());
        if alone {
            let (name, dependencies, path_whitelist) = (self.name().to_owned(), vec![], vec![]);
            acis.push(AciContents { name, dependencies, path_whitelist });
            files.push(self.open_layer(&self.own.record.layers[0].digest)?);
        } else {
            let mut known = Vec::new();
            self.add_acis(&mut known, &mut acis, &mut files)?;
        }
        Ok((Contents::Acis { acis }, files))
    }

    /// Adds the image behind those that it depends on; its place in the list comes back.
    pub(super) fn add_acis(
        &self,
        known: &mut Vec<String>,
        acis: &mut Vec<AciContents>,
        files: &mut Vec<File>,
    ) -> Result<usize, Error> {
        if let Some(place) = known.iter().position(|folder| *folder == self.own.folder) {
            return Ok(place);
        }
        let mut dependencies = Vec::with_capacity(self.dependencies.len());
        for dependency in &self.dependencies {
            dependencies.push(dependency.add_acis(known, acis, files)?);
        }
        files.push(self.open_layer(&self.own.record.layers[0].digest)?);
        known.push(self.own.folder.clone());
        let path_whitelist = self.own.said.path_whitelist.clone();
        acis.push(AciContents { name: self.name().to_owned(), dependencies, path_whitelist });
        Ok(acis.len() - 1)
    }

    /// Opens one of its blobs.
    fn open_layer(&self, digest: &Digest) -> Result<File, Error> {
        let missing = || self.tampered(format!("blob {digest} is missing"));
        self.places.open_blob(digest)?.ok_or_else(missing)
    }

    /// Holds every blob, and the root file system, against their digests.
    pub(super) fn verify(&self, progress: &mut dyn Progress) -> Result<(), Error> {
        let total = self.own.record.blobs().map(|blob| blob.size).sum();
        let mut done = 0;
        for blob in self.own.record.blobs() {
            let file = self.open_layer(&blob.digest)?;
            let mut reporter = Reporter::new(progress);
            let found = hash(&file, &blob.digest, |read| {
                done += read;
                reporter.report(Step::Check { done, total }).map_err(Error::from)
            })?;
            if found != (blob.digest.clone(), blob.size) {
                return Err(self.tampered(format!("blob {} has digest {}", blob.digest, found.0)));
            }
        }
        self.check_rootfs(&self.open_rootfs()?, progress)
    }

    fn temporary(&self) -> Result<File, Error> {
        let failed = |error| Error::io("make a file in", self.places.path().join("tmp"), error);
        staging::temporary(&self.places.tmp).map_err(failed)
    }

    fn temporaries(&self, count: usize) -> Result<Vec<File>, Error> {
        (0..count).map(|_| self.temporary()).collect()
    }
}

/// The name of an app that is made of an image of this name.
pub(super) fn app_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or_default();
    to_ac_name(last).unwrap_or_else(|| "app".to_owned())
}

/// The digest of a file by the algorithm of `like`, and its size.
pub(super) fn hash(
    mut file: &File,
    like: &Digest,
    mut on_read: impl FnMut(u64) -> Result<(), Error>,
) -> Result<(Digest, u64), Error> {
    use std::io::Seek as _;
    let failed = |error: io::Error| Error::io("read", format!("blob {like}"), error);
    file.rewind().map_err(failed)?;
    let mut hasher = Hasher::new(like.algorithm());
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), size)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        hasher.update(&buffer[..count]);
        size += count as u64;
        on_read(count as u64)?;
    }
}

/// Reads a whole file of the store, of at most `most` bytes.
pub(super) fn read_file(path: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let Some(file) = open_file(path)? else {
        return Ok(None);
    };
    let mut bytes = Vec::new();
    let read = file.take(most).read_to_end(&mut bytes);
    read.map_err(|error| Error::io("read", path, error))?;
    Ok(Some(bytes))
}

/// Names of layers in errors: their digests.
pub(super) fn layer(digest: &Digest, diff_id: &Digest) -> LayerContents {
    LayerContents { name: digest.to_string(), diff_id: diff_id.clone() }
}
