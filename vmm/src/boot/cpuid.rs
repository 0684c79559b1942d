//! What CPUID tells the guest.
//!
//! KVM's list of what it supports, cut down: no performance counters, and of KVM's own features
//! only those that save exits.

use kvm_bindings::CpuId;

const LEAF_FEATURES: u32 = 1;
const LEAF_CACHE: u32 = 4;
const LEAF_PERFORMANCE: u32 = 0xa;
const LEAF_TOPOLOGY: [u32; 2] = [0xb, 0x1f];
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
const LEAF_AMD_FEATURES: u32 = 0x8000_0001;
const LEAF_AMD_SIZES: u32 = 0x8000_0008;
const LEAF_AMD_CACHE: u32 = 0x8000_001d;
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;

const ECX_X2APIC: u32 = 1 << 21;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_HYPER_THREADING: u32 = 1 << 28;
const ECX_AMD_PERFORMANCE: u32 = (1 << 23) | (1 << 24) | (1 << 28);

// Bits of KVM's feature leaf (Linux Documentation/virt/kvm/x86/cpuid.rst).
const KVM_NOP_IO_DELAY: u32 = 1 << 1;
const KVM_CLOCKSOURCE2: u32 = 1 << 3;
const KVM_STEAL_TIME: u32 = 1 << 5;
const KVM_PV_EOI: u32 = 1 << 6;
const KVM_PV_UNHALT: u32 = 1 << 7;
const KVM_PV_TLB_FLUSH: u32 = 1 << 9;
const KVM_PV_SEND_IPI: u32 = 1 << 11;
const KVM_PV_SCHED_YIELD: u32 = 1 << 13;
const KVM_CLOCKSOURCE_STABLE: u32 = 1 << 24;
const KVM_FEATURES: u32 = KVM_NOP_IO_DELAY
    | KVM_CLOCKSOURCE2
    | KVM_STEAL_TIME
    | KVM_PV_EOI
    | KVM_PV_UNHALT
    | KVM_PV_TLB_FLUSH
    | KVM_PV_SEND_IPI
    | KVM_PV_SCHED_YIELD
    | KVM_CLOCKSOURCE_STABLE;

const TOPOLOGY_THREAD: u32 = 1;
const TOPOLOGY_CORE: u32 = 2;

/// Cuts KVM's list down to what a guest with `vcpus` CPUs gets.
pub fn common(cpuid: &mut CpuId, vcpus: u8) {
    let last = u32::from(vcpus) - 1;
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            LEAF_FEATURES => {
                entry.ecx |= ECX_X2APIC | ECX_TSC_DEADLINE | ECX_HYPERVISOR;
                entry.ebx = (entry.ebx & 0x0000_ffff) | (u32::from(vcpus) << 16);
                entry.edx &= !EDX_HYPER_THREADING;
                if vcpus > 1 {
                    entry.edx |= EDX_HYPER_THREADING;
                }
            }
            // Each CPU is a core of its own, all in one package.
            LEAF_CACHE if entry.eax & 0x1f != 0 => {
                entry.eax = (entry.eax & 0x0000_3fff) | (last << 26);
            }
            LEAF_PERFORMANCE => {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
            }
            LEAF_KVM_FEATURES => entry.eax &= KVM_FEATURES,
            LEAF_AMD_FEATURES => entry.ecx &= !ECX_AMD_PERFORMANCE,
            LEAF_AMD_SIZES => entry.ecx = last | (apic_id_bits(vcpus) << 12),
            LEAF_AMD_CACHE if entry.eax & 0x1f != 0 => entry.eax &= 0x0000_3fff,
            _ => {}
        }
    }
}

/// Makes the list that of one virtual CPU.
pub fn for_vcpu(cpuid: &mut CpuId, index: u8, vcpus: u8) {
    let id = u32::from(index);
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            LEAF_FEATURES => entry.ebx = (entry.ebx & 0x00ff_ffff) | (id << 24),
            leaf if LEAF_TOPOLOGY.contains(&leaf) => {
                let (level, shift, count) = match entry.index {
                    0 => (TOPOLOGY_THREAD, 0, 1),
                    1 => (TOPOLOGY_CORE, apic_id_bits(vcpus), u32::from(vcpus)),
                    _ => (0, 0, 0),
                };
                entry.eax = shift;
                entry.ebx = count;
                entry.ecx = entry.index | (level << 8);
                entry.edx = id;
            }
            LEAF_AMD_TOPOLOGY => {
                entry.eax = id;
                entry.ebx = id;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
}

/// Bits that hold the number of every CPU.
fn apic_id_bits(vcpus: u8) -> u32 {
    u8::BITS - (vcpus - 1).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_all_cpus_fit_their_bits() {
        for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (32, 5)] {
            assert_eq!(apic_id_bits(vcpus), bits, "{vcpus}");
        }
    }
}
