//! The jail: what the monitor gives up before it touches anything of the guest's.
//!
//! It is written for a monitor that its guest has taken over, and each layer for itself: what one
//! of them refuses should be refused by another one, too. The supervisor starts the process in
//! namespaces of its own, as a user that nobody else is and root of nothing but its namespaces
//! (`sandbox-spawn`), in a cgroup of the pod. Here it
//!
//! 1. closes what it was not told of ([`descriptors`]),
//! 2. bounds what it can use up ([`limits`]),
//! 3. moves to an empty read-only root directory, out of reach of the host's ([`namespaces`]),
//! 4. gives up all capabilities for good ([`identity`]), and
//! 5. forbids itself every file, port and foreign process ([`landlock`]).
//!
//! System calls are limited after that, when everything is set up ([`crate::machine`]). What the
//! microVM is made of has come as descriptors, so that even the kernel's ELF file is read in here.

mod descriptors;
mod identity;
pub mod landlock;
mod limits;
mod namespaces;
#[cfg(test)]
mod tests;

use crate::config::Config;
use ::landlock::RulesetError;
use std::io;

/// Why the process could not be jailed. It must end then.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// It was not started in namespaces of its own.
    #[error(
        "sandbox-vmm is not the first process of a PID namespace; it is started by sandbox, in \
         namespaces of its own"
    )]
    NotAlone,
    /// One of the steps failed.
    #[error("cannot {step}: {error}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        error: io::Error,
    },
    /// The rules of files can't be set.
    #[error("cannot forbid files (Landlock): {0}")]
    Landlock(#[from] RulesetError),
    /// The kernel has rules of files, and they don't hold.
    #[error("files are not forbidden, though this kernel has Landlock")]
    NotForbidden,
}

fn failed<E: Into<io::Error>>(step: &'static str) -> impl Fn(E) -> JailError {
    move |error| JailError::Step { step, error: error.into() }
}

/// Gives everything up but what the configuration names. The process must have one thread.
///
/// # Errors
/// See [`JailError`].
pub fn enter(config: &Config) -> Result<(), JailError> {
    descriptors::keep_only(&config.descriptors())?;
    if has("limits") {
        limits::set(config)?;
    }
    if has("namespaces") {
        namespaces::empty()?;
    }
    if has("identity") {
        identity::give_up()?;
    }
    if has("landlock") {
        landlock::forbid_everything()?;
    }
    Ok(())
}

/// Whether a layer is put on: always, but for the build that attacks them one by one
/// (`tests/hostile`).
#[allow(unused_variables, reason = "the product has every layer")]
fn has(layer: &str) -> bool {
    #[cfg(feature = "hostile")]
    return sandbox_hostile::layers::has(layer);
    #[cfg(not(feature = "hostile"))]
    true
}
