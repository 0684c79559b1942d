//! Every short history of a connection, against a model of what both sides may see: the guest sends
//! what it likes, honest or not, and the supervisor reads, writes and hangs up when it likes.
//!
//! All histories of [`DEPTH`] steps are tried; `SANDBOX_VSOCK_DEPTH=5` tries those of five.

use super::super::packet::{SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use super::*;
use std::io::{Read, Write};
use std::net::Shutdown as Half;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

const DEPTH: usize = 4;

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Bytes within what was announced.
    Send,
    /// More bytes than there can be room for.
    SendTooMuch,
    GuestEndsSending,
    GuestEndsReceiving,
    GuestEndsBoth,
    /// The guest's buffer is empty.
    Credit,
    /// It claims to have taken a byte that it was never sent.
    CreditAhead,
    /// It has no buffer any more.
    NoBuffer,
    CreditRequest,
    /// A request on a connection that is there.
    Again,
    HostReads,
    HostWrites,
    HostEndsSending,
    HostCloses,
    /// All packets that there are for the guest are sent.
    Deliver,
}

const STEPS: [Step; 15] = [
    Step::Send,
    Step::SendTooMuch,
    Step::GuestEndsSending,
    Step::GuestEndsReceiving,
    Step::GuestEndsBoth,
    Step::Credit,
    Step::CreditAhead,
    Step::NoBuffer,
    Step::CreditRequest,
    Step::Again,
    Step::HostReads,
    Step::HostWrites,
    Step::HostEndsSending,
    Step::HostCloses,
    Step::Deliver,
];

/// Half of the buffer, so that two fill it, and more than sockets take at once.
const PIECE: usize = BUFFER as usize / 2;

/// The guest's own buffer.
const ROOM: u32 = 48 << 10;

/// Both streams, from a position on: bytes that tell where they are.
fn stream(start: usize, length: usize) -> &'static [u8] {
    static STREAM: OnceLock<Vec<u8>> = OnceLock::new();
    let stream = STREAM.get_or_init(|| (0..=250u8).cycle().take(1 << 20).collect());
    &stream[start..start + length]
}

struct Model {
    connection: Connection,
    far: Option<UnixStream>,
    credit: Credit,
    /// Bytes of the guest that were sent, and that have arrived at the supervisor.
    from_guest: usize,
    at_host: usize,
    from_host: usize,
    at_guest: usize,
    /// What the guest was told last.
    announced: u32,
    guest_ended: u32,
    host_ended: bool,
    /// A reset has to come, or it can come.
    must_reset: bool,
    may_reset: bool,
    /// What came: the response, shutdown flags, a reset.
    responded: bool,
    told: u32,
    over: bool,
    buffer: Vec<u8>,
}

impl Model {
    fn new() -> Self {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let credit = Credit { buf_alloc: ROOM, fwd_cnt: 0 };
        Self {
            connection: Connection::new(near.into(), credit),
            far: Some(far),
            credit,
            from_guest: 0,
            at_host: 0,
            from_host: 0,
            at_guest: 0,
            announced: 0,
            guest_ended: 0,
            host_ended: false,
            must_reset: false,
            may_reset: false,
            responded: false,
            told: 0,
            over: false,
            buffer: vec![0; 1 << 16],
        }
    }

    fn packet(&mut self, operation: Operation, flags: u32, payload: &[u8]) {
        self.connection.receive(operation, flags, self.credit, payload);
    }

    fn send(&mut self, length: usize) {
        let bytes = stream(self.from_guest, length);
        if self.guest_ended & SHUTDOWN_SEND != 0 || length > BUFFER as usize {
            self.must_reset = true;
        }
        if !self.must_reset {
            self.from_guest += length;
        }
        self.packet(Operation::ReadWrite, 0, bytes);
    }

