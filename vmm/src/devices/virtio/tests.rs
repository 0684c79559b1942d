//! The registers, as a driver uses and misuses them.

use super::mmio::{Registers, Request};
use super::testing::Lines;
use super::{Identity, Interrupt};
use crate::memory::{Backing, GuestMemory, allocate};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::EventFd;

const STATUS: u64 = 0x70;

struct Driver {
    registers: Registers,
    memory: GuestMemory,
    lines: Arc<Lines>,
    kicks: Vec<Arc<EventFd>>,
}

impl Driver {
    fn new() -> Self {
        let lines = Arc::new(Lines::default());
        let identity = Identity {
            id: 19,
            features: (1 << 32) | 2,
            queue_sizes: &[8, 8],
            config: vec![1, 2, 3],
        };
        let kicks: Vec<_> = (0..2).map(|_| Arc::new(EventFd::new(0x800).unwrap())).collect();
        let interrupt = Interrupt::new(lines.clone(), 1);
        let registers = Registers::new(identity, interrupt, kicks.clone());
        Self { registers, memory: allocate(4 << 20, Backing::Private).unwrap(), lines, kicks }
    }

    fn write(&mut self, offset: u64, value: u32) -> Option<Request> {
        self.registers.write(offset, &value.to_le_bytes(), &self.memory)
    }

    fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.registers.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    /// Up to FEATURES_OK with VERSION_1 accepted.
    fn negotiate(&mut self) {
        self.write(STATUS, 1);
        self.write(STATUS, 3);
        self.write(0x24, 1);
        self.write(0x20, 1);
        self.write(STATUS, 11);
        assert_eq!(self.read(STATUS), 11);
    }

    fn set_up_queue(&mut self, queue: u32, address: u32) {
        self.write(0x30, queue);
        self.write(0x38, 8);
        self.write(0x80, address);
        self.write(0x90, address + 0x1000);
        self.write(0xa0, address + 0x2000);
        self.write(0x44, 1);
    }
}

#[test]
fn a_driver_that_keeps_the_order_gets_its_device() {
    let mut driver = Driver::new();
    assert_eq!((driver.read(0), driver.read(4), driver.read(8)), (0x7472_6976, 2, 19));
    driver.negotiate();
    driver.set_up_queue(0, 0x10_0000);
    driver.set_up_queue(1, 0x20_0000);
    let Some(Request::Activate { queues, features }) = driver.write(STATUS, 15) else {
        panic!("not activated");
    };
    assert_eq!(features, 1 << 32);
    assert_eq!(queues[1].desc_table(), 0x20_0000);
}

#[test]
fn nothing_of_a_queue_changes_after_driver_ok() {
    let mut driver = Driver::new();
    driver.negotiate();
    driver.set_up_queue(0, 0x10_0000);
    driver.set_up_queue(1, 0x20_0000);
    driver.write(STATUS, 15).unwrap();
    driver.set_up_queue(0, 0x30_0000);
    assert_eq!(driver.read(0x44), 0, "the device has the queues");
    assert!(driver.write(STATUS, 15).is_none(), "activated once only");
}

#[test]
fn a_step_out_of_order_is_not_taken() {
    for step in [2, 4, 8, 3, 15, 0x100] {
        let mut driver = Driver::new();
        driver.write(STATUS, step);
        assert_eq!(driver.read(STATUS), 0, "{step}");
    }
}

#[test]
fn features_that_were_not_offered_are_not_accepted() {
    let mut driver = Driver::new();
    driver.write(STATUS, 1);
    driver.write(STATUS, 3);
    driver.write(0x24, 1);
    driver.write(0x20, 1);
    driver.write(0x24, 0);
    driver.write(0x20, 4);
    driver.write(STATUS, 11);
    assert_eq!(driver.read(STATUS), 3);
}

#[test]
fn a_queue_outside_of_memory_needs_a_reset() {
    let mut driver = Driver::new();
    driver.negotiate();
    driver.set_up_queue(0, 0x10_0000);
    driver.set_up_queue(1, 0xf000_0000);
    assert!(driver.write(STATUS, 15).is_none());
    assert_eq!(driver.read(STATUS) & 64, 64);
}

#[test]
fn a_reset_gives_the_device_back_only_if_it_was_given() {
    let mut driver = Driver::new();
    driver.negotiate();
    assert!(driver.write(STATUS, 0).is_none());
    driver.negotiate();
    driver.set_up_queue(0, 0x10_0000);
    driver.set_up_queue(1, 0x20_0000);
    driver.write(STATUS, 15).unwrap();
    assert!(matches!(driver.write(STATUS, 0), Some(Request::Reset)));
    assert_eq!(driver.read(STATUS), 0);
}

#[test]
fn a_ring_that_kvm_does_not_take_reaches_the_device() {
    let mut driver = Driver::new();
    driver.write(0x50, 1);
    assert_eq!(driver.kicks[1].read().unwrap(), 1);
    driver.write(0x50, 2);
}

#[test]
fn the_configuration_ends_where_it_ends() {
    let driver = Driver::new();
    let mut bytes = [9; 8];
    driver.registers.read(0x101, &mut bytes);
    assert_eq!(bytes, [2, 3, 0, 0, 0, 0, 0, 0]);
    driver.registers.read(u64::MAX, &mut bytes);
    assert_eq!(bytes, [0; 8]);
}

#[test]
fn a_device_in_need_of_a_reset_says_so() {
    let mut driver = Driver::new();
    driver.registers.set_needs_reset().unwrap();
    assert_eq!(driver.read(STATUS), 64);
    assert_eq!(driver.read(0x60), 2);
    assert_eq!(driver.lines.0.load(Ordering::SeqCst), 1);
    driver.write(0x64, 2);
    assert_eq!(driver.read(0x60), 0);
}

proptest! {
    #[test]
    fn any_accesses_are_survived_and_only_valid_queues_handed_over(
        accesses in proptest::collection::vec(
            (prop_oneof![0u64..0x200, Just(STATUS), any::<u64>()], any::<u32>(), 0usize..9), 0..200),
    ) {
        let mut driver = Driver::new();
        for (offset, value, length) in accesses {
            let mut bytes = [0xff; 8];
            driver.registers.read(offset, &mut bytes[..length]);
            let value = if offset == STATUS { value % 16 } else { value };
            if let Some(Request::Activate { queues, .. }) = driver.write(offset, value) {
                for queue in queues {
                    prop_assert!(queue.is_valid(&driver.memory));
                }
            }
        }
    }
}
