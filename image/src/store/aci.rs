//! One App Container Image, without what it depends on: from a file or a server, or the one of the
//! store if the server says that this is what it has.

use super::{
    BlobRef, Kind, StoredImage,
    part_file::PartFile,
    references::{Kept, Led},
    said::Said,
    sources::{Fetching, open_local},
    staged::{Below, Draft, now},
    staging::Staging,
    stored::hash,
};
use crate::{
    Algorithm, Digest, Error, FetchOptions, Limit, LimitExceeded, Network, Part, Progress,
    Reference, Step, Text,
    discovery::{AppcMismatch, AppcName, Endpoint},
    evidence::Signature,
    fetch::{borrow, malformed},
    format::aci,
    http::Url,
    progress::Reporter,
    protocol::{Event, Task},
};
use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// The longest detached signature in bytes.
const MAX_SIGNATURE: u64 = 1 << 20;
/// What an image is not that is another one.
const LOOKED_FOR: &str = "the image that was looked for";

/// An ACI that was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) id: Digest,
    /// Bytes of it, uncompressed.
    pub(super) size: u64,
    pub(super) manifest: aci::Manifest,
    /// The manifest as it is written.
    pub(super) document: Vec<u8>,
    pub(super) signature: Option<Vec<u8>>,
    /// The file as it was shipped.
    pub(super) shipped: File,
    pub(super) shipped_size: u64,
    /// With [`Self::ARCHIVE`] in it, until that is taken.
    pub(super) staging: Option<Staging>,
    /// What the server said about keeping it.
    pub(super) kept: Option<Kept>,
}

impl Fetched {
    /// The file with the uncompressed archive.
    pub(super) const ARCHIVE: &str = "archive";
}

/// An ACI.
#[derive(Debug)]
pub(super) enum Found {
    /// It was fetched.
    New(Box<Fetched>),
    /// The store has it, and the server no other one.
    Stored(Box<StoredImage>, Kept),
}

impl Found {
    /// Refuses an image that is not the one with this name.
    fn hold_against(&self, name: &AppcName, url: &Url) -> Result<(), Error> {
        let held = match self {
            Self::New(image) => name_held(name, &image.manifest.name, &image.manifest.config),
            Self::Stored(image, _) => name_held(name, image.name(), image.config()),
        };
        held.map_err(|problem| other_image(url, problem.to_string()))
    }
}

/// Holds what an image says about itself against a name that was asked for.
pub(super) fn name_held(
    asked: &AppcName,
    name: &str,
    config: &crate::ImageConfig,
) -> Result<(), AppcMismatch> {
    let labels = config.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
    asked.hold_against(name, labels)
}

