//! A disk's queue, as a guest fills it.
//!
//! Chains are made of buffers that are near each other and mostly in memory, behind a header that
//! asks for something, so that most get to where data is moved.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use sandbox_vmm::devices::virtio::blk::{Backend, Requests};
use sandbox_vmm::devices::virtio::{Activation, DeviceError, Interrupt, InterruptController};
use sandbox_vmm::memory::{self, GuestMemory};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

const MEMORY: u64 = 0x2_0000;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// The chains' headers, then their buffers.
const HEADERS: u64 = 0x4000;
const BUFFERS: u64 = 0x5000;
const QUEUE_SIZE: u16 = 128;

const DISK: usize = 16 << 10;
const PATTERN: u8 = 0xa5;

const NEXT: u16 = 1;
const WRITABLE: u16 = 2;
const INDIRECT: u16 = 4;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    read_only: bool,
    /// `VIRTIO_BLK_F_FLUSH` and `VIRTIO_F_EVENT_IDX` accepted.
    flush: bool,
    event_idx: bool,
    chains: Vec<Chain>,
    /// Anything, anywhere in memory.
    patches: Vec<(u16, &'a [u8])>,
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Chain {
    kind: Kind,
    sector: Sector,
    /// Has a header at its start and a status at its end.
    framed: bool,
    buffers: Vec<Buffer>,
    /// Goes on to this descriptor after its last.
    on_to: Option<u16>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Kind {
    In,
    Out,
    Flush,
    GetId,
    Other(u32),
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Sector {
    Near(u8),
    Any(u64),
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Buffer {
    address: Address,
    length: Length,
    flags: Flags,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Address {
    InMemory(u16),
    Any(u64),
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Length {
    Sectors(u8),
    Serial,
    Some(u16),
    Any(u32),
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Flags {
    Readable,
    Writable,
    Any(u16),
}

#[derive(Debug)]
struct NoLines;

impl InterruptController for NoLines {
    fn route(&self, _line: u8, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }

    fn raise(&self, _line: u8) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
}

/// What is made once: guest memory, and a disk that can be written to and the same read-only.
fn parts() -> &'static (GuestMemory, File, [Arc<Backend>; 2]) {
    static PARTS: OnceLock<(GuestMemory, File, [Arc<Backend>; 2])> = OnceLock::new();
    PARTS.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("virtio_blk-{}", std::process::id()));
        let writable = File::options().read(true).write(true).create_new(true).open(&path);
        let writable = writable.expect("a temporary file");
        writable.write_all_at(&[PATTERN; DISK], 0).expect("room for a disk");
        let readable = File::open(&path).expect("it can be read, too");
        std::fs::remove_file(&path).expect("the file is ours");
        let serial = |name: &str| name.to_owned().try_into().expect("a short name");
        let ours = writable.try_clone().expect("a descriptor");
        let disks = [
            Backend::new(writable.into(), serial("disk"), false).expect("a disk"),
            Backend::new(readable.into(), serial("twenty-bytes-of-name"), true).expect("a disk"),
        ];
        let memory = memory::allocate(MEMORY, memory::Backing::Private).expect("memory");
        (memory, ours, disks.map(Arc::new))
    })
}

/// Writes chains and heads into the rings; the result is every buffer.
fn fill(memory: &GuestMemory, chains: &[Chain]) -> Vec<(u64, u32, u16)> {
    let mut all = Vec::new();
    let mut heads = 0u16;
    for (chain, header) in chains.iter().zip((HEADERS..BUFFERS).step_by(32)) {
        let kind = match chain.kind {
            Kind::In => 0,
            Kind::Out => 1,
            Kind::Flush => 4,
            Kind::GetId => 8,
            Kind::Other(kind) => kind,
        };
        let sector = match chain.sector {
            Sector::Near(sector) => sector.into(),
            Sector::Any(sector) => sector,
        };
        memory.write_obj(kind, GuestAddress(header)).expect("in memory");
        memory.write_obj(sector, GuestAddress(header + 8)).expect("in memory");

        let mut buffers: Vec<_> = chain.buffers.iter().map(buffer).collect();
        if chain.framed {
            buffers.insert(0, (header, 16, 0));
            buffers.push((header + 16, 1, WRITABLE));
        }
        if buffers.is_empty() || all.len() + buffers.len() > usize::from(QUEUE_SIZE) {
            break;
        }
        let head = all.len() as u16;
        let slot = AVAILABLE + 4 + 2 * u64::from(heads);
        memory.write_obj(head, GuestAddress(slot)).expect("in memory");
        heads += 1;
        let last = buffers.len() - 1;
        for (index, (address, length, flags)) in buffers.iter().enumerate() {
            let at = DESCRIPTORS + 16 * all.len() as u64;
            let next = if index < last { Some(all.len() as u16 + 1) } else { chain.on_to };
            let flags = flags & !NEXT | if next.is_some() { NEXT } else { 0 };
            memory.write_obj(*address, GuestAddress(at)).expect("in memory");
            memory.write_obj(*length, GuestAddress(at + 8)).expect("in memory");
            memory.write_obj(flags, GuestAddress(at + 12)).expect("in memory");
            memory.write_obj(next.unwrap_or(0), GuestAddress(at + 14)).expect("in memory");
            all.push((*address, *length, flags));
        }
    }
    memory.write_obj(heads, GuestAddress(AVAILABLE + 2)).expect("in memory");
    all
}

fn buffer(buffer: &Buffer) -> (u64, u32, u16) {
    let address = match buffer.address {
        Address::InMemory(offset) => BUFFERS + u64::from(offset),
        Address::Any(address) => address,
    };
    let length = match buffer.length {
        Length::Sectors(count) => u32::from(count) * 512,
        Length::Serial => 20,
        Length::Some(length) => length.into(),
        Length::Any(length) => length,
    };
    let flags = match buffer.flags {
        Flags::Readable => 0,
        Flags::Writable => WRITABLE,
        Flags::Any(flags) => flags,
    };
    (address, length, flags)
}

fn activation(memory: &GuestMemory, features: u64, event_idx: bool) -> Activation {
    let mut queue = Queue::new(QUEUE_SIZE).expect("a power of two");
    queue.set_size(QUEUE_SIZE);
    queue.set_desc_table_address(Some(DESCRIPTORS as u32), None);
    queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
    queue.set_used_ring_address(Some(USED as u32), None);
    queue.set_event_idx(event_idx);
    queue.set_ready(true);
    assert!(queue.is_valid(memory));
    Activation { memory: memory.clone(), queues: vec![queue], features }
}

fn all_of(memory: &GuestMemory) -> Vec<u8> {
    let mut bytes = vec![0; MEMORY as usize];
    memory.read_slice(&mut bytes, GuestAddress(0)).expect("in memory");
    bytes
}

/// Whether `at` lies in `length` bytes from `start` on.
fn is_in(at: u64, start: u64, length: u64) -> bool {
    at.wrapping_sub(start) < length
}

fuzz_target!(|input: Input<'_>| {
    let (memory, file, disks) = parts();
    memory.write_slice(&[0; MEMORY as usize], GuestAddress(0)).expect("in memory");
    file.write_all_at(&[PATTERN; DISK], 0).expect("the disk can be written");
    let buffers = fill(memory, &input.chains);
    for (offset, bytes) in &input.patches {
        let length = bytes.len().min((MEMORY - u64::from(*offset)) as usize);
        let at = GuestAddress((*offset).into());
        memory.write_slice(&bytes[..length], at).expect("in memory");
    }
    let before = all_of(memory);

    let features = 1 << 32 | u64::from(input.flush) << 9 | u64::from(input.event_idx) << 29;
    let activation = activation(memory, features, input.event_idx);
    let disk = disks[usize::from(input.read_only)].clone();
    let interrupt = Interrupt::new(Arc::new(NoLines), 1);
    let mut requests = Requests::new(disk, interrupt, activation).expect("there is one queue");
    let result = requests.serve(&AtomicBool::new(false));
    assert!(
        matches!(result, Ok(()) | Err(DeviceError::Driver(_) | DeviceError::Queue(_))),
        "{result:?}"
    );

    let mut on_disk = vec![0; DISK + 1];
    let length = file.read_at(&mut on_disk, 0).expect("the disk can be read");
    assert_eq!(length, DISK, "the disk keeps its size");
    // Where requests change neither rings nor headers, all that the device may follow is what was
    // written above: memory changes in the used ring and in buffers that can be written, and
    // nowhere else, and the disk only if there are requests to write.
    let foreseen = input.patches.is_empty()
        && input.chains.iter().all(|chain| chain.framed)
        && input.chains.iter().flat_map(|chain| &chain.buffers).map(buffer).all(
            |(address, _, flags)| {
                let clear = address.checked_add(1 << 32).is_some_and(|_| address >= BUFFERS);
                clear && flags & INDIRECT == 0
            },
        );
    let writes = input.chains.iter().any(|chain| matches!(chain.kind, Kind::Out | Kind::Other(_)));
    if input.read_only || (foreseen && !writes) {
        assert!(on_disk[..DISK] == [PATTERN; DISK]);
    }
    if foreseen {
        let after = all_of(memory);
        let pages = before.chunks(0x1000).zip(after.chunks(0x1000));
        for (start, (before, after)) in (0u64..).step_by(0x1000).zip(pages) {
            if before == after || start == USED {
                continue;
            }
            for (at, _) in (start..).zip(before.iter().zip(after)).filter(|(_, (a, b))| a != b) {
                let may_change = buffers.iter().any(|(address, length, flags)| {
                    flags & WRITABLE != 0 && is_in(at, *address, (*length).into())
                });
                assert!(may_change, "byte {at:#x}");
            }
        }
    }
});