    fn end(&mut self, flags: u32) {
        if !self.must_reset {
            self.guest_ended |= flags;
        }
        // Once nothing of what it sent is left, that is the end of the connection.
        self.may_reset |= self.guest_ended == SHUTDOWN_SEND | SHUTDOWN_RECEIVE;
        self.packet(Operation::Shutdown, flags, &[]);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Send => {
                let free = BUFFER as usize - (self.from_guest - self.announced as usize);
                self.send(PIECE.min(free));
            }
            Step::SendTooMuch => self.send(BUFFER as usize + 1),
            Step::GuestEndsSending => self.end(SHUTDOWN_SEND),
            Step::GuestEndsReceiving => self.end(SHUTDOWN_RECEIVE),
            Step::GuestEndsBoth => self.end(SHUTDOWN_SEND | SHUTDOWN_RECEIVE),
            Step::Credit => {
                self.credit = Credit { buf_alloc: ROOM, fwd_cnt: self.taken() };
                self.packet(Operation::CreditUpdate, 0, &[]);
            }
            Step::CreditAhead => {
                self.credit.fwd_cnt = self.taken().wrapping_add(1);
                self.packet(Operation::CreditUpdate, 0, &[]);
            }
            Step::NoBuffer => {
                self.credit.buf_alloc = 0;
                self.packet(Operation::CreditUpdate, 0, &[]);
            }
            Step::CreditRequest => self.packet(Operation::CreditRequest, 0, &[]),
            Step::Again => {
                self.must_reset = true;
                self.packet(Operation::Request, 0, &[]);
            }
            Step::HostReads => {
                self.read();
                self.connection.ready(false, true, false);
            }
            Step::HostWrites => {
                let bytes = stream(self.from_host, PIECE + 1000);
                let far = self.far.as_mut().filter(|_| !self.host_ended);
                self.from_host += far.and_then(|far| far.write(bytes).ok()).unwrap_or(0);
                self.connection.ready(true, false, false);
            }
            Step::HostEndsSending => {
                self.host_ended = true;
                let _ = self.far.as_ref().map(|far| far.shutdown(Half::Write));
                self.connection.ready(true, false, false);
            }
            Step::HostCloses => {
                self.far = None;
                self.host_ended = true;
                // Bytes of the guest can find nobody any more, and bytes that nobody has read make
                // the kernel call that a reset.
                self.may_reset = true;
                self.connection.ready(true, true, true);
            }
            Step::Deliver => self.deliver(),
        }
        assert!(self.connection.backlog.len() <= BUFFER as usize);
        assert!(self.connection.backlog.capacity() <= 2 * BUFFER as usize);
    }

    fn taken(&self) -> u32 {
        u32::try_from(self.at_guest).unwrap()
    }

    /// What there is for the supervisor is what the guest sent, from the beginning, and no more.
    fn read(&mut self) {
        let Some(far) = &mut self.far else { return };
        while let Ok(length @ 1..) = far.read(&mut self.buffer) {
            assert!(self.buffer[..length] == *stream(self.at_host, length), "other bytes");
            self.at_host += length;
        }
        assert!(self.at_host <= self.from_guest);
    }

    fn deliver(&mut self) {
        for _ in 0..100 {
            if self.over {
                return;
            }
            let in_flight = self.taken().wrapping_sub(self.credit.fwd_cnt);
            let Some(packet) = self.connection.next(&mut self.buffer[..20_000]) else {
                assert!(!self.connection.wants_to_send(), "it would be asked for ever");
                assert!(!self.must_reset, "a reset is owed");
                return;
            };
            let Credit { buf_alloc, fwd_cnt } = self.connection.announce();
            assert_eq!(buf_alloc, BUFFER);
            assert!(fwd_cnt >= self.announced && fwd_cnt as usize <= self.from_guest);
            self.announced = fwd_cnt;
            self.take(packet, in_flight);
        }
        panic!("packets without end");
    }

    fn take(&mut self, packet: Outgoing, in_flight: u32) {
        let Outgoing { operation, flags, length } = packet;
        if operation == Operation::Reset {
            assert!(self.must_reset || self.may_reset, "nobody broke the rules");
            self.over = true;
            return;
        }
        assert!(!self.must_reset, "{operation:?} instead of a reset");
        assert_eq!(operation == Operation::Response, !self.responded, "{operation:?}");
        assert!(length == 0 || operation == Operation::ReadWrite);
        match operation {
            Operation::Response => self.responded = true,
            Operation::ReadWrite => {
                assert!(length > 0);
                assert_eq!(self.guest_ended & SHUTDOWN_RECEIVE, 0, "the guest takes no more");
                assert_eq!(self.told & SHUTDOWN_SEND, 0, "bytes after the end");
                let after = u64::from(in_flight) + u64::from(length);
                assert!(after <= self.credit.buf_alloc.into(), "{after} bytes in flight");
                let length = length as usize;
                assert!(self.buffer[..length] == *stream(self.at_guest, length), "other bytes");
                self.at_guest += length;
                assert!(self.at_guest <= self.from_host);
            }
            Operation::Shutdown => {
                assert!(self.host_ended);
                assert_eq!(flags & !(SHUTDOWN_SEND | SHUTDOWN_RECEIVE), 0);
                assert_ne!(flags & !self.told, 0, "it knows that");
                assert_eq!(flags & self.told, self.told, "no end is taken back");
                let deaf = self.guest_ended & SHUTDOWN_RECEIVE != 0;
                if flags & SHUTDOWN_SEND != 0 && self.far.is_some() && !deaf {
                    assert_eq!(self.at_guest, self.from_host, "bytes are missing");
                }
                self.told = flags;
            }
            Operation::CreditUpdate => {}
            other => panic!("{other:?} is the guest's to send"),
        }
    }

    /// Both sides do what they can: nothing is lost that was sent by the rules.
    fn finish(&mut self) {
        for _ in 0..6 {
            if !self.over {
                self.deliver();
            }
            self.step(Step::HostReads);
        }
        if self.far.is_some() && !self.must_reset {
            assert_eq!(self.at_host, self.from_guest, "bytes of the guest are lost");
        }
        if self.over {
            return;
        }
        let gone = SHUTDOWN_SEND | SHUTDOWN_RECEIVE;
        if self.guest_ended == gone && self.far.is_some() {
            panic!("both ends of the guest are shut, and there is no reset");
        }
        self.step(Step::Credit);
        for _ in 0..6 {
            self.deliver();
            if self.over {
                return;
            }
            self.step(Step::Credit);
        }
        if self.guest_ended & SHUTDOWN_RECEIVE == 0 && self.far.is_some() {
            assert_eq!(self.at_guest, self.from_host, "bytes of the supervisor are lost");
            assert_eq!(self.told & SHUTDOWN_SEND != 0, self.host_ended);
        }
    }
}

#[test]
fn every_short_history_of_a_connection_keeps_the_rules() {
    let depth = match std::env::var("SANDBOX_VSOCK_DEPTH") {
        Ok(depth) => depth.parse().unwrap(),
        Err(_) => DEPTH,
    };
    let total = STEPS.len().pow(u32::try_from(depth).unwrap());
    for number in 0..total {
        let digits = (0..depth).scan(number, |rest, _| {
            let step = STEPS[*rest % STEPS.len()];
            *rest /= STEPS.len();
            Some(step)
        });
        let history: Vec<Step> = digits.collect();
        let result = std::panic::catch_unwind(|| {
            let mut model = Model::new();
            for step in &history {
                model.step(*step);
                if model.over {
                    break;
                }
            }
            model.finish();
        });
        assert!(result.is_ok(), "{history:?}");
    }
}
