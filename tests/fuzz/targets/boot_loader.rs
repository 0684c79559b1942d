//! The boot loader: a kernel (ELF or bzImage), and the tables that are written for it.
//!
//! Four bytes say how many CPUs and interrupt lines there are, how long the command line is, and how
//! much follows the kernel; the rest is the kernel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use sandbox_vmm::memory::{self, GuestMemory};
use sandbox_vmm::{boot, layout};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use vm_memory::{Bytes, GuestAddress};

const MEMORY: u64 = 4 << 20;
const INITRAMFS: u64 = 10_000;

/// What is made once: memory, and the two files.
struct Parts {
    memory: GuestMemory,
    kernel: File,
    initramfs: File,
}

fn parts() -> &'static Parts {
    static PARTS: OnceLock<Parts> = OnceLock::new();
    PARTS.get_or_init(|| {
        let file = |name: &str| memfd_create(name, MemfdFlags::CLOEXEC).expect("a memfd").into();
        let (kernel, initramfs): (File, File) = (file("kernel"), file("initramfs"));
        initramfs.write_all_at(&[0x5a; INITRAMFS as usize], 0).expect("a memfd");
        let memory = memory::allocate(MEMORY, memory::Backing::Private).expect("memory");
        Parts { memory, kernel, initramfs }
    })
}

fn bytes(at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    parts().memory.read_slice(&mut bytes, GuestAddress(at)).expect("in memory");
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four")).into()
}

fuzz_target!(|input: &[u8]| {
    let Some(([vcpus, lines, words, more], image)) = input.split_first_chunk() else { return };
    let Parts { memory, kernel, initramfs } = parts();
    ftruncate(kernel, 0).expect("a memfd");
    kernel.write_all_at(image, 0).expect("a memfd");
    ftruncate(kernel, image.len() as u64 + u64::from(*more) * 256).expect("a memfd");
    for table in [layout::COMMAND_LINE, layout::MP_TABLE] {
        memory.write_slice(&[0; 0x1000][..0x400], GuestAddress(table)).expect("in memory");
    }
    let (vcpus, lines) = (vcpus % 32 + 1, lines % 32);
    let command_line = "word ".repeat(usize::from(*words) * 2);
    let duplicate = |file: &File| file.try_clone().expect("a descriptor");
    let (kernel, initramfs) = (duplicate(kernel), duplicate(initramfs));
    let loaded = boot::load(memory, kernel, initramfs, &command_line, vcpus, lines);
    let Ok(entry) = loaded else { return };
    assert!(entry.end <= MEMORY, "the kernel ends at {:#x}", entry.end);

    // Documentation/arch/x86/boot.rst and zero-page.rst
    let params = bytes(layout::ZERO_PAGE, 4096);
    let (image, size) = (word(&params, 0x218), word(&params, 0x21c));
    assert_eq!(size, INITRAMFS);
    assert!(image >= entry.end && image + size <= MEMORY && image % 4096 == 0, "{image:#x}");
    assert!(bytes(image, INITRAMFS as usize).iter().all(|byte| *byte == 0x5a));
    assert_eq!(word(&params, 0x228), layout::COMMAND_LINE);
    let line = bytes(layout::COMMAND_LINE, layout::COMMAND_LINE_SIZE);
    let length = word(&params, 0x238) as usize;
    assert!(length < layout::COMMAND_LINE_SIZE);
    assert!(line[..length].ends_with(command_line.as_bytes()));
    let count = usize::from(params[0x1e8]);
    let mut end = 0;
    for entry in params[0x2d0..].chunks_exact(20).take(count) {
        let start = word(entry, 0) | word(entry, 4) << 32;
        assert!(start >= end, "ranges of memory overlap");
        end = start + (word(entry, 8) | word(entry, 12) << 32);
        assert!(end <= MEMORY, "memory that is not there");
    }
    // MultiProcessor Specification 1.4 §4
    let table = bytes(layout::MP_TABLE, 0x400);
    let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let length = usize::from(u16::from_le_bytes([table[20], table[21]]));
    assert_eq!((sum(&table[..16]), sum(&table[16..16 + length])), (0, 0));
});
