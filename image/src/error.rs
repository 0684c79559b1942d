use crate::{
    Digest, LimitExceeded, Text, format::DocumentError, progress::Cancelled, tree::LayerError,
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
