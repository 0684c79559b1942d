use super::Vsock;
use super::connection::{BUFFER, Connection, Credit};
use super::packet::{HEADER_SIZE, Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};
use crate::control::{self, Event};
use crate::devices::virtio::testing::{BUFFERS, Driver, WRITABLE};
use crate::devices::virtio::{Device, DeviceError, Interrupt};
use proptest::prelude::*;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_sys_util::epoll::{EpollEvent, EventSet};

const FEATURES: u64 = (1 << 32) | (1 << 29);
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;

/// A guest with a socket device, and the supervisor's end of the control socket.
struct Guest {
    driver: Driver,
    device: Vsock,
    supervisor: OwnedFd,
    next: u16,
}

impl Guest {
    fn new() -> Self {
        let driver = Driver::new(&[128, 128, 8]);
        let (monitor, supervisor) = control::pair().unwrap();
        let interrupt = Interrupt::new(driver.lines.clone(), 1);
        let kicks = driver.kicks();
        let mut device =
            Vsock::new(driver.registry(), interrupt, kicks, Arc::new(monitor)).unwrap();
        device.activate(driver.activation(FEATURES)).unwrap();
        let mut guest = Self { driver, device, supervisor, next: 0 };
        for buffer in 0..64 {
            guest.offer_room(buffer);
        }
        guest
    }

    fn offer_room(&mut self, buffer: u16) {
        let address = BUFFERS + 0x2000 * u64::from(buffer);
        self.driver.offer(RECEIVE, buffer, &[(address, 4096 + 44, WRITABLE)]);
    }

    fn send_raw(&mut self, header: &Header, payload: &[u8]) -> Result<(), DeviceError> {
        let address = BUFFERS + 0x10_0000;
        self.driver.memory.write_obj(*header, GuestAddress(address)).unwrap();
        let data = GuestAddress(address + HEADER_SIZE as u64);
        self.driver.memory.write_slice(payload, data).unwrap();
        let length = u32::try_from(HEADER_SIZE + payload.len()).unwrap();
        self.driver.offer(TRANSMIT, self.next % 128, &[(address, length, 0)]);
        self.next += 1;
        self.device.event(1, EventSet::IN)
    }

    fn send(&mut self, port: u32, operation: Operation, flags: u32, payload: &[u8]) {
        let header = Header {
            flags: flags.into(),
            len: u32::try_from(payload.len()).unwrap().into(),
            ..header(port, operation)
        };
        self.send_raw(&header, payload).unwrap();
    }

    /// The packets that have come: operation, flags, payload.
    fn receive(&mut self) -> Vec<(u16, u32, Vec<u8>)> {
        let mut events = [EpollEvent::default(); 16];
        let count = self.driver.epoll.wait(0, &mut events).unwrap();
        for event in &events[..count] {
            self.device.event(u32::try_from(event.data()).unwrap(), event.event_set()).unwrap();
        }
        let mut packets = Vec::new();
        for (buffer, used) in self.driver.used(RECEIVE) {
            let address = BUFFERS + 0x2000 * u64::from(buffer);
            let header: Header = self.driver.memory.read_obj(GuestAddress(address)).unwrap();
            let mut payload = vec![0; used as usize - HEADER_SIZE];
            let data = GuestAddress(address + HEADER_SIZE as u64);
            self.driver.memory.read_slice(&mut payload, data).unwrap();
            assert_eq!(header.len.to_native() as usize, payload.len());
            packets.push((header.op.to_native(), header.flags.to_native(), payload));
            self.offer_room(u16::try_from(buffer).unwrap());
        }
        packets
    }

    fn connect(&mut self, port: u32) -> UnixStream {
        self.send(port, Operation::Request, 0, &[]);
        let Ok(Some(Event::Connection { port: to, stream })) = control::receive(&self.supervisor)
        else {
            panic!("the supervisor was not told");
        };
        assert_eq!(to, 1024);
        assert_eq!(self.receive(), [(Operation::Response.number(), 0, vec![])]);
        stream.into()
    }
}

fn header(port: u32, operation: Operation) -> Header {
    Header {
        src_cid: 3.into(),
        dst_cid: 2.into(),
        src_port: port.into(),
        dst_port: 1024.into(),
        kind: TYPE_STREAM.into(),
        op: operation.number().into(),
        buf_alloc: (64 << 10).into(),
        ..Header::default()
    }
}

