use super::BootError;
use crate::layout::HIGH_MEMORY;
use crate::memory::GuestMemory;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use std::fs::File;
use std::io::{Read, Seek as _};
use vm_memory::{Address, GuestAddress};

/// A kernel in guest memory.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Where virtual CPU 0 begins.
    pub address: u64,
    /// First byte behind the kernel.
    pub end: u64,
    /// The header of a bzImage, which `boot_params` has to repeat.
    pub header: Option<setup_header>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Entry({:#x}, end {:#x})", self.address, self.end)
    }
}

/// Distance of a bzImage's 64-bit entry point from where it is loaded (boot.rst, "64-bit Boot
/// Protocol").
const BZIMAGE_ENTRY: u64 = 0x200;

/// Loads an ELF vmlinux where its headers say, or a bzImage at 1 MiB.
pub(super) fn load(memory: &GuestMemory, mut file: File) -> Result<Entry, BootError> {
    let file_error = |error| BootError::File { file: "guest kernel", error };
    // Whoever opened it may have read it.
    file.rewind().map_err(file_error)?;
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic).map_err(file_error)?;

    let high = GuestAddress(HIGH_MEMORY);
    if magic == *b"\x7fELF" {
        let loaded = Elf::load(memory, None, &mut file, Some(high)).map_err(BootError::Kernel)?;
        Ok(entry(loaded, 0))
    } else {
        let loaded =
            BzImage::load(memory, Some(high), &mut file, Some(high)).map_err(BootError::Kernel)?;
        Ok(entry(loaded, BZIMAGE_ENTRY))
    }
}

fn entry(loaded: KernelLoaderResult, offset: u64) -> Entry {
    Entry {
        address: loaded.kernel_load.raw_value().saturating_add(offset),
        end: loaded.kernel_end,
        header: loaded.setup_header,
    }
}
