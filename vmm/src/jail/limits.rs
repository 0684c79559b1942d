//! Resource limits (getrlimit(2)). Memory and CPU time are bounded by the pod's cgroup: there the
//! guest's own is counted together with the monitor's.

use super::{JailError, failed};
use crate::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::BorrowedFd;

/// Open files: 256 streams of the guest's with a socket each, three events for each of 30 devices,
/// 32 virtual CPUs, and as much again.
const FILES: u64 = 1024;

/// The largest file that is written besides disks and guest memory, the console, is smaller.
const FILE_SIZE: u64 = 16 << 20;

/// Threads besides those of virtual CPUs and disks: the main one, the one that makes the virtual
/// machine, and those that KVM starts on its own.
pub(super) const THREADS: u64 = 8;

/// Sets all limits, for good: the capability to raise them goes with all the others.
pub fn set(config: &Config) -> Result<(), JailError> {
    let fields = config.fields();
    let mut file_size = FILE_SIZE;
    if !fields.shares.is_empty() {
        // Guest memory is a file then.
        file_size = file_size.max(fields.memory_mib.bytes());
    }
    for disk in fields.disks.iter().filter(|disk| !disk.read_only) {
        // SAFETY: the descriptor was inherited for the disk, which takes it over later.
        let file = unsafe { BorrowedFd::borrow_raw(disk.fd) };
        let stat = rustix::fs::fstat(file).map_err(failed("look at a disk"))?;
        file_size = file_size.max(u64::try_from(stat.st_size).unwrap_or(0));
    }
    let threads = THREADS + u64::from(fields.vcpus.get()) + fields.disks.len() as u64;
    // The server of attempts, and what it starts.
    let threads = threads + if cfg!(feature = "hostile") { 8 } else { 0 };
    for (resource, most, step) in [
        (Resource::Core, 0, "forbid core files"),
        (Resource::Nofile, FILES, "limit open files"),
        (Resource::Fsize, file_size, "limit the size of files"),
        (Resource::Nproc, threads, "limit threads"),
        (Resource::Memlock, 0, "forbid locked memory"),
        (Resource::Msgqueue, 0, "forbid message queues"),
        (Resource::Nice, 0, "forbid higher priority"),
        (Resource::Rtprio, 0, "forbid real-time priority"),
    ] {
        // A lower limit that there is already is left.
        let most = getrlimit(resource).maximum.map_or(most, |limit| limit.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(failed(step))?;
    }
    Ok(())
}
