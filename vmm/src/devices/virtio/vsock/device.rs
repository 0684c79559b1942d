use super::connection::{Connection, Credit};
use super::packet::{HEADER_SIZE, Header, Operation, TYPE_STREAM};
use crate::control::{self, Event};
use crate::devices::virtio::chain::Chain;
use crate::devices::virtio::{Activation, Device, DeviceError, Identity, Interrupt, Registry};
use crate::memory::GuestMemory;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::ByteValued;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

const DEVICE_ID: u32 = 19;
const FEATURE_EVENT_IDX: u64 = 1 << 29;
const FEATURE_VERSION_1: u64 = 1 << 32;
const QUEUE_SIZES: &[u16] = &[128, 128, 8];
const SOURCE_RECEIVE: u32 = 0;
const SOURCE_TRANSMIT: u32 = 1;
const FIRST_SOURCE_STREAM: u32 = 2;

const HOST_CID: u64 = 2;
const GUEST_CID: u64 = 3;

/// Most connections at a time; bounds descriptors and backlogs.
const MAX_CONNECTIONS: usize = 256;
/// Most resets that wait for room in the receive queue. Until there is some, the guest's packets
/// are left where they are.
const MAX_RESETS: usize = 64;
/// Most bytes of payload in one packet, either way.
const MAX_PAYLOAD: usize = 64 << 10;

/// A connection's name: the guest's port, then the host's.
type Ports = (u32, u32);

/// The socket device.
#[derive(Debug)]
pub struct Vsock {
    registry: Registry,
    interrupt: Interrupt,
    kicks: [Arc<EventFd>; 3],
    control: Arc<OwnedFd>,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: Arc<GuestMemory>,
    receive: Queue,
    transmit: Queue,
    connections: BTreeMap<Ports, Entry>,
    /// Which connection an event source belongs to.
    sources: BTreeMap<u32, Ports>,
    next_source: u32,
    resets: VecDeque<Ports>,
    /// The connection that had the last turn to send.
    turn: Ports,
    payload: Box<[u8]>,
}

#[derive(Debug)]
struct Entry {
    connection: Connection,
    source: u32,
}

impl Vsock {
    /// Queues of the device.
    pub const QUEUES: usize = QUEUE_SIZES.len();

    /// A device whose connections are announced on `control`.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn new(
        registry: Registry,
        interrupt: Interrupt,
        kicks: [Arc<EventFd>; 3],
        control: Arc<OwnedFd>,
    ) -> Result<Self, DeviceError> {
        registry.add(SOURCE_RECEIVE, &*kicks[0], EventSet::IN)?;
        registry.add(SOURCE_TRANSMIT, &*kicks[1], EventSet::IN)?;
        Ok(Self { registry, interrupt, kicks, control, active: None })
    }

    /// Takes packets of the guest, then sends what is owed to it.
    fn work(&mut self) -> Result<(), DeviceError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let more = active.take_packets(&self.registry, &self.control)?;
        let sent = active.send_packets(&self.registry)?;
        if more {
            // Let the other devices have their turn.
            let _ = self.kicks[1].write(1);
        }
        let transmitted = active.transmit.needs_notification(&*active.memory)?;
        let received = sent && active.receive.needs_notification(&*active.memory)?;
        if transmitted || received {
            self.interrupt.used_buffer()?;
        }
        Ok(())
    }
}

impl Active {
    /// Handles at most one queue full of the guest's packets; true if there may be more.
    fn take_packets(
        &mut self,
        registry: &Registry,
        control: &OwnedFd,
    ) -> Result<bool, DeviceError> {
        for _ in 0..self.transmit.size() {
            if self.resets.len() >= MAX_RESETS {
                return Ok(false);
            }
            let Some(chain) = self.transmit.iter(&*self.memory)?.next() else {
                if self.transmit.enable_notification(&*self.memory)? {
                    continue;
                }
                return Ok(false);
            };
            let head = chain.head_index();
            let mut packet = Chain::read(chain, &self.memory, QUEUE_SIZES[1])?.only_to_read()?;
            let mut header = Header::default();
            if !packet.take_first(header.as_mut_slice()) {
                return Err(DeviceError::Driver("packet without a header"));
            }
            let length = header.len.to_native() as usize;
            if length > MAX_PAYLOAD || !packet.take_first(&mut self.payload[..length]) {
                return Err(DeviceError::Driver("packet longer than its buffer"));
            }
            self.transmit.add_used(&*self.memory, head, 0)?;
            self.packet(&header, length, registry, control)?;
        }
        Ok(true)
    }

