//! The machine's disks: found by their serials, mounted by their device numbers.

use crate::error::{Error, Tried};
use crate::mounts::{self, attach, directory, new_filesystem, open_directory};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, makedev, mknodat, openat, unlink};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;

/// Longest serial of a virtio-blk disk (virtio 1.3 §5.2.6, `VIRTIO_BLK_T_GET_ID`).
const MAX_SERIAL: usize = 20;

/// Longest attribute of a disk that is read, in bytes.
const MAX_ATTRIBUTE: usize = 64;

/// A number of a device, block or character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The driver's number.
    pub major: u32,
    /// The number among that driver's devices.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let numbers = text.split_once(':').and_then(|(major, minor)| {
            Some(Self { major: decimal(major)?, minor: decimal(minor)? })
        });
        numbers.ok_or_else(|| Error::Refused(format!("\"{text}\" is no number of a device")))
    }
}

/// A decimal number as the kernel writes it: digits and nothing else.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A disk of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What the host calls it.
    pub serial: String,
    /// Its number.
    pub device: Device,
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
}

/// The disks that have a serial. The kernel has found all virtio devices of its command line
/// before it starts PID 1.
pub(crate) fn with_serials() -> Result<Vec<Disk>, Error> {
    let sysfs = new_filesystem("sysfs", &[], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let what = "listing the disks";
    let block = openat(&sysfs, "block", flags, Mode::empty()).tried(what)?;
    let mut disks = Vec::new();
    for entry in Dir::read_from(&block).tried(what)? {
        let entry = entry.tried(what)?;
        let name = entry.file_name().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        // Asks the host.
        let Some(serial) = attribute(block.as_fd(), &name, "serial")? else { continue };
        let missing = || Error::Refused(format!("the disk {name} has no number or no size"));
        let device = attribute(block.as_fd(), &name, "dev")?.ok_or_else(missing)?.parse()?;
        let sectors = attribute(block.as_fd(), &name, "size")?;
        let sectors = sectors.as_deref().and_then(decimal).ok_or_else(missing)?;
        disks.push(Disk { serial, device, sectors });
    }
    Ok(disks)
}

fn attribute(block: BorrowedFd<'_>, disk: &str, name: &str) -> Result<Option<String>, Error> {
    let what = format_args!("reading {name} of the disk {disk}");
    let path = format!("{disk}/{name}");
    let file = match openat(block, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        result => result.tried(what)?,
    };
    let mut content = [0; MAX_ATTRIBUTE];
    let length = rustix::io::read(&file, &mut content).tried(what)?;
    Ok(Some(String::from_utf8_lossy(&content[..length]).trim_end_matches('\n').to_owned()))
}

/// The disks that nobody uses yet.
#[derive(Debug)]
pub(crate) struct Disks(Vec<Disk>);

impl Disks {
    pub(crate) fn new(disks: Vec<Disk>) -> Self {
        Self(disks)
    }

    /// Takes the disk with this serial.
    pub(crate) fn take(&mut self, serial: &str) -> Result<Disk, Error> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        if !(1..=MAX_SERIAL).contains(&serial.len()) || !serial.bytes().all(allowed) {
            return Err(Error::Refused(format!("\"{serial}\" cannot be the serial of a disk")));
        }
        match self.0.iter().position(|disk| disk.serial == serial) {
            Some(index) => Ok(self.0.swap_remove(index)),
            None => Err(Error::Refused(format!(
                "the machine has no disk with the serial \"{serial}\", or it is used already"
            ))),
        }
    }
}

/// Mounts the file system of a disk at a directory of guest-init's own tree.
pub(crate) fn mount(
    device: Device,
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
    target: &str,
) -> Result<(), Error> {
    let filesystem = with_node(device, FileType::BlockDevice, |node| {
        mounts::new_disk_filesystem(kind, node, options, attributes)
    })?;
    directory(target, 0o755)?;
    attach(&filesystem, open_directory(target)?)
}

/// Does something with a node of a device, which is gone afterwards.
pub(crate) fn with_node<T>(
    device: Device,
    kind: FileType,
    act: impl FnOnce(&str) -> Result<T, Error>,
) -> Result<T, Error> {
    let path = format!("/{device}");
    mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), makedev(device.major, device.minor))
        .tried(format_args!("making a node of the device {device}"))?;
    let result = act(&path);
    // Apps have a tree of their own; a node that stays is of no use to them.
    let _ = unlink(&path);
    result
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
