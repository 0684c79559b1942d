//! The system calls the worker may make once it reads what a guest wrote: those in
//! `seccomp/worker.policy`. Any other kills it.

use seccompiler::sock_filter;
use thiserror::Error;

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// The filter could not be installed: the kernel has none, or the process may not.
#[derive(Debug, Error)]
#[error("cannot install the system call filter")]
pub struct FilterError(#[from] seccompiler::Error);

/// The file that the filter was compiled from.
pub const POLICY: &str = WORKER_POLICY;

/// Installs the filter for the calling thread, for good.
///
/// # Errors
/// [`FilterError`] if the kernel has no seccomp filters.
pub fn install() -> Result<(), FilterError> {
    #[cfg(feature = "hostile")]
    if !sandbox_hostile::layers::has("seccomp") {
        return Ok(());
    }
    Ok(seccompiler::apply_filter(WORKER)?)
}
