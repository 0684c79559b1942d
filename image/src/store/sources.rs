//! Fetching from each kind of place.

use super::{
    BlobRef, Kind, Store,
    part_file::PartFile,
    said::Said,
    staged::{Content, Draft, Staged},
    staging::Staging,
    stored::hash,
};
use crate::{
    Algorithm, Digest, Error, FetchOptions, Limit, Limits, Part, Progress, Reference, Step, Text,
    evidence::Signature,
    fetch::{Child, borrow, malformed},
    format::{
        Container, Document, Documents, MAX_DEPTH, OciImage, check_digest, find_in_layout,
        oci::{Descriptor, parse_index},
        open_file, split_tag,
    },
    progress::Reporter,
    protocol::{Answer, Event, MAX_SIGNATURES, Task, Wanted},
};
use std::{fs::File, io::Read as _, os::unix::fs::FileExt as _, path::Path, sync::Arc};

/// One fetch.
pub(super) struct Fetching<'a> {
    pub(super) store: &'a Store,
    pub(super) reference: &'a Reference,
    pub(super) options: &'a FetchOptions,
    pub(super) lock: Arc<File>,
}

/// An OCI image that was copied, and checked.
pub(super) struct Copy {
    image: OciImage,
    /// Blobs that the store does not have.
    new: Vec<PartFile>,
    signatures: Vec<Signature>,
}

