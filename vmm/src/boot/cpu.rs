//! Registers and tables of the first virtual CPU.

use crate::layout;
use crate::memory::GuestMemory;
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

// Descriptors as the CPU reads them (Intel SDM vol. 3 §3.4.5): flat, code 64-bit.
const CODE: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TASK: u64 = 0x008f_8b00_0000_ffff;
// Linux requires __BOOT_CS and __BOOT_DS at these selectors.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

const CR0_PROTECTED: u64 = 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG_ENABLED: u64 = 1 << 8;
const EFER_LONG_ACTIVE: u64 = 1 << 10;
const APIC_X2APIC: u64 = 1 << 10;

const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_HUGE: u64 = 1 << 7;

const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;

/// Writes the descriptor table and page tables that [`set_up`] points the CPU at.
pub(super) fn write_tables(memory: &GuestMemory) -> Result<(), GuestMemoryError> {
    for (index, descriptor) in [0, 0, CODE, DATA, TASK].into_iter().enumerate() {
        memory.write_obj(descriptor, GuestAddress(layout::GDT + 8 * index as u64))?;
    }
    memory.write_obj(layout::PDPT | PAGE_PRESENT_WRITABLE, GuestAddress(layout::PML4))?;
    memory.write_obj(layout::PD | PAGE_PRESENT_WRITABLE, GuestAddress(layout::PDPT))?;
    let mut directory = [0; 4096];
    for (entry, page) in directory.chunks_exact_mut(8).zip(0u64..) {
        entry.copy_from_slice(&((page << 21) | PAGE_PRESENT_WRITABLE | PAGE_HUGE).to_le_bytes());
    }
    memory.write_slice(&directory, GuestAddress(layout::PD))
}

/// Puts a virtual CPU into the state in which it starts: CPU 0 at the kernel's entry point in long
/// mode, the others waiting for CPU 0 to start them. All have their local APIC in x2APIC mode,
/// which is reached through MSRs: no MMIO that KVM would have to decode.
///
/// # Errors
/// KVM's.
pub fn set_up(vcpu: &VcpuFd, index: u8, entry: u64) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    sregs.apic_base |= APIC_X2APIC;
    if index == 0 {
        let data = segment(DATA, DATA_SELECTOR);
        sregs.cs = segment(CODE, CODE_SELECTOR);
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        sregs.tr = segment(TASK, TASK_SELECTOR);
        sregs.gdt.base = layout::GDT;
        sregs.gdt.limit = 5 * 8 - 1;
        sregs.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE | CR0_PAGING;
        sregs.cr3 = layout::PML4;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LONG_ENABLED | EFER_LONG_ACTIVE;
    }
    vcpu.set_sregs(&sregs)?;
    if index > 0 {
        return Ok(());
    }
    vcpu.set_regs(&kvm_regs {
        rip: entry,
        rsp: layout::BOOT_STACK,
        rsi: layout::ZERO_PAGE,
        rflags: 2,
        ..Default::default()
    })?;
    let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let msrs = Msrs::from_entries(&[
        msr(MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        msr(MSR_MTRR_DEF_TYPE, MTRR_ENABLED_WRITE_BACK),
    ]);
    if let Ok(msrs) = msrs {
        // Both only speed the guest up; a host that refuses one still runs it.
        vcpu.set_msrs(&msrs)?;
    }
    Ok(())
}

/// The hidden part of a segment register for a flat descriptor.
fn segment(descriptor: u64, selector: u16) -> kvm_segment {
    let bits = |shift: u32, width: u32| low_u8((descriptor >> shift) & ((1 << width) - 1));
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: bits(40, 4),
        s: bits(44, 1),
        dpl: bits(45, 2),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: bits(55, 1),
        unusable: 0,
        padding: 0,
    }
}

/// The lowest byte.
fn low_u8(value: u64) -> u8 {
    value.to_le_bytes()[0]
}
