//! One stream of the socket device, between a guest that sends what it likes and a supervisor that
//! reads and writes when it likes.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use sandbox_vmm::devices::virtio::vsock::connection::{BUFFER, Connection, Credit};
use sandbox_vmm::devices::virtio::vsock::packet::{Operation, SHUTDOWN_SEND};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    credit: Said,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, arbitrary::Arbitrary)]
struct Said {
    buf_alloc: Option<u32>,
    /// Bytes beyond, or short of, what the guest has got; honest if it is zero.
    lie: Option<u32>,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Step {
    Packet { operation: u8, flags: u8, length: u32, said: Said },
    Next(u16),
    HostRead(u16),
    HostWrite(u16),
    HostShutdown { write: bool },
    HostClose,
    Ready { readable: bool, writable: bool, hung_up: bool },
}

/// Both streams, from a position on: bytes that tell where they are.
fn stream(start: usize, length: usize) -> &'static [u8] {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    let stream = STREAM.get_or_init(|| (0..=250u8).cycle().take(251 * 1200).collect());
    let start = start % 251;
    &stream[start..start + length]
}

struct Sides {
    connection: Connection,
    far: Option<UnixStream>,
    /// What the guest said last.
    credit: Credit,
    /// Bytes that the guest sent and those that arrived, and the other way.
    from_guest: usize,
    at_host: usize,
    from_host: usize,
    at_guest: usize,
    /// The guest has sent more than it may, or after its end, or what makes no sense.
    broken: bool,
    announced: Wrapping<u32>,
}

impl Sides {
    fn credit(&self, said: Said) -> Credit {
        let fwd_cnt = (self.at_guest as u32).wrapping_sub(said.lie.unwrap_or(0));
        Credit { buf_alloc: said.buf_alloc.unwrap_or(64 << 10), fwd_cnt }
    }

    /// Takes one packet for the guest; false if there is none, or the connection is over.
    fn next(&mut self, room: usize) -> bool {
        let mut buffer = vec![0; room];
        let in_flight = (Wrapping(self.at_guest as u32) - Wrapping(self.credit.fwd_cnt)).0;
        let Some(packet) = self.connection.next(&mut buffer) else {
            assert!(!self.connection.wants_to_send() || room == 0, "it wants to and does not");
            return false;
        };
        let announced = self.connection.announce();
        assert_eq!(announced.buf_alloc, BUFFER);
        let fwd_cnt = Wrapping(announced.fwd_cnt);
        assert!(fwd_cnt >= self.announced, "credit goes back");
        assert!(fwd_cnt.0 as usize <= self.from_guest, "credit for what never came");
        self.announced = fwd_cnt;
        match packet.operation {
            Operation::ReadWrite => {
                assert!(packet.length > 0 && packet.length as usize <= room);
                let after = u64::from(in_flight) + u64::from(packet.length);
                assert!(after <= self.credit.buf_alloc.into(), "more than the guest has room for");
                let length = packet.length as usize;
                assert!(buffer[..length] == *stream(self.at_guest, length), "other bytes");
                self.at_guest += length;
                assert!(self.at_guest <= self.from_host);
            }
            Operation::Reset => return false,
            Operation::Response | Operation::Shutdown | Operation::CreditUpdate => {
                assert_eq!(packet.length, 0);
            }
            other => panic!("{other:?} is the guest's to send"),
        }
        true
    }

    fn read(&mut self, length: usize) {
        let mut bytes = vec![0; length];
        let Some(far) = &mut self.far else { return };
        let length = far.read(&mut bytes).unwrap_or(0);
        assert!(bytes[..length] == *stream(self.at_host, length), "other bytes");
        self.at_host += length;
        assert!(self.at_host <= self.from_guest);
    }
}

fuzz_target!(|input: Input| {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a socket");
    far.set_nonblocking(true).expect("a socket");
    let credit = Credit { buf_alloc: input.credit.buf_alloc.unwrap_or(64 << 10), fwd_cnt: 0 };
    let mut sides = Sides {
        connection: Connection::new(near.into(), credit),
        far: Some(far),
        credit,
        from_guest: 0,
        at_host: 0,
        from_host: 0,
        at_guest: 0,
        broken: false,
        announced: Wrapping(0),
    };
    let mut guest_done = false;
    for step in &input.steps {
        match step {
            Step::Packet { operation, flags, length, said } => {
                let Some(operation) = Operation::from_number((operation % 8).into()) else {
                    continue;
                };
                // The device takes a connection away that is reset.
                if operation == Operation::Reset {
                    return;
                }
                let length = (*length % (2 * BUFFER)) as usize;
                let length = if operation == Operation::ReadWrite { length } else { 0 };
                let bytes = stream(sides.from_guest, length);
                sides.credit = sides.credit(*said);
                let flags = u32::from(*flags);
                sides.connection.receive(operation, flags, sides.credit, bytes);
                let owed = sides.from_guest - sides.announced.0 as usize;
                sides.broken |= guest_done && operation == Operation::ReadWrite
                    || owed + length > BUFFER as usize
                    || matches!(operation, Operation::Request | Operation::Response);
                sides.from_guest += length;
                guest_done |= operation == Operation::Shutdown && flags & SHUTDOWN_SEND != 0;
            }
            Step::Next(room) => {
                if !sides.next((*room).into()) && *room > 0 && sides.connection.wants_to_send() {
                    // A reset: the device takes the connection away.
                    return;
                }
            }
            Step::HostRead(length) => sides.read((*length).into()),
            Step::HostWrite(length) => {
                let start = sides.from_host;
                let bytes = stream(start, (*length).into());
                if let Some(far) = &mut sides.far {
                    sides.from_host += far.write(bytes).unwrap_or(0);
                }
            }
            Step::HostShutdown { write } => {
                let how = if *write { Shutdown::Write } else { Shutdown::Read };
                let _ = sides.far.as_ref().map(|far| far.shutdown(how));
                sides.broken |= !write;
            }
            Step::HostClose => {
                sides.far = None;
                sides.broken = true;
            }
            Step::Ready { readable, writable, hung_up } => {
                sides.connection.ready(*readable, *writable, *hung_up);
            }
        }
    }
    // A guest that has kept to the rules loses nothing of what it sent.
    if !sides.broken {
        while sides.at_host < sides.from_guest {
            let before = sides.at_host;
            sides.connection.ready(false, true, false);
            sides.read(1 << 16);
            assert!(sides.at_host > before || sides.at_host == sides.from_guest, "bytes are lost");
        }
    }
});