impl Fetching<'_> {
    /// An image of an OCI layout. Its documents are JSON, and its blobs are copied as they are, so
    /// nothing here needs another process.
    pub(super) fn layout(
        self,
        directory: &Path,
        name: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<Staged, Error> {
        let container = Container::directory(directory)?;
        let image = find_in_layout(&container, "an OCI image layout", name, &self.options.limits)?;
        let mut reporter = Reporter::new(progress);
        let (mut new, mut layers) = self.blobs(&image, &mut reporter)?;
        let count = layers.len();
        let mut buffer = vec![0; 256 << 10];
        for (index, part) in layers.iter().enumerate() {
            part.empty()?;
            let mut blob = container.blob(part.digest(), part.size())?;
            let (mut done, total) = (0, part.size());
            loop {
                reporter.report(Step::Download { index, count, done, total })?;
                let read = blob.read(&mut buffer);
                let read = read.map_err(|error| Error::io("read", directory, error))?;
                if read == 0 {
                    break;
                }
                write(part, done, &buffer[..read])?;
                done += read as u64;
            }
            part.check(&mut reporter)?;
        }
        new.append(&mut layers);
        let name = stem(directory);
        Ok(self.oci(Copy { image, new, signatures: Vec::new() }, name))
    }

    /// An image of an OCI archive.
    pub(super) fn archive(
        self,
        file: &Path,
        name: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<Staged, Error> {
        let task = Task::OciArchive { path: file.to_owned(), name: name.map(str::to_owned) };
        let archive = open_local(file)?;
        let whole = self.store.temporary()?;
        let copy = self.copy(task, &[&archive, &whole], None, &mut Reporter::new(progress))?;
        Ok(self.oci(copy, stem(file)))
    }

    /// Has another process look for an OCI image and copy it. [`Error::Blob`] is about one that is
    /// not what its digest says; it is forgotten, and what else came from a server is kept.
    pub(super) fn copy(
        &self,
        task: Task,
        files: &[&File],
        asked: Option<&Digest>,
        reporter: &mut Reporter<'_>,
    ) -> Result<Copy, Error> {
        let is_download = matches!(task, Task::Registry { .. });
        let documents = (0..2 + MAX_DEPTH).map(|_| self.store.temporary());
        let documents: Vec<_> = documents.collect::<Result<_, _>>()?;
        let sent = borrow(files.iter().copied().chain(&documents));
        let mut child = self.start(task, &sent)?;
        child.watch(files.iter().copied().chain(&documents))?;
        let Event::Documents { manifest, indexes } = child.next(reporter)? else {
            return Err(malformed("it has found no documents"));
        };
        let image = self.follow(&documents, manifest, indexes, asked)?;
        let (mut new, mut layers) = self.blobs(&image, reporter)?;
        let mut wanted = Vec::new();
        for part in &mut layers {
            if is_download {
                part.is_downloaded();
            }
            let layer = image.layers.iter().position(|layer| layer.digest == *part.digest());
            let already = part.already()?;
            wanted.push(Wanted { layer: layer.unwrap_or_default(), already });
        }
        let into: Vec<_> = layers.iter().map(PartFile::file).collect();
        child.watch(into.iter().copied())?;
        child.answer(&Answer { wanted }, &borrow(into.iter().copied()))?;
        let mut signatures = Vec::new();
        let ended = loop {
            match child.next(reporter) {
                Ok(Event::Signature { .. }) if signatures.len() == MAX_SIGNATURES => {
                    break Err(malformed("it has too many signatures"));
                }
                // Such a one is about a single file, and says more than it shows.
                Ok(Event::Signature { signature: Signature::Detached { .. } }) => {
                    break Err(malformed("a signature is of the wrong kind"));
                }
                Ok(Event::Signature { signature }) => signatures.push(signature),
                Ok(Event::Done) => break Ok(()),
                Ok(_) => break Err(malformed("it goes on where it should be done")),
                Err(error) => break Err(error),
            }
        };
        drop(child);
        let checked = ended.and_then(|()| {
            layers.iter().try_for_each(|part| {
                let checked = part.check(reporter);
                if let Err(Error::Blob { .. }) = checked {
                    part.empty()?;
                }
                checked
            })
        });
        if let Err(Error::Interrupted(_) | Error::Cancelled | Error::Blob { .. }) = checked {
            layers.iter_mut().for_each(PartFile::keep_if_dear);
        }
        checked?;
        new.append(&mut layers);
        Ok(Copy { image, new, signatures })
    }

    /// An image of a Docker archive.
    pub(super) fn docker(
        self,
        file: &Path,
        name: Option<&str>,
        progress: &mut dyn Progress,
    ) -> Result<Staged, Error> {
        let mut reporter = Reporter::new(progress);
        let task = Task::DockerArchive { path: file.to_owned(), name: name.map(str::to_owned) };
        let (archive, whole) = (open_local(file)?, self.store.temporary()?);
        let document = self.store.temporary()?;
        let mut child = self.start(task, &borrow([&archive, &whole, &document]))?;
        child.watch([&whole, &document])?;
        let Event::Saved { tags, layers: sizes } = child.next(&mut reporter)? else {
            return Err(malformed("it has found no image"));
        };
        let bytes = self.read(&document)?;
        let id = Digest::of(Algorithm::Sha256, &bytes);
        let said = Said::of_docker(&bytes, &id)?;
        if said.diff_ids.len() != sizes.len() {
            return Err(malformed("the image has another number of layers"));
        }
        // What such a file calls a layer is not its digest; most are what the configuration's
        // digests are of, and the others are known once they are there.
        let staging = self.staging()?;
        let mut copies = Vec::with_capacity(sizes.len());
        let mut wanted = Vec::with_capacity(sizes.len());
        for layer in 0..sizes.len() {
            copies.push(staging.file(&layer.to_string())?);
            wanted.push(Wanted { layer, already: 0 });
        }
        child.watch(&copies)?;
        child.answer(&Answer { wanted }, &borrow(&copies))?;
        child.finish(&mut reporter)?;

        let mut layers = Vec::new();
        for ((copy, size), like) in copies.iter().zip(sizes).zip(&said.diff_ids) {
            let (digest, found) = hash(copy, like, |_| Ok(reporter.ask()?))?;
            if found != size {
                return Err(malformed("a layer has another size than it says"));
            }
            layers.push(BlobRef { digest, size, media_type: None });
        }
        // In the order of their names, as in `blobs`.
        let numbered = layers.iter().enumerate();
        let mut blobs: Vec<_> = numbered.map(|(index, blob)| (&blob.digest, Some(index))).collect();
        blobs.push((&id, None));
        blobs.sort_by_key(|(digest, index)| (digest.file_name(), *index));
        blobs.dedup_by_key(|(digest, _)| digest.file_name());
        let mut new = Vec::new();
        for (digest, index) in blobs {
            let Some(index) = index else {
                new.extend(self.document(digest, &bytes, &mut reporter)?);
                continue;
            };
            let size = layers[index].size;
            let part = PartFile::open(&self.store.places, digest, size, &mut reporter)?;
            let filled = part.map(|part| part.filled_by(&staging, &index.to_string()));
            new.extend(filled.transpose()?);
        }
        let name = match tags.first() {
            Some(tag) => split_tag(tag).0.to_owned(),
            None => stem(file),
        };
        let config = BlobRef { digest: id.clone(), size: bytes.len() as u64, media_type: None };
        let draft = Draft {
            id,
            kind: Kind::DockerArchive,
            said,
            indexes: Vec::new(),
            manifest: None,
            config,
            layers,
            dependencies: Vec::new(),
            judged: None,
            new,
            aci_manifest: None,
            shipped: None,
            reference: self.reference.clone(),
            kept: None,
            part: 0,
            _fetching: self.lock,
        };
        let part = draft.as_part(name, Vec::new());
        Ok(self.store.staged(draft, Vec::new(), vec![part], self.options))
    }

    pub(super) fn oci(self, copy: Copy, name: String) -> Staged {
        let Copy { image, new, signatures } = copy;
        let blob = |descriptor: &Descriptor| BlobRef {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: Some(descriptor.media_type.clone()),
        };
        let draft = Draft {
            id: image.manifest.descriptor.digest.clone(),
            kind: Kind::Oci,
            said: Said::of_oci(&image),
            indexes: image.indexes.iter().map(|index| blob(&index.descriptor)).collect(),
            manifest: Some(blob(&image.manifest.descriptor)),
            config: blob(&image.config.descriptor),
            layers: image.layers.iter().map(blob).collect(),
            dependencies: Vec::new(),
            judged: None,
            new,
            aci_manifest: None,
            shipped: None,
            reference: self.reference.clone(),
            kept: None,
            part: 0,
            _fetching: self.lock,
        };
        let part = draft.as_part(name, signatures);
        self.store.staged(draft, Vec::new(), vec![part], self.options)
    }

    pub(super) fn start(
        &self,
        task: Task,
        files: &[rustix::fd::BorrowedFd<'_>],
    ) -> Result<Child, Error> {
        self.start_with(task, files, None)
    }

    /// The same with other limits than those of the options.
    pub(super) fn start_with(
        &self,
        task: Task,
        files: &[rustix::fd::BorrowedFd<'_>],
        limits: Option<&Limits>,
    ) -> Result<Child, Error> {
        let program = &self.options.program;
        let limits = limits.unwrap_or(&self.options.limits);
        Child::start(program, task, limits, files, self.store.temporary()?)
    }

    pub(super) fn staging(&self) -> Result<Staging, Error> {
        Staging::new(&self.store.places.tmp, &self.store.places.in_store("tmp"))
    }

    /// Reads a document that the other process has written.
    pub(super) fn read(&self, document: &File) -> Result<Vec<u8>, Error> {
        let failed = |error| Error::io("read", "a document", error);
        let size = document.metadata().map_err(failed)?.len();
        self.options.limits.check(Limit::Document, size)?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        document.read_exact_at(&mut bytes, 0).map_err(failed)?;
        Ok(bytes)
    }

    /// Goes the way from the outermost document to the image again.
    fn follow(
        &self,
        files: &[File],
        manifest: String,
        indexes: Vec<String>,
        asked: Option<&Digest>,
    ) -> Result<OciImage, Error> {
        if indexes.len() > MAX_DEPTH {
            return Err(malformed("it went through too many indexes"));
        }
        let mut bytes = files.iter().map(|file| self.read(file));
        let mut next = || bytes.next().unwrap_or_else(|| Err(malformed("a document is missing")));
        let (last, config) = (next()?, next()?);
        let mut way = Vec::new();
        for media_type in &indexes {
            way.push((media_type.clone(), next()?));
        }
        way.push((manifest, last));

        let (media_type, outermost) = &way[0];
        let algorithm = asked.map_or(Algorithm::Sha256, Digest::algorithm);
        let found = Digest::of(algorithm, outermost);
        if let Some(asked) = asked {
            check_digest(asked, &found)?;
        }
        let mut entry = Descriptor::new(media_type.clone(), found, outermost.len() as u64);
        let mut documents = Vec::new();
        for pair in way.windows(2) {
            let [(media_type, index), (_, below)] = pair else { continue };
            let index_document = Document { descriptor: entry.clone(), bytes: index.clone() };
            let index = parse_index(index, Some(media_type)).map_err(|problem| {
                let document = Text::new(format!("index {}", entry.digest));
                Error::Document { document, problem }
            })?;
            let leads = |entry: &&Descriptor| {
                entry.platform.as_ref().is_none_or(crate::format::oci::Platform::is_ours)
                    && entry.size == below.len() as u64
                    && entry.digest == Digest::of(entry.digest.algorithm(), below)
            };
            let found = index.manifests.iter().find(leads);
            entry = found.ok_or_else(|| malformed("an index does not lead on"))?.clone();
            documents.push(index_document);
        }
        let last = way.pop().map(|(_, bytes)| bytes).unwrap_or_default();
        let held = Held { documents: [last, config] };
        OciImage::read(documents, &entry, &held, &self.options.limits)
    }

    /// Takes the documents of an image that the store does not have, and files for the layers that it
    /// does not have: all of them in the order of their names, so that of two who want the same ones
    /// none waits for the other for ever.
    fn blobs(
        &self,
        image: &OciImage,
        reporter: &mut Reporter<'_>,
    ) -> Result<(Vec<PartFile>, Vec<PartFile>), Error> {
        let documents = image.indexes.iter().chain([&image.manifest, &image.config]);
        let documents = documents.map(|document| (&document.descriptor, Some(document)));
        let layers = image.layers.iter().map(|layer| (layer, None));
        let mut blobs: Vec<_> = documents.chain(layers).collect();
        // A layer that is a document, too, is one: the sort leaves it behind that.
        blobs.sort_by_key(|(blob, _)| blob.digest.file_name());
        blobs.dedup_by_key(|(blob, _)| blob.digest.file_name());
        let mut total = 0_u64;
        let (mut taken, mut empty) = (Vec::new(), Vec::new());
        for (Descriptor { digest, size, .. }, document) in blobs {
            if let Some(document) = document {
                taken.extend(self.document(digest, &document.bytes, reporter)?);
                continue;
            }
            total = total.saturating_add(*size);
            self.options.limits.check(Limit::Size, total)?;
            empty.extend(PartFile::open(&self.store.places, digest, *size, reporter)?);
        }
        Ok((taken, empty))
    }

    /// Takes a document, if the store does not have it.
    fn document(
        &self,
        digest: &Digest,
        bytes: &[u8],
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<PartFile>, Error> {
        let size = bytes.len() as u64;
        let part = PartFile::open(&self.store.places, digest, size, reporter)?;
        if let Some(part) = &part {
            part.empty()?;
            write(part, 0, bytes)?;
            part.check(reporter)?;
        }
        Ok(part)
    }
}

/// Manifest and configuration, which were read already.
struct Held {
    documents: [Vec<u8>; 2],
}

impl Documents for Held {
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let is_meant = |document: &&Vec<u8>| {
            document.len() as u64 == descriptor.size
                && Digest::of(descriptor.digest.algorithm(), document) == descriptor.digest
        };
        let document = self.documents.iter().find(is_meant);
        document.cloned().ok_or_else(|| Error::Blob {
            digest: descriptor.digest.clone(),
            problem: "what came in its place has another size or digest".to_owned(),
        })
    }
}

impl Draft {
    /// What is judged of it.
    pub(super) fn as_part(&self, name: String, signatures: Vec<Signature>) -> Part {
        let manifests = self.manifest.iter().chain(&self.indexes);
        Part {
            id: self.id.clone(),
            reference: self.reference.clone(),
            name,
            labels: self.said.config.labels.clone(),
            manifests: manifests.map(|blob| blob.digest.clone()).collect(),
            signatures,
            version: self.said.version.clone(),
            created: self.said.created,
        }
    }
}

impl Store {
    /// An image that is new, over those `below` it that are new as well.
    pub(super) fn staged(
        &self,
        image: Draft,
        below: Vec<Draft>,
        parts: Vec<Part>,
        options: &FetchOptions,
    ) -> Staged {
        Staged {
            store: self.clone(),
            program: options.program.clone(),
            limits: options.limits.clone(),
            reference: image.reference.clone(),
            parts,
            content: Content::New { image: Box::new(image), below },
            judged: None,
            is_insecure: options.insecure_image,
        }
    }
}

/// What an image is called that has no name of its own: what its file or directory is called,
/// without its ending.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    match name.split_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem.to_owned(),
        _ => name.into_owned(),
    }
}

pub(super) fn open_local(path: &Path) -> Result<File, Error> {
    let (file, _) =
        open_file(rustix::fs::CWD, path).map_err(|error| Error::io("open", path, error))?;
    Ok(file)
}

fn write(part: &PartFile, at: u64, bytes: &[u8]) -> Result<(), Error> {
    part.file()
        .write_all_at(bytes, at)
        .map_err(|error| Error::io("write a blob to", "the image store", error))
}
