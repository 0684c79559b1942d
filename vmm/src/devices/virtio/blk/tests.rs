use super::backend::Backend;
use super::request::QUEUE_SIZE;
use super::{Blk, DiskError, Requests};
use crate::config::Serial;
use crate::devices::virtio::testing::{BUFFERS, Driver, WRITABLE};
use crate::devices::virtio::{Device, DeviceError, Interrupt, Registry};
use crate::memory::{self, GuestMemory, allocate};
use proptest::prelude::*;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const FLUSH: u64 = 1 << 9;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH_REQUEST: u32 = 4;
const GET_ID: u32 = 8;

const SECTOR: usize = 512;
const SECTORS: u64 = 64;
/// Bytes of the disk, and of memory.
const SIZE: usize = 64 * SECTOR;
const MEMORY: usize = 2 << 20;

const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x20;
const DATA: u64 = BUFFERS + 0x1000;

fn contents() -> Vec<u8> {
    (0..SIZE).map(|at| low_byte(at / SECTOR * 31 + at)).collect()
}

fn low_byte(number: usize) -> u8 {
    number.to_le_bytes()[0]
}

fn disk_file() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&contents()).unwrap();
    file
}

fn backend(file: &NamedTempFile, read_only: bool) -> Backend {
    let opened = File::options().read(true).write(!read_only).open(file.path()).unwrap();
    Backend::new(opened.into(), serial("disk-0"), read_only).unwrap()
}

