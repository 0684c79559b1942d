//! The socket device: packets and queues of a guest, and a supervisor at the other end.
#![no_main]

mod driver;

use driver::{BUFFERS, Chain, Driver, NoLines, WRITABLE, kicks, registry};
use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::net::SendFlags;
use sandbox_vmm::control::{self, Event};
use sandbox_vmm::devices::virtio::vsock::Vsock;
use sandbox_vmm::devices::virtio::{Device, DeviceError, Interrupt};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{Epoll, EpollEvent, EventSet};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const HEADER: usize = 44;
const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const MOST_CONNECTIONS: usize = 256;

/// Buffers for packets to the guest, one for each slot of the ring; behind them those to the host.
const ROOM: u64 = 0x800;
const PACKETS: u64 = BUFFERS + ROOM * driver::SIZE as u64;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    event_idx: bool,
    steps: Vec<Step<'a>>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Step<'a> {
    /// A buffer for a packet, of this many bytes at most.
    Room(u16),
    Packet(Packet),
    /// Some requests for connections.
    Requests(u8),
    /// Anything in one of the queues.
    Chain {
        ring: u8,
        chain: Chain,
    },
    Kick(u8),
    /// The streams' events.
    Poll,
    HostWrite {
        stream: u8,
        length: u16,
    },
    HostRead {
        stream: u8,
        length: u16,
    },
    HostShutdown {
        stream: u8,
        write: bool,
    },
    HostClose {
        stream: u8,
    },
    Reset,
    Patch(u16, &'a [u8]),
}

#[derive(Debug, arbitrary::Arbitrary)]
struct Packet {
    operation: u8,
    guest_port: u8,
    host_port: u8,
    flags: u8,
    length: u16,
    /// What the header says of it, if that is something else.
    said: Option<u32>,
    buf_alloc: Credit,
    fwd_cnt: Credit,
    /// Contexts and kind, if they are not the right ones.
    odd: Option<(u64, u64, u16)>,
    /// Split there into two descriptors.
    split: Option<u16>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Credit {
    Much,
    Some(u16),
    Any(u32),
}

impl Credit {
    fn value(&self, much: u32) -> u32 {
        match self {
            Self::Much => much,
            Self::Some(value) => (*value).into(),
            Self::Any(value) => *value,
        }
    }
}

struct Guest {
    driver: Driver,
    epoll: Arc<Epoll>,
    device: Vsock,
    supervisor: OwnedFd,
    features: u64,
    streams: Vec<UnixStream>,
    /// Ports that were asked for: the guest's and the host's.
    asked: BTreeSet<(u32, u32)>,
    /// Nothing but [`Guest::room`] and [`Guest::packet`] has written to rings and buffers.
    tidy: bool,
    next: u64,
}

impl Guest {
    fn new(event_idx: bool) -> Self {
        let driver = Driver::new(3);
        let (monitor, supervisor) = control::pair().expect("a pair of sockets");
        let interrupt = Interrupt::new(Arc::new(NoLines), 1);
        let epoll = Arc::new(Epoll::new().expect("an epoll set"));
        let device = Vsock::new(registry(&epoll), interrupt, kicks(), Arc::new(monitor))
            .expect("room in an epoll set");
        let features = 1 << 32 | u64::from(event_idx) << 29;
        let mut guest = Self {
            driver,
            epoll,
            device,
            supervisor,
            features,
            streams: Vec::new(),
            asked: BTreeSet::new(),
            tidy: true,
            next: 0,
        };
        guest.activate();
        guest
    }

    fn activate(&mut self) {
        let result = self.device.activate(self.driver.activation(self.features));
        result.expect("there is nothing to do yet");
    }

    fn room(&mut self, length: u16) {
        let slot = self.next % u64::from(driver::SIZE);
        self.next += 1;
        let length = u32::from(length).min(ROOM as u32);
        self.driver.offer(RECEIVE, &[(BUFFERS + ROOM * slot, length, WRITABLE)], None);
    }

    fn packet(&mut self, packet: &Packet) {
        let (from, to, kind) = packet.odd.unwrap_or((3, 2, 1));
        let operation = u16::from(packet.operation % 9);
        let (guest_port, host_port) = (packet.guest_port.into(), packet.host_port.into());
        if operation == REQUEST {
            self.asked.insert((guest_port, host_port));
        }
        let length = packet.length % 0x2000;
        let mut bytes = Vec::with_capacity(HEADER + usize::from(length));
        bytes.extend(from.to_le_bytes());
        bytes.extend(to.to_le_bytes());
        for word in [guest_port, host_port, packet.said.unwrap_or(length.into())] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(kind.to_le_bytes());
        bytes.extend(operation.to_le_bytes());
        let credit = [packet.buf_alloc.value(64 << 10), packet.fwd_cnt.value(0)];
        for word in [u32::from(packet.flags), credit[0], credit[1]] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(HEADER + usize::from(length), 0xa5);
        self.driver.write(PACKETS, &bytes);
        let all = bytes.len() as u32;
        let first = packet.split.map_or(all, |split| u32::from(split).min(all));
        let chain = [(PACKETS, first, 0), (PACKETS + u64::from(first), all - first, 0)];
        let descriptors = if first < all { &chain[..] } else { &chain[..1] };
        self.driver.offer(TRANSMIT, descriptors, None);
        // The next packet is written to the same place.
        self.event(TRANSMIT as u32, EventSet::IN);
    }

    fn event(&mut self, source: u32, events: EventSet) {
        match self.device.event(source, events) {
            Ok(()) => {}
            // The main loop resets such a device, and the driver begins anew.
            Err(DeviceError::Driver(_) | DeviceError::Queue(_)) => self.restart(),
            Err(error) => panic!("{error}"),
        }
        // Connections are told of when packets are taken.
        while let Some(stream) = (source < 2).then(|| self.accept()).flatten() {
            self.streams.push(stream);
        }
    }

    fn restart(&mut self) {
        self.device.reset();
        self.driver.restart();
        self.asked.clear();
        self.streams.clear();
        self.next = 0;
        self.activate();
    }

    /// A connection that the supervisor was told of.
    fn accept(&mut self) -> Option<UnixStream> {
        let mut ready =
            [rustix::event::PollFd::new(&self.supervisor, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut ready, Some(&now)) != Ok(1) {
            return None;
        }
        match control::receive(&self.supervisor) {
            Ok(Some(Event::Connection { stream, .. })) => {
                let stream = UnixStream::from(stream);
                stream.set_nonblocking(true).expect("a socket");
                Some(stream)
            }
            other => panic!("{other:?}"),
        }
    }

    fn poll(&mut self) {
        let mut events = [EpollEvent::default(); 16];
        let count = self.epoll.wait(0, &mut events).expect("an epoll set");
        for event in &events[..count] {
            self.event(event.data() as u32, event.event_set());
        }
    }

    fn stream(&mut self, number: u8) -> Option<&mut UnixStream> {
        let count = self.streams.len();
        self.streams.get_mut(usize::from(number).checked_rem(count)?)
    }

    /// What came is what the device may send.
    fn receive(&mut self) {
        self.driver.used(TRANSMIT);
        for (head, used) in self.driver.used(RECEIVE) {
            if !self.tidy || !self.driver.exact() {
                continue;
            }
            // Chains are of one descriptor each, so heads are slots.
            let mut header = [0; HEADER];
            let address = BUFFERS + ROOM * u64::from(head);
            self.driver.memory.read_slice(&mut header, GuestAddress(address)).expect("in memory");
            let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
            assert_eq!(header[..16], [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(word(24) as usize + HEADER, used as usize, "length");
            let kind = u16::from_le_bytes([header[28], header[29]]);
            let operation = u16::from_le_bytes([header[30], header[31]]);
            assert_eq!(kind, 1);
            assert!(matches!(operation, RESPONSE..=7), "operation {operation}");
            let ports = (word(20), word(16));
            assert!(operation == RESET || self.asked.contains(&ports), "{ports:?} {operation}");
            assert!(operation == 5 || word(24) == 0, "payload of operation {operation}");
        }
    }
}

fuzz_target!(|input: Input<'_>| {
    let mut guest = Guest::new(input.event_idx);
    for step in input.steps.iter().take(24) {
        match step {
            Step::Room(length) => guest.room(*length),
            Step::Packet(packet) => guest.packet(packet),
            Step::Requests(count) => {
                for port in 0..*count % 8 {
                    guest.packet(&Packet {
                        operation: REQUEST as u8,
                        guest_port: port,
                        host_port: 9,
                        flags: 0,
                        length: 0,
                        said: None,
                        buf_alloc: Credit::Much,
                        fwd_cnt: Credit::Much,
                        odd: None,
                        split: None,
                    });
                    guest.receive();
                    guest.room(u16::MAX);
                }
            }
            Step::Chain { ring, chain } => {
                guest.tidy = false;
                guest.driver.offer_any((ring % 3).into(), chain);
            }
            Step::Kick(ring) => guest.event((ring % 2).into(), EventSet::IN),
            Step::Poll => guest.poll(),
            Step::HostWrite { stream, length } => {
                let bytes = vec![0x5a; (*length).into()];
                let _ = guest.stream(*stream).map(|stream| stream.write(&bytes));
            }
            Step::HostRead { stream, length } => {
                let mut bytes = vec![0; (*length).into()];
                let _ = guest.stream(*stream).map(|stream| stream.read(&mut bytes));
            }
            Step::HostShutdown { stream, write } => {
                let how = if *write { Shutdown::Write } else { Shutdown::Read };
                let _ = guest.stream(*stream).map(|stream| stream.shutdown(how));
            }
            Step::HostClose { stream } => {
                let count = guest.streams.len();
                if let Some(index) = usize::from(*stream).checked_rem(count) {
                    guest.streams.swap_remove(index);
                }
            }
            Step::Reset => guest.restart(),
            Step::Patch(address, bytes) => {
                guest.tidy = false;
                guest.driver.write((*address).into(), bytes);
            }
        }
        guest.receive();
        let open = |stream: &&UnixStream| {
            rustix::net::send(stream, b"x", SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
                != Err(rustix::io::Errno::PIPE)
        };
        if guest.streams.len() > MOST_CONNECTIONS {
            assert!(guest.streams.iter().filter(open).count() <= MOST_CONNECTIONS);
        }
    }
    guest.driver.check_memory();
});
