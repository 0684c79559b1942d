//! The microVM monitor.
//!
//! One start, from `main` to the loop:
//!
//! 1. [`config`]: what to build, read as JSON from an inherited descriptor. A [`config::Config`]
//!    that exists is valid.
//! 2. [`jail`]: the process gives up all that it could do to the host. It was started in namespaces
//!    of its own (`sandbox-spawn`), and finds an empty root directory, no capability and no file that
//!    it could open. What it needs is open already.
//! 3. [`machine::Machine::new`] asks KVM for a virtual machine on a thread of its own (the host
//!    kernel makes it wait) and goes on meanwhile:
//! 4. [`memory`]: guest memory is reserved, in huge pages; private, or a memfd if a virtio-fs
//!    worker has to see it.
//! 5. [`boot`]: kernel and initramfs are read into it, then command line, `boot_params`, MP table
//!    and page tables are written. No firmware, no ACPI, no PCI.
//! 6. [`devices`]: an IO-APIC with a line for each device, and virtio devices on the memory-mapped
//!    transport: vsock, rng, file systems served by workers over vhost-user, and disks that are files
//!    of the host's.
//! 7. [`vcpu`]: each virtual CPU gets registers and CPUID and a thread. It runs guest code and
//!    answers accesses to registers; it never does a device's work.
//! 8. [`machine::Machine::run`] starts the threads; only when each of them has its system call
//!    filter ([`filter`]), the guest begins.
//! 9. The main thread waits for kicks, streams and messages of the virtual CPUs, does the devices'
//!    work, and ends with an [`exit::Exit`]. Only disks have threads of their own: a disk can be
//!    slow ([`devices::virtio::blk`]).
//!
//! The guest is hostile. What it writes to registers goes through strict state machines
//! ([`devices::virtio::mmio`]), queues are checked and frozen when their device becomes active,
//! everything in guest memory is copied once and then checked, and work per event is bounded.
//! A driver that breaks the protocol loses its device.
//!
//! Nothing is opened by name; the supervisor is reached through one socket
//! ([`control`]).

pub mod boot;
pub mod config;
pub mod control;
mod cores;
pub mod devices;
pub mod exit;
pub mod filter;
pub mod heap;
#[cfg(feature = "hostile")]
pub mod hostile;
pub mod jail;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod panic;
pub mod probe;
mod threads;
pub mod vcpu;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Why a microVM could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// KVM refused a step.
    #[error("{step}: {error}")]
    Kvm {
        /// The step.
        step: &'static str,
        /// KVM's answer.
        error: kvm_ioctls::Error,
    },
    /// A virtual CPU stopped in a way that nothing explains.
    #[error("unexpected VM exit: {0}")]
    Exit(String),
    /// See [`memory::MemoryError`].
    #[error(transparent)]
    Memory(#[from] memory::MemoryError),
    /// See [`boot::BootError`].
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// A device can't go on.
    #[error("{0}")]
    Device(devices::virtio::DeviceError),
    /// See [`devices::virtio::blk::DiskError`].
    #[error(transparent)]
    Disk(#[from] devices::virtio::blk::DiskError),
    /// A descriptor of the configuration is not open.
    #[error("file descriptor {0} is not open")]
    Descriptor(RawFd),
    /// No events.
    #[error("epoll: {0}")]
    Epoll(io::Error),
    /// See [`filter::FilterError`].
    #[error(transparent)]
    Filter(#[from] filter::FilterError),
    /// The kernel has core scheduling and refuses it.
    #[error("cannot keep others from the cores of this pod: {0}")]
    Cores(rustix::io::Errno),
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// More devices than there are places for.
    #[error("too many devices")]
    Devices,
}

impl VmmError {
    fn kvm(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm { step, error }
    }
}

/// The lower half, of registers and addresses that come in halves.
pub(crate) fn low_u32(value: u64) -> u32 {
    let [b0, b1, b2, b3, ..] = value.to_le_bytes();
    u32::from_le_bytes([b0, b1, b2, b3])
}

/// Takes a descriptor that the supervisor passed on, and keeps it from what is executed next.
///
/// # Errors
/// [`VmmError::Descriptor`] if it is not open.
pub fn inherited(descriptor: RawFd) -> Result<OwnedFd, VmmError> {
    // SAFETY: the configuration names each inherited descriptor once (config::Config), nothing
    // else in this process uses it, and if it is not open the next call finds that out.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    match rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(owned),
        Err(_) => {
            std::mem::forget(owned);
            Err(VmmError::Descriptor(descriptor))
        }
    }
}
