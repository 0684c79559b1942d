use crate::memory::GuestMemory;
use crate::{layout, low_u32};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Identifier of the IO-APIC: the first one that is no CPU's.
const BUS_ISA: u8 = 0;
const APIC_VERSION: u8 = 0x14;
const CPU_ENABLED: u8 = 1;
const CPU_BOOT: u8 = 2;
/// Family 6 with a floating point unit and an APIC on chip; the kernel asks CPUID instead.
const CPU_SIGNATURE: u32 = 0x600;
const CPU_FEATURES: u32 = 0x201;
const VERSION_1_4: u8 = 4;

/// Writes the MP table (MultiProcessor Specification 1.4, §4): the CPUs, one ISA bus, one IO-APIC
/// whose `irq_lines` lines are ISA interrupts of the same number.
///
/// Local interrupt pins are left out: there is no PIC and nothing raises an NMI.
pub(super) fn write(
    memory: &GuestMemory,
    vcpus: u8,
    irq_lines: u8,
) -> Result<(), GuestMemoryError> {
    let io_apic = vcpus;
    let mut entries = Vec::new();
    for cpu in 0..vcpus {
        let flags = CPU_ENABLED | if cpu == 0 { CPU_BOOT } else { 0 };
        entries.extend([0, cpu, APIC_VERSION, flags]);
        entries.extend(CPU_SIGNATURE.to_le_bytes());
        entries.extend(CPU_FEATURES.to_le_bytes());
        entries.extend([0; 8]);
    }
    entries.extend([1, BUS_ISA]);
    entries.extend(b"ISA   ");
    entries.extend([2, io_apic, 0x11, CPU_ENABLED]);
    entries.extend(low_u32(layout::IO_APIC).to_le_bytes());
    for line in 0..irq_lines {
        // Interrupt type INT, polarity and trigger mode as the bus has them: high, edge.
        entries.extend([3, 0, 0, 0, BUS_ISA, line, io_apic, line]);
    }
    let count = u16::from(vcpus) + 2 + u16::from(irq_lines);

    let header_length = 44;
    let mut table = Vec::with_capacity(header_length + entries.len());
    table.extend(b"PCMP");
    let length = u16::try_from(header_length + entries.len()).unwrap_or(u16::MAX);
    table.extend(length.to_le_bytes());
    table.extend([VERSION_1_4, 0]);
    table.extend(b"SANDBOX ");
    table.extend(b"MICROVM     ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(layout::LOCAL_APIC.to_le_bytes());
    table.extend([0; 4]);
    table.extend(&entries);
    table[7] = checksum(&table);

    let mut pointer = Vec::with_capacity(16);
    pointer.extend(b"_MP_");
    pointer.extend((low_u32(layout::MP_TABLE) + 16).to_le_bytes());
    pointer.extend([1, VERSION_1_4, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);

    memory.write_slice(&pointer, GuestAddress(layout::MP_TABLE))?;
    memory.write_slice(&table, GuestAddress(layout::MP_TABLE + 16))
}

/// What makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Vcpus;
    use crate::machine::MAX_LINES;
    use crate::memory::{Backing, allocate};

    #[test]
    fn the_table_sums_to_zero_and_fits_below_640_kib_for_the_most_cpus_and_devices() {
        let memory = allocate(2 << 20, Backing::Private).unwrap();
        write(&memory, Vcpus::MAX, MAX_LINES).unwrap();
        let mut bytes = [0; 1024];
        memory.read_slice(&mut bytes, GuestAddress(layout::MP_TABLE)).unwrap();
        let length = usize::from(u16::from_le_bytes([bytes[20], bytes[21]]));
        assert!(16 + length <= 1024, "{length}");
        assert_eq!(checksum(&bytes[..16]), 0);
        assert_eq!(checksum(&bytes[16..16 + length]), 0);
    }
}
