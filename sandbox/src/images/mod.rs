//! The way of an image from its name to the store, and what verbs do with those that are there.
//!
//! ```text
//! reference ──Store::fetch──▶ Staged ──Gate::judge──▶ ──Staged::commit──▶ StoredImage
//! ```
//!
//! Whatever is fetched is judged before it comes into the store. That is for the user, who hears of
//! a refusal when it can still be told where the image came from; what keeps a pod from being
//! started is the decision at launch ([`crate::pod`]).

mod id;
mod judge;
mod keys;
mod network;
mod output;

pub use id::{key, short};
pub use judge::{Gate, IdentityError, Verdict};
pub use keys::{KeyError, KeyReview, Keys, Location};
pub use network::NetworkError;
pub use output::{OutputDirectory, OutputError};

use crate::appc::{self, ManifestError};
use crate::installation::{Installation, InstallationError};
use crate::message::Messages;
use crate::options::InsecureOptions;
use crate::pod::PodImage;
use crate::progress::Bar;
use crate::settings::Directories;
use crate::supervisor::signals::Signals;
use sandbox_gate::{PolicyError, Reason, Refusal};
use sandbox_image::discovery::AppcName;
use sandbox_image::registry::RegistryReference;
use sandbox_image::{
    Digest, Error as ImageError, FetchOptions, ImageIdPrefix, Limits, NetworkOf, PullPolicy,
    Reference, ReferenceError, Rootfs, Staged, Store, StoredImage, Summary, Text,
};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// What can stand for an image on the command line.
pub const REFERENCE_HELP: &str = "docker://NAME[:TAG|@DIGEST], oci:DIR[:NAME], \
    oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], the path, URL or name of an ACI, or an \
    image ID";

/// What the command line says to all verbs that have to do with images.
#[derive(Clone, Debug)]
pub struct ImageSettings {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration directories.
    pub directories: Directories,
    /// The policy's file.
    pub policy: PathBuf,
    /// `--insecure-options`
    pub insecure: InsecureOptions,
    /// `--trust-keys-from-https`
    pub trust_keys_from_https: bool,
}

/// Why an image can't be had, or not be used.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// See [`ImageError`].
    #[error(transparent)]
    Image(ImageError),
    /// The work was given up because of a signal.
    #[error("interrupted by signal {0}")]
    Interrupted(i32),
    /// See [`ReferenceError`].
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// See [`InstallationError`].
    #[error(transparent)]
    Installation(#[from] InstallationError),
    /// See [`PolicyError`].
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// See [`NetworkError`].
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// See [`KeyError`].
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The gate has refused to launch it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The gate has refused to have it in the store.
    #[error(
        "image {name} is refused by {reasons} ('sandbox policy check {reference}' explains \
         it)"
    )]
    NotAllowed {
        /// The image, or one that it depends on.
        name: String,
        /// Which rules, and why.
        reasons: String,
        /// What was asked for.
        reference: String,
    },
    /// See [`IdentityError`].
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// See [`ManifestError`].
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// See [`OutputError`].
    #[error(transparent)]
    Output(#[from] OutputError),
    /// It is not in the store.
    #[error(
        "cannot find image: {0} is not in the store; 'sandbox image list' shows what is, and \
         'sandbox fetch' fetches more"
    )]
    NotFound(Text),
    /// Several are listed with this name.
    #[error(
        "ambiguous image name: {count} images are listed as {name}; take the ID that \
         'sandbox image list' shows"
    )]
    Ambiguous {
        /// The name.
        name: Text,
        /// How many.
        count: usize,
    },
    /// Signals can't be listened to.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

/// An image that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Which one.
    pub reference: &'a Reference,
    /// Whether it has to be fetched.
    pub policy: PullPolicy,
    /// `--signature`
    pub signature: Option<&'a Path>,
    /// What it may cost.
    pub limits: &'a Limits,
}

/// An image that was fetched.
struct Fetched {
    staged: Staged,
    /// What is wrong with its detached signatures.
    complaints: Vec<String>,
    /// The policy that these were held against.
    gate: Gate,
}

/// The images of this machine, and how more are fetched.
#[derive(Debug)]
pub struct Images {
    settings: ImageSettings,
    store: Store,
    messages: Messages,
    /// Listened to from when there is something to interrupt.
    signals: OnceLock<Signals>,
}

