//! What each thread may ask of the kernel once the guest runs: the files of `seccomp/`, a filter
//! for each kind of thread. Any other system call kills the process.
//!
//! They were compiled when the program was built; installing one is one call. [`crate::threads`]
//! does it, before the first instruction of the guest.

use seccompiler::sock_filter;

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// A kind of thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// The one that does the devices' work.
    Main,
    /// One that runs a virtual CPU.
    Vcpu,
    /// One that serves a disk.
    Disk,
}

/// The filter could not be installed: the kernel has none, or the process may not.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the system call filter of {thread:?}: {error}")]
pub struct FilterError {
    thread: Thread,
    error: seccompiler::Error,
}

impl Thread {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Main, Self::Vcpu, Self::Disk];

    /// The file that its filter was compiled from.
    pub fn policy(self) -> &'static str {
        match self {
            Self::Main => MAIN_POLICY,
            Self::Vcpu => VCPU_POLICY,
            Self::Disk => DISK_POLICY,
        }
    }

    fn program(self) -> &'static [sock_filter] {
        match self {
            Self::Main => MAIN,
            Self::Vcpu => VCPU,
            Self::Disk => DISK,
        }
    }
}

/// Limits the calling thread, for good, to what a thread of this kind may call.
///
/// # Errors
/// [`FilterError`] if the kernel has no seccomp filters.
pub fn install(thread: Thread) -> Result<(), FilterError> {
    #[cfg(feature = "hostile")]
    if !sandbox_hostile::layers::has("seccomp") {
        return Ok(());
    }
    #[cfg(feature = "hostile")]
    if let Some(program) = incomplete::program(thread) {
        return seccompiler::apply_filter(&program).map_err(|error| FilterError { thread, error });
    }
    seccompiler::apply_filter(thread.program()).map_err(|error| FilterError { thread, error })
}

/// Filters that lack one rule, to show that each rule is needed.
#[cfg(feature = "hostile")]
mod incomplete {
    use super::Thread;
    use sandbox_seccomp::Policy;

    /// `THREAD:RULE`, a number from 0.
    const VARIABLE: &str = "SANDBOX_HOSTILE_WITHOUT_RULE";

    pub(super) fn program(thread: Thread) -> Option<seccompiler::BpfProgram> {
        let rule = std::env::var(VARIABLE).ok()?;
        let (kind, rule) = rule.split_once(':')?;
        if kind != format!("{thread:?}").to_lowercase() {
            return None;
        }
        let policy = Policy::parse(thread.policy()).ok()?.without(rule.parse().ok()?);
        let policy = if cfg!(debug_assertions) { policy.for_debug_build() } else { policy };
        policy.compile().ok()
    }
}

#[cfg(test)]
mod tests;