fn serial(name: &str) -> Serial {
    name.to_owned().try_into().unwrap()
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

fn small_memory() -> GuestMemory {
    allocate(MEMORY as u64, memory::Backing::Private).unwrap()
}

/// A disk whose requests are served when the test says so.
struct Disk {
    driver: Driver,
    requests: Requests,
    file: NamedTempFile,
}

impl Disk {
    fn new(read_only: bool) -> Self {
        Self::on(small_memory(), disk_file(), read_only, VERSION_1 | FLUSH)
    }

    fn on(memory: GuestMemory, file: NamedTempFile, read_only: bool, features: u64) -> Self {
        let driver = Driver::on(memory, &[QUEUE_SIZE]);
        let interrupt = Interrupt::new(driver.lines.clone(), 1);
        let backend = Arc::new(backend(&file, read_only));
        let requests = Requests::new(backend, interrupt, driver.activation(features)).unwrap();
        Self { driver, requests, file }
    }

    fn serve(&mut self) -> Result<(), DeviceError> {
        self.requests.serve(&AtomicBool::new(false))
    }

    /// The status and the length that a request with these buffers is answered with.
    fn ask(&mut self, kind: u32, sector: u64, data: &[(u64, u32, u16)]) -> (u8, u32) {
        let memory = &self.driver.memory;
        memory.write_slice(&header(kind, sector), GuestAddress(HEADER)).unwrap();
        memory.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
        let mut chain = vec![(HEADER, 16, 0)];
        chain.extend(data);
        chain.push((STATUS, 1, WRITABLE));
        self.driver.offer(0, 0, &chain);
        self.serve().unwrap();
        let used = self.driver.used(0);
        assert_eq!(used.len(), 1);
        assert_eq!(used[0].0, 0);
        (self.driver.memory.read_obj(GuestAddress(STATUS)).unwrap(), used[0].1)
    }

    /// What becomes of a chain that begins with this header.
    fn offer(&mut self, header: &[u8], chain: &[(u64, u32, u16)]) -> Result<(), DeviceError> {
        self.driver.memory.write_slice(header, GuestAddress(HEADER)).unwrap();
        self.driver.offer(0, 0, chain);
        self.serve()
    }

    fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.driver.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn on_disk(&self) -> Vec<u8> {
        std::fs::read(self.file.path()).unwrap()
    }
}

#[test]
fn sectors_are_read_into_the_buffers_and_the_driver_interrupted() {
    let mut disk = Disk::new(true);
    let data = [(DATA, 512, WRITABLE), (DATA + 0x1000, 1024, WRITABLE)];
    assert_eq!(disk.ask(IN, 5, &data), (0, 1537));
    let contents = contents();
    assert_eq!(disk.bytes(DATA, 512), contents[5 * SECTOR..6 * SECTOR]);
    assert_eq!(disk.bytes(DATA + 0x1000, 1024), contents[6 * SECTOR..8 * SECTOR]);
    assert_eq!(disk.driver.lines.0.load(Ordering::SeqCst), 1);
}

/// "The device MUST NOT make assumptions about the particular arrangement of descriptors" (§2.7.4.1).
#[test]
fn a_request_may_be_cut_into_buffers_anyhow() {
    let mut disk = Disk::new(false);
    let read = header(IN, 2);
    disk.driver.memory.write_slice(&read[7..], GuestAddress(HEADER + 0x100)).unwrap();
    // Two buffers of header; then data and status in common ones, and empty ones in between.
    let chain = [
        (HEADER, 7, 0),
        (0, 0, 0),
        (HEADER + 0x100, 9, 0),
        (DATA, 1, WRITABLE),
        (u64::MAX, 0, WRITABLE),
        (DATA + 1, 512, WRITABLE),
    ];
    disk.offer(&read[..7], &chain).unwrap();
    assert_eq!(disk.driver.used(0), [(0, 513)]);
    assert_eq!(disk.bytes(DATA, 512), contents()[2 * SECTOR..3 * SECTOR]);
    assert_eq!(disk.bytes(DATA + 512, 1), [0]);

    // Header and data in one buffer.
    let mut write = header(OUT, 3).to_vec();
    write.extend([7; SECTOR]);
    disk.offer(&write, &[(HEADER, 528, 0), (STATUS, 1, WRITABLE)]).unwrap();
    assert_eq!(disk.driver.used(0), [(0, 1)]);
    assert_eq!(disk.on_disk()[3 * SECTOR..4 * SECTOR], [7; SECTOR]);
}

#[test]
fn what_is_written_is_in_the_file_and_nothing_else_changes() {
    for features in [VERSION_1 | FLUSH, VERSION_1] {
        let mut disk = Disk::on(small_memory(), disk_file(), false, features);
        disk.driver.memory.write_slice(&[9; 1024], GuestAddress(DATA)).unwrap();
        assert_eq!(disk.ask(OUT, 62, &[(DATA, 1000, 0), (DATA, 24, 0)]), (0, 1));
        assert_eq!(disk.ask(FLUSH_REQUEST, 0, &[]), (0, 1));
        // Data is not wanted, and does no harm.
        assert_eq!(disk.ask(FLUSH_REQUEST, 0, &[(DATA, 512, 0)]), (0, 1));
        assert_eq!(disk.ask(FLUSH_REQUEST, 0, &[(DATA, 512, WRITABLE)]), (0, 0));
        let mut expected = contents();
        expected[62 * SECTOR..].fill(9);
        assert_eq!(disk.on_disk(), expected);
    }
}

#[test]
fn nothing_is_written_to_a_read_only_disk() {
    let mut disk = Disk::new(true);
    assert_eq!(disk.ask(OUT, 0, &[(DATA, 512, 0)]), (1, 1));
    assert_eq!(disk.ask(FLUSH_REQUEST, 0, &[]), (2, 1));
    assert_eq!(disk.on_disk(), contents());
}

#[test]
fn a_disk_tells_its_serial_number() {
    let mut disk = Disk::new(true);
    disk.driver.memory.write_slice(&[0xff; 20], GuestAddress(DATA)).unwrap();
    assert_eq!(disk.ask(GET_ID, 0, &[(DATA, 15, WRITABLE), (DATA + 15, 5, WRITABLE)]), (0, 21));
    assert_eq!(disk.bytes(DATA, 20), *b"disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
}

#[test]
fn what_is_not_offered_is_unsupported() {
    let mut disk = Disk::new(false);
    // Discard, secure erase, write zeroes, and what there is not.
    for kind in [2, 3, 11, 13, 14, 15, 1 << 31, u32::MAX] {
        assert_eq!(disk.ask(kind, 0, &[(DATA, 16, 0)]), (2, 1), "{kind}");
        assert_eq!(disk.ask(kind, 0, &[(DATA, 16, WRITABLE)]), (2, 0), "{kind}");
    }
    assert_eq!(disk.on_disk(), contents());
}

#[test]
fn there_is_nothing_beyond_the_end() {
    let mut disk = Disk::new(false);
    for sector in [63, 64, 1 << 40, 1 << 55, u64::MAX / 512, u64::MAX - 1, u64::MAX] {
        assert_eq!(disk.ask(IN, sector, &[(DATA, 1024, WRITABLE)]), (1, 0), "{sector}");
        assert_eq!(disk.ask(OUT, sector, &[(DATA, 1024, 0)]), (1, 1), "{sector}");
    }
    assert_eq!(disk.ask(IN, 64, &[]), (0, 1));
    assert_eq!(disk.ask(IN, 65, &[]), (1, 1));
    assert_eq!(disk.on_disk(), contents());
}

#[test]
fn a_file_that_shrinks_has_errors_where_it_ends() {
    let mut disk = Disk::new(true);
    disk.file.as_file().set_len(3 * SECTOR as u64 + 100).unwrap();
    assert_eq!(disk.ask(IN, 0, &[(DATA, 1536, WRITABLE)]).0, 0);
    assert_eq!(disk.ask(IN, 2, &[(DATA, 1024, WRITABLE)]), (1, 0));
    assert_eq!(disk.ask(IN, 20, &[(DATA, 512, WRITABLE)]), (1, 0));
}

#[test]
fn requests_that_no_driver_sends_cost_it_the_device() {
    let end = MEMORY as u64;
    let status = (STATUS, 1, WRITABLE);
    let long = vec![(DATA, 64 << 10, WRITABLE); 125];
    let too_long: Vec<_> = std::iter::once((HEADER, 16, 0))
        .chain(long)
        .chain([(DATA, (64 << 10) + 512, WRITABLE), (DATA, 512, WRITABLE)])
        .collect();
    let table: &[&[(u64, u32, u16)]] = &[
        // No header, half a header, no status.
        &[status],
        &[(HEADER, 15, 0), status],
        &[(HEADER, 16, 0)],
        &[(HEADER, 16, 0), (DATA, 0, WRITABLE)],
        // Data in parts of sectors, of too many sectors, to be read.
        &[(HEADER, 16, 0), (DATA, 511, WRITABLE), status],
        &[(HEADER, 16, 0), (DATA, 512, WRITABLE)],
        &[(HEADER, 16, 0), (DATA, 512, 0), status],
        &too_long,
        // In the wrong order, and not in memory.
        &[(STATUS, 1, WRITABLE), (HEADER, 16, 0)],
        &[(HEADER, 16, 0), (end - 511, 512, WRITABLE), status],
        &[(HEADER, 16, 0), (u64::MAX - 511, 512, WRITABLE), status],
        &[(HEADER, 16, 0), (DATA, 512, WRITABLE), (end, 1, WRITABLE)],
        &[(1 << 40, 16, 0), status],
        // On and on.
        &[(HEADER, 16, 0), (DATA, 512, WRITABLE), (STATUS, 1, WRITABLE | 1)],
        &[(DATA, u32::MAX, WRITABLE), (DATA, u32::MAX, WRITABLE)],
    ];
    for chain in table {
        let mut disk = Disk::new(false);
        let result = disk.offer(&header(IN, 0), chain);
        assert!(matches!(result, Err(DeviceError::Driver(_))), "{chain:?}: {result:?}");
        assert_eq!(disk.driver.used(0), [], "{chain:?}");
    }
    for (kind, data) in [
        (OUT, (DATA, 512, WRITABLE)),
        (OUT, (DATA, 5, 0)),
        (GET_ID, (DATA, 19, WRITABLE)),
        (GET_ID, (DATA, 21, WRITABLE)),
        (GET_ID, (DATA, 20, 0)),
    ] {
        let mut disk = Disk::new(false);
        let result = disk.offer(&header(kind, 0), &[(HEADER, 16, 0), data, status]);
        assert!(matches!(result, Err(DeviceError::Driver(_))), "{kind} {data:?}: {result:?}");
        assert_eq!(disk.on_disk(), contents());
    }
}

#[test]
fn the_longest_request_is_served_and_no_table_of_descriptors_makes_a_longer_one() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    file.as_file().write_all_at(&[5; 512], (8 << 20) - 512).unwrap();
    let mut disk = Disk::on(small_memory(), file, true, VERSION_1);
    let data = vec![(DATA, 64 << 10, WRITABLE); 126];
    assert_eq!(disk.ask(IN, 0, &data), (0, (126 << 16) + 1));

    const INDIRECT: u16 = 4;
    let table = BUFFERS + 0x10000;
    for index in 0..1000u16 {
        let at = table + 16 * u64::from(index);
        disk.driver.memory.write_obj(DATA, GuestAddress(at)).unwrap();
        disk.driver.memory.write_obj(512u32, GuestAddress(at + 8)).unwrap();
        disk.driver.memory.write_obj(WRITABLE | 1, GuestAddress(at + 12)).unwrap();
        disk.driver.memory.write_obj(index + 1, GuestAddress(at + 14)).unwrap();
    }
    let result = disk.offer(&header(IN, 0), &[(HEADER, 16, 0), (table, 16000, INDIRECT)]);
    assert!(matches!(result, Err(DeviceError::Driver(_))), "{result:?}");
}

#[test]
fn the_driver_is_interrupted_when_it_wants_to_be() {
    let mut disk = Disk::on(small_memory(), disk_file(), true, VERSION_1 | EVENT_IDX);
    // The ring of heads is a page behind that of descriptors; used_event is at its end.
    let used_event = 0x4000 + 0x1004 + 2 * u64::from(QUEUE_SIZE);
    disk.driver.memory.write_obj(1u16, GuestAddress(used_event)).unwrap();
    for interrupts in [0, 1, 1] {
        disk.ask(IN, 0, &[(DATA, 512, WRITABLE)]);
        assert_eq!(disk.driver.lines.0.load(Ordering::SeqCst), interrupts);
    }
}

#[test]
fn a_stopped_worker_begins_no_other_request() {
    let mut disk = Disk::new(true);
    disk.driver.memory.write_slice(&header(IN, 0), GuestAddress(HEADER)).unwrap();
    disk.driver.offer(0, 0, &[(HEADER, 16, 0), (STATUS, 1, WRITABLE)]);
    disk.requests.serve(&AtomicBool::new(true)).unwrap();
    assert_eq!(disk.driver.used(0), []);
}

#[test]
fn transfers_that_are_cut_short_go_on_where_they_ended() {
    let disk = Disk::new(true);
    let chain = [(HEADER, 16, 0), (DATA, 700, WRITABLE), (DATA + 700, 325, WRITABLE)];
    disk.driver.memory.write_slice(&header(IN, 1), GuestAddress(HEADER)).unwrap();
    let mut driver = disk.driver;
    driver.offer(0, 0, &chain);
    let mut queue = driver.activation(VERSION_1).queues.remove(0);
    let chain = virtio_queue::QueueOwnedT::iter(&mut queue, &driver.memory).unwrap().next();
    let request = super::request::Request::read(chain.unwrap(), &driver.memory).unwrap();
    let file = disk.file.as_file();
    backend(&disk.file, true)
        .transfer(1, &request.data, |vectors, offset| {
            let mut bytes = vec![0; vectors[0].iov_len.min(100)];
            let count = file.read_at(&mut bytes, offset.cast_unsigned()).unwrap();
            // SAFETY: the range is in guest memory, of which nobody has references.
            unsafe { vectors[0].iov_base.cast::<u8>().copy_from(bytes.as_ptr(), count) };
            count.cast_signed()
        })
        .unwrap();
    let mut bytes = vec![0; 1024];
    driver.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
    assert_eq!(bytes, contents()[SECTOR..3 * SECTOR]);
}

#[test]
fn only_what_can_be_a_disk_becomes_one() {
    let file = disk_file();
    let open = |read_only: bool, options: &File| {
        Backend::new(options.try_clone().unwrap().into(), serial("a"), read_only)
    };
    let read = File::open(file.path()).unwrap();
    let both = File::options().read(true).write(true).open(file.path()).unwrap();
    let write = File::options().write(true).open(file.path()).unwrap();
    let append = File::options().read(true).append(true).open(file.path()).unwrap();
    for (read_only, file) in
        [(true, &both), (true, &write), (false, &read), (false, &write), (false, &append)]
    {
        assert!(matches!(open(read_only, file), Err(DiskError::Mode { .. })), "{file:?}");
    }
    for size in [0, 511, 513] {
        file.as_file().set_len(size).unwrap();
        let error = open(true, &read).unwrap_err().to_string();
        assert!(error.contains(&format!("disk a: its file has {size} bytes")), "{error}");
    }
    let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
    assert!(matches!(Backend::new(pipe, serial("a"), true), Err(DiskError::Type(_))));
}

/// A disk with its thread.
fn device(driver: &Driver, file: &NamedTempFile, read_only: bool) -> (Blk, Arc<EventFd>) {
    let kick = Arc::new(EventFd::new(0).unwrap());
    let interrupt = Interrupt::new(driver.lines.clone(), 1);
    let registry = Registry::new(driver.epoll.clone(), 7);
    let backend = backend(file, read_only);
    let mut blk = Blk::new(registry, interrupt, kick.clone(), backend).unwrap();
    let work = blk.work().unwrap();
    assert_eq!(work.name, "disk disk-0");
    std::thread::spawn(work.run);
    (blk, kick)
}

fn used(driver: &mut Driver) -> Vec<(u32, u32)> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let used = driver.used(0);
        if !used.is_empty() || Instant::now() > end {
            return used;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn the_driver_is_told_size_and_limits() {
    let (driver, file) = (Driver::on(small_memory(), &[QUEUE_SIZE]), disk_file());
    for (read_only, feature) in [(true, 1 << 5), (false, FLUSH)] {
        let identity = device(&driver, &file, read_only).0.identity();
        assert_eq!(identity.id, 2);
        assert_eq!(identity.features, VERSION_1 | EVENT_IDX | 0b110 | feature);
        assert_eq!(identity.config, [64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 126, 0, 0, 0]);
    }
}

#[test]
fn a_disk_of_its_own_thread_serves_until_it_is_reset_and_again_after() {
    let (mut driver, file) = (Driver::on(small_memory(), &[QUEUE_SIZE]), disk_file());
    let (mut blk, kick) = device(&driver, &file, true);
    driver.memory.write_slice(&header(IN, 1), GuestAddress(HEADER)).unwrap();
    let chain = [(HEADER, 16, 0), (DATA, 512, WRITABLE), (STATUS, 1, WRITABLE)];
    for _ in 0..3 {
        driver.restart();
        // Offered before the device is active, and after.
        driver.offer(0, 0, &chain);
        blk.activate(driver.activation(VERSION_1)).unwrap();
        assert_eq!(used(&mut driver), [(0, 513)]);
        for _ in 0..200 {
            driver.offer(0, 3, &chain);
            kick.write(1).unwrap();
            assert_eq!(used(&mut driver), [(3, 513)]);
        }
        blk.reset();
        driver.offer(0, 6, &chain);
        kick.write(1).unwrap();
    }
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.used(0), [], "a device that was reset owns no queue");
}

#[test]
fn the_main_loop_hears_of_a_driver_that_broke_the_protocol() {
    let (mut driver, file) = (Driver::on(small_memory(), &[QUEUE_SIZE]), disk_file());
    let (mut blk, kick) = device(&driver, &file, true);
    let mut events = [EpollEvent::default()];
    for _ in 0..2 {
        driver.restart();
        blk.activate(driver.activation(VERSION_1)).unwrap();
        driver.offer(0, 0, &[(STATUS, 1, WRITABLE)]);
        kick.write(1).unwrap();
        assert_eq!(driver.epoll.wait(20_000, &mut events).unwrap(), 1);
        assert_eq!(Registry::split(events[0].data()), (7, 0));
        assert!(matches!(blk.event(0, EventSet::IN), Err(DeviceError::Driver(_))));
        blk.reset();
    }
    // A reset that comes first makes the event one of the past, even if a new driver is active.
    driver.restart();
    driver.offer(0, 0, &[(STATUS, 1, WRITABLE)]);
    blk.activate(driver.activation(VERSION_1)).unwrap();
    assert_eq!(driver.epoll.wait(20_000, &mut events).unwrap(), 1);
    blk.reset();
    driver.restart();
    blk.activate(driver.activation(VERSION_1)).unwrap();
    blk.event(0, EventSet::IN).unwrap();
    driver.memory.write_slice(&header(GET_ID, 0), GuestAddress(HEADER)).unwrap();
    driver.offer(0, 0, &[(HEADER, 16, 0), (DATA, 21, WRITABLE)]);
    kick.write(1).unwrap();
    assert_eq!(used(&mut driver), [(0, 21)]);
}

/// Addresses and lengths of buffers, most of them in memory.
fn buffer() -> impl Strategy<Value = (u64, u32)> {
    let address = prop_oneof![
        6 => (0..0x100u64).prop_map(|n| BUFFERS + 0x100 * n),
        2 => BUFFERS..MEMORY as u64,
        1 => Just(HEADER),
        // The rings themselves.
        1 => 0x4000..0x8000u64,
        1 => any::<u64>(),
    ];
    let length = prop_oneof![
        4 => (0..20u32).prop_map(|n| n * 512),
        2 => (0..4u32).prop_map(|n| n * 512 + 1),
        2 => Just(16u32),
        1 => 0..100u32,
        1 => any::<u32>(),
    ];
    (address, length)
}

fn any_header() -> impl Strategy<Value = [u8; 16]> {
    let kind = prop_oneof![4 => Just(IN), 4 => Just(OUT), 1 => Just(FLUSH_REQUEST),
        1 => Just(GET_ID), 1 => any::<u32>()];
    let sector = prop_oneof![6 => 0..SECTORS, 1 => SECTORS..2 * SECTORS, 1 => any::<u64>()];
    (kind, sector).prop_map(|(kind, sector)| header(kind, sector))
}

fn snapshot(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY];
    memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    bytes
}

fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn no_chain_reaches_memory_or_file_that_it_may_not() {
    let memory = small_memory();
    proptest!(cases(1000), |(
        header in any_header(),
        framed in any::<bool>(),
        buffers in proptest::collection::vec((buffer(), any::<bool>()), 0..6),
        read_only in any::<bool>(),
    )| {
        let mut disk = Disk::on(memory.clone(), disk_file(), read_only, VERSION_1 | FLUSH);
        let mut chain: Vec<_> = buffers
            .iter()
            .map(|((address, length), write)| (*address, *length, if *write { WRITABLE } else { 0 }))
            .collect();
        if framed {
            // As drivers do: readable before writable, header first, status last.
            chain.sort_by_key(|(.., flags)| *flags);
            chain.insert(0, (HEADER, 16, 0));
            chain.push((STATUS, 1, WRITABLE));
        }
        prop_assume!(!chain.is_empty());
        memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        disk.driver.offer(0, 0, &chain);
        let before = snapshot(&memory);
        let result = disk.serve();
        prop_assert!(!matches!(result, Err(DeviceError::Host(_) | DeviceError::WorkerGone)));
        let after = snapshot(&memory);
        let may_change = |at: u64| {
            // The used ring.
            (0x6000..0x7000).contains(&at)
                || chain.iter().any(|(address, length, flags)| {
                    *flags & WRITABLE != 0 && at.wrapping_sub(*address) < u64::from(*length)
                })
        };
        for (page, (before, after)) in before.chunks(4096).zip(after.chunks(4096)).enumerate() {
            if before != after {
                for at in (0..4096).filter(|at| before[*at] != after[*at]) {
                    let at = page * 4096 + at;
                    prop_assert!(may_change(at as u64), "byte {:#x}", at);
                }
            }
        }
        if read_only || header[..4] != OUT.to_le_bytes() {
            prop_assert!(disk.on_disk() == contents());
        }
        prop_assert_eq!(disk.on_disk().len(), contents().len());
    });
}

