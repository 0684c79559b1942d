//! Images from a registry and into one.

use super::{Channel, Files, archive::write_documents};
use crate::{
    Digest, Error, Limit, Limits, Progress as _, Step, Text,
    evidence::Signature,
    format::{
        Documents, MAX_DEPTH, OciImage, Search,
        oci::{Descriptor, Media},
    },
    progress::Reporter,
    protocol::{Event, MAX_SIGNATURES, Pushed, Wanted},
    registry::{self, Client, Lookaside, MAX_MANIFEST, Options, RegistryReference},
};
use std::{
    fs::File,
    ops::ControlFlow,
    os::unix::fs::FileExt as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

/// How long nothing is said about the progress of one blob.
const PAUSE: Duration = Duration::from_millis(100);
/// The most blobs that are downloaded at the same time.
const MAX_JOBS: usize = 32;

/// What to take from a registry.
pub(super) struct Asked {
    pub(super) image: RegistryReference,
    pub(super) lookaside: Option<Lookaside>,
    pub(super) jobs: u8,
    pub(super) needs_signatures: bool,
}

/// Takes the documents of an image for this machine, then what is wanted of its blobs, with its
/// signatures at the same time.
pub(super) fn pull(
    asked: Asked,
    options: Options,
    mut files: Files,
    limits: &Limits,
    channel: &mut Channel,
) -> Result<(), Error> {
    let Asked { image: reference, lookaside, jobs, needs_signatures } = asked;
    let mut documents = Vec::new();
    for _ in 0..2 + MAX_DEPTH {
        documents.push(files.next_file()?);
    }
    let client = Client::new(options).map_err(refused)?;
    Reporter::new(channel).report(Step::Ask)?;
    let image = find(&client, &reference, limits)?;
    let (answer, into) = channel.ask(&write_documents(&image, &documents)?)?;

    let mut blobs = Vec::with_capacity(into.len());
    for (index, (Wanted { layer, already }, file)) in
        answer.wanted.into_iter().zip(&into).enumerate()
    {
        let layer = image.layers.get(layer).ok_or_else(|| {
            let problem = std::io::Error::other("there is no such layer");
            Error::io("use", "the answer", problem)
        })?;
        blobs.push(Blob { index, layer, already, file });
    }
    let download = Download { client: &client, reference: &reference, count: blobs.len() };
    let manifests = [&image.manifest].into_iter().chain(&image.indexes);
    let manifests: Vec<_> = manifests.map(|document| document.descriptor.digest.clone()).collect();
    let signatures = Signatures {
        manifests: &manifests,
        lookaside: lookaside.as_ref(),
        are_needed: needs_signatures,
    };
    download.run(blobs, &signatures, usize::from(jobs).clamp(1, MAX_JOBS), channel)
}

/// Finds the image for this machine and reads its documents.
fn find(
    client: &Client,
    reference: &RegistryReference,
    limits: &Limits,
) -> Result<OciImage, Error> {
    let outermost = client.manifest(reference).map_err(refused)?;
    let size = outermost.bytes.len() as u64;
    limits.check(Limit::Document, size)?;
    let entry = Descriptor::new(outermost.media_type, outermost.digest, size);
    let known = (entry.digest.clone(), outermost.bytes);
    let source = Source { client, reference, limits, known };
    let mut way = Vec::new();
    let found = Search::new(&source).for_this_machine(&entry, &mut way)?;
    let found = found.ok_or_else(|| Error::NotAnImage {
        path: Text::new(reference.to_string()),
        expected: "an image for linux/amd64",
        problem: Text::new("it has none for this kind of machine"),
    })?;
    OciImage::read(way, &found, &source, limits)
}

/// The documents of an image in a registry.
struct Source<'a> {
    client: &'a Client,
    reference: &'a RegistryReference,
    limits: &'a Limits,
    /// The one that was asked for by its name.
    known: (Digest, Vec<u8>),
}

impl Documents for Source<'_> {
    fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let Descriptor { digest, size, .. } = descriptor;
        self.limits.check(Limit::Document, *size)?;
        let bytes = match Media::of(&descriptor.media_type) {
            _ if *digest == self.known.0 => self.known.1.clone(),
            Media::Index | Media::Manifest => {
                let at = self.reference.with_digest(digest.clone());
                self.client.manifest(&at).map_err(refused)?.bytes
            }
            _ => self.client.content(self.reference, digest, *size).map_err(refused)?,
        };
        if bytes.len() as u64 != *size {
            let problem = format!("it has {} bytes instead of {size}", bytes.len());
            return Err(Error::Blob { digest: digest.clone(), problem });
        }
        Ok(bytes)
    }
}

/// A blob on its way into a file.
struct Blob<'a> {
    index: usize,
    layer: &'a Descriptor,
    already: u64,
    file: &'a File,
}

/// Whose signatures are looked for, and where.
struct Signatures<'a> {
    manifests: &'a [Digest],
    lookaside: Option<&'a Lookaside>,
    are_needed: bool,
}

/// What threads tell the one that speaks.
enum Told {
    Step(Step),
    Signatures(Vec<Signature>),
    Failed(registry::Error),
}

struct Download<'a> {
    client: &'a Client,
    reference: &'a RegistryReference,
    count: usize,
}

