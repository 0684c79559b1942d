//! What the trusted process and `sandbox-fetch` say to each other.
//!
//! The trusted process sends one [`Request`], and an [`Answer`] where it is asked for one, over a
//! socket, with open files. The confined process has only those files, and writes [`Event`]s to a
//! pipe, one line of JSON each. A line is bounded ([`MAX_LINE`]) and means only what it says here:
//! whoever reads it holds everything in it against what the digests say.

use crate::{
    Digest, Error, LimitExceeded, Limits, Step, Text,
    discovery::AppcName,
    evidence::Signature,
    http::{self, Caching, Url},
    registry::{self, Lookaside, RegistryReference},
    verity::Verity,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The longest line of an event in bytes: a signature with its certificates and proofs.
pub const MAX_LINE: usize = 4 << 20;
/// Most signatures that come with an image.
pub const MAX_SIGNATURES: usize = 256;

/// What `sandbox-fetch` is started for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// How it has to confine itself first.
    pub confinement: Confinement,
    /// What to do then.
    pub task: Task,
    /// What an image may cost.
    pub limits: Limits,
}

/// How the process has to confine itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// The process that started it, which it does not outlive.
    pub parent: u32,
    /// The user and group to become, if it runs as root.
    pub user: Option<u32>,
    /// The most bytes that a file may have.
    pub file_size: u64,
    /// The most bytes of address space.
    pub memory: u64,
}

/// What may be done, besides reading and writing open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Nothing.
    Offline,
    /// Speaking to servers.
    Network,
    /// Making files below one directory, as root, with any owner.
    Unpack,
}

/// What to do. Each variant says which open files come with the request, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Task {
    /// Takes the documents and blobs of an image out of an OCI archive. Files: the archive, an empty
    /// one, and those for documents: see [`Event::Documents`].
    OciArchive {
        /// What errors call the archive.
        #[serde(with = "crate::reference::place")]
        path: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// Takes configuration and layers of an image out of a Docker archive. Files: the archive, an
    /// empty one, and one for the configuration.
    DockerArchive {
        /// What errors call the archive.
        #[serde(with = "crate::reference::place")]
        path: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// Decompresses an ACI and takes its manifest out. Files: the ACI, and empty ones for the
    /// decompressed archive and the manifest.
    Aci {
        /// What errors call it.
        name: String,
    },
    /// Takes the documents, blobs and signatures of an image from a registry. Files: those for
    /// documents, as for [`Self::OciArchive`].
    Registry {
        /// Which image.
        image: RegistryReference,
        /// How to speak to the registry, and its mirrors.
        options: Box<registry::Options>,
        /// Where simple signatures are, besides the registry.
        lookaside: Option<Lookaside>,
        /// How many blobs are downloaded at the same time.
        jobs: u8,
        /// Whether it is an error if signatures can't be asked for.
        needs_signatures: bool,
    },
    /// Gets a small file. Files: the one to write to.
    Get {
        /// Where it is.
        url: Url,
        /// How to speak to the server.
        options: Box<http::Options>,
        /// The most bytes that it may have.
        limit: u64,
        /// The ETag of what is known already.
        if_none_match: Option<String>,
    },
    /// Gets an ACI and the signature beside it. Files: the one to write the ACI to, as it is
    /// shipped.
    AciUrl {
        /// Where it is.
        url: Url,
        /// Where its detached signature is, if one is wanted.
        asc: Option<Url>,
        /// How to speak to the servers.
        options: Box<http::Options>,
        /// The ETag of what is known already.
        if_none_match: Option<String>,
        /// Whether it is an error if the signature can't be asked for.
        needs_signature: bool,
    },
    /// Finds out where an ACI is.
    DiscoverImage {
        /// Its name.
        name: AppcName,
        /// How to speak to servers.
        options: Box<http::Options>,
    },
    /// Finds out where the keys are for ACIs.
    DiscoverKeys {
        /// What their names begin with.
        name: AppcName,
        /// How to speak to servers.
        options: Box<http::Options>,
    },
    /// Puts an image into a registry. Files: those of the blobs, then those of the documents.
    Push {
        /// Where to.
        image: RegistryReference,
        /// How to speak to the registry.
        options: Box<registry::Options>,
        /// Configuration and layers.
        blobs: Vec<Pushed>,
        /// Manifest and indexes, from the innermost one; the last one gets the image's name.
        documents: Vec<Pushed>,
    },
    /// Merges layers and writes them as an EROFS image with a hash tree. Files: those of
    /// `contents`, an empty one for each of them, and one to write to.
    Render {
        /// Where files are from.
        contents: Contents,
    },
    /// Merges layers and writes them to a directory. Files: as for `Render`, the last one is the
    /// directory.
    Unpack {
        /// Where files are from.
        contents: Contents,
    },
    /// Merges layers and writes them as an ACI. Files: as for `Render`, and the manifest at the
    /// end.
    Export {
        /// Where files are from.
        contents: Contents,
    },
}

impl Task {
    /// What may be done.
    pub fn profile(&self) -> Profile {
        match self {
            Self::OciArchive { .. }
            | Self::DockerArchive { .. }
            | Self::Aci { .. }
            | Self::Render { .. }
            | Self::Export { .. } => Profile::Offline,
            Self::Registry { .. }
            | Self::Get { .. }
            | Self::AciUrl { .. }
            | Self::DiscoverImage { .. }
            | Self::DiscoverKeys { .. }
            | Self::Push { .. } => Profile::Network,
            Self::Unpack { .. } => Profile::Unpack,
        }
    }
}

/// What is put into a registry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pushed {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Where the files of an image are from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Contents {
    /// Layers of an OCI or Docker image, from the lowest one.
    Layers {
        /// What they must be.
        layers: Vec<LayerContents>,
    },
    /// ACIs.
    Acis {
        /// Each is after those that it depends on; the last one is the image.
        acis: Vec<AciContents>,
    },
}

