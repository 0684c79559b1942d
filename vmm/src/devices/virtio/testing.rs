//! The driver's side of a device, for tests: rings in guest memory and what they say.

use super::{Activation, InterruptController, Registry};
use crate::memory::{Backing, GuestMemory, allocate};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::eventfd::EventFd;

pub const WRITABLE: u16 = 2;
const NEXT: u16 = 1;
/// Each ring has its parts in pages of its own.
const RING_PAGES: u64 = ZEROES.len() as u64;
const ZEROES: [u8; 0x4000] = [0; 0x4000];
/// Where buffers begin.
pub const BUFFERS: u64 = 0x10_0000;

/// Counts interrupts.
#[derive(Debug, Default)]
pub struct Lines(pub AtomicU32);

impl InterruptController for Lines {
    fn route(&self, _line: u8, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }

    fn raise(&self, _line: u8) -> Result<(), kvm_ioctls::Error> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// The rings of one queue.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    base: u64,
    size: u16,
    next: u16,
    seen: u16,
}

/// A driver with its memory and rings.
#[derive(Debug)]
pub struct Driver {
    pub memory: GuestMemory,
    pub rings: Vec<Ring>,
    pub lines: Arc<Lines>,
    pub epoll: Arc<Epoll>,
}

impl Driver {
    pub fn new(sizes: &[u16]) -> Self {
        Self::on(allocate(16 << 20, Backing::Private).unwrap(), sizes)
    }

    /// A driver in memory that may have been another's before.
    pub fn on(memory: GuestMemory, sizes: &[u16]) -> Self {
        let rings = (1..)
            .zip(sizes)
            .map(|(index, size)| Ring { base: index * RING_PAGES, size: *size, next: 0, seen: 0 })
            .collect();
        let epoll = Arc::new(Epoll::new().unwrap());
        let mut driver = Self { memory, rings, lines: Arc::default(), epoll };
        driver.restart();
        driver
    }

    /// Makes all rings new, as after a reset.
    pub fn restart(&mut self) {
        for ring in &mut self.rings {
            self.memory.write_slice(&ZEROES, GuestAddress(ring.base)).unwrap();
            (ring.next, ring.seen) = (0, 0);
        }
    }

    pub fn registry(&self) -> Registry {
        Registry::new(self.epoll.clone(), 0)
    }

    pub fn kicks<const N: usize>(&self) -> [Arc<EventFd>; N] {
        std::array::from_fn(|_| Arc::new(EventFd::new(0x800).unwrap()))
    }

    pub fn activation(&self, features: u64) -> Activation {
        let queues = self
            .rings
            .iter()
            .map(|ring| {
                let mut queue = Queue::new(ring.size).unwrap();
                queue.set_size(ring.size);
                queue.set_desc_table_address(u32::try_from(ring.base).ok(), None);
                queue.set_avail_ring_address(u32::try_from(ring.base + 0x1000).ok(), None);
                queue.set_used_ring_address(u32::try_from(ring.base + 0x2000).ok(), None);
                queue.set_event_idx(features & (1 << 29) != 0);
                queue.set_ready(true);
                assert!(queue.is_valid(&self.memory));
                queue
            })
            .collect();
        Activation { memory: self.memory.clone(), queues, features }
    }

    /// Offers a chain of (address, length, flags) whose head is descriptor `head`.
    pub fn offer(&mut self, ring: usize, head: u16, chain: &[(u64, u32, u16)]) {
        let memory = &self.memory;
        let ring = &mut self.rings[ring];
        for (index, (address, length, flags)) in (head..).zip(chain) {
            let last = index == head + u16::try_from(chain.len()).unwrap() - 1;
            let at = ring.base + 16 * u64::from(index % ring.size);
            memory.write_obj(*address, GuestAddress(at)).unwrap();
            memory.write_obj(*length, GuestAddress(at + 8)).unwrap();
            let flags = flags | if last { 0 } else { NEXT };
            memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
            memory.write_obj((index + 1) % ring.size, GuestAddress(at + 14)).unwrap();
        }
        let slot = ring.base + 0x1004 + 2 * u64::from(ring.next % ring.size);
        memory.write_obj(head, GuestAddress(slot)).unwrap();
        ring.next = ring.next.wrapping_add(1);
        memory.write_obj(ring.next, GuestAddress(ring.base + 0x1002)).unwrap();
    }

    /// The chains that were used since the last call: head and length.
    pub fn used(&mut self, ring: usize) -> Vec<(u32, u32)> {
        let memory = &self.memory;
        let ring = &mut self.rings[ring];
        let index: u16 = memory.read_obj(GuestAddress(ring.base + 0x2002)).unwrap();
        let mut used = Vec::new();
        while ring.seen != index {
            let at = ring.base + 0x2004 + 8 * u64::from(ring.seen % ring.size);
            used.push((
                memory.read_obj(GuestAddress(at)).unwrap(),
                memory.read_obj(GuestAddress(at + 4)).unwrap(),
            ));
            ring.seen = ring.seen.wrapping_add(1);
        }
        used
    }
}
