use rustix::io::Errno;
use std::fmt::Display;

/// What was tried, and what was found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error("{tried}: {found}")]
    System {
        /// What was tried.
        tried: String,
        /// The kernel's answer.
        found: Errno,
    },
    /// The pod or its image asks for something that does not work.
    #[error("{0}")]
    Refused(String),
    /// The control connection failed.
    #[error(transparent)]
    Control(#[from] sandbox_protocol::FrameError),
}

/// Says what was tried when the kernel refuses it.
pub(crate) trait Tried<T> {
    /// Adds `what`, which is only formatted when it is needed.
    fn tried(self, what: impl Display) -> Result<T, Error>;
}

impl<T> Tried<T> for rustix::io::Result<T> {
    fn tried(self, what: impl Display) -> Result<T, Error> {
        self.map_err(|found| Error::System { tried: what.to_string(), found })
    }
}

/// The result of a call through `libc`.
pub(crate) fn checked(result: impl Into<i64>) -> rustix::io::Result<i64> {
    let result = result.into();
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    Ok(result)
}
