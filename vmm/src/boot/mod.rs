//! From files to a guest that can execute its first instruction.
//!
//! No firmware: the kernel is entered at its 64-bit entry point as Linux's boot protocol for x86
//! describes (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): long mode, the first GiB
//! mapped to itself, the address of `boot_params` in RSI. There is no ACPI either; what little
//! hardware there is stands in an MP table and on the command line.

pub mod cpu;
pub mod cpuid;
mod kernel;
mod mptable;
mod params;

pub use kernel::Entry;

use crate::layout;
use crate::memory::GuestMemory;
use std::fs::File;
use std::io::{self, Seek as _};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// Why the guest can't be booted.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file can't be read.
    #[error("cannot read the {file}: {error}")]
    File {
        /// Which one.
        file: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// The kernel's file is no kernel.
    #[error("the guest kernel is no x86-64 Linux kernel (ELF vmlinux or bzImage): {0}")]
    Kernel(linux_loader::loader::Error),
    /// Kernel and initramfs leave no room.
    #[error("{mib} MiB of guest memory are too few for this kernel and initramfs")]
    TooSmall {
        /// The size of guest memory.
        mib: u64,
    },
    /// The command line would be cut.
    #[error("the kernel's command line is longer than {max} bytes: {line}", max = layout::COMMAND_LINE_SIZE - 1)]
    CommandLine {
        /// The line.
        line: String,
    },
    /// A table does not fit the guest's memory.
    #[error("cannot write the boot tables: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Words of the command line that every guest gets.
///
/// - `reboot=k panic=-1`: a reset, after a panic too, is a write to port 0x64, which the monitor
///   takes for the end. (A triple fault would do as well, and could not be told from a bug.)
/// - `quiet earlyprintk=serial,0x3f8,115200,keep`: a polled console without a driver, left to
///   warnings and panics. In this order: the console prints what it finds when it is registered.
/// - `console=ttynull`: `/dev/console` exists and swallows what is written to it.
/// - `tsc=reliable`: no watchdog for the clock, which comes from KVM.
/// - `noreplace-smp`: LOCK prefixes stay where they are; taking out 7,000 of them for a single CPU
///   takes longer than a tenth of the boot.
/// - `swiotlb=noforce`: no bounce buffers in large guests; no device here needs them.
const COMMAND_LINE: &str = "quiet earlyprintk=serial,0x3f8,115200,keep console=ttynull reboot=k \
     panic=-1 tsc=reliable noreplace-smp swiotlb=noforce";

/// Most bytes that can be added to these words.
pub const COMMAND_LINE_ROOM: usize = layout::COMMAND_LINE_SIZE - 1 - (COMMAND_LINE.len() + 1);

/// Loads kernel and initramfs and writes all tables. The result is where virtual CPU 0 begins.
///
/// # Errors
/// See [`BootError`].
pub fn load(
    memory: &GuestMemory,
    kernel: File,
    initramfs: File,
    command_line: &str,
    vcpus: u8,
    irq_lines: u8,
) -> Result<Entry, BootError> {
    let entry = kernel::load(memory, kernel)?;
    let initramfs = load_initramfs(memory, initramfs, entry.end)?;
    let line = write_command_line(memory, command_line)?;
    params::write(memory, &entry, initramfs, line)?;
    mptable::write(memory, vcpus, irq_lines)?;
    cpu::write_tables(memory)?;
    Ok(entry)
}

/// Where the initramfs is.
#[derive(Clone, Copy, Debug)]
struct Initramfs {
    address: u32,
    size: u32,
}

/// Reads the initramfs to the end of the RAM below the hole.
fn load_initramfs(
    memory: &GuestMemory,
    mut file: File,
    kernel_end: u64,
) -> Result<Initramfs, BootError> {
    let file_error = |error| BootError::File { file: "initramfs", error };
    let low = memory.find_region(GuestAddress(0)).map_or(0, GuestMemoryRegion::len);
    let too_small = || BootError::TooSmall { mib: low >> 20 };

    // Whoever opened it may have read it.
    file.rewind().map_err(file_error)?;
    let size = file.metadata().map_err(file_error)?.len();
    let address = low.checked_sub(size).ok_or_else(too_small)? & !0xfff;
    if address < kernel_end {
        return Err(too_small());
    }
    let (Ok(address), Ok(size)) = (u32::try_from(address), u32::try_from(size)) else {
        return Err(too_small());
    };
    memory.read_exact_volatile_from(GuestAddress(address.into()), &mut file, size as usize)?;
    Ok(Initramfs { address, size })
}

/// Writes the command line; the result is its length.
fn write_command_line(memory: &GuestMemory, more: &str) -> Result<u32, BootError> {
    let line = format!("{COMMAND_LINE} {more}");
    match u32::try_from(line.len()) {
        Ok(length) if line.len() < layout::COMMAND_LINE_SIZE => {
            memory.write_slice(line.as_bytes(), GuestAddress(layout::COMMAND_LINE))?;
            Ok(length)
        }
        _ => Err(BootError::CommandLine { line }),
    }
}