impl Contents {
    /// How many files it is about.
    pub fn count(&self) -> usize {
        match self {
            Self::Layers { layers } => layers.len(),
            Self::Acis { acis } => acis.len(),
        }
    }
}

/// A layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerContents {
    /// What errors call it.
    pub name: String,
    /// Digest of its decompressed bytes.
    pub diff_id: Digest,
}

/// An ACI, decompressed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AciContents {
    /// What errors call it.
    pub name: String,
    /// Those that it depends on, in the order in which they are laid down, by their place in the
    /// list.
    pub dependencies: Vec<usize>,
    /// The paths that are left; all are if there are none.
    pub path_whitelist: Vec<String>,
}

/// What the confined process has to say.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// Something was done.
    Progress {
        /// What.
        step: Step,
    },
    /// The documents that lead to an image are in their files: manifest, configuration, and the
    /// indexes from the outermost one. An [`Answer`] is expected.
    Documents {
        /// Media type of the manifest.
        manifest: String,
        /// Media types of the indexes.
        indexes: Vec<String>,
    },
    /// The configuration of a Docker archive's image is in its file. An [`Answer`] is expected.
    Saved {
        /// Its names.
        tags: Vec<String>,
        /// Sizes of the files that are its layers.
        layers: Vec<u64>,
    },
    /// A signature was found.
    Signature {
        /// It.
        signature: Signature,
    },
    /// A file was got from a server.
    Got {
        /// What the server says about keeping it.
        caching: Caching,
    },
    /// What is known already is what the server has.
    NotModified {
        /// What the server says about keeping it.
        caching: Caching,
    },
    /// Where an ACI is.
    Image {
        /// It.
        aci: Url,
        /// Its signature.
        asc: Url,
    },
    /// Where keys are.
    Keys {
        /// Files of keys.
        urls: Vec<Url>,
    },
    /// An image was rendered.
    Rendered {
        /// Bytes of the file.
        size: u64,
        /// The hash tree behind it.
        verity: Verity,
    },
    /// All is done.
    Done,
    /// It can't be done. Nothing comes after that.
    Failed {
        /// Why.
        failure: Failure,
    },
}

impl Event {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if line.len() > MAX_LINE {
            return Err("a line is too long".to_owned());
        }
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }
}

/// Which blobs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Each with an open file, in order.
    pub wanted: Vec<Wanted>,
}

/// A blob that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Which layer it is, from 0.
    pub layer: usize,
    /// Bytes of it that its file has already.
    pub already: u64,
}

/// Why something can't be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Failure {
    /// It was no longer wanted.
    Cancelled,
    /// The image is over a limit.
    Limit {
        /// Which one.
        limit: LimitExceeded,
    },
    /// A server stopped to send: what is there of the blobs can be gone on with.
    Interrupted {
        /// In one line.
        message: String,
    },
    /// Anything else.
    Other {
        /// In one line.
        message: String,
    },
}

impl Failure {
    /// What can be said about an error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            Error::Limit(limit) => Self::Limit { limit: *limit },
            Error::Interrupted(_) => Self::Interrupted { message: error.to_string() },
            _ => Self::Other { message: error.to_string() },
        }
    }

    /// The same in the trusted process. A message is shown as text that could be anything.
    pub fn into_error(self) -> Error {
        match self {
            Self::Cancelled => Error::Cancelled,
            Self::Limit { limit } => Error::Limit(limit),
            Self::Interrupted { message } => Error::Interrupted(Text::message(message)),
            Self::Other { message } => Error::Fetch(Text::message(message)),
        }
    }
}
