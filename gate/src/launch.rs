//! What is to be launched, as far as rules can be about it.

use crate::Verifier;
use sandbox_image::Digest;
use std::path::PathBuf;

/// A pod as it would be launched: after images, options and defaults were put together. What an
/// [`crate::Approval`] is for is exactly this, and whoever prepares the pod compares.
///
/// There is no default, and all fields are to be filled: what is new here has to be thought about
/// by every way of launching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The guest kernel.
    pub kernel: Program,
    /// Whether that is the one that was installed with this program.
    pub kernel_is_installed: bool,
    /// The monitor, `sandbox-vmm`.
    pub monitor: Program,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory of the guest in MiB.
    pub memory_mib: u64,
    /// The volumes that apps mount.
    pub volumes: Vec<LaunchVolume>,
    /// The networks that it is in, by name.
    pub networks: Vec<String>,
    /// The capabilities that apps have beyond the usual ones: the app's name and theirs, `CAP_…`.
    pub capabilities: Vec<(String, Vec<String>)>,
    /// Whether the guest verifies all that it reads of every root file system.
    pub verified: bool,
    /// The SELinux label that its processes get.
    pub label: Option<String>,
    /// Whose pod it is.
    pub tenant: Option<String>,
    /// The measurement that the user asks for (`--tpm-attest`).
    pub attest: Option<Verifier>,
}

/// A program that is trusted to hold the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// Its SHA-256 digest. It has to be there if a rule is about it, see
    /// [`crate::HostPolicy::digests_asked`].
    pub digest: Option<Digest>,
}

/// A volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchVolume {
    /// Its name.
    pub name: String,
    /// What it shows of the host, absolute and without symbolic links; nothing for one that is
    /// empty at the start.
    pub host: Option<PathBuf>,
    /// Whether apps may only read it.
    pub read_only: bool,
}
