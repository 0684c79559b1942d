//! Rules that hold for all devices, each named as SECURITY.md lists it.

use super::blk::{Backend, Requests};
use super::rng::Rng;
use super::testing::{BUFFERS, Driver, WRITABLE};
use super::vsock::Vsock;
use super::{Device, DeviceError, Interrupt};
use crate::control;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use virtio_queue::QueueOwnedT;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

const VERSION_1: u64 = 1 << 32;
const NEXT: u16 = 1;
const INDIRECT: u16 = 4;

/// Chains as a driver would lay them out for the queue, of at least two descriptors.
type Chain = Vec<(u64, u32, u16)>;

/// A device with the queue that a test is about, and a valid chain for it.
struct Subject {
    name: &'static str,
    driver: Driver,
    ring: usize,
    chain: Chain,
    work: Box<dyn FnMut() -> Result<(), DeviceError>>,
}

impl Subject {
    /// Offers a chain and lets the device work.
    fn offer(&mut self, chain: &[(u64, u32, u16)]) -> Result<(), DeviceError> {
        self.driver.offer(self.ring, 0, chain);
        (self.work)()
    }

    fn descriptor(&self, index: u64) -> GuestAddress {
        GuestAddress(0x4000 * (self.ring as u64 + 1) + 16 * index)
    }
}

fn rng() -> Subject {
    let driver = Driver::new(&[64]);
    let [kick] = driver.kicks();
    let interrupt = Interrupt::new(driver.lines.clone(), 1);
    let mut device = Rng::new(driver.registry(), interrupt, kick).unwrap();
    device.activate(driver.activation(VERSION_1)).unwrap();
    let chain = vec![(BUFFERS, 8, WRITABLE), (BUFFERS + 64, 8, WRITABLE)];
    let work = Box::new(move || device.event(0, EventSet::IN));
    Subject { name: "rng", driver, ring: 0, chain, work }
}

fn vsock(ring: usize) -> Subject {
    let mut driver = Driver::new(&[128, 128, 8]);
    let (monitor, supervisor) = control::pair().unwrap();
    let interrupt = Interrupt::new(driver.lines.clone(), 1);
    let kicks = driver.kicks();
    let mut device = Vsock::new(driver.registry(), interrupt, kicks, Arc::new(monitor)).unwrap();
    device.activate(driver.activation(VERSION_1)).unwrap();
    // A packet from the guest for no connection, which is owed a reset.
    let mut header = [0; 44];
    header[0] = 3;
    header[8] = 2;
    header[28] = 1;
    header[30] = 5;
    driver.memory.write_slice(&header, GuestAddress(BUFFERS + 0x8000)).unwrap();
    let packet = vec![(BUFFERS + 0x8000, 30, 0), (BUFFERS + 0x8000 + 30, 14, 0)];
    let room = vec![(BUFFERS, 30, WRITABLE), (BUFFERS + 0x1000, 100, WRITABLE)];
    let chain = if ring == 0 {
        driver.offer(1, 0, &packet);
        room
    } else {
        packet
    };
    let work = Box::new(move || {
        // The supervisor is there for as long as the device is.
        let _ = &supervisor;
        device.event(1, EventSet::IN)
    });
    let name = ["vsock receive", "vsock transmit"][ring];
    Subject { name, driver, ring, chain, work }
}

fn disk() -> Subject {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, &[1; 4096]).unwrap();
    let driver = Driver::new(&[128]);
    let interrupt = Interrupt::new(driver.lines.clone(), 1);
    let serial = "disk".to_owned().try_into().unwrap();
    let backend = Backend::new(File::open(file.path()).unwrap().into(), serial, true).unwrap();
    let activation = driver.activation(VERSION_1);
    let mut requests = Requests::new(Arc::new(backend), interrupt, activation).unwrap();
    let chain = vec![(BUFFERS, 16, 0), (BUFFERS + 64, 512, WRITABLE), (BUFFERS + 800, 1, WRITABLE)];
    let work = Box::new(move || requests.serve(&AtomicBool::new(false)));
    Subject { name: "disk", driver, ring: 0, chain, work }
}

fn subjects() -> [Subject; 4] {
    [rng(), vsock(0), vsock(1), disk()]
}

/// The driver lost its device.
fn is_refused(result: &Result<(), DeviceError>) -> bool {
    matches!(result, Err(DeviceError::Driver(_) | DeviceError::Queue(_)))
}

