//! What the guest gets from its host: connections, files and disks.

use crate::disk::{self, Disk};
use crate::error::{Error, Tried, checked};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// What the guest gets from its host.
pub trait Host {
    /// Connects to a port of the host.
    ///
    /// # Errors
    /// There is no such device, or the host refuses.
    fn connect(&self, port: u32) -> Result<OwnedFd, Error>;

    /// Mounts the file system that holds the pod's shares at a directory.
    ///
    /// # Errors
    /// There is no such device, or it does not answer.
    fn mount_shares(&self, tag: &str, directory: &str) -> Result<(), Error>;

    /// The disks that the host has given a serial.
    ///
    /// # Errors
    /// The kernel does not list them, or the host does not answer.
    fn disks(&self) -> Result<Vec<Disk>, Error>;
}

/// The host of a virtual machine: virtio-vsock, virtio-fs and virtio-blk.
#[derive(Debug)]
pub struct Machine;

/// `SO_VM_SOCKETS_CONNECT_TIMEOUT` of linux/vm_sockets.h, with the 64-bit time.
const CONNECT_TIMEOUT: libc::c_int = 8;

/// Seconds that the host has to take a connection. The kernel's own 2 are not much on a host that
/// starts many pods at once.
const PATIENCE: libc::time_t = 30;

impl Host for Machine {
    fn connect(&self, port: u32) -> Result<OwnedFd, Error> {
        connect_vsock(port).tried(format_args!("connecting to port {port} of the host over vsock"))
    }

    fn mount_shares(&self, tag: &str, directory: &str) -> Result<(), Error> {
        mount(tag, directory, c"virtiofs", MountFlags::NODEV, None)
            .tried(format_args!("mounting the virtio-fs device \"{tag}\""))
    }

    fn disks(&self) -> Result<Vec<Disk>, Error> {
        disk::with_serials()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "constants and sizes of small structures")]
fn connect_vsock(port: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: no memory is passed.
    let raw = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    checked(raw)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };

    let patience = libc::timeval { tv_sec: PATIENCE, tv_usec: 0 };
    // SAFETY: the pointer and the length are those of `patience`, which the kernel copies.
    checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            CONNECT_TIMEOUT,
            (&raw const patience).cast(),
            size_of_val(&patience) as libc::socklen_t,
        )
    })?;

    // SAFETY: a sockaddr_vm is plain numbers, for which zero is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = sandbox_protocol::HOST_CID;
    address.svm_port = port;
    // SAFETY: the pointer and the length are those of `address`, which the kernel copies.
    checked(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    })?;
    Ok(socket)
}
