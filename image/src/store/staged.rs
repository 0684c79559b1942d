use super::{
    BlobRef, Collected, DependencyRef, Judged, Kind, Record, RootfsRecord, Stamp, Store,
    StoredImage,
    collect::PART_GRACE,
    member::{Member, write_record},
    part_file::PartFile,
    places::{ROOTFS, sync_folder},
    record::folder_name,
    references::Kept,
    said::Said,
    staging::{self, Staging, is_linked, try_lock},
    stored::app_name,
};
use crate::{
    Digest, Error, ImageConfig, Limits, Part, Progress, Reference, Step,
    evidence::{DetachedFacts, Signature},
    fetch::{Child, borrow, malformed},
    progress::Reporter,
    protocol::{AciContents, Contents, Event, Task},
    verity::Verity,
};
use rustix::{
    fs::{AtFlags, Mode, fsync, mkdirat, renameat, syncfs, unlinkat},
    io::Errno,
};
use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often to look whether another process has finished.
const PAUSE: Duration = Duration::from_millis(50);

/// An image that was fetched and checked, and is not in the store yet, unless it was there before.
#[derive(Debug)]
pub struct Staged {
    pub(super) store: Store,
    pub(super) program: PathBuf,
    pub(super) limits: Limits,
    pub(super) reference: Reference,
    pub(super) parts: Vec<Part>,
    pub(super) content: Content,
    /// What was decided about one that the store has.
    pub(super) judged: Option<Judged>,
    /// Whether it was fetched without need of signatures: that there are none says nothing then.
    pub(super) is_insecure: bool,
}

/// What was fetched.
#[derive(Debug)]
pub(super) enum Content {
    /// The store has it already.
    Stored {
        image: Box<StoredImage>,
        /// What the server said about keeping it.
        kept: Option<Kept>,
    },
    /// It is new.
    New {
        image: Box<Draft>,
        /// What it depends on and is new as well, each after those that it depends on.
        below: Vec<Draft>,
    },
}

/// An image that an ACI depends on.
#[derive(Clone, Debug)]
pub(super) enum Below {
    /// The store has it.
    Stored(Arc<StoredImage>),
    /// It is new: its place in [`Content::New`]'s `below`.
    New(usize),
}

/// An image on its way into the store.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: Digest,
    pub(super) kind: Kind,
    pub(super) said: Said,
    pub(super) indexes: Vec<BlobRef>,
    pub(super) manifest: Option<BlobRef>,
    pub(super) config: BlobRef,
    pub(super) layers: Vec<BlobRef>,
    /// The images that an ACI depends on, in the order of its manifest.
    pub(super) dependencies: Vec<Below>,
    pub(super) judged: Option<Judged>,
    /// Blobs that the store does not have yet, checked.
    pub(super) new: Vec<PartFile>,
    /// An ACI's manifest.
    pub(super) aci_manifest: Option<Vec<u8>>,
    /// An ACI as it was shipped.
    pub(super) shipped: Option<File>,
    /// How it was asked for.
    pub(super) reference: Reference,
    /// What the server said about keeping it.
    pub(super) kept: Option<Kept>,
    /// Its place among [`Staged::parts`].
    pub(super) part: usize,
    /// The lock of those who fetch.
    pub(super) _fetching: Arc<File>,
}

impl Staged {
    /// What names this image and no other: the digest of an OCI image's manifest (of the one for
    /// this machine's architecture, if there are several), of a Docker archive's configuration, or
    /// of an uncompressed ACI.
    pub fn id(&self) -> &Digest {
        &self.parts[0].id
    }

    /// See [`Part::name`].
    pub fn name(&self) -> &str {
        &self.parts[0].name
    }

    /// See [`StoredImage::app_name`].
    pub fn app_name(&self) -> String {
        app_name(self.name())
    }

    /// How it was asked for, with paths resolved; or how it was fetched if it was asked for by ID.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// What the image says about its program.
    pub fn config(&self) -> &ImageConfig {
        match &self.content {
            Content::Stored { image, .. } => image.config(),
            Content::New { image, .. } => &image.said.config,
        }
    }

    /// Whether it is in the store already.
    pub fn is_stored(&self) -> bool {
        matches!(self.content, Content::Stored { .. })
    }

