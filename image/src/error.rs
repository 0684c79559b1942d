use crate::{
    Digest, LimitExceeded, Text,
    format::DocumentError,
    progress::Cancelled,
    tree::{LayerError, OrderError},
    verity::VerityError,
};
use std::io;

/// Why an image can't be used. The message says it all, in one line; nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory can't be opened, read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: Text,
        /// What the system says.
        source: io::Error,
    },
    /// What the reference names is not an image of the kind that it says.
    #[error("{path} is not {expected}: {problem}")]
    NotAnImage {
        /// The file or directory.
        path: Text,
        /// Of which kind it should be.
        expected: &'static str,
        /// What was found.
        problem: Text,
    },
    /// No image has the name, or several could be meant.
    #[error("{path} has {problem}; {}", available(.names))]
    Choice {
        /// The layout or archive.
        path: Text,
        /// What was looked for.
        problem: String,
        /// The names that it has.
        names: Vec<Text>,
    },
    /// A document of the image is not as it should be.
    #[error("{document}: {problem}")]
    Document {
        /// Which one.
        document: Text,
        /// What is wrong with it.
        problem: DocumentError,
    },
    /// A blob is not what its digest and size say.
    #[error("the image's blob {digest} is damaged or was tampered with: {problem}")]
    Blob {
        /// What names it.
        digest: Digest,
        /// What was found.
        problem: String,
    },
    /// A layer can't be decompressed, is not what the image says, or holds what it must not.
    #[error("layer {layer}: {problem}")]
    Layer {
        /// Its digest, or its file in an archive.
        layer: Text,
        /// What is wrong with it.
        problem: LayerProblem,
    },
    /// The image is over a limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// A file of the image can't be written to the store.
    #[error("cannot write '{path}' of the image to the store: {source}")]
    Unpack {
        /// Its path in the image.
        path: Text,
        /// What the system says.
        source: io::Error,
    },
    /// The image has something that its file system can't hold, or not in a way that a guest could
    /// use.
    #[error("'{path}' cannot be in the image's file system: {problem}")]
    Filesystem {
        /// The file's path in the image.
        path: Text,
        /// What is in the way.
        problem: &'static str,
    },
    /// A folder of the store could be changed by others.
    #[error(
        "{path} belongs to another user or is open to others, so image files in it cannot be \
         trusted; once you know what is in it, give it to the user who runs this, with mode {mode:o}"
    )]
    NotPrivate {
        /// The folder.
        path: Text,
        /// What it may give at most.
        mode: u32,
    },
    /// The image is not in the store.
    #[error("there is no image {0} in the store")]
    NotStored(Text),
    /// Several image IDs begin so.
    #[error("ambiguous image ID: {count} images have one that begins with {prefix}")]
    Ambiguous {
        /// What was looked for.
        prefix: Text,
        /// How many there are.
        count: usize,
    },
    /// A pod, or another process, is using the image.
    #[error("image {0} is in use")]
    InUse(Digest),
    /// Another image needs this one.
    #[error("image {id} is needed by image {by}, which depends on it")]
    Needed {
        /// The image.
        id: Digest,
        /// The one that depends on it.
        by: Digest,
    },
    /// An ACI depends on an image that is not in the store, and nothing is to be fetched.
    #[error(
        "{image} depends on {dependency}, which is not in the store; fetch that first, from a \
         file or with 'sandbox fetch {dependency}', or let it be fetched (--pull-policy=new)"
    )]
    MissingDependency {
        /// The ACI's name.
        image: Text,
        /// What it depends on.
        dependency: Text,
    },
    /// What an ACI depends on can't be had.
    #[error("{image} depends on {dependency}: {source}")]
    Dependency {
        /// The ACI's name.
        image: Text,
        /// What it depends on.
        dependency: Text,
        /// Why not.
        source: Box<Self>,
    },
    /// What was found is not what an ACI says that it depends on.
    #[error(
        "image {id} is another one: {problem}; only who made the ACI that names it can correct that"
    )]
    OtherDependency {
        /// What was found.
        id: Digest,
        /// What it should have or be.
        problem: String,
    },
    /// What an ACI depends on can't be laid down in any order.
    #[error(transparent)]
    Order(OrderError),
    /// What the store has of an image is not what it was.
    #[error(
        "the store's files of image {image} were changed: {problem}; remove it with \
         'sandbox image rm {}' and fetch it again",
        .image.file_name()
    )]
    Tampered {
        /// The image.
        image: Digest,
        /// What was found.
        problem: String,
    },
    /// The image did not come with manifests that a registry takes.
    #[error("image {0} is not an OCI image; a registry can't keep it as it is")]
    NotFromRegistry(Digest),
    /// A server does not have the image, or can't be asked. In the words of the fetching process.
    #[error("{0}")]
    Fetch(Text),
    /// The same while blobs were downloaded: what is there of them can be gone on with.
    #[error("{0}")]
    Interrupted(Text),
    /// The image argument can't be used.
    #[error(transparent)]
    Reference(#[from] crate::ReferenceError),
    /// [`crate::Progress::report`] asked for it.
    #[error("cancelled")]
    Cancelled,
}

/// What can be wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerProblem {
    /// It can't be read or decompressed.
    #[error("cannot be read or decompressed: {0}")]
    Read(io::Error),
    /// It is not there.
    #[error("is missing in the archive")]
    Missing,
    /// It is compressed in a way that its format doesn't have.
    #[error("is compressed with {0}, which its format does not allow")]
    Compression(&'static str),
    /// Its decompressed bytes are not those that the image's configuration names.
    #[error("decompresses to {found}, but the image's configuration says {expected}")]
    DiffId {
        /// As the configuration says.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Its archive can't be merged.
    #[error(transparent)]
    Archive(LayerError),
}

impl Error {
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<std::ffi::OsStr>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { action, path: Text::of_os(path), source: source.into() }
    }

    /// The hash tree of an image's root file system can't be written or read.
    pub(crate) fn hash_tree(action: &'static str, error: VerityError) -> Self {
        match error {
            VerityError::Cancelled => Self::Cancelled,
            VerityError::Io(source) => Self::io(action, "the root file system", source),
            problem => Self::io(action, "the root file system", io::Error::other(problem)),
        }
    }
}

impl From<OrderError> for Error {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Limit(limit) => Self::Limit(limit),
            error => Self::Order(error),
        }
    }
}

impl From<Cancelled> for Error {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

fn available(names: &[Text]) -> String {
    const MOST: usize = 10;
    if names.is_empty() {
        return "its images have no names".to_owned();
    }
    let mut list = names.iter().take(MOST).map(Text::to_string).collect::<Vec<_>>().join(", ");
    if names.len() > MOST {
        list.push_str(", …");
    }
    format!("it has: {list}")
}
