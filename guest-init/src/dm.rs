//! The device mapper: making a read-only device of one target.
//!
//! Structures, numbers and flags are those of the kernel's `include/uapi/linux/dm-ioctl.h`, version
//! 4.0 of its interface, which every later 4.x understands. What each request does is in the
//! comments of that file.

use crate::disk::{Device, with_node};
use crate::error::{Error, Tried};
use rustix::fs::{FileType, Mode, OFlags, major, minor, open};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::os::fd::OwnedFd;

/// `MAPPER_CTRL_MINOR` of the kernel's `include/linux/miscdevice.h`: its place among the
/// miscellaneous devices is fixed.
const CONTROL: Device = Device { major: 10, minor: 236 };

/// `DM_VERSION_MAJOR` and the first minor version of it.
const VERSION: [u32; 3] = [4, 0, 0];

/// `DM_READONLY_FLAG`.
const READ_ONLY: u32 = 1;

/// `DM_IOCTL`.
const GROUP: u8 = 0xfd;
const DEV_CREATE: Opcode = opcode::read_write::<Header>(GROUP, 3);
/// Without `DM_SUSPEND_FLAG` it resumes the device, with the table that was loaded last.
const DEV_SUSPEND: Opcode = opcode::read_write::<Header>(GROUP, 6);
const TABLE_LOAD: Opcode = opcode::read_write::<Header>(GROUP, 9);

/// `struct dm_ioctl`.
#[repr(C)]
#[derive(Clone, Debug)]
struct Header {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

/// `struct dm_target_spec`.
#[repr(C)]
#[derive(Clone, Debug)]
struct Spec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
}

/// A request with room for one target; its parameters are a C string behind its `Spec`.
#[repr(C)]
#[derive(Clone, Debug)]
struct Request {
    header: Header,
    spec: Spec,
    parameters: [u8; 256],
}

/// What a device consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The kind of target.
    pub(crate) kind: &'static str,
    /// Its length, and so the device's, in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// Its parameters, as its kind takes them.
    pub(crate) parameters: String,
}

/// The device mapper of the kernel.
#[derive(Debug)]
pub(crate) struct Mapper(OwnedFd);

impl Mapper {
    pub(crate) fn open() -> Result<Self, Error> {
        with_node(CONTROL, FileType::CharacterDevice, |node| {
            open(node, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                .map(Self)
                .tried("opening the kernel's device mapper")
        })
    }

    /// Makes a read-only device. The kernel writes to its log what it does not like of the target.
    pub(crate) fn make(&self, name: &str, target: &Target) -> Result<Device, Error> {
        let request = Request::new(name, target)?;
        let make = || {
            let made = self.ask::<DEV_CREATE>(request.clone())?;
            self.ask::<TABLE_LOAD>(request.clone())?;
            self.ask::<DEV_SUSPEND>(request.clone())?;
            Ok(Device { major: major(made.dev), minor: minor(made.dev) })
        };
        make().tried(format_args!("making a device of type {} of {name}", target.kind))
    }

    /// Sends a request and returns the header of the answer.
    fn ask<const REQUEST: Opcode>(&self, mut request: Request) -> rustix::io::Result<Header> {
        // SAFETY: all requests of the device mapper take a dm_ioctl, with what belongs to it behind
        // it; its `data_size`, which bounds what the kernel reads and writes, is that of `Request`,
        // whose bytes are valid whatever the kernel writes.
        unsafe { ioctl(&self.0, Updater::<REQUEST, Request>::new(&mut request)) }?;
        Ok(request.header)
    }
}

impl Request {
    fn new(name: &str, target: &Target) -> Result<Self, Error> {
        #[expect(clippy::cast_possible_truncation, reason = "sizes of small structures")]
        let (size, start) = (size_of::<Self>() as u32, std::mem::offset_of!(Self, spec) as u32);
        Ok(Self {
            header: Header {
                version: VERSION,
                data_size: size,
                data_start: start,
                target_count: 1,
                open_count: 0,
                flags: READ_ONLY,
                event_nr: 0,
                padding: 0,
                dev: 0,
                name: c_string(name)?,
                uuid: [0; 129],
                data: [0; 7],
            },
            spec: Spec {
                sector_start: 0,
                length: target.sectors,
                status: 0,
                next: 0,
                target_type: c_string(target.kind)?,
            },
            parameters: c_string(&target.parameters)?,
        })
    }
}

/// A text with zeros behind it.
fn c_string<const SIZE: usize>(text: &str) -> Result<[u8; SIZE], Error> {
    if text.len() >= SIZE || text.contains('\0') {
        return Err(Error::Refused(format!("\"{text}\" is too long for the device mapper")));
    }
    let mut bytes = [0; SIZE];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
#[path = "dm_tests.rs"]
mod tests;