    /// All that has to be judged: the image itself, then the ACIs that it depends on.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The file of an ACI as it was shipped, which is what a detached signature is about. Only
    /// while it is fetched: what the store has is decompressed.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn shipped_aci(&self, part: usize) -> Result<Option<File>, Error> {
        let Content::New { image, below } = &self.content else {
            return Ok(None);
        };
        let draft = below.iter().chain([&**image]).find(|draft| draft.part == part);
        let shipped = draft.and_then(|draft| draft.shipped.as_ref());
        let copy = shipped.map(|mut file| {
            std::io::Seek::rewind(&mut file)?;
            file.try_clone()
        });
        copy.transpose().map_err(|error| Error::io("open", "the fetched ACI", error))
    }

    /// Keeps what was found when a signature of a part (by their numbers in [`Self::parts`] and
    /// [`Part::signatures`]) was held against the file of [`Self::shipped_aci`].
    pub fn set_facts(&mut self, part: usize, signature: usize, found: DetachedFacts) {
        let signatures = self.parts.get_mut(part).map(|part| &mut part.signatures);
        let signature = signatures.and_then(|signatures| signatures.get_mut(signature));
        if let Some(Signature::Detached { facts, .. }) = signature {
            *facts = Some(found);
        }
    }

    /// Keeps what was decided about a part, in one line.
    pub fn set_verdict(&mut self, part: usize, verdict: String) {
        let Content::New { image, below } = &mut self.content else {
            if part == 0 {
                self.judged = Some(Judged { at: now(), verdict });
            }
            return;
        };
        let draft = below.iter_mut().chain([&mut **image]).find(|draft| draft.part == part);
        if let Some(draft) = draft {
            draft.judged = Some(Judged { at: now(), verdict });
        }
    }

    /// Renders the image's files and puts it into the store, after those that it depends on. The
    /// record of one that is there already takes over the signatures that came with it now, and what
    /// was decided.
    ///
    /// # Errors
    /// Any of [`Error`]; nothing is left behind then that gc does not find, such as what the image
    /// depends on, as far as that is whole: it was judged as well.
    pub fn commit(self, progress: &mut dyn Progress) -> Result<StoredImage, Error> {
        let Self { store, program, limits, reference, parts, content, judged, is_insecure } = self;
        // As long as what led to an image is not in its place either, nobody may look for garbage.
        let fetching = store.places.lock_to_fetch()?;
        let image = match content {
            Content::Stored { mut image, kept } => {
                image.renew(&reference, None, judged)?;
                // By its ID it may be another one than its name leads to meanwhile.
                let led = store.places.led(&reference)?;
                if led.is_some_and(|led| led.folder == image.folder()) {
                    store.places.keep_led(&reference, image.folder(), now(), kept)?;
                }
                *image
            }
            Content::New { image, below } => {
                let making = Making { store: &store, program, limits, is_insecure };
                match making.all(*image, below, &parts, progress) {
                    Ok(image) => image,
                    Err(error) => {
                        drop(fetching);
                        // Blobs may be in their places already. If that fails, gc does it.
                        let _ = store.sweep(PART_GRACE, &mut Collected::default());
                        return Err(error);
                    }
                }
            }
        };
        Ok(image.asked_for_as(&reference))
    }
}

/// Putting images into the store.
struct Making<'a> {
    store: &'a Store,
    program: PathBuf,
    limits: Limits,
    is_insecure: bool,
}