#[test]
fn a_valid_chain_is_used() {
    for mut subject in subjects() {
        let chain = subject.chain.clone();
        subject.offer(&chain).unwrap();
        assert_eq!(subject.driver.used(subject.ring).len(), 1, "{}", subject.name);
    }
}

#[test]
fn a_chain_that_loops_ends() {
    for mut subject in subjects() {
        let mut chain = subject.chain.clone();
        let last = chain.last_mut().unwrap();
        last.2 |= NEXT;
        let index = chain.len() as u64 - 1;
        let result = {
            subject.driver.offer(subject.ring, 0, &chain);
            // The last one goes on with itself.
            let next = subject.descriptor(index).0 + 14;
            let number = u16::try_from(index).unwrap();
            subject.driver.memory.write_obj(number, GuestAddress(next)).unwrap();
            (subject.work)()
        };
        assert!(is_refused(&result), "{}: {result:?}", subject.name);
    }
}

#[test]
fn a_chain_whose_lengths_overflow_costs_the_driver_its_device() {
    for mut subject in subjects() {
        let flags = subject.chain[0].2;
        let chain = vec![(BUFFERS, u32::MAX, flags); 4];
        let result = subject.offer(&chain);
        assert!(is_refused(&result), "{}: {result:?}", subject.name);
    }
}

#[test]
fn a_buffer_to_read_after_one_to_write_costs_the_driver_its_device() {
    for mut subject in subjects() {
        let chain = [(BUFFERS, 64, WRITABLE), (BUFFERS + 0x1000, 64, 0)];
        let result = subject.offer(&chain);
        assert!(is_refused(&result), "{}: {result:?}", subject.name);
    }
}

#[test]
fn a_buffer_of_the_wrong_direction_costs_the_driver_its_device() {
    for mut subject in subjects() {
        let chain: Chain = subject.chain.iter().map(|it| (it.0, it.1, it.2 ^ WRITABLE)).collect();
        let result = subject.offer(&chain);
        assert!(is_refused(&result), "{}: {result:?}", subject.name);
    }
}

#[test]
fn a_table_of_descriptors_within_another_costs_the_driver_its_device() {
    for mut subject in subjects() {
        let (outer, inner) = (BUFFERS + 0x2_0000, BUFFERS + 0x2_1000);
        let memory = &subject.driver.memory;
        for (at, address, flags) in
            [(outer, inner, INDIRECT), (inner, subject.chain[0].0, subject.chain[0].2)]
        {
            memory.write_obj(address, GuestAddress(at)).unwrap();
            memory.write_obj(16_u32, GuestAddress(at + 8)).unwrap();
            memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        }
        let result = subject.offer(&[(outer, 16, INDIRECT)]);
        assert!(is_refused(&result), "{}: {result:?}", subject.name);
    }
}

#[test]
fn more_heads_than_the_ring_has_cost_the_driver_its_device() {
    for mut subject in subjects() {
        let index = subject.descriptor(0).0 + 0x1002;
        subject.driver.memory.write_obj(129_u16, GuestAddress(index)).unwrap();
        let result = (subject.work)();
        assert!(is_refused(&result), "{}: {result:?}", subject.name);
    }
}

#[test]
fn a_head_beyond_the_table_costs_the_driver_its_device() {
    for mut subject in subjects() {
        let chain = subject.chain.clone();
        subject.driver.offer(subject.ring, 0, &chain);
        let head = subject.descriptor(0).0 + 0x1004;
        subject.driver.memory.write_obj(u16::MAX, GuestAddress(head)).unwrap();
        let result = (subject.work)();
        assert!(is_refused(&result), "{}: {result:?}", subject.name);
    }
}

/// Bounded work per kick: a driver that offers faster than the device works doesn't keep the main
/// loop from everything else. (A disk has a thread of its own, which nobody waits for.)
#[test]
fn a_driver_that_never_stops_offering_does_not_keep_the_main_loop() {
    for mut subject in [rng(), vsock(1)] {
        let chain = subject.chain.clone();
        subject.driver.offer(subject.ring, 0, &chain);
        let memory = subject.driver.memory.clone();
        let ring = subject.descriptor(0).0;
        let returned = Arc::new(AtomicBool::new(false));
        let flooding = returned.clone();
        let flood = std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_secs(20);
            while !flooding.load(Ordering::SeqCst) && Instant::now() < end {
                // As many as there may be, all of them the first chain.
                let used: u16 = memory.read_obj(GuestAddress(ring + 0x2002)).unwrap();
                memory.write_obj(used.wrapping_add(60), GuestAddress(ring + 0x1002)).unwrap();
            }
            flooding.load(Ordering::SeqCst)
        });
        let result = (subject.work)();
        returned.store(true, Ordering::SeqCst);
        assert!(flood.join().unwrap(), "{}: it goes on", subject.name);
        result.unwrap();
    }
}