#[test]
fn bytes_go_both_ways_and_each_side_can_end_its_own() {
    let mut guest = Guest::new();
    let mut stream = guest.connect(7);
    guest.send(7, Operation::ReadWrite, 0, b"from guest");
    let mut bytes = [0; 10];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"from guest");

    stream.write_all(b"from host").unwrap();
    assert_eq!(guest.receive(), [(Operation::ReadWrite.number(), 0, b"from host".to_vec())]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(guest.receive(), [(Operation::Shutdown.number(), SHUTDOWN_SEND, vec![])]);

    guest.send(7, Operation::ReadWrite, 0, b"still here");
    guest.send(7, Operation::Shutdown, SHUTDOWN_SEND, &[]);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"still here");
    guest.send(7, Operation::Shutdown, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, &[]);
    assert_eq!(guest.receive(), [(Operation::Reset.number(), 0, vec![])]);
}

#[test]
fn what_the_supervisor_wrote_before_it_hung_up_arrives() {
    let mut guest = Guest::new();
    let mut stream = guest.connect(7);
    stream.write_all(&[5; 10_000]).unwrap();
    drop(stream);
    let mut packets = Vec::new();
    for _ in 0..3 {
        packets.extend(guest.receive());
    }
    let received: usize = packets.iter().map(|(_, _, payload)| payload.len()).sum();
    assert_eq!(received, 10_000);
    let (operation, flags, _) = packets.last().unwrap();
    assert_eq!(*operation, Operation::Shutdown.number());
    assert_eq!(*flags, SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
}

#[test]
fn a_packet_for_no_connection_is_answered_by_a_reset() {
    let mut guest = Guest::new();
    guest.send(9, Operation::ReadWrite, 0, b"?");
    assert_eq!(guest.receive(), [(Operation::Reset.number(), 0, vec![])]);
}

#[test]
fn what_is_reset_is_gone_on_both_sides() {
    let of_no_kind = Header { kind: 2.into(), ..header(7, Operation::ReadWrite) };
    let of_no_operation = Header { op: 9.into(), ..header(7, Operation::ReadWrite) };
    for wrong in [of_no_kind, of_no_operation, header(7, Operation::Request)] {
        let mut guest = Guest::new();
        let mut stream = guest.connect(7);
        guest.send_raw(&wrong, &[]).unwrap();
        assert_eq!(guest.receive(), [(Operation::Reset.number(), 0, vec![])]);
        assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0, "the supervisor's stream has ended");
        // The ports are free again.
        guest.connect(7);
    }
}

#[test]
fn a_stream_that_was_cut_has_no_holes() {
    let mut guest = Guest::new();
    let mut stream = guest.connect(7);
    guest.send(7, Operation::ReadWrite, 0, b"before");
    guest.send(7, Operation::Shutdown, SHUTDOWN_SEND, &[]);
    guest.send(7, Operation::ReadWrite, 0, b"after the end");
    guest.send(7, Operation::ReadWrite, 0, b"and more");
    let mut arrived = Vec::new();
    stream.read_to_end(&mut arrived).unwrap();
    assert_eq!(arrived, b"before");
    assert_eq!(guest.receive().last().unwrap().0, Operation::Reset.number());
}

#[test]
fn a_packet_for_another_context_or_from_one_reaches_nobody() {
    let mut guest = Guest::new();
    for (src, dst) in [(3, 1), (3, 4), (2, 2), (4, 2)] {
        let header =
            Header { src_cid: src.into(), dst_cid: dst.into(), ..header(7, Operation::Request) };
        guest.send_raw(&header, &[]).unwrap();
    }
    drop(std::mem::replace(&mut guest.device, Guest::new().device));
    assert!(matches!(control::receive(&guest.supervisor), Ok(None)), "no connection was made");
}

#[test]
fn connections_beyond_the_limit_are_reset() {
    let mut guest = Guest::new();
    let streams: Vec<_> = (0..256).map(|port| guest.connect(port)).collect();
    guest.send(256, Operation::Request, 0, &[]);
    assert_eq!(guest.receive(), [(Operation::Reset.number(), 0, vec![])]);
    drop(streams);
}

#[test]
fn a_guest_that_does_not_listen_leaves_its_packets_where_they_are() {
    let mut guest = Guest::new();
    for port in 0..1000 {
        guest.send(port, Operation::ReadWrite, 0, &[]);
    }
    let answered = guest.driver.used(TRANSMIT).len();
    assert!(answered <= 64 + 64 + 1, "{answered} packets taken without room for the answers");
}

#[test]
fn a_packet_longer_than_its_buffer_costs_the_driver_its_device() {
    for length in [1, 64 << 10, u32::MAX] {
        let mut guest = Guest::new();
        let header = Header { len: length.into(), ..header(7, Operation::ReadWrite) };
        let error = guest.send_raw(&header, &[]).unwrap_err();
        assert!(matches!(error, DeviceError::Driver(_)), "{error}");
    }
}

