use super::request::SECTOR;
use crate::config::Serial;
use crate::devices::virtio::chain::Buffers;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Why a file can't be a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A pipe, a directory, a device.
    #[error("disk {0}: what is behind its descriptor is no regular file")]
    Type(String),
    /// Not in whole sectors, or none.
    #[error("disk {serial}: its file has {size} bytes; it must be a multiple of 512, and not 0")]
    Size {
        /// Which disk.
        serial: String,
        /// Bytes of the file.
        size: i64,
    },
    /// Opened for less than is needed, or for more.
    #[error("disk {serial}: its file must be open for {needed}, and for appending never")]
    Mode {
        /// Which disk.
        serial: String,
        /// What the disk needs.
        needed: &'static str,
    },
    /// The system refuses to tell.
    #[error("disk {serial}: cannot examine its file: {error}")]
    Examine {
        /// Which disk.
        serial: String,
        /// The system's answer.
        error: rustix::io::Errno,
    },
}

/// The file behind a disk.
#[derive(Debug)]
pub struct Backend {
    file: File,
    serial: Serial,
    sectors: u64,
    read_only: bool,
}

impl Backend {
    /// A disk as large as `file` is now.
    ///
    /// # Errors
    /// [`DiskError`] unless it is a regular file in whole sectors, open for reading alone if the
    /// disk is read-only (so that not even a monitor that was taken over can write to it) and for
    /// both if not.
    pub fn new(file: OwnedFd, serial: Serial, read_only: bool) -> Result<Self, DiskError> {
        let name = || serial.as_str().to_owned();
        let examine = |error| DiskError::Examine { serial: name(), error };
        let stat = fstat(&file).map_err(examine)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(DiskError::Type(name()));
        }
        let (mode, needed) = if read_only {
            (OFlags::RDONLY, "reading only")
        } else {
            (OFlags::RDWR, "reading and writing")
        };
        let flags = fcntl_getfl(&file).map_err(examine)?;
        // Linux appends what is written to such a file, wherever it was to go (pwrite(2), BUGS).
        if flags & OFlags::ACCMODE != mode || flags.contains(OFlags::APPEND) {
            return Err(DiskError::Mode { serial: name(), needed });
        }
        match u64::try_from(stat.st_size) {
            Ok(size) if size > 0 && size.is_multiple_of(SECTOR) => {
                let sectors = size / SECTOR;
                Ok(Self { file: file.into(), serial, sectors, read_only })
            }
            _ => Err(DiskError::Size { serial: name(), size: stat.st_size }),
        }
    }

    /// What the driver knows the disk by.
    pub(super) fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The size; it is the same for as long as the disk exists.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    pub(super) fn read_only(&self) -> bool {
        self.read_only
    }

    /// Fills `buffers` from a sector on. A file that has become shorter has an unexpected end.
    pub(super) fn read(&self, sector: u64, buffers: &Buffers<'_>) -> io::Result<()> {
        self.transfer(sector, buffers, |vectors, offset| {
            let (vectors, count) = parts(vectors);
            // SAFETY: each of the `count` vectors is a range of guest memory, see `transfer`.
            unsafe { libc::preadv(self.file.as_raw_fd(), vectors, count, offset) }
        })
    }

    /// Writes what is in `buffers` from a sector on; if `durable`, to the disk.
    pub(super) fn write(
        &self,
        sector: u64,
        buffers: &Buffers<'_>,
        durable: bool,
    ) -> io::Result<()> {
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        self.transfer(sector, buffers, |vectors, offset| {
            let (vectors, count) = parts(vectors);
            // SAFETY: each of the `count` vectors is a range of guest memory, see `transfer`.
            unsafe { libc::pwritev2(self.file.as_raw_fd(), vectors, count, offset, flags) }
        })
    }

    /// Waits until what was written is on the disk.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Calls until all is transferred. `call` gets ranges of guest memory: its mapping is never
    /// undone, and nothing in it is a Rust object, so that the kernel may read and write there.
    pub(super) fn transfer(
        &self,
        sector: u64,
        buffers: &Buffers<'_>,
        call: impl Fn(&[libc::iovec], libc::off_t) -> libc::ssize_t,
    ) -> io::Result<()> {
        let sectors = buffers.length().div_ceil(SECTOR);
        if sector.checked_add(sectors).is_none_or(|end| end > self.sectors) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the disk"));
        }
        // Below the size of a file, so it is an offset.
        let mut offset = (sector * SECTOR).cast_signed();
        let mut vectors: Vec<_> = buffers
            .slices()
            .iter()
            .map(|slice| libc::iovec {
                iov_base: slice.ptr_guard_mut().as_ptr().cast(),
                iov_len: slice.len(),
            })
            .collect();
        let mut rest = vectors.as_mut_slice();
        while !rest.is_empty() {
            let done = call(rest, offset);
            if done == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Ok(count) = usize::try_from(done) {
                offset += done as libc::off_t;
                rest = advance(rest, count);
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }
}

fn parts(vectors: &[libc::iovec]) -> (*const libc::iovec, libc::c_int) {
    // There are no more of them than the queue has descriptors.
    (vectors.as_ptr(), libc::c_int::try_from(vectors.len()).unwrap_or(0))
}

/// What is left of the vectors after so many bytes.
fn advance(vectors: &mut [libc::iovec], mut count: usize) -> &mut [libc::iovec] {
    let mut done = 0;
    while let Some(vector) = vectors.get(done).filter(|vector| vector.iov_len <= count) {
        count -= vector.iov_len;
        done += 1;
    }
    let rest = &mut vectors[done..];
    if let Some(first) = rest.first_mut() {
        first.iov_base = first.iov_base.wrapping_byte_add(count);
        first.iov_len -= count;
    }
    rest
}