/// What a disk is, nothing in it can say: it has no format but its bytes.
#[test]
fn a_disk_is_its_bytes_whatever_they_look_like() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // A QCOW2 header with the name of a backing file.
    let mut image = [0; 1024];
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    image[15] = 104;
    image[19] = 11;
    image[104..115].copy_from_slice(b"/etc/passwd");
    std::io::Write::write_all(&mut file, &image).unwrap();
    let serial = "disk".to_owned().try_into().unwrap();
    let backend = Backend::new(File::open(file.path()).unwrap().into(), serial, true).unwrap();
    let mut driver = Driver::new(&[128]);
    let interrupt = Interrupt::new(driver.lines.clone(), 1);
    let activation = driver.activation(VERSION_1);
    let mut requests = Requests::new(Arc::new(backend), interrupt, activation).unwrap();
    let status = (BUFFERS + 0x1000, 1, WRITABLE);
    driver.offer(0, 0, &[(BUFFERS, 16, 0), (BUFFERS + 64, 1024, WRITABLE), status]);
    requests.serve(&AtomicBool::new(false)).unwrap();
    assert_eq!(driver.used(0), [(0, 1025)]);
    let mut bytes = [0; 1024];
    driver.memory.read_slice(&mut bytes, GuestAddress(BUFFERS + 64)).unwrap();
    assert_eq!(bytes, image);
}

/// Everything is read once: what the driver changes after that changes nothing. (A driver that
/// changes it meanwhile: `tests/fuzz`, virtio_blk and virtio_vsock.)
#[test]
fn a_chain_that_changes_after_it_was_read_is_what_it_was() {
    let mut subject = disk();
    let chain = subject.chain.clone();
    subject.driver.offer(0, 0, &chain);
    let mut queue = subject.driver.activation(VERSION_1).queues.remove(0);
    let memory = subject.driver.memory.clone();
    let chain = queue.iter(&memory).unwrap().next().unwrap();
    let mut read = super::chain::Chain::read(chain, &memory, 128).unwrap();
    let mut header = [0xff; 16];
    assert!(read.readable.take_first(&mut header));
    memory.write_slice(&[0xff; 48], subject.descriptor(0)).unwrap();
    memory.write_slice(&[0xff; 16], GuestAddress(BUFFERS)).unwrap();
    assert_eq!(header, [0; 16]);
    assert_eq!((read.readable.length(), read.writable.length()), (0, 513));
    assert_eq!(read.writable.slices().len(), 2);
}

/// The product's profile: a panic ends the process, and arithmetic is checked.
#[test]
fn the_product_aborts_on_panics_and_checks_arithmetic() {
    let manifest = include_str!("../../../../Cargo.toml");
    let profile = |name: &str| {
        let (_, rest) = manifest.split_once(&format!("[{name}]\n")).unwrap();
        rest.split("\n[").next().unwrap()
    };
    assert!(profile("profile.release").contains("panic = \"abort\""));
    for package in ["sandbox-fs", "sandbox-vmm"] {
        let profile = profile(&format!("profile.release.package.{package}"));
        assert!(profile.contains("overflow-checks = true"), "{package}");
    }
}

/// No device offers indirect descriptors, the ballooning of memory, or anything else that is not
/// needed: what there is is listed here.
#[test]
fn devices_offer_what_is_listed_and_nothing_else() {
    const EVENT_IDX: u64 = 1 << 29;
    let driver = Driver::new(&[128, 128, 8]);
    let interrupt = || Interrupt::new(driver.lines.clone(), 1);
    let (monitor, _supervisor) = control::pair().unwrap();
    let vsock = Vsock::new(driver.registry(), interrupt(), driver.kicks(), Arc::new(monitor));
    let identity = vsock.unwrap().identity();
    assert_eq!((identity.id, identity.features), (19, VERSION_1 | EVENT_IDX));
    let [kick] = driver.kicks();
    let identity = Rng::new(driver.registry(), interrupt(), kick).unwrap().identity();
    assert_eq!((identity.id, identity.features), (4, VERSION_1));
}
