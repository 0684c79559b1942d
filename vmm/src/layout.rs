//! Where things are in the guest's physical address space.
//!
//! ```text
//!           0  first MiB: boot tables, MP table
//!       1 MiB  kernel, where its headers say
//!        …     RAM; the initramfs at the end of what is below 3 GiB
//!       3 GiB  virtio-mmio devices, 4 KiB each
//! 0xfec0_0000  IO-APIC
//! 0xfee0_0000  local APICs (the kernel uses their MSRs, not this page)
//! 0xfffb_d000  task-state pages that Intel's KVM needs
//!       4 GiB  RAM, the rest
//! ```

/// The global descriptor table for the first instruction.
pub const GDT: u64 = 0x500;
/// Top of the first stack; the kernel sets up its own at once.
pub const BOOT_STACK: u64 = 0x8ff0;
/// `boot_params`, the "zero page" (Linux Documentation/arch/x86/boot.rst).
pub const ZERO_PAGE: u64 = 0x7000;
/// The three levels of page tables that map the first GiB to itself.
pub const PML4: u64 = 0x9000;
/// See [`PML4`].
pub const PDPT: u64 = 0xa000;
/// See [`PML4`].
pub const PD: u64 = 0xb000;
/// The kernel's command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line that x86 Linux takes, with its end (`COMMAND_LINE_SIZE`).
pub const COMMAND_LINE_SIZE: usize = 2048;
/// End of the RAM in the first 640 KiB, and there the MP table: one of the places where the
/// MultiProcessor Specification 1.4 §4 has the kernel look.
pub const MP_TABLE: u64 = 0x9_fc00;
/// RAM starts again here.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// End of RAM below the hole for devices.
pub const HOLE_START: u64 = 0xc000_0000;
/// Start of RAM above the hole.
pub const HOLE_END: u64 = 0x1_0000_0000;
/// Registers of the first virtio-mmio device.
pub const MMIO_BASE: u64 = 0xd000_0000;
/// Distance from one virtio-mmio device to the next.
pub const MMIO_STRIDE: u64 = 0x1000;
/// Registers of the IO-APIC.
pub const IO_APIC: u64 = 0xfec0_0000;
/// Registers of the local APICs.
pub const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages for KVM on Intel CPUs without unrestricted guest mode.
pub const KVM_TSS: usize = 0xfffb_d000;