#[test]
fn no_ring_makes_it_fail_but_as_the_drivers_fault() {
    let memory = small_memory();
    proptest!(cases(1000), |(
        header in any_header(),
        chains in proptest::collection::vec(
            (proptest::collection::vec((buffer(), 0u16..8), 1..6), any::<u16>()), 1..4),
        features in prop_oneof![Just(VERSION_1), Just(VERSION_1 | EVENT_IDX | FLUSH)],
    )| {
        let mut disk = Disk::on(memory.clone(), disk_file(), true, features);
        memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        for (chain, head) in chains {
            let chain: Vec<_> =
                chain.iter().map(|((address, length), flags)| (*address, *length, *flags)).collect();
            disk.driver.offer(0, head % QUEUE_SIZE, &chain);
        }
        let result = disk.serve();
        prop_assert!(!matches!(result, Err(DeviceError::Host(_) | DeviceError::WorkerGone)));
        prop_assert!(disk.on_disk() == contents());
    });
}

#[test]
fn a_disk_holds_what_was_written_last() {
    let memory = small_memory();
    let operation = (
        any::<bool>(),
        0..SECTORS + 4,
        0..9usize,
        any::<u8>(),
        proptest::collection::vec(1..900usize, 0..10),
    );
    let operations = proptest::collection::vec(operation, 1..20);
    proptest!(cases(200), |(operations in operations)| {
        let mut disk = Disk::on(memory.clone(), disk_file(), false, VERSION_1 | FLUSH);
        let mut model = contents();
        for (write, sector, sectors, fill, cuts) in operations {
            let length = sectors * SECTOR;
            let mut data = Vec::new();
            let mut done = 0;
            for cut in cuts.into_iter().chain([length]) {
                let part = cut.min(length - done);
                let flags = if write { 0 } else { WRITABLE };
                data.push((DATA + done as u64, u32::try_from(part).unwrap(), flags));
                done += part;
            }
            let bytes: Vec<u8> = (0..length).map(|at| low_byte(at).wrapping_mul(fill)).collect();
            memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
            let start = usize::try_from(sector).unwrap() * SECTOR;
            let fits = start + length <= model.len();
            let (status, _) = disk.ask(if write { OUT } else { IN }, sector, &data);
            prop_assert_eq!(status, if fits { 0 } else { 1 });
            if write && fits {
                model[start..start + length].copy_from_slice(&bytes);
            } else if fits {
                prop_assert_eq!(disk.bytes(DATA, length), &model[start..start + length]);
            }
        }
        prop_assert!(disk.on_disk() == model);
    });
}
