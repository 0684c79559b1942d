use super::{Entry, Initramfs};
use crate::memory::GuestMemory;
use crate::{layout, low_u32};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
};

const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// "undefined": no boot loader that has a number.
const LOADER_TYPE: u8 = 0xff;
/// What a bzImage asks for in its own header.
const KERNEL_ALIGNMENT: u32 = 0x0100_0000;
const E820_RAM: u32 = 1;

/// Writes `boot_params` (Linux Documentation/arch/x86/zero-page.rst).
pub(super) fn write(
    memory: &GuestMemory,
    entry: &Entry,
    initramfs: Initramfs,
    command_line: u32,
) -> Result<(), GuestMemoryError> {
    let mut params = boot_params::default();
    if let Some(header) = entry.header {
        params.hdr = header;
    } else {
        params.hdr.boot_flag = BOOT_FLAG;
        params.hdr.header = HEADER_MAGIC;
        params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
    }
    params.hdr.type_of_loader = LOADER_TYPE;
    params.hdr.cmd_line_ptr = low_u32(layout::COMMAND_LINE);
    params.hdr.cmdline_size = command_line;
    params.hdr.ramdisk_image = initramfs.address;
    params.hdr.ramdisk_size = initramfs.size;

    let mut entries = 0;
    let mut ram = |start: u64, end: u64| {
        let slot = &mut params.e820_table[usize::from(entries)];
        *slot = boot_e820_entry { addr: start, size: end - start, r#type: E820_RAM };
        entries += 1;
    };
    ram(0, layout::MP_TABLE);
    for region in memory.iter() {
        let start = region.start_addr().raw_value();
        ram(start.max(layout::HIGH_MEMORY), start + region.len());
    }
    params.e820_entries = entries;
    memory.write_obj(Raw(params), GuestAddress(layout::ZERO_PAGE))
}

/// `boot_params` as the bytes that it is.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw(boot_params);

// SAFETY: boot_params is a packed structure of integers and arrays of them, made from C; it has
// no padding and no invalid values.
unsafe impl vm_memory::ByteValued for Raw {}
