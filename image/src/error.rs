use crate::{LimitExceeded, Text};
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
    /// The image is over a limit.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
    /// [`crate::Progress::report`] asked for it.
    #[error("cancelled")]
    Cancelled,
}