impl Images {
    /// Opens the store.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn open(settings: ImageSettings, messages: Messages) -> Result<Self, ImagesError> {
        let store = Store::open(&settings.data_dir).map_err(ImagesError::Image)?;
        Ok(Self { settings, store, messages, signals: OnceLock::new() })
    }

    /// The same, where signals are listened to already.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn open_with(
        settings: ImageSettings,
        messages: Messages,
        signals: Signals,
    ) -> Result<Self, ImagesError> {
        let images = Self::open(settings, messages)?;
        Ok(Self { signals: OnceLock::from(signals), ..images })
    }

    /// The policy, as it is now.
    ///
    /// # Errors
    /// [`ImagesError::Policy`]
    pub fn gate(&self) -> Result<Gate, ImagesError> {
        Ok(Gate::load(&self.settings)?)
    }

    /// An image of the store: found there, or fetched and judged now.
    ///
    /// # Errors
    /// See [`ImagesError`]; nothing is in the store then that was not there before.
    pub fn obtain(&self, wanted: &Wanted<'_>) -> Result<StoredImage, ImagesError> {
        if let Some(image) = self.find(wanted)? {
            return Ok(image);
        }
        let gate = self.gate()?;
        let Fetched { mut staged, complaints, gate } = self.fetch(wanted, &gate)?;
        let verdicts = gate.judge(staged.parts())?;
        let refused = verdicts.iter().find_map(|verdict| Some((verdict, verdict.refusal()?)));
        if let Some((verdict, reasons)) = refused {
            return Err(ImagesError::NotAllowed {
                name: verdict.name.to_string(),
                reasons: [vec![Reason::list(reasons)], complaints].concat().join("; "),
                reference: wanted.reference.to_string(),
            });
        }
        for (place, verdict) in verdicts.iter().enumerate() {
            if !verdict.signers().is_empty() {
                self.messages.say(format_args!("{}: signature verified:", verdict.name));
                for signer in verdict.signers() {
                    self.messages.say(format_args!("  {signer}"));
                }
            }
            staged.set_verdict(place, verdict.line());
        }
        self.run(|bar| staged.commit(bar))
    }

    /// An image that does not have to be fetched, since it is in the store.
    fn find(&self, wanted: &Wanted<'_>) -> Result<Option<StoredImage>, ImagesError> {
        // A signature in a file is held against what is fetched: the store has nothing that it
        // would fit.
        let fetch = match wanted.policy {
            PullPolicy::Never => false,
            PullPolicy::New => wanted.signature.is_some(),
            PullPolicy::Update => !matches!(wanted.reference, Reference::Id { .. }),
        };
        if fetch {
            return Ok(None);
        }
        let found = self.store.find(wanted.reference).map_err(ImagesError::Image)?;
        match (wanted.policy, wanted.reference) {
            (PullPolicy::Never, _) | (_, Reference::Id { .. }) if found.is_none() => {
                Err(ImagesError::NotFound(Text::new(wanted.reference.to_string())))
            }
            _ => Ok(found),
        }
    }

    /// Fetches an image, and what it depends on, without putting it into the store, and holds all
    /// of it against its detached signatures: what is wrong with these comes with it.
    ///
    /// # Errors
    /// See [`ImagesError`].
    fn fetch(&self, wanted: &Wanted<'_>, gate: &Gate) -> Result<Fetched, ImagesError> {
        let mut options = self.fetch_options(wanted.reference)?;
        options.pull_policy = wanted.policy;
        options.limits = wanted.limits.clone();
        options.signature = wanted.signature.map(Path::to_owned);
        // What can't be read of the store, or not be judged, is no reason not to fetch it anew.
        let known = self.store.find(wanted.reference).ok().flatten();
        let verdicts = known.and_then(|image| gate.judge(image.parts()).ok());
        options.is_accepted = verdicts
            .is_some_and(|verdicts| verdicts.iter().all(|verdict| verdict.refusal().is_none()));
        if let Reference::Appc { name } = wanted.reference {
            self.offer_keys(name, gate)?;
        }
        let mut staged = self.run(|bar| self.store.fetch(wanted.reference, &options, bar))?;
        // What it depends on is known by now; the store had what has no file any more.
        for (place, part) in staged.parts().iter().enumerate().skip(1) {
            let is_new = staged.shipped_aci(place).map_err(ImagesError::Image)?.is_some();
            if let (true, Reference::Appc { name }) = (is_new, &part.reference) {
                self.offer_keys(name, gate)?;
            }
        }
        // With the keys that are trusted since.
        let gate = self.gate()?;
        let complaints = gate.hold_signatures(&mut staged)?;
        Ok(Fetched { staged, complaints, gate })
    }

    /// Looks for keys of an image that is known by its name, if there are none that could have
    /// signed it, and it has to be signed.
    fn offer_keys(&self, name: &AppcName, gate: &Gate) -> Result<(), ImagesError> {
        if !gate.lacks_keys(name) {
            return Ok(());
        }
        let allow_http = self.settings.insecure.allow_http_for_keys();
        let keys = Keys::new(&self.settings, allow_http, self.messages);
        keys.heeding(self.signals()?).offer(name)
    }

    /// What the gate would say about an image: of the store, or fetched for the question and let
    /// go again.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn ask(&self, wanted: &Wanted<'_>, gate: &Gate) -> Result<Vec<Verdict>, ImagesError> {
        if let Some(image) = self.find(wanted)? {
            return Ok(gate.judge(image.parts())?);
        }
        let Fetched { staged, complaints, gate } = self.fetch(wanted, gate)?;
        for complaint in complaints {
            self.messages.say(complaint);
        }
        Ok(gate.judge(staged.parts())?)
    }

    /// An image of the store: by its ID or the beginning of one, by what it was fetched as, or by
    /// the name that it is listed with.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn stored(&self, name: &OsStr) -> Result<StoredImage, ImagesError> {
        let not_found = || ImagesError::NotFound(Text::of_os(name));
        let find = |reference| self.store.find(reference).map_err(ImagesError::Image);
        let reference = Reference::parse(name);
        if let Ok(reference) = &reference
            && let Some(image) = find(reference)?
        {
            return Ok(image);
        }
        let listed = self.store.images().map_err(ImagesError::Image)?.images;
        let mut ids = listed
            .into_iter()
            .filter(|image| name == image.name.as_str() || name == listed_name(image).as_str())
            .map(|image| image.id);
        match (ids.next(), ids.count()) {
            (Some(id), 0) => {
                let prefix = ImageIdPrefix::from(&id);
                find(&Reference::Id { prefix })?.ok_or_else(not_found)
            }
            (Some(_), others) => {
                Err(ImagesError::Ambiguous { name: Text::of_os(name), count: others + 1 })
            }
            // What is no reference at all is told as that.
            (None, _) => reference.map_err(ImagesError::from).and(Err(not_found())),
        }
    }

    /// All images of the store. What can't be read is told, and left out.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn list(&self) -> Result<Vec<Summary>, ImagesError> {
        let found = self.store.images().map_err(ImagesError::Image)?;
        for error in &found.broken {
            self.messages.error(error);
        }
        Ok(found.images)
    }

    /// The file with an image's root file system, after a look whether it is as it was.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn rootfs(&self, image: &StoredImage) -> Result<Rootfs, ImagesError> {
        self.run(|bar| image.rootfs(bar))
    }

    /// The root file systems of a pod's images, each once.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn roots(&self, images: Vec<StoredImage>) -> Result<Vec<PodImage>, ImagesError> {
        let mut roots: Vec<PodImage> = Vec::new();
        for image in images {
            if roots.iter().all(|root| root.image.id() != image.id()) {
                let rootfs = self.rootfs(&image)?;
                roots.push(PodImage { image, rootfs });
            }
        }
        Ok(roots)
    }

    /// Removes an image and says which one it was. One can be removed that can't be used any more,
    /// since its files were changed.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn remove(&self, name: &OsStr) -> Result<Digest, ImagesError> {
        let id = match self.stored(name) {
            // As long as it is held, it is in use.
            Ok(image) => released(image),
            Err(ImagesError::Image(ImageError::Tampered { image, .. })) => image,
            Err(error) => return Err(error),
        };
        self.store.remove(&id).map_err(ImagesError::Image)?;
        Ok(id)
    }

    /// Removes images that were not used for so long, and what is unfinished.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn collect_garbage(&self, grace: Duration) -> Result<Vec<Digest>, ImagesError> {
        let collected = self.store.gc(Some(grace)).map_err(ImagesError::Image)?;
        if collected.busy {
            self.messages.debug("an image is being fetched, so its parts are left alone");
        }
        Ok(collected.images)
    }

    /// Holds all that the store has of an image against its digests.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn verify(&self, image: &StoredImage) -> Result<(), ImagesError> {
        self.run(|bar| self.store.verify(image, bar))
    }

    /// Writes an image to a file, as an uncompressed ACI.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn export(&self, image: &StoredImage, to: &File) -> Result<(), ImagesError> {
        let program = Installation::find()?.fetcher;
        let manifest = appc::manifest_json(&self.store, image)?;
        self.run(|bar| image.export(&program, &manifest, to, bar))
    }

    /// Writes an image's files to a directory: with those that it depends on, or `alone`. Its
    /// manifest comes with them unless only the root file system is wanted.
    ///
    /// # Errors
    /// See [`ImagesError`]; the directory is as it was then.
    pub fn unpack(
        &self,
        image: &StoredImage,
        output: OutputDirectory,
        alone: bool,
        rootfs_only: bool,
    ) -> Result<(), ImagesError> {
        const ROOTFS: &str = "rootfs";
        let program = Installation::find()?.fetcher;
        self.run(|bar| image.unpack(&program, output.path(), alone, bar))?;
        if rootfs_only {
            return Ok(output.finish(Some(ROOTFS))?);
        }
        let manifest = appc::manifest_json(&self.store, image)?;
        fs::write(output.path().join("manifest"), manifest)
            .and_then(|()| fs::set_permissions(output.path(), Permissions::from_mode(0o755)))
            .map_err(|error| OutputError::Io {
                action: "writing to",
                path: output.path().into(),
                error,
            })?;
        Ok(output.finish(None)?)
    }

    /// Sends an image to a registry, and says by which digest it has it.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn push(&self, image: &StoredImage, to: &RegistryReference) -> Result<Digest, ImagesError> {
        let options = self.fetch_options(&Reference::Registry { image: to.clone() })?;
        self.run(|bar| self.store.push(image, to, &options, bar))
    }

    /// An image's manifest as appc has it.
    ///
    /// # Errors
    /// See [`ImagesError`].
    pub fn manifest(&self, image: &StoredImage) -> Result<appc::ImageManifest, ImagesError> {
        Ok(appc::manifest(&self.store, image)?)
    }

    /// How an image is fetched, with what the configuration says about where it comes from.
    fn fetch_options(&self, reference: &Reference) -> Result<FetchOptions, ImagesError> {
        let mut options = FetchOptions::new(Installation::find()?.fetcher);
        options.insecure_image = self.settings.insecure.skip_image_check();
        options.network = network::network(&self.settings, reference)?;
        let settings = self.settings.clone();
        options.network_of = Some(NetworkOf::new(move |hosts| {
            network::of_hosts(&settings, hosts).map_err(|error| error.to_string())
        }));
        Ok(options)
    }

    /// Does what takes its time, with a bar, until it is done or a signal comes.
    fn run<T>(
        &self,
        work: impl FnOnce(&mut Bar<'_>) -> Result<T, ImageError>,
    ) -> Result<T, ImagesError> {
        let signals = self.signals()?;
        work(&mut Bar::new(self.messages, signals)).map_err(|error| match error {
            ImageError::Cancelled => {
                ImagesError::Interrupted(signals.interrupted().unwrap_or_default())
            }
            other => ImagesError::Image(other),
        })
    }

    fn signals(&self) -> Result<&Signals, ImagesError> {
        if let Some(signals) = self.signals.get() {
            return Ok(signals);
        }
        let signals = Signals::listen_alone().map_err(ImagesError::Signals)?;
        Ok(self.signals.get_or_init(|| signals))
    }
}

/// Lets an image go, and says which one it was.
fn released(image: StoredImage) -> Digest {
    image.id().clone()
}

/// `NAME:VERSION`, as rkt lists images.
pub fn listed_name(image: &Summary) -> String {
    match &image.version {
        Some(version) => format!("{}:{version}", image.name),
        None => image.name.clone(),
    }
}