impl Fetching<'_> {
    /// An ACI in a file, with the signature beside it.
    pub(super) fn aci_file(
        &self,
        file: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Found, Error> {
        let beside = {
            let mut name = file.as_os_str().to_owned();
            name.push(".asc");
            name
        };
        let signature = match &self.options.signature {
            Some(path) => Some(read_signature(path)?),
            None => match read_signature(Path::new(&beside)) {
                Ok(signature) => Some(signature),
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        let staging = self.staging()?;
        // Whoever can write to the file must not change it between one look at it and the next.
        let shipped = staging.file("shipped")?;
        let (mut from, mut into) = (open_local(file)?, &shipped);
        let limit = self.options.limits.get(Limit::Size);
        let copied = io::copy(&mut (&mut from).take(limit.saturating_add(1)), &mut into);
        let copied = copied.map_err(|error| Error::io("copy", file, error))?;
        self.options.limits.check(Limit::Size, copied)?;
        let name = Text::of_os(file).to_string();
        let fetched = self.open_shipped(&name, staging, shipped, signature, progress)?;
        Ok(Found::New(Box::new(fetched)))
    }

    /// An ACI on a server, with the signature beside it.
    pub(super) fn aci_url(&self, url: &Url, progress: &mut dyn Progress) -> Result<Found, Error> {
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let asc = url.with_path(&format!("{}.asc{query}", url.path()));
        self.aci_at(url, asc.ok(), None, progress)
    }

    /// An ACI where discovery has found it.
    pub(super) fn aci_discovered(
        &self,
        name: &AppcName,
        at: &Endpoint,
        exactly: Option<u64>,
        progress: &mut dyn Progress,
    ) -> Result<Found, Error> {
        let Endpoint { aci, asc } = at;
        let options = self.options.for_hosts(&[&aci.authority(), &asc.authority()])?;
        let fetching = Fetching {
            store: self.store,
            reference: self.reference,
            options: &options,
            lock: self.lock.clone(),
        };
        let found = fetching.aci_at(aci, Some(asc.clone()), exactly, progress)?;
        found.hold_against(name, aci)?;
        Ok(found)
    }

    /// Where an ACI is whose name is known.
    pub(super) fn discover(
        &self,
        name: &AppcName,
        progress: &mut dyn Progress,
    ) -> Result<Endpoint, Error> {
        let options = Box::new(self.options.network.http.clone());
        let task = Task::DiscoverImage { name: name.clone(), options };
        let mut reporter = Reporter::new(progress);
        let mut child = self.start(task, &[])?;
        let Event::Image { aci, asc } = child.next(&mut reporter)? else {
            return Err(malformed("it has found no image"));
        };
        child.finish(&mut reporter)?;
        Ok(Endpoint { aci, asc })
    }

    /// An ACI on a server, of `exactly` so many bytes as it is shipped.
    fn aci_at(
        &self,
        url: &Url,
        asc: Option<Url>,
        exactly: Option<u64>,
        progress: &mut dyn Progress,
    ) -> Result<Found, Error> {
        let FetchOptions { network, insecure_image, signature, limits, .. } = self.options;
        let Network { http, .. } = network;
        let mut signature = signature.as_deref().map(read_signature).transpose()?;
        // What the store has will do if the server says so; but not without a signature that is
        // wanted now.
        let known = if signature.is_none() { self.known()? } else { None };
        let (etag, known) = match known {
            Some((image, kept)) if kept.is_fresh(now()) => {
                return Ok(Found::Stored(Box::new(image), kept));
            }
            Some((image, kept)) => (kept.caching.etag.clone(), Some((image, kept))),
            None => (None, None),
        };
        let task = Task::AciUrl {
            url: url.clone(),
            asc: asc.filter(|_| signature.is_none()),
            options: Box::new(http.clone()),
            if_none_match: etag,
            needs_signature: !insecure_image,
        };
        let staging = self.staging()?;
        let shipped = staging.file("shipped")?;
        let mut reporter = Reporter::new(progress);
        // More than it should have is not even downloaded.
        let most = exactly.map(|exactly| limits.at_most(Limit::Size, exactly));
        let mut child = self.start_with(task, &borrow([&shipped]), most.as_ref())?;
        child.watch([&shipped])?;
        let at = now();
        let said = child.next(&mut reporter).map_err(|error| match (error, exactly) {
            (Error::Limit(LimitExceeded { limit: Limit::Size, value }), Some(exactly))
                if value == exactly =>
            {
                other_image(url, format!("it has more than the {exactly} bytes that it should"))
            }
            (error, _) => error,
        })?;
        let caching = match (said, known) {
            (Event::Got { caching }, _) => caching,
            (Event::NotModified { mut caching }, Some((image, kept))) => {
                child.finish(&mut reporter)?;
                caching.etag = caching.etag.or(kept.caching.etag);
                return Ok(Found::Stored(Box::new(image), Kept { at, caching }));
            }
            _ => return Err(malformed("it has got no image")),
        };
        loop {
            match child.next(&mut reporter)? {
                Event::Signature { signature: Signature::Detached { signature: found, .. } }
                    if signature.is_none() =>
                {
                    // What it says besides about the signature is not believed.
                    signature = Some(found);
                }
                Event::Done => break,
                _ => return Err(malformed("it goes on where it should be done")),
            }
        }
        drop(child);
        let name = url.shown().to_string();
        let mut fetched = self.open_shipped(&name, staging, shipped, signature, progress)?;
        if let Some(exactly) = exactly.filter(|&exactly| exactly != fetched.shipped_size) {
            let problem = format!("it has {} bytes instead of {exactly}", fetched.shipped_size);
            return Err(other_image(url, problem));
        }
        fetched.kept = Some(Kept { at, caching });
        Ok(Found::New(Box::new(fetched)))
    }

    /// The image that the reference led to last, if the server can be asked whether it still does.
    fn known(&self) -> Result<Option<(StoredImage, Kept)>, Error> {
        let places = &self.store.places;
        let Some(Led { folder, kept: Some(kept), .. }) = places.led(self.reference)? else {
            return Ok(None);
        };
        let image = StoredImage::open_folder(places, &folder)?;
        let will_do = |image: &StoredImage| {
            self.options.insecure_image
                || self.options.is_accepted
                || !image.record().signatures_from(self.reference).is_empty()
        };
        let image = image.filter(will_do).map(|image| image.asked_for_as(self.reference));
        Ok(image.map(|image| (image, kept)))
    }

    /// An ACI that is in a file of our own.
    fn open_shipped(
        &self,
        name: &str,
        staging: Staging,
        shipped: File,
        signature: Option<Vec<u8>>,
        progress: &mut dyn Progress,
    ) -> Result<Fetched, Error> {
        let examine = |file: &File| {
            let metadata = file.metadata();
            Ok::<_, Error>(metadata.map_err(|error| Error::io("examine", name, error))?.len())
        };
        let shipped_size = examine(&shipped)?;
        self.options.limits.check(Limit::Size, shipped_size)?;
        let mut reporter = Reporter::new(progress);
        let (archive, document) = (staging.file(Fetched::ARCHIVE)?, self.store.temporary()?);
        let again = reopen(&shipped)?;
        let task = Task::Aci { name: name.to_owned() };
        let mut child = self.start(task, &borrow([&again, &archive, &document]))?;
        child.watch([&archive, &document])?;
        child.finish(&mut reporter)?;

        let document = self.read(&document)?;
        let manifest = aci::parse_manifest(&document).map_err(|problem| manifest(name, problem))?;
        let like = Digest::of(Algorithm::Sha512, &[]);
        let total = examine(&archive)?;
        let mut done = 0;
        let (id, size) = hash(&archive, &like, |read| {
            done += read;
            reporter.report(Step::Check { done, total }).map_err(Error::from)
        })?;
        let kept = None;
        Ok(Fetched {
            id,
            size,
            manifest,
            document,
            signature,
            shipped,
            shipped_size,
            staging: Some(staging),
            kept,
        })
    }

    /// An image that was fetched, and what is judged of it.
    pub(super) fn drafted(
        &self,
        image: Fetched,
        new: Option<PartFile>,
        reference: Reference,
        dependencies: Vec<Below>,
    ) -> (Draft, Part) {
        let Fetched { id, size, manifest, document, signature, shipped, kept, .. } = image;
        let draft = Draft {
            id: id.clone(),
            kind: Kind::Aci,
            said: Said::of_aci(&manifest),
            indexes: Vec::new(),
            manifest: None,
            config: BlobRef {
                digest: Digest::of(Algorithm::Sha512, &document),
                size: document.len() as u64,
                media_type: None,
            },
            layers: vec![BlobRef { digest: id, size, media_type: None }],
            dependencies,
            judged: None,
            new: new.into_iter().collect(),
            aci_manifest: Some(document),
            shipped: Some(shipped),
            reference,
            kept,
            part: 0,
            _fetching: self.lock.clone(),
        };
        let signature = signature.map(|signature| Signature::Detached { signature, facts: None });
        let part = draft.as_part(manifest.name, signature.into_iter().collect());
        (draft, part)
    }

    /// An image of the store that depends on other ones now.
    pub(super) fn drafted_again(
        &self,
        image: &StoredImage,
        said: &aci::Manifest,
        kept: Kept,
        reference: Reference,
        dependencies: Vec<Below>,
    ) -> (Draft, Part) {
        let record = image.record();
        let draft = Draft {
            id: record.id.clone(),
            kind: record.kind,
            said: Said::of_aci(said),
            indexes: Vec::new(),
            manifest: None,
            config: record.config.clone(),
            layers: record.layers.clone(),
            dependencies,
            judged: None,
            new: Vec::new(),
            // The store has it, by the ID.
            aci_manifest: None,
            shipped: None,
            reference,
            kept: Some(kept),
            part: 0,
            _fetching: self.lock.clone(),
        };
        let signatures = record.signatures_from(&draft.reference).to_vec();
        let part = draft.as_part(record.name.clone(), signatures);
        (draft, part)
    }
}

/// A manifest is not as it should be.
pub(super) fn manifest(name: &str, problem: crate::format::DocumentError) -> Error {
    Error::Document { document: Text::new(format!("the manifest of {name}")), problem }
}

/// What a server has is another image.
fn other_image(url: &Url, problem: String) -> Error {
    Error::NotAnImage { path: url.shown(), expected: LOOKED_FOR, problem: Text::message(problem) }
}

/// The same file with a position of its own.
fn reopen(file: &File) -> Result<File, Error> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    File::open(path).map_err(|error| Error::io("open", "the fetched ACI", error))
}

fn read_signature(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = open_local(path)?.take(MAX_SIGNATURE + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io("read", path, error))?;
    if bytes.len() as u64 > MAX_SIGNATURE {
        let problem = io::Error::other("it has more than 1 MiB, so it is no signature");
        return Err(Error::io("use", path, problem));
    }
    Ok(bytes)
}