    fn packet(
        &mut self,
        header: &Header,
        length: usize,
        registry: &Registry,
        control: &OwnedFd,
    ) -> Result<(), DeviceError> {
        if header.src_cid.to_native() != GUEST_CID {
            // Nobody to answer.
            return Ok(());
        }
        let ports = (header.src_port.to_native(), header.dst_port.to_native());
        let operation = Operation::from_number(header.op.to_native());
        let known =
            header.dst_cid.to_native() == HOST_CID && header.kind.to_native() == TYPE_STREAM;
        let credit =
            Credit { buf_alloc: header.buf_alloc.to_native(), fwd_cnt: header.fwd_cnt.to_native() };
        match (operation, self.connections.get_mut(&ports)) {
            (Some(Operation::Reset), Some(_)) => self.remove(ports, registry),
            (Some(Operation::Reset), None) => Ok(()),
            (Some(operation), Some(entry)) if known => {
                let payload = &self.payload[..length];
                entry.connection.receive(operation, header.flags.to_native(), credit, payload);
                Ok(())
            }
            (Some(Operation::Request), None) if known => {
                self.connect(ports, credit, registry, control)
            }
            _ => {
                // What is reset is gone on both sides.
                self.remove(ports, registry)?;
                self.resets.push_back(ports);
                Ok(())
            }
        }
    }

    /// Opens a connection, or owes the guest a reset if there are too many or the supervisor does
    /// not take it.
    fn connect(
        &mut self,
        ports: Ports,
        credit: Credit,
        registry: &Registry,
        control: &OwnedFd,
    ) -> Result<(), DeviceError> {
        if self.connections.len() >= MAX_CONNECTIONS {
            self.resets.push_back(ports);
            return Ok(());
        }
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (near, far) =
            pair.map_err(|error| DeviceError::Host(format!("socketpair: {error}")))?;
        let event = Event::Connection { port: ports.1, stream: far };
        #[cfg(feature = "hostile")]
        let control = crate::hostile::control(ports.1).unwrap_or(control);
        if control::send(control, &event, SendFlags::DONTWAIT).is_err() {
            self.resets.push_back(ports);
            return Ok(());
        }
        let source = self.free_source();
        let events =
            EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        registry.add(source, &near.as_raw_fd(), events)?;
        self.sources.insert(source, ports);
        let connection = Connection::new(near, credit);
        self.connections.insert(ports, Entry { connection, source });
        Ok(())
    }

    fn free_source(&mut self) -> u32 {
        loop {
            self.next_source = self.next_source.wrapping_add(1).max(FIRST_SOURCE_STREAM);
            if !self.sources.contains_key(&self.next_source) {
                return self.next_source;
            }
        }
    }

    fn remove(&mut self, ports: Ports, registry: &Registry) -> Result<(), DeviceError> {
        let Some(entry) = self.connections.remove(&ports) else { return Ok(()) };
        self.sources.remove(&entry.source);
        registry.remove(&entry.connection.stream().as_fd().as_raw_fd())
    }

    /// Sends at most one queue full of packets; true if there was one.
    fn send_packets(&mut self, registry: &Registry) -> Result<bool, DeviceError> {
        let memory = Arc::clone(&self.memory);
        let mut sent = false;
        for _ in 0..self.receive.size() {
            if self.resets.is_empty() && self.next_sender().is_none() {
                break;
            }
            let Some(chain) = self.receive.iter(&*memory)?.next() else {
                // Only now that there is something to send does room matter.
                if self.receive.enable_notification(&*memory)? {
                    continue;
                }
                break;
            };
            self.receive.disable_notification(&*memory)?;
            let head = chain.head_index();
            let buffers = Chain::read(chain, &memory, QUEUE_SIZES[0])?.only_to_write()?;
            let room = usize::try_from(buffers.length()).unwrap_or(usize::MAX);
            let Some(room) = room.checked_sub(HEADER_SIZE) else {
                return Err(DeviceError::Driver("receive buffer without room for a header"));
            };
            let Some(header) = self.next_packet(room.min(MAX_PAYLOAD), registry)? else {
                self.receive.go_to_previous_position();
                continue;
            };
            let length = header.len.to_native() as usize;
            buffers.fill(&[header.as_slice(), &self.payload[..length]]);
            let used = u32::try_from(HEADER_SIZE + length).unwrap_or(u32::MAX);
            self.receive.add_used(&*self.memory, head, used)?;
            sent = true;
        }
        Ok(sent)
    }

