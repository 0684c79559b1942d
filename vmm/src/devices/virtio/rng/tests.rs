use super::Rng;
use crate::devices::virtio::testing::{BUFFERS, Driver, WRITABLE};
use crate::devices::virtio::{Device, DeviceError, Interrupt};
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

fn device(driver: &Driver) -> Rng {
    let [kick] = driver.kicks();
    let interrupt = Interrupt::new(driver.lines.clone(), 1);
    Rng::new(driver.registry(), interrupt, kick).unwrap()
}

#[test]
fn a_buffer_is_filled_and_the_driver_interrupted() {
    let mut driver = Driver::new(&[64]);
    let mut rng = device(&driver);
    rng.activate(driver.activation(1 << 32)).unwrap();
    driver.offer(0, 0, &[(BUFFERS, 64, WRITABLE)]);
    rng.event(0, EventSet::IN).unwrap();
    assert_eq!(driver.used(0), [(0, 64)]);
    let mut bytes = [0; 64];
    driver.memory.read_slice(&mut bytes, GuestAddress(BUFFERS)).unwrap();
    assert_ne!(bytes, [0; 64]);
    assert_eq!(driver.lines.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_huge_buffer_is_filled_in_part() {
    let mut driver = Driver::new(&[64]);
    let mut rng = device(&driver);
    rng.activate(driver.activation(1 << 32)).unwrap();
    driver.offer(0, 0, &[(BUFFERS, 1 << 20, WRITABLE)]);
    rng.event(0, EventSet::IN).unwrap();
    assert_eq!(driver.used(0), [(0, 256)]);
}

#[test]
fn a_buffer_outside_of_memory_costs_the_driver_its_device() {
    let mut driver = Driver::new(&[64]);
    let mut rng = device(&driver);
    rng.activate(driver.activation(1 << 32)).unwrap();
    driver.offer(0, 0, &[(1 << 40, 64, WRITABLE)]);
    let error = rng.event(0, EventSet::IN).unwrap_err();
    assert!(matches!(error, DeviceError::Driver(_) | DeviceError::Queue(_)), "{error}");
}

proptest! {
    #[test]
    fn no_ring_makes_it_fail_but_as_the_drivers_fault(
        chain in proptest::collection::vec((any::<u64>(), any::<u32>(), 0u16..8), 1..5),
        head in any::<u16>(),
    ) {
        let mut driver = Driver::new(&[64]);
        let mut rng = device(&driver);
        rng.activate(driver.activation(1 << 32)).unwrap();
        driver.offer(0, head % 64, &chain);
        let result = rng.event(0, EventSet::IN);
        prop_assert!(!matches!(result, Err(DeviceError::Host(_) | DeviceError::WorkerGone)));
    }
}