impl Download<'_> {
    /// Gets all blobs, and the signatures. The first failure ends the others.
    fn run(
        &self,
        mut blobs: Vec<Blob<'_>>,
        signatures: &Signatures<'_>,
        jobs: usize,
        channel: &mut Channel,
    ) -> Result<(), Error> {
        blobs.reverse();
        let jobs = jobs.min(blobs.len());
        let queue = Mutex::new(blobs);
        let stop = AtomicBool::new(false);
        let (told, hear) = mpsc::sync_channel(64);
        let mut failure = None;
        thread::scope(|scope| {
            for _ in 0..jobs {
                let (told, queue, stop) = (told.clone(), &queue, &stop);
                let client = self.client.clone();
                scope.spawn(move || self.work(&client, queue, stop, &told));
            }
            let client = self.client.clone();
            scope.spawn(move || self.sign(&client, signatures, &told));
            for message in hear {
                let said = match message {
                    Told::Step(step) => match channel.report(step) {
                        ControlFlow::Continue(()) => Ok(()),
                        ControlFlow::Break(()) => Err(Error::Cancelled),
                    },
                    Told::Signatures(found) => found
                        .into_iter()
                        .take(MAX_SIGNATURES)
                        .try_for_each(|signature| channel.say(&Event::Signature { signature })),
                    Told::Failed(error) if error.is_transient() => {
                        Err(Error::Interrupted(Text::message(error.to_string())))
                    }
                    Told::Failed(error) => Err(refused(error)),
                };
                if let Err(error) = said {
                    stop.store(true, Ordering::Relaxed);
                    // Those that end for the sake of the first one are cancelled.
                    failure.get_or_insert(error);
                }
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// Gets blobs until there are none left.
    fn work(
        &self,
        client: &Client,
        queue: &Mutex<Vec<Blob<'_>>>,
        stop: &AtomicBool,
        told: &SyncSender<Told>,
    ) {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(Blob { index, layer, already, file }) = next else { return };
            let total = layer.size;
            let mut last: Option<Instant> = None;
            let mut on_bytes = |done| {
                if stop.load(Ordering::Relaxed) {
                    return ControlFlow::Break(());
                }
                if done == total || last.is_none_or(|last| last.elapsed() >= PAUSE) {
                    last = Some(Instant::now());
                    let step = Step::Download { index, count: self.count, done, total };
                    // It is heard until the last sender is gone.
                    let _ = told.send(Told::Step(step));
                }
                ControlFlow::Continue(())
            };
            let (reference, digest) = (self.reference, &layer.digest);
            let got = client.blob(reference, digest, total, file, already, &mut on_bytes);
            if let Err(error) = got {
                let _ = told.send(Told::Failed(error));
                return;
            }
        }
    }

    fn sign(&self, client: &Client, signatures: &Signatures<'_>, told: &SyncSender<Told>) {
        let Signatures { manifests, lookaside, are_needed } = *signatures;
        let message = match registry::signatures(client, self.reference, manifests, lookaside) {
            Ok(found) => Told::Signatures(found),
            Err(error) if are_needed => Told::Failed(error),
            Err(_) => return,
        };
        let _ = told.send(message);
    }
}

/// Puts an image's blobs into a registry, then its documents.
pub(super) fn push(
    reference: &RegistryReference,
    options: Options,
    blobs: &[Pushed],
    documents: &[Pushed],
    mut files: Files,
    channel: &mut Channel,
) -> Result<(), Error> {
    let client = Client::new(options).map_err(refused)?;
    let mut reporter = Reporter::new(channel);
    reporter.report(Step::Ask)?;
    let count = blobs.len();
    for (index, Pushed { digest, size, .. }) in blobs.iter().enumerate() {
        let file = files.next_file()?;
        let total = *size;
        let mut on_bytes = |done| match reporter.report(Step::Upload { index, count, done, total })
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        let pushed = client.push_blob(reference, digest, total, &file, &mut on_bytes);
        pushed.map_err(refused)?;
    }
    for (index, Pushed { media_type, digest, size }) in documents.iter().enumerate() {
        let file = files.next_file()?;
        let failed = |error| Error::io("read", format!("blob {digest}"), error);
        if *size > MAX_MANIFEST {
            let problem = format!("registries take manifests of up to {MAX_MANIFEST} bytes");
            return Err(Error::Blob { digest: digest.clone(), problem });
        }
        let mut bytes = vec![0; usize::try_from(*size).unwrap_or_default()];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let at = if index + 1 == documents.len() && reference.digest().is_none() {
            reference.clone()
        } else {
            reference.with_digest(digest.clone())
        };
        let stored = client.push_manifest(&at, media_type, &bytes).map_err(refused)?;
        if stored.algorithm() == digest.algorithm() && stored != *digest {
            let problem = format!("its file has digest {stored}");
            return Err(Error::Blob { digest: digest.clone(), problem });
        }
    }
    Ok(())
}

/// The error in words: nobody looks closer at what a server does.
fn refused(error: registry::Error) -> Error {
    match error {
        registry::Error::Http(crate::http::Error::Cancelled) => Error::Cancelled,
        error => Error::Fetch(Text::message(error.to_string())),
    }
}
