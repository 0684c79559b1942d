//! A guest without an operating system: a driver in a few instructions of machine code. It does
//! what a test wants of the devices, in order, and nothing else; a microVM of it takes milliseconds.

use sandbox_vmm::layout;
use std::path::{Path, PathBuf};

/// Where the program is loaded and entered.
const CODE: u32 = 0x100_0000;
/// Where the test's data may be: the MiB that follows.
pub const DATA: u32 = CODE + DATA_OFFSET;
const DATA_OFFSET: u32 = 0x10_0000;
/// Bytes of the loaded segment.
const SIZE: usize = 0x20_0000;

/// The last page of the data: tables for the GiB of the devices.
const PAGE_TABLE: u32 = DATA + 0xf_f000;

/// Status of a device that is active, and of one that needs a reset (virtio 1.3 §2.1).
pub const ACTIVE: u32 = 15;
/// See [`ACTIVE`].
pub const NEEDS_RESET: u32 = 64;

/// The flag of a descriptor that the device writes to, and that of one that goes on.
pub const WRITE: u16 = 2;
const NEXT: u16 = 1;

/// A program under construction.
#[derive(Debug)]
pub struct Program {
    code: Vec<u8>,
    data: Vec<u8>,
}

impl Default for Program {
    fn default() -> Self {
        let mut program = Self { code: Vec::new(), data: vec![0; SIZE - DATA_OFFSET as usize] };
        // 2 MiB pages from 3 GiB on: present, writable, large.
        for entry in 0..512_u64 {
            let address = PAGE_TABLE + 8 * u32::try_from(entry).unwrap();
            program.put(address, &((layout::HOLE_START + (entry << 21)) | 0x83).to_le_bytes());
        }
        program.store(u32::try_from(layout::PDPT).unwrap() + 8 * 3, PAGE_TABLE | 3);
        program
    }
}

impl Program {
    /// Data that is there from the start.
    pub fn put(&mut self, address: u32, bytes: &[u8]) {
        let at = (address - DATA) as usize;
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Writes 32 bits, to memory or to a register.
    pub fn store(&mut self, address: u32, value: u32) {
        self.address(address);
        self.code.extend([0xc7, 0x00]); // mov dword [rax], imm32
        self.code.extend(value.to_le_bytes());
    }

    /// Waits until 32 bits of memory or of a register are this.
    pub fn wait(&mut self, address: u32, value: u32) {
        self.address(address);
        self.code.extend([0xf3, 0x90, 0x81, 0x38]); // pause; cmp dword [rax], imm32
        self.code.extend(value.to_le_bytes());
        self.code.extend([0x75, 0xf6]); // jne to pause
    }

    /// Waits until 16 bits of memory are this.
    pub fn wait16(&mut self, address: u32, value: u16) {
        self.address(address);
        self.code.extend([0xf3, 0x90, 0x66, 0x81, 0x38]); // pause; cmp word [rax], imm16
        self.code.extend(value.to_le_bytes());
        self.code.extend([0x75, 0xf7]); // jne to pause
    }

    /// Writes a byte to a port.
    pub fn out(&mut self, port: u16, value: u8) {
        self.code.extend([0x66, 0xba]); // mov dx, imm16
        self.code.extend(port.to_le_bytes());
        self.code.extend([0xb0, value, 0xee]); // mov al, imm8; out dx, al
    }

    /// Goes on somewhere else.
    pub fn jump(&mut self, address: u32) {
        self.address(address);
        self.code.extend([0xff, 0xe0]); // jmp rax
    }

    /// Resets the machine.
    pub fn reset(&mut self) {
        self.out(0x64, 0xfe);
    }

    /// mov eax, imm32, which clears the upper half.
    fn address(&mut self, address: u32) {
        self.code.push(0xb8);
        self.code.extend(address.to_le_bytes());
    }

    /// Lets a device's interrupt arrive as this vector.
    pub fn unmask(&mut self, device: u8, vector: u8) {
        let (select, window) = (u32::try_from(layout::IO_APIC).unwrap(), 0x10);
        let register = 0x10 + 2 * (u32::from(device) + 1);
        self.store(select, register + 1);
        self.store(select + window, 0);
        self.store(select, register);
        self.store(select + window, vector.into());
    }

    /// Writes the program as a kernel into this directory: an ELF file with one segment, which is
    /// entered at its first byte in long mode, with the first GiB mapped to itself (Linux's boot
    /// protocol, "64-bit Boot Protocol").
    pub fn write(&self, directory: &Path) -> PathBuf {
        let mut segment = self.code.clone();
        segment.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp to it
        assert!(segment.len() <= DATA_OFFSET as usize, "too long");
        segment.resize(DATA_OFFSET as usize, 0);
        segment.extend(&self.data);
        let file = directory.join("driver");
        std::fs::write(&file, elf(&segment)).unwrap();
        file
    }
}

/// An ELF file of one segment.
pub fn elf(segment: &[u8]) -> Vec<u8> {
    let mut elf = vec![0; 0x1000];
    elf[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2_u16.to_le_bytes()); // executable
    put(18, &62_u16.to_le_bytes()); // x86-64
    put(20, &1_u32.to_le_bytes());
    put(24, &u64::from(CODE).to_le_bytes()); // entry
    put(32, &64_u64.to_le_bytes()); // program headers
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &1_u32.to_le_bytes()); // load
    put(68, &7_u32.to_le_bytes());
    let (address, length) = (u64::from(CODE), segment.len() as u64);
    for (at, value) in [(72, 0x1000), (80, address), (88, address), (96, length), (104, length)] {
        put(at, &u64::to_le_bytes(value));
    }
    elf.extend_from_slice(segment);
    elf
}

