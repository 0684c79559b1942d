//! What the kernel announces about devices (netlink(7), `NETLINK_KOBJECT_UEVENT`): of all that,
//! the blocks that dm-verity refuses to hand out (`verity_handle_err` in the kernel's
//! `drivers/md/dm-verity-target.c`).
//!
//! An announcement is one datagram: `ACTION@DEVPATH`, then `KEY=VALUE` for each variable, all of
//! them ended by a zero byte. It is sent before the reader gets its I/O error, so whoever has seen
//! the error finds the announcement.

use crate::disk::{Device, decimal};
use crate::error::{Error, Tried};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The kernel's own group, and its only one.
const KERNEL: SocketAddrNetlink = SocketAddrNetlink::new(0, 1);

/// Bytes of announcements that may wait for us. dm-verity stops at 100 for each device, and an
/// announcement takes about 1 KiB; the default of the kernel, 208 KiB, is not enough for that.
const BUFFER: usize = 2 << 20;

/// Longest announcement: 2 KiB of variables (`UEVENT_BUFFER_SIZE`) and a header with a path.
const MAX_MESSAGE: usize = 8192;

/// A block that is not what its device's root hash says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// The dm-verity device.
    pub(crate) device: Device,
    /// The block on the disk below: of the data, which begin there at 0, or of the hash tree.
    pub(crate) block: u64,
}

/// The socket on which announcements arrive.
#[derive(Debug)]
pub(crate) struct Uevents(OwnedFd);

/// What a turn of reading announcements came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A block is corrupted.
    Corruption(Corruption),
    /// There were more announcements than the socket could hold.
    Lost,
}

impl Uevents {
    pub(crate) fn open() -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))
            .and_then(|socket| {
                set_socket_recv_buffer_size_force(&socket, BUFFER)?;
                bind(&socket, &KERNEL)?;
                Ok(Self(socket))
            })
            .tried("opening a socket for what the kernel announces")
    }

    /// The next thing that matters; `None` if nothing more is there now.
    pub(crate) fn next(&self) -> Option<Heard> {
        let mut buffer = [0; MAX_MESSAGE];
        loop {
            match recvfrom(&self.0, &mut buffer[..], RecvFlags::TRUNC) {
                Ok((length, whole, sender)) => {
                    let sender = sender.map(SocketAddrNetlink::try_from);
                    let Some(message) = buffer.get(..length) else { continue };
                    // Programs with privileges that apps do not have could send messages, too.
                    if sender != Some(Ok(KERNEL)) || whole > length {
                        continue;
                    }
                    if let Some(corruption) = parse(message) {
                        return Some(Heard::Corruption(corruption));
                    }
                }
                Err(Errno::NOBUFS) => return Some(Heard::Lost),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which block an announcement says is corrupted; `None` if it says something else.
fn parse(message: &[u8]) -> Option<Corruption> {
    let message = std::str::from_utf8(message).ok()?;
    let (header, variables) = message.strip_suffix('\0')?.split_once('\0')?;
    let variables = variables.split('\0').map(|variable| variable.split_once('='));
    let variables: Vec<(&str, &str)> = variables.collect::<Option<_>>()?;
    let value = |key: &str| {
        let mut values = variables.iter().filter(|(name, _)| *name == key);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(*value)
    };
    if header.split_once('@')? != (value("ACTION")?, value("DEVPATH")?)
        || (value("ACTION")?, value("SUBSYSTEM")?) != ("change", "block")
    {
        return None;
    }
    let (kind, block) = value("DM_VERITY_ERR_BLOCK_NR")?.split_once(',')?;
    // Data, or hashes.
    if !["0", "1"].contains(&kind) {
        return None;
    }
    let device = Device { major: decimal(value("MAJOR")?)?, minor: decimal(value("MINOR")?)? };
    Some(Corruption { device, block: decimal(block)? })
}

#[cfg(test)]
#[path = "uevent_tests.rs"]
mod tests;
