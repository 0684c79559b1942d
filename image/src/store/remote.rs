//! Fetching from servers, and sending to them.

use super::{BlobRef, Kind, Staged, Store, StoredImage, sources::Fetching};
use crate::{
    Digest, Error, FetchOptions, Network, Progress, Text,
    fetch::{Child, borrow},
    progress::Reporter,
    protocol::{Pushed, Task},
    registry::{Lookaside, Options, RegistryReference},
};

impl Fetching<'_> {
    /// An image of a registry.
    pub(super) fn registry(
        self,
        image: &RegistryReference,
        progress: &mut dyn Progress,
    ) -> Result<Staged, Error> {
        let FetchOptions { network, jobs, insecure_image, .. } = self.options;
        let Network { registry, lookaside, .. } = network;
        let needs_signatures = !insecure_image;
        let on_the_web = |lookaside: &&Lookaside| matches!(lookaside, Lookaside::Web(_));
        let mut copy = |unchecked_blobs| {
            let task = Task::Registry {
                image: image.clone(),
                options: Box::new(Options { unchecked_blobs, ..registry.clone() }),
                lookaside: lookaside.as_ref().filter(on_the_web).cloned(),
                jobs: *jobs,
                needs_signatures,
            };
            self.copy(task, &[], image.digest(), &mut Reporter::new(progress))
        };
        // Blobs are checked here in any case. That the other process does it, too, only helps if
        // one is wrong: it then knows to look elsewhere.
        let copy = match copy(true) {
            Err(Error::Blob { .. }) => copy(false),
            result => result,
        };
        let mut staged = self.oci(copy?, image.name());
        // Those in files of this machine the other process can't see.
        if let (Some(lookaside), Some(part)) = (lookaside, staged.parts.first_mut()) {
            match lookaside.read(image, &part.manifests) {
                Ok(found) => part.signatures.extend(found),
                Err(error) if needs_signatures => {
                    return Err(Error::Fetch(Text::message(error.to_string())));
                }
                Err(_) => {}
            }
        }
        Ok(staged)
    }
}

impl Store {
    /// Sends an image to a registry, bit for bit as it was fetched. Of one that is for several
    /// kinds of machines only the one for this is in the store, and is sent. Gives the digest of
    /// its manifest.
    ///
    /// # Errors
    /// [`Error::NotFromRegistry`] for an ACI or a Docker archive's image, or [`Error::Fetch`].
    pub fn push(
        &self,
        image: &StoredImage,
        to: &RegistryReference,
        options: &FetchOptions,
        progress: &mut dyn Progress,
    ) -> Result<Digest, Error> {
        let record = image.record();
        let not_one = || Error::NotFromRegistry(record.id.clone());
        let manifest = record.manifest.as_ref().filter(|_| record.kind == Kind::Oci);
        let manifest = manifest.ok_or_else(not_one)?;
        let mut blobs: Vec<&BlobRef> = Vec::new();
        for blob in record.layers.iter().chain([&record.config]) {
            if blobs.iter().all(|other| other.digest != blob.digest) {
                blobs.push(blob);
            }
        }
        let mut files = Vec::with_capacity(blobs.len() + 1);
        for blob in blobs.iter().chain([&manifest]) {
            files.push(self.blob(&blob.digest)?);
        }
        let pushed = |blob: &BlobRef| {
            let media_type = blob.media_type.clone().ok_or_else(not_one)?;
            Ok::<_, Error>(Pushed { media_type, digest: blob.digest.clone(), size: blob.size })
        };
        let task = Task::Push {
            image: to.clone(),
            options: Box::new(options.network.registry.clone()),
            blobs: blobs.into_iter().map(pushed).collect::<Result<_, _>>()?,
            documents: vec![pushed(manifest)?],
        };
        let FetchOptions { program, limits, .. } = options;
        let child = Child::start(program, task, limits, &borrow(&files), self.temporary()?)?;
        child.finish(&mut Reporter::new(progress))?;
        Ok(manifest.digest.clone())
    }
}