    /// The next connection in turn that wants to send.
    fn next_sender(&self) -> Option<Ports> {
        let after = self.connections.range((Excluded(self.turn), Unbounded));
        let before = self.connections.range(..=self.turn);
        let mut senders = after.chain(before).filter(|(_, entry)| entry.connection.wants_to_send());
        senders.next().map(|(ports, _)| *ports)
    }

    /// A packet for the guest, its payload in `self.payload`.
    fn next_packet(
        &mut self,
        room: usize,
        registry: &Registry,
    ) -> Result<Option<Header>, DeviceError> {
        if let Some(ports) = self.resets.pop_front() {
            return Ok(Some(header(ports, Operation::Reset)));
        }
        let Some(ports) = self.next_sender() else { return Ok(None) };
        self.turn = ports;
        let Some(entry) = self.connections.get_mut(&ports) else { return Ok(None) };
        let Some(outgoing) = entry.connection.next(&mut self.payload[..room]) else {
            return Ok(None);
        };
        let credit = entry.connection.announce();
        if outgoing.operation == Operation::Reset {
            self.remove(ports, registry)?;
        }
        Ok(Some(Header {
            len: outgoing.length.into(),
            flags: outgoing.flags.into(),
            buf_alloc: credit.buf_alloc.into(),
            fwd_cnt: credit.fwd_cnt.into(),
            ..header(ports, outgoing.operation)
        }))
    }
}

fn header(ports: Ports, operation: Operation) -> Header {
    Header {
        src_cid: HOST_CID.into(),
        dst_cid: GUEST_CID.into(),
        src_port: ports.1.into(),
        dst_port: ports.0.into(),
        kind: TYPE_STREAM.into(),
        op: operation.number().into(),
        ..Header::default()
    }
}

impl Device for Vsock {
    fn identity(&self) -> Identity {
        Identity {
            id: DEVICE_ID,
            features: FEATURE_VERSION_1 | FEATURE_EVENT_IDX,
            queue_sizes: QUEUE_SIZES,
            config: GUEST_CID.to_le_bytes().to_vec(),
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), DeviceError> {
        let [receive, transmit, _events] = <[Queue; 3]>::try_from(activation.queues)
            .map_err(|_| DeviceError::Driver("wrong number of queues"))?;
        let mut active = Active {
            memory: Arc::new(activation.memory),
            receive,
            transmit,
            connections: BTreeMap::new(),
            sources: BTreeMap::new(),
            next_source: FIRST_SOURCE_STREAM,
            resets: VecDeque::new(),
            turn: (0, 0),
            payload: vec![0; MAX_PAYLOAD].into_boxed_slice(),
        };
        active.receive.disable_notification(&*active.memory)?;
        self.active = Some(active);
        self.work()
    }

    fn reset(&mut self) {
        // Closing the streams takes them out of the epoll set.
        self.active = None;
    }

    fn event(&mut self, source: u32, events: EventSet) -> Result<(), DeviceError> {
        match source {
            SOURCE_RECEIVE | SOURCE_TRANSMIT => {
                let _ = self.kicks[source as usize].read();
            }
            _ => {
                let Some(active) = &mut self.active else { return Ok(()) };
                // The stream may have gone with an earlier event of the same round.
                let Some(ports) = active.sources.get(&source) else { return Ok(()) };
                let Some(entry) = active.connections.get_mut(ports) else { return Ok(()) };
                entry.connection.ready(
                    events.intersects(EventSet::IN | EventSet::READ_HANG_UP),
                    events.contains(EventSet::OUT),
                    events.intersects(EventSet::HANG_UP | EventSet::ERROR),
                );
            }
        }
        self.work()
    }
}
