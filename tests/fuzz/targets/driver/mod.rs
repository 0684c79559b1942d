//! The driver's side of virtqueues: small rings at the start of guest memory, buffers behind them,
//! and what a device may have changed in all that.
#![allow(dead_code, reason = "each target needs another part of it")]

use libfuzzer_sys::arbitrary;
use sandbox_vmm::devices::virtio::{Activation, InterruptController, Registry};
use sandbox_vmm::memory::{self, GuestMemory};
use std::sync::{Arc, OnceLock};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::eventfd::EventFd;

pub const MEMORY: u64 = 0x1_8000;
/// Where buffers begin; each ring has a page before that.
pub const BUFFERS: u64 = 0x8000;
/// Descriptors of every ring: a driver may take less than the device offers.
pub const SIZE: u16 = 16;
const AVAILABLE: u64 = 0x200;
const USED: u64 = 0x400;

pub const NEXT: u16 = 1;
pub const WRITABLE: u16 = 2;
const INDIRECT: u16 = 4;
const NONBLOCK: i32 = 0x800;

#[derive(Clone, Debug, arbitrary::Arbitrary)]
pub struct Chain {
    pub buffers: Vec<Buffer>,
    /// Goes on to this descriptor after its last.
    pub on_to: Option<u16>,
}

#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
pub struct Buffer {
    address: Address,
    length: Length,
    flags: Flags,
}

#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
enum Address {
    InMemory(u16),
    Any(u64),
}

#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
enum Length {
    Short(u8),
    Some(u16),
    Any(u32),
}

#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
enum Flags {
    Readable,
    Writable,
    Any(u16),
}

impl Buffer {
    /// Address, length and flags.
    pub fn parts(&self) -> (u64, u32, u16) {
        let address = match self.address {
            Address::InMemory(offset) => BUFFERS + u64::from(offset),
            Address::Any(address) => address,
        };
        let length = match self.length {
            Length::Short(length) => length.into(),
            Length::Some(length) => length.into(),
            Length::Any(length) => length,
        };
        let flags = match self.flags {
            Flags::Readable => 0,
            Flags::Writable => WRITABLE,
            Flags::Any(flags) => flags & !NEXT,
        };
        (address, length, flags)
    }
}

/// Lines that end nowhere.
#[derive(Debug)]
pub struct NoLines;

impl InterruptController for NoLines {
    fn route(&self, _line: u8, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }

    fn raise(&self, _line: u8) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    /// The next descriptor that is written.
    descriptor: u16,
    /// Chains that were offered, and those of them that were seen used.
    offered: u16,
    seen: u16,
}

/// A driver.
#[derive(Debug)]
pub struct Driver {
    pub memory: GuestMemory,
    rings: Vec<Ring>,
    /// Every buffer that the device may write to: address and length.
    writable: Vec<(u64, u64)>,
    /// Whether these are all: no ring or table of descriptors is in memory that changes on its own.
    exact: bool,
    before: Vec<u8>,
}

impl Driver {
    /// A driver of one of the monitor's devices, with so many queues.
    pub fn new(queues: usize) -> Self {
        static MEMORY_ONCE: OnceLock<GuestMemory> = OnceLock::new();
        let memory = MEMORY_ONCE
            .get_or_init(|| memory::allocate(MEMORY, memory::Backing::Private).expect("memory"));
        Self::on(memory.clone(), queues)
    }

    /// What a device gets of this driver.
    pub fn activation(&self, features: u64) -> Activation {
        let queues = (0..self.rings.len())
            .map(|ring| {
                let [descriptors, available, used] = Self::parts(ring).map(|part| part as u32);
                let mut queue = Queue::new(SIZE).expect("a power of two");
                queue.set_size(SIZE);
                queue.set_desc_table_address(Some(descriptors), None);
                queue.set_avail_ring_address(Some(available), None);
                queue.set_used_ring_address(Some(used), None);
                queue.set_event_idx(features & (1 << 29) != 0);
                queue.set_ready(true);
                assert!(queue.is_valid(&self.memory));
                queue
            })
            .collect();
        Activation { memory: self.memory.clone(), queues, features }
    }
}

/// What calls a device, and when.
pub fn registry(epoll: &Arc<Epoll>) -> Registry {
    Registry::new(epoll.clone(), 0)
}

pub fn kicks<const N: usize>() -> [Arc<EventFd>; N] {
    std::array::from_fn(|_| Arc::new(EventFd::new(NONBLOCK).expect("an eventfd")))
}

impl Driver {
    /// A driver of so many queues, in memory that it makes zero.
    pub fn on(memory: GuestMemory, queues: usize) -> Self {
        memory.write_slice(&[0; MEMORY as usize], GuestAddress(0)).expect("in memory");
        Self {
            memory,
            rings: vec![Ring::default(); queues],
            writable: Vec::new(),
            exact: true,
            before: vec![0; MEMORY as usize],
        }
    }