#[test]
fn a_guest_that_ignores_its_credit_loses_the_connection() {
    let mut guest = Guest::new();
    let stream = guest.connect(7);
    for _ in 0..64 {
        guest.send(7, Operation::ReadWrite, 0, &[0; 16 << 10]);
    }
    let packets = guest.receive();
    assert_eq!(packets.last().unwrap().0, Operation::Reset.number());
    drop(stream);
}

proptest! {
    #[test]
    fn no_packet_makes_it_fail_but_as_the_drivers_fault(
        packets in proptest::collection::vec(
            (proptest::array::uniform32(any::<u8>()), 0u16..9, 0u32..4, 0u32..100), 1..20),
    ) {
        let mut guest = Guest::new();
        let _stream = guest.connect(1);
        for (bytes, operation, port, length) in packets {
            let mut raw = [0; HEADER_SIZE];
            raw[..32].copy_from_slice(&bytes);
            let mut header = *Header::from_slice(&raw).unwrap();
            header.op = operation.into();
            header.src_port = port.into();
            header.len = length.into();
            if bytes[0] < 200 {
                header.src_cid = 3.into();
                header.dst_cid = 2.into();
                header.dst_port = 1024.into();
                header.kind = TYPE_STREAM.into();
            }
            match guest.send_raw(&header, &[1; 50]) {
                Ok(()) => { guest.receive(); }
                Err(DeviceError::Driver(_) | DeviceError::Queue(_)) => return Ok(()),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    /// The connection against a model: two byte streams, each in order and whole up to where it
    /// was cut, and no more in flight than the receiver has room for.
    #[test]
    fn a_connection_keeps_both_streams_in_order_and_within_credit(
        steps in proptest::collection::vec((0u8..6, 1usize..40_000), 1..60),
    ) {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let room = 50_000;
        let mut guest_credit = Credit { buf_alloc: room, fwd_cnt: 0 };
        let mut connection = Connection::new(near.into(), guest_credit);
        let mut announced = Credit { buf_alloc: BUFFER, fwd_cnt: 0 };
        let (mut to_host, mut at_host, mut to_guest, mut at_guest) = (0u32, 0u32, 0u32, 0u32);
        let mut host_done = false;
        let mut told = false;
        let mut buffer = vec![0; 64 << 10];

        for (step, size) in steps {
            match step {
                0 => {
                    let free = announced.buf_alloc - (to_host - announced.fwd_cnt);
                    let count = u32::try_from(size).unwrap().min(free);
                    let bytes: Vec<u8> = (to_host..to_host + count).map(byte).collect();
                    connection.receive(Operation::ReadWrite, 0, guest_credit, &bytes);
                    to_host += count;
                }
                1 => {
                    let mut bytes = vec![0; size];
                    match far.read(&mut bytes) {
                        Ok(count) => for value in &bytes[..count] {
                            prop_assert_eq!(*value, byte(at_host));
                            at_host += 1;
                        },
                        Err(error) => prop_assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                    connection.ready(false, true, false);
                }
                2 if !host_done => {
                    let end = to_guest + u32::try_from(size).unwrap();
                    let bytes: Vec<u8> = (to_guest..end).map(byte).collect();
                    if let Ok(count) = far.write(&bytes) {
                        to_guest += u32::try_from(count).unwrap();
                    }
                    connection.ready(true, false, false);
                }
                3 => {
                    guest_credit.fwd_cnt = at_guest;
                    connection.receive(Operation::CreditUpdate, 0, guest_credit, &[]);
                }
                4 if size < 2_000 && !host_done => {
                    far.shutdown(std::net::Shutdown::Write).unwrap();
                    host_done = true;
                    connection.ready(true, false, false);
                }
                _ => while let Some(packet) = connection.next(&mut buffer[..size]) {
                    announced = connection.announce();
                    prop_assert!(packet.operation != Operation::Reset);
                    prop_assert!(!told || packet.length == 0, "bytes after the end");
                    for value in &buffer[..packet.length as usize] {
                        prop_assert_eq!(*value, byte(at_guest));
                        at_guest += 1;
                    }
                    prop_assert!(at_guest - guest_credit.fwd_cnt <= room);
                    if packet.operation == Operation::Shutdown {
                        prop_assert!(host_done);
                        prop_assert_eq!(at_guest, to_guest);
                        told = true;
                    }
                },
            }
        }
    }
}

/// The byte at a position of either stream.
fn byte(position: u32) -> u8 {
    u8::try_from(position % 251).unwrap()
}