/// A queue of a device, in three pages of its own.
#[derive(Debug)]
pub struct Queue {
    base: u32,
    size: u16,
    descriptors: u16,
    offered: u16,
    used: u16,
}

impl Queue {
    /// Bytes that it takes.
    pub const BYTES: u32 = 0x3000;

    /// A queue at a page of the data.
    pub fn new(base: u32, size: u16) -> Self {
        Self { base, size, descriptors: 0, offered: 0, used: 0 }
    }

    /// Puts a chain of buffers (address, length, flags) into the next place of the ring. It is not
    /// the device's before [`Queue::offer`].
    pub fn add(&mut self, program: &mut Program, chain: &[(u32, u32, u16)]) {
        let head = self.descriptors;
        for (index, (address, length, flags)) in (1..).zip(chain) {
            let next = if index < chain.len() { NEXT } else { 0 };
            let at = self.base + 16 * u32::from(self.descriptors);
            self.descriptors += 1;
            program.put(at, &u64::from(*address).to_le_bytes());
            program.put(at + 8, &length.to_le_bytes());
            program.put(at + 12, &(flags | next).to_le_bytes());
            program.put(at + 14, &self.descriptors.to_le_bytes());
        }
        assert!(self.descriptors <= self.size, "too many descriptors");
        program.put(self.base + 0x1004 + 2 * u32::from(self.offered), &head.to_le_bytes());
        self.offered += 1;
    }

    /// Gives the device what was added.
    pub fn offer(&self, program: &mut Program) {
        // The flags before the index are 0.
        program.store(self.base + 0x1000, u32::from(self.offered) << 16);
    }

    /// Waits until the device has used so many more chains.
    pub fn wait(&mut self, program: &mut Program, count: u16) {
        self.used += count;
        program.wait16(self.base + 0x2002, self.used);
    }

    /// The queue as it was at first, in other pages: for a device that was reset.
    pub fn again(&self, base: u32) -> Self {
        Self::new(base, self.size)
    }
}

/// The registers of the device of this number.
pub fn registers(device: u8) -> u32 {
    u32::try_from(layout::MMIO_BASE + layout::MMIO_STRIDE * u64::from(device)).unwrap()
}

/// Resets a device and makes it active with these features and queues (virtio 1.3 §3.1.1).
pub fn activate(program: &mut Program, device: u8, features: u32, queues: &[&Queue]) {
    let registers = registers(device);
    for (register, value) in [
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1), // VIRTIO_F_VERSION_1
        (0x24, 0),
        (0x20, features),
        (0x70, 11),
    ] {
        program.store(registers + register, value);
    }
    for (number, queue) in (0..).zip(queues) {
        for (register, value) in [
            (0x30, number),
            (0x38, queue.size.into()),
            (0x80, queue.base),
            (0x90, queue.base + 0x1000),
            (0xa0, queue.base + 0x2000),
            (0x44, 1),
        ] {
            program.store(registers + register, value);
        }
    }
    program.store(registers + 0x70, ACTIVE);
}

/// Rings for a queue.
pub fn ring(program: &mut Program, device: u8, queue: u32) {
    program.store(registers(device) + 0x50, queue);
}