    /// Where descriptors, available and used ring of a queue are.
    pub fn parts(ring: usize) -> [u64; 3] {
        [0, AVAILABLE, USED].map(|part| Self::base(ring) + part)
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).expect("in memory");
    }

    fn base(ring: usize) -> u64 {
        0x1000 * (ring as u64 + 1)
    }

    /// Makes the rings new, as after a reset. Buffers stay.
    pub fn restart(&mut self) {
        for ring in 0..self.rings.len() {
            self.put(Self::base(ring), &[0; 0x1000]);
            self.rings[ring] = Ring::default();
        }
    }

    /// Writes into guest memory on the driver's own account, if it is all there.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        let start = address as usize;
        let Some(before) = self.before.get_mut(start..start.saturating_add(bytes.len())) else {
            return false;
        };
        before.copy_from_slice(bytes);
        self.exact &= address >= BUFFERS;
        self.put(address, bytes);
        true
    }

    /// Offers a chain of (address, length, flags); the result is its head, if it has one.
    pub fn offer(
        &mut self,
        ring: usize,
        chain: &[(u64, u32, u16)],
        on_to: Option<u16>,
    ) -> Option<u16> {
        let head = self.rings[ring].descriptor;
        for (index, (address, length, flags)) in chain.iter().enumerate().take(SIZE.into()) {
            let at = self.rings[ring].descriptor;
            let following = (at + 1) % SIZE;
            self.rings[ring].descriptor = following;
            let last = index + 1 == chain.len();
            let next = if last { on_to } else { Some(following) };
            let flags = flags & !NEXT | if next.is_some() { NEXT } else { 0 };
            let place = Self::base(ring) + 16 * u64::from(at);
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&address.to_le_bytes());
            descriptor[8..12].copy_from_slice(&length.to_le_bytes());
            descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
            descriptor[14..].copy_from_slice(&next.unwrap_or(0).to_le_bytes());
            self.put(place, &descriptor);
            if flags & WRITABLE != 0 {
                self.writable.push((*address, (*length).into()));
            }
            let whole = address.checked_add((*length).into()).is_some();
            self.exact &=
                flags & INDIRECT == 0 && (flags & WRITABLE == 0 || (whole && *address >= BUFFERS));
        }
        if chain.is_empty() {
            return None;
        }
        let base = Self::base(ring) + AVAILABLE;
        let offered = &mut self.rings[ring].offered;
        let slot = base + 4 + 2 * u64::from(*offered % SIZE);
        *offered = offered.wrapping_add(1);
        let offered = *offered;
        self.put(slot, &head.to_le_bytes());
        self.put(base + 2, &offered.to_le_bytes());
        Some(head)
    }

    /// Offers a chain as the fuzzer made it up.
    pub fn offer_any(&mut self, ring: usize, chain: &Chain) {
        let parts: Vec<_> = chain.buffers.iter().map(Buffer::parts).collect();
        self.offer(ring, &parts, chain.on_to);
    }

    /// The chains that were used since the last call: head and length. The device has not used more
    /// than it was offered.
    pub fn used(&mut self, ring: usize) -> Vec<(u32, u32)> {
        let base = Self::base(ring) + USED;
        let index: u16 = self.memory.read_obj(GuestAddress(base + 2)).expect("in memory");
        let Ring { offered, seen, .. } = self.rings[ring];
        if self.exact {
            let open = offered.wrapping_sub(seen);
            assert!(index.wrapping_sub(seen) <= open, "ring {ring}: used is ahead of available");
        }
        let mut used = Vec::new();
        for position in 0..index.wrapping_sub(seen).min(SIZE) {
            let entry = seen.wrapping_add(position) % SIZE;
            let at = base + 4 + 8 * u64::from(entry);
            used.push((
                self.memory.read_obj(GuestAddress(at)).expect("in memory"),
                self.memory.read_obj(GuestAddress(at + 4)).expect("in memory"),
            ));
        }
        self.rings[ring].seen = index;
        used
    }

    pub fn exact(&self) -> bool {
        self.exact
    }

    /// Memory has changed in used rings and in what the device may write to, and nowhere else.
    pub fn check_memory(&self) {
        if !self.exact {
            return;
        }
        let mut after = vec![0; MEMORY as usize];
        self.memory.read_slice(&mut after, GuestAddress(0)).expect("in memory");
        let pages = self.before.chunks(0x1000).zip(after.chunks(0x1000));
        for (start, (before, after)) in (0u64..).step_by(0x1000).zip(pages) {
            if start < BUFFERS || before == after {
                continue;
            }
            for (at, _) in (start..).zip(before.iter().zip(after)).filter(|(_, (a, b))| a != b) {
                let may = |(start, length): &(u64, u64)| at.wrapping_sub(*start) < *length;
                assert!(self.writable.iter().any(may), "byte {at:#x}");
            }
        }
        for ring in 0..self.rings.len() {
            let behind = USED + 6 + 8 * u64::from(SIZE);
            let page = Self::base(ring) as usize;
            let rest = &after[page + behind as usize..page + 0x1000];
            assert!(*rest == [0; 0x1000][..rest.len()], "behind ring {ring}");
        }
        assert!(after[..0x1000] == [0; 0x1000], "before the rings");
    }
}
