//! The images of a data directory. [`places`] says what is where, and who locks what.

mod aci;
mod collect;
mod dependencies;
mod images;
mod member;
mod part_file;
mod places;
mod record;
mod references;
mod remote;
mod said;
mod sources;
mod staged;
mod staging;
mod stamp;
mod stored;

use crate::{Digest, Error, FetchOptions, Progress, PullPolicy, Reference, Text};
use places::Places;
use references::Kept;
use sources::Fetching;
use staged::Content;
use std::{fs::File, io, path::Path, sync::Arc};

pub use images::{Collected, Images, Summary};
pub use record::{BlobRef, DependencyRef, Elsewhere, Judged, Kind, Record, RootfsRecord};
pub use staged::Staged;
pub use stamp::Stamp;
pub use stored::{Rootfs, StoredImage};

/// The images of a data directory.
#[derive(Clone, Debug)]
pub struct Store {
    places: Arc<Places>,
}

impl Store {
    /// Opens the store of a data directory, and makes what is missing of it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::NotPrivate`] if others could write to the store's folders.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        Ok(Self { places: Arc::new(Places::open(data_dir)?) })
    }

    /// Looks for an image that is in the store, whole: what the reference led to when it was
    /// fetched last. An ACI's name means the newest image of that name with the labels.
    ///
    /// # Errors
    /// [`Error::Ambiguous`] if several IDs begin so, or [`Error::Io`].
    pub fn find(&self, reference: &Reference) -> Result<Option<StoredImage>, Error> {
        let reference = &reference.resolved()?;
        match reference {
            Reference::Id { prefix } => {
                let folders = self.folders()?;
                let of = |folder: &&String| {
                    record::id_of_folder(folder).is_some_and(|id| prefix.is_of(&id))
                };
                let mut found = Vec::new();
                for folder in folders.iter().filter(of) {
                    found.extend(StoredImage::open_folder(&self.places, folder)?);
                }
                let mut ids: Vec<_> = found.iter().map(|image| image.id().clone()).collect();
                ids.sort_by_key(Digest::file_name);
                ids.dedup();
                if ids.len() > 1 {
                    let prefix = Text::new(prefix.as_str());
                    return Err(Error::Ambiguous { prefix, count: ids.len() });
                }
                // The same ACI over other dependencies: the newest.
                Ok(found.into_iter().max_by_key(|image| image.record().imported))
            }
            Reference::Appc { name } => {
                let mut newest: Option<StoredImage> = None;
                for folder in self.folders()? {
                    // One that is damaged is not a reason not to find another.
                    let Ok(Some(image)) = StoredImage::open_folder(&self.places, &folder) else {
                        continue;
                    };
                    let labels = image.config().labels.iter();
                    let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
                    let is_meant =
                        image.record().kind == Kind::Aci && name.is_met_by(image.name(), labels);
                    let is_newer = newest
                        .as_ref()
                        .is_none_or(|other| other.record().imported <= image.record().imported);
                    if is_meant && is_newer {
                        newest = Some(image);
                    }
                }
                Ok(newest.map(|image| image.asked_for_as(reference)))
            }
            _ => {
                let Some(led) = self.places.led(reference)? else {
                    return Ok(None);
                };
                let image = StoredImage::open_folder(&self.places, &led.folder)?;
                Ok(image.map(|image| image.asked_for_as(reference)))
            }
        }
    }

    /// Fetches an image, as far as the store does not have it already, and what it depends on. What
    /// comes back is checked against its digests and not yet in the store: first whoever calls this
    /// has to judge it, part by part.
    /// Commit it or let it go before the next one is fetched: until then others who want the same
    /// blobs wait.
    ///
    /// # Errors
    /// Any of [`Error`]; nothing is left behind but parts of blobs that the next fetch goes on with,
    /// if a server was interrupted.
    pub fn fetch(
        &self,
        reference: &Reference,
        options: &FetchOptions,
        progress: &mut dyn Progress,
    ) -> Result<Staged, Error> {
        let reference = reference.resolved()?;
        // What is on this machine may have changed, and is read again.
        let may_be_old = match options.pull_policy {
            PullPolicy::Never => true,
            PullPolicy::New => reference.path().is_none() && options.signature.is_none(),
            PullPolicy::Update => matches!(reference, Reference::Id { .. }),
        };
        if may_be_old && let Some(image) = self.find(&reference)? {
            let led = self.places.led(image.reference())?;
            return Ok(self.stored(image, options, led.and_then(|led| led.kept)));
        }
        let is_id = matches!(reference, Reference::Id { .. });
        if is_id || options.pull_policy == PullPolicy::Never {
            return Err(Error::NotStored(Text::new(reference.to_string())));
        }
        let lock = self.places.lock_to_fetch()?;
        // By the way: what can't be removed is no reason not to fetch an image.
        let _ = staging::collect(&self.places.tmp, &self.places.in_store("tmp"));
        let lock = Arc::new(lock);
        let fetching = Fetching { store: self, reference: &reference, options, lock };
        match &reference {
            Reference::OciLayout { directory, name } => {
                fetching.layout(directory, name.as_deref(), progress)
            }
            Reference::OciArchive { file, name } => {
                fetching.archive(file, name.as_deref(), progress)
            }
            Reference::DockerArchive { file, name } => {
                fetching.docker(file, name.as_deref(), progress)
            }
            Reference::Aci { .. } | Reference::AciUrl { .. } | Reference::Appc { .. } => {
                fetching.aci(progress)
            }
            Reference::Registry { image } => fetching.registry(image, progress),
            Reference::Id { .. } => Err(Error::NotStored(Text::new(reference.to_string()))),
        }
    }

    /// An image that the store has.
    fn stored(&self, image: StoredImage, options: &FetchOptions, kept: Option<Kept>) -> Staged {
        Staged {
            store: self.clone(),
            program: options.program.clone(),
            limits: options.limits.clone(),
            reference: image.reference().clone(),
            parts: image.parts().to_vec(),
            content: Content::Stored { image: Box::new(image), kept },
            judged: None,
            is_insecure: options.insecure_image,
        }
    }

    /// The names of the folders in `cas/image`.
    fn folders(&self) -> Result<Vec<String>, Error> {
        staging::names(&self.places.image, &self.places.in_store("image"))
    }

    /// Opens a blob of an image.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn blob(&self, digest: &Digest) -> Result<File, Error> {
        let missing = || Error::io("open", format!("blob {digest}"), io::ErrorKind::NotFound);
        self.places.open_blob(digest)?.ok_or_else(missing)
    }

    /// Holds every blob of an image, and its root file system, against their digests.
    ///
    /// # Errors
    /// [`Error::Tampered`] or [`Error::Io`].
    pub fn verify(&self, image: &StoredImage, progress: &mut dyn Progress) -> Result<(), Error> {
        image.verify(progress)
    }
}
