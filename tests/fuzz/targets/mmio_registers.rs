//! The registers of every kind of device, as a virtual CPU reads and writes them.
#![no_main]

mod driver;

use driver::NoLines;
use libfuzzer_sys::{arbitrary, fuzz_target};
use sandbox_vmm::devices::virtio::mmio::{Registers, Request};
use sandbox_vmm::devices::virtio::{Identity, Interrupt};
use sandbox_vmm::memory::{self, GuestMemory};
use std::sync::{Arc, OnceLock};
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

const MEMORY: u64 = 1 << 20;
const STATUS: u64 = 0x70;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;
const VERSION_1: u64 = 1 << 32;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    device: u8,
    /// How far a driver that knows its business has come.
    ready: Start,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Start {
    Reset,
    Features { accepted: u64 },
    Queues { size: u8, spread: u16 },
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Step<'a> {
    Write {
        register: u8,
        value: u32,
    },
    WriteNear {
        register: u8,
        value: u16,
    },
    /// Accesses of any size anywhere in the window.
    WriteAny {
        offset: u16,
        data: &'a [u8],
    },
    Read {
        offset: u16,
        length: u8,
    },
    Status(u8),
    Interrupt {
        configuration: bool,
    },
}

/// What vsock, rng, fs and blk show a driver.
fn identity(device: u8) -> Identity {
    let (id, features, queue_sizes, config): (u32, u64, &'static [u16], usize) = match device % 4 {
        0 => (19, VERSION_1 | 1 << 29, &[128, 128, 8], 8),
        1 => (4, VERSION_1, &[64], 0),
        2 => (26, VERSION_1 | 1 << 29 | 1 << 28, &[128, 512], 40),
        _ => (2, VERSION_1 | 1 << 29 | 1 << 9 | 1 << 6 | 1 << 5 | 1 << 2, &[128], 60),
    };
    Identity { id, features, queue_sizes, config: vec![0xcc; config] }
}

struct Device {
    registers: Registers,
    memory: &'static GuestMemory,
    offered: u64,
    queues: usize,
    active: bool,
}

impl Device {
    fn new(device: u8) -> Self {
        static MEMORY_ONCE: OnceLock<GuestMemory> = OnceLock::new();
        let memory = MEMORY_ONCE
            .get_or_init(|| memory::allocate(MEMORY, memory::Backing::Private).expect("memory"));
        let identity = identity(device);
        let queues = identity.queue_sizes.len();
        let kicks = (0..queues).map(|_| Arc::new(EventFd::new(0x800).expect("an eventfd")));
        let offered = identity.features;
        let interrupt = Interrupt::new(Arc::new(NoLines), 1);
        let registers = Registers::new(identity, interrupt, kicks.collect());
        Self { registers, memory, offered, queues, active: false }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        self.registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let before = self.read(STATUS);
        let request = self.registers.write(offset, data, self.memory);
        let after = self.read(STATUS);
        assert_eq!(after & !0xcf, 0, "status {after:#x}");
        if after & before != before {
            assert_eq!(after, 0, "a status loses bits by a reset only");
        }
        match request {
            None => assert!(!self.active || after & DRIVER_OK != 0, "a reset that is not told"),
            Some(Request::Reset) => {
                assert!(self.active || before & DRIVER_OK != 0);
                assert_eq!(after, 0);
                self.active = false;
            }
            Some(Request::Activate { queues, features }) => {
                assert!(!self.active, "activated twice");
                assert_eq!(after & (DRIVER_OK | FEATURES_OK), DRIVER_OK | FEATURES_OK);
                assert_eq!(features & !self.offered, 0, "features that were not offered");
                assert_ne!(features & VERSION_1, 0);
                assert_eq!(queues.len(), self.queues);
                for queue in &queues {
                    let size = u64::from(queue.size());
                    assert!(size.is_power_of_two() && size <= queue.max_size().into());
                    for (start, length) in [
                        (queue.desc_table(), 16 * size),
                        (queue.avail_ring(), 6 + 2 * size),
                        (queue.used_ring(), 6 + 8 * size),
                    ] {
                        let end = start.checked_add(length).expect("no wrap");
                        assert!(end <= MEMORY, "a ring ends at {end:#x}");
                    }
                }
                self.active = true;
            }
        }
    }

    fn word(&mut self, register: u64, value: u32) {
        self.write(register, &value.to_le_bytes());
    }

    /// As Linux does it.
    fn start(&mut self, start: &Start) {
        let accepted = match start {
            Start::Reset => return,
            Start::Features { accepted } => *accepted,
            Start::Queues { .. } => self.offered,
        };
        for status in [0, 1, 3] {
            self.word(STATUS, status);
        }
        for half in [0, 1] {
            self.word(0x24, half);
            self.word(0x20, (accepted >> (32 * half)) as u32);
        }
        self.word(STATUS, 11);
        if let Start::Queues { size, spread } = start {
            for queue in 0..self.queues as u32 {
                self.word(0x30, queue);
                self.word(0x38, 1 << (size % 10));
                let base = 0x4000 * queue + 16 * u32::from(*spread);
                for (register, offset) in [(0x80, 0), (0x90, 0x2000), (0xa0, 0x2800)] {
                    self.word(register, base + offset);
                    self.word(register + 4, 0);
                }
                self.word(0x44, 1);
            }
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let mut device = Device::new(input.device);
    device.start(&input.ready);
    for step in &input.steps {
        match step {
            Step::Write { register, value } => device.word(4 * u64::from(register % 64), *value),
            Step::WriteNear { register, value } => {
                device.word(4 * u64::from(register % 64), (*value).into());
            }
            Step::WriteAny { offset, data } => device.write((offset % 0x1000).into(), data),
            Step::Read { offset, length } => {
                let mut data = vec![0xff; (*length).into()];
                let before = device.read(STATUS);
                device.registers.read((offset % 0x1000).into(), &mut data);
                let mut again = vec![0xee; (*length).into()];
                device.registers.read((offset % 0x1000).into(), &mut again);
                assert_eq!(data, again, "reading changes nothing, and fills all");
                assert_eq!(device.read(STATUS), before);
            }
            Step::Status(status) => device.word(STATUS, (*status).into()),
            Step::Interrupt { configuration } => {
                if *configuration {
                    device.registers.set_needs_reset().expect("a line");
                    assert_ne!(device.read(STATUS) & NEEDS_RESET, 0);
                }
                device.word(0x64, device.read(0x60));
                assert_eq!(device.read(0x60), 0, "what is acknowledged is over");
            }
        }
        // What no driver can change.
        assert_eq!(device.read(0), u32::from_le_bytes(*b"virt"));
        assert_eq!(device.read(4), 2);
    }
});