impl Making<'_> {
    /// Makes an image, after those `below` it.
    fn all(
        &self,
        image: Draft,
        below: Vec<Draft>,
        parts: &[Part],
        progress: &mut dyn Progress,
    ) -> Result<StoredImage, Error> {
        let mut made = Vec::with_capacity(below.len());
        for draft in below {
            let image = Arc::new(self.image(draft, parts, &made, progress)?);
            // As those above it have it from now on.
            self.store.places.share(&image);
            made.push(image);
        }
        self.image(image, parts, &made, progress)
    }

    /// Makes an image, over those that were made before it.
    fn image(
        &self,
        mut draft: Draft,
        parts: &[Part],
        made: &[Arc<StoredImage>],
        progress: &mut dyn Progress,
    ) -> Result<StoredImage, Error> {
        let places = &self.store.places;
        let (reference, kept) = (draft.reference.clone(), draft.kept.take());
        let part = parts[draft.part].clone();
        let below: Vec<_> = draft
            .dependencies
            .iter()
            .map(|below| match below {
                Below::Stored(image) => image.clone(),
                Below::New(place) => made[*place].clone(),
            })
            .collect();
        let image = self.in_place(draft, part, &below, progress)?;
        places.keep_led(&reference, image.folder(), now(), kept)?;
        Ok(image)
    }

    /// Makes the image in its place, unless another process has.
    fn in_place(
        &self,
        draft: Draft,
        part: Part,
        below: &[Arc<StoredImage>],
        progress: &mut dyn Progress,
    ) -> Result<StoredImage, Error> {
        let places = &self.store.places;
        let dependencies: Vec<_> = below
            .iter()
            .map(|image| DependencyRef {
                id: image.id().clone(),
                folder: image.folder().to_owned(),
            })
            .collect();
        let folder = folder_name(&draft.id, &dependencies);
        let failed = |error: Errno| Error::io("use", places.image_path(&folder), error);
        loop {
            match mkdirat(&places.image, &folder, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error)),
            }
            if let Some(mut image) = StoredImage::open_folder(places, &folder)? {
                let found = Some(part.signatures);
                let found = found.filter(|found| !self.is_insecure || !found.is_empty());
                image.renew(&draft.reference, found, draft.judged)?;
                return Ok(image);
            }
            let place = match places.open_image(&folder) {
                Ok(place) => place,
                // Whoever made or removed it was faster.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if !try_lock(&place).map_err(failed)? {
                Reporter::new(progress).report(Step::Wait)?;
                std::thread::sleep(PAUSE);
                continue;
            }
            if is_linked(&places.image, &folder, &place).map_err(failed)? {
                let made = self.make(draft, dependencies, below, part, &folder, progress);
                if made.is_err() {
                    // Removed by name while it is locked: nobody else can have replaced it.
                    let _ = unlinkat(&places.image, &folder, AtFlags::REMOVEDIR);
                }
                return made;
            }
        }
    }

    /// Renders the image and puts it in its place, which is locked. The record is there last.
    fn make(
        &self,
        mut draft: Draft,
        dependencies: Vec<DependencyRef>,
        below: &[Arc<StoredImage>],
        part: Part,
        folder: &str,
        progress: &mut dyn Progress,
    ) -> Result<StoredImage, Error> {
        let places = &self.store.places;
        let staging = Staging::new(&places.tmp, &places.in_store("tmp"))?;
        let rootfs = staging.file(ROOTFS)?;
        let rendered = self.render(&draft, below, &rootfs, progress);
        let (size, verity) = rendered.inspect_err(|error| {
            if matches!(error, Error::Cancelled) {
                draft.new.iter_mut().for_each(PartFile::keep_if_dear);
            }
        })?;
        let failed = |error: Errno| Error::io("complete", places.image_path(folder), error);
        let manifest = draft.aci_manifest.take();
        if let Some(manifest) = &manifest {
            let written = staging.file("manifest")?.write_all(manifest);
            written.map_err(|error| Error::io("write", "the manifest", error))?;
        }
        Reporter::new(progress).report(Step::Sync)?;
        // The whole file system at once: one call per file takes longer.
        syncfs(staging.folder()).map_err(failed)?;
        let checked = Stamp::settled(&rootfs);
        let checked = checked.map_err(|error| Error::io("examine", ROOTFS, error))?;
        drop(rootfs);

        let mut record = Record {
            version: Record::VERSION,
            id: draft.id,
            kind: draft.kind,
            name: part.name,
            reference: draft.reference,
            fetched: now(),
            imported: now(),
            indexes: draft.indexes,
            manifest: draft.manifest,
            config: draft.config,
            layers: draft.layers,
            dependencies,
            signatures: part.signatures,
            elsewhere: Vec::new(),
            judged: draft.judged,
            rootfs: RootfsRecord { size, verity, checked },
        };
        write_record(&staging, &mut record)?;
        let mut put = Vec::with_capacity(draft.new.len() + 1);
        for blob in &mut draft.new {
            put.push(blob.put()?);
        }
        if manifest.is_some() {
            let to = places.aci_manifest(&record.id);
            places.put(&staging.path().join("manifest"), &to)?;
            put.push(to);
        }
        places.sync_ways_to(&put)?;
        fsync(staging.folder()).map_err(failed)?;
        // Its shared lock goes with it.
        let lock = staging.share().map_err(failed)?;
        renameat(&places.tmp, staging.name(), &places.image, folder).map_err(failed)?;
        sync_folder(&places.in_store("image"))?;
        let said = draft.said;
        StoredImage::new(places, Member { folder: folder.to_owned(), record, said, lock })
    }

    /// Writes the image's files to `into`.
    fn render(
        &self,
        draft: &Draft,
        below: &[Arc<StoredImage>],
        into: &File,
        progress: &mut dyn Progress,
    ) -> Result<(u64, Verity), Error> {
        let (contents, layers) = self.contents(draft, below)?;
        // ACIs are not compressed any more, so nothing is written to any of these.
        let count = if draft.kind == Kind::Aci { 1 } else { layers.len() };
        let empty = (0..count).map(|_| self.store.temporary());
        let empty: Vec<_> = empty.collect::<Result<_, _>>()?;
        let for_each = empty.iter().cycle().take(layers.len());
        let files = borrow(layers.iter().chain(for_each).chain([into]));
        let task = Task::Render { contents };
        let diagnosis = self.store.temporary()?;
        let mut child = Child::start(&self.program, task, &self.limits, &files, diagnosis)?;
        child.watch(empty.iter().chain([into]))?;
        let mut reporter = Reporter::new(progress);
        let Event::Rendered { size, verity } = child.next(&mut reporter)? else {
            return Err(malformed("it has rendered nothing"));
        };
        child.finish(&mut reporter)?;
        let found = into.metadata().map_err(|error| Error::io("examine", ROOTFS, error))?.len();
        if found != size {
            return Err(malformed("the root file system has another size than it says"));
        }
        // Whether tree and data fit is left to the guest, which holds every block that it reads against
        // the root hash. Who has got hold of the process that made both can only spoil its own image.
        Ok((size, verity))
    }

    /// What the image's files are made of, from the store or from what was just fetched.
    fn contents(
        &self,
        draft: &Draft,
        below: &[Arc<StoredImage>],
    ) -> Result<(Contents, Vec<File>), Error> {
        let mut files = Vec::new();
        if draft.kind != Kind::Aci {
            let names = draft.layers.iter().zip(&draft.said.diff_ids);
            let layers = names.map(|(blob, id)| super::stored::layer(&blob.digest, id)).collect();
            for layer in &draft.layers {
                files.push(self.open(draft, &layer.digest)?);
            }
            return Ok((Contents::Layers { layers }, files));
        }
        let (mut known, mut acis, mut dependencies) = (Vec::new(), Vec::new(), Vec::new());
        for dependency in below {
            dependencies.push(dependency.add_acis(&mut known, &mut acis, &mut files)?);
        }
        let path_whitelist = draft.said.path_whitelist.clone();
        let name = draft.id.to_string();
        acis.push(AciContents { name, dependencies, path_whitelist });
        files.push(self.open(draft, &draft.layers[0].digest)?);
        Ok((Contents::Acis { acis }, files))
    }

    fn open(&self, draft: &Draft, digest: &Digest) -> Result<File, Error> {
        let failed = |error| Error::io("open", format!("blob {digest}"), error);
        if let Some(part) = draft.new.iter().find(|part| part.digest() == digest) {
            // A description of its own: whoever reads it moves its position.
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(part.file()));
            return File::open(path).map_err(failed);
        }
        let missing = || failed(std::io::ErrorKind::NotFound.into());
        self.store.places.open_blob(digest)?.ok_or_else(missing)
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// A new file without a name.
impl Store {
    pub(super) fn temporary(&self) -> Result<File, Error> {
        let path = self.places.in_store("tmp");
        staging::temporary(&self.places.tmp)
            .map_err(|error| Error::io("make a temporary file in", &path, error))
    }
}
