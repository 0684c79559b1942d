//! Guest memory.
//!
//! One range of the host's address space, aligned to huge pages and advised to use them: touching
//! 256 MiB costs a hundred faults then, not tens of thousands. It is private anonymous memory,
//! unless a virtio-fs worker has to see it too: then it is a sealed memfd.

use crate::layout::{HOLE_END, HOLE_START};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};
use std::ffi::c_void;
use std::fs::File;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// The guest's memory; clones share it.
pub type GuestMemory = GuestMemoryMmap<()>;

/// Who else sees the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Nobody.
    Private,
    /// The virtio-fs workers, through a memfd.
    Shared,
}

/// Why guest memory can't be had or used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has no address space or refuses the mapping.
    #[error("cannot map {size} bytes of guest memory: {error}")]
    Map {
        /// Bytes asked for.
        size: u64,
        /// The system's answer.
        error: rustix::io::Errno,
    },
    /// vm-memory refuses the mapping.
    #[error("cannot use the mapping as guest memory: {0}")]
    Region(String),
    /// An access to memory that is not there.
    #[error("guest memory access: {0}")]
    Access(#[from] vm_memory::GuestMemoryError),
    /// No region at all.
    #[error("guest memory is empty")]
    Empty,
}

const HUGE_PAGE: usize = 2 << 20;

/// Reserves `size` bytes of memory for a guest: up to 3 GiB from address 0, the rest from 4 GiB.
/// Pages are taken from the host when they are first touched.
///
/// The mapping lives until the process ends: a guest that runs must never see it go.
///
/// # Errors
/// [`MemoryError::Map`] if the host refuses.
pub fn allocate(size: u64, backing: Backing) -> Result<GuestMemory, MemoryError> {
    let map_error = |error| MemoryError::Map { size, error };
    let length = usize::try_from(size).map_err(|_| map_error(rustix::io::Errno::NOMEM))?;
    let file = match backing {
        Backing::Private => None,
        Backing::Shared => Some(Arc::new(memfd(size).map_err(map_error)?)),
    };
    let start = map(length, file.as_deref()).map_err(map_error)?;

    let low = length.min(usize::try_from(HOLE_START).unwrap_or(usize::MAX));
    let mut regions = vec![region(start, 0, low, 0, file.as_ref())?];
    if length > low {
        regions.push(region(start, low, length - low, HOLE_END, file.as_ref())?);
    }
    GuestMemory::from_regions(regions).map_err(|error| MemoryError::Region(error.to_string()))
}

/// A file in memory whose size can't be changed, so that no access to a mapping of it can fail.
fn memfd(size: u64) -> rustix::io::Result<File> {
    let file = memfd_create("guest-memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, size)?;
    fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file.into())
}

/// Maps `length` bytes at a multiple of the huge page size.
fn map(length: usize, file: Option<&File>) -> rustix::io::Result<*mut c_void> {
    let reserve = length.checked_add(HUGE_PAGE).ok_or(rustix::io::Errno::NOMEM)?;
    let none = std::ptr::null_mut();
    // SAFETY: a new mapping at an address that the kernel chooses harms nothing.
    let reserved = unsafe {
        mmap_anonymous(none, reserve, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)
    }?;
    let padding = reserved.align_offset(HUGE_PAGE);
    let start = reserved.wrapping_byte_add(padding);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let fixed = MapFlags::FIXED | MapFlags::NORESERVE;
    match file {
        // SAFETY: `padding` is less than a huge page, so the range lies within the reservation
        // just made, which nothing refers to yet.
        Some(file) => unsafe { mmap(start, length, protection, fixed | MapFlags::SHARED, file, 0) },
        // SAFETY: as above.
        None => unsafe { mmap_anonymous(start, length, protection, fixed | MapFlags::PRIVATE) },
    }?;
    for advice in [Advice::LinuxHugepage, Advice::LinuxDontDump] {
        // Where the kernel knows no huge pages the guest is slower, not wrong.
        // SAFETY: neither advice changes what the memory holds.
        let _ = unsafe { madvise(start, length, advice) };
    }
    Ok(start)
}

fn region(
    start: *mut c_void,
    offset: usize,
    length: usize,
    address: u64,
    file: Option<&Arc<File>>,
) -> Result<GuestRegionMmap<()>, MemoryError> {
    let flags = if file.is_some() { libc_flags::SHARED } else { libc_flags::PRIVATE };
    let builder = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc_flags::READ_WRITE)
        .with_mmap_flags(flags);
    let builder = match file {
        Some(file) => builder.with_file_offset(FileOffset::from_arc(file.clone(), offset as u64)),
        None => builder,
    };
    // SAFETY: `offset` and `length` lie within the mapping at `start`, which is never unmapped.
    let builder = unsafe { builder.with_raw_mmap_pointer(start.cast::<u8>().add(offset)) };
    let mapping = builder.build().map_err(|error| MemoryError::Region(error.to_string()))?;
    GuestRegionMmap::new(mapping, GuestAddress(address)).ok_or(MemoryError::Empty)
}

/// The mapping's flags, as vm-memory wants to be told them: in libc's numbers.
mod libc_flags {
    use rustix::mm::{MapFlags, ProtFlags};

    pub const READ_WRITE: i32 = ProtFlags::READ.union(ProtFlags::WRITE).bits().cast_signed();
    pub const PRIVATE: i32 = MapFlags::PRIVATE.union(MapFlags::NORESERVE).bits().cast_signed();
    pub const SHARED: i32 = MapFlags::SHARED.union(MapFlags::NORESERVE).bits().cast_signed();
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn memory_is_aligned_to_huge_pages_and_usable_to_its_last_byte() {
        for backing in [Backing::Private, Backing::Shared] {
            let memory = allocate(64 << 20, backing).unwrap();
            let region = memory.iter().next().unwrap();
            assert_eq!(region.as_ptr().align_offset(HUGE_PAGE), 0);
            memory.write_obj(7u8, GuestAddress((64 << 20) - 1)).unwrap();
            assert!(memory.write_obj(7u8, GuestAddress(64 << 20)).is_err());
            assert_eq!(region.file_offset().is_some(), backing == Backing::Shared);
        }
    }

    #[test]
    fn memory_beyond_3_gib_continues_at_4_gib() {
        let memory = allocate(4 << 30, Backing::Shared).unwrap();
        assert_eq!(memory.num_regions(), 2);
        memory.write_obj(1u64, GuestAddress(HOLE_END + (1 << 30) - 8)).unwrap();
        assert!(memory.write_obj(1u8, GuestAddress(HOLE_START)).is_err());
        let high = memory.find_region(GuestAddress(HOLE_END)).unwrap();
        assert_eq!(high.file_offset().unwrap().start(), HOLE_START);
    }
}
