//! One stream between the guest and the supervisor.
//!
//! Bytes of the guest wait in a bounded backlog if the supervisor reads slowly; the guest knows the
//! bound and keeps to it, or loses the connection. Bytes of the supervisor stay in the socket until
//! the guest has announced room for them.

use super::packet::{Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use std::collections::VecDeque;
use std::num::Wrapping;
use std::os::fd::{AsFd, OwnedFd};

/// Room for bytes of the guest, as announced to it. Bounds what a connection can hold here.
pub const BUFFER: u32 = 64 << 10;

/// Credit is announced anew when the guest may think that this little is left.
const LOW_CREDIT: u32 = BUFFER / 2;

/// What the guest says of its receive buffer, in each packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credit {
    /// Its size.
    pub buf_alloc: u32,
    /// Bytes that have left it.
    pub fwd_cnt: u32,
}

/// A packet for the guest, without addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What it is for.
    pub operation: Operation,
    /// Shutdown flags.
    pub flags: u32,
    /// Bytes of payload.
    pub length: u32,
}

impl Outgoing {
    fn bare(operation: Operation, flags: u32) -> Self {
        Self { operation, flags, length: 0 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    stream: OwnedFd,
    backlog: VecDeque<u8>,
    /// Bytes that have left the backlog.
    forwarded: Wrapping<u32>,
    /// The last value of it that the guest was told.
    announced: Wrapping<u32>,
    /// Bytes sent to the guest.
    sent: Wrapping<u32>,
    guest: Credit,
    /// The stream may have bytes for the guest.
    readable: bool,
    /// What the guest has shut down.
    guest_shutdown: u32,
    /// What the supervisor has shut down and the guest has not been told yet, or has.
    host_shutdown: u32,
    told_shutdown: u32,
    owes_response: bool,
    owes_credit: bool,
    owes_reset: bool,
}

impl Connection {
    /// A connection that the guest has just asked for; it is owed a response.
    pub fn new(stream: OwnedFd, guest: Credit) -> Self {
        Self {
            stream,
            backlog: VecDeque::new(),
            forwarded: Wrapping(0),
            announced: Wrapping(0),
            sent: Wrapping(0),
            guest,
            readable: false,
            guest_shutdown: 0,
            host_shutdown: 0,
            told_shutdown: 0,
            owes_response: true,
            owes_credit: false,
            owes_reset: false,
        }
    }

    /// The supervisor's stream.
    pub fn stream(&self) -> impl AsFd {
        self.stream.as_fd()
    }

    /// The credit to put into the next packet.
    pub fn announce(&mut self) -> Credit {
        self.announced = self.forwarded;
        self.owes_credit = false;
        Credit { buf_alloc: BUFFER, fwd_cnt: self.forwarded.0 }
    }

    /// A packet of the guest on this connection. None is taken once the guest is owed a reset: what
    /// came before was cut, and a stream has no holes.
    pub fn receive(&mut self, operation: Operation, flags: u32, credit: Credit, payload: &[u8]) {
        if self.owes_reset {
            return;
        }
        self.guest = credit;
        match operation {
            Operation::ReadWrite => self.take(payload),
            Operation::Shutdown => {
                self.guest_shutdown |= flags & (SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
                if self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
                    // Fails if the supervisor is gone, which the next read or write finds out.
                    let _ = shutdown(&self.stream, Shutdown::Read);
                }
                self.flush();
            }
            Operation::CreditRequest => self.owes_credit = true,
            Operation::CreditUpdate => {}
            // A reset never gets here, and there is nothing to request or answer any more.
            Operation::Request | Operation::Response | Operation::Reset => self.owes_reset = true,
        }
    }

    fn take(&mut self, payload: &[u8]) {
        let room = BUFFER as usize - self.backlog.len();
        if payload.len() > room || self.guest_shutdown & SHUTDOWN_SEND != 0 {
            self.owes_reset = true;
            return;
        }
        let written = if self.backlog.is_empty() { self.pass_on(payload) } else { 0 };
        self.backlog.extend(&payload[written..]);
    }

    /// Writes to the stream what it takes; the result is how much. If the supervisor has closed
    /// it, the guest is owed a reset.
    fn pass_on(&mut self, bytes: &[u8]) -> usize {
        match send(&self.stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(written) => {
                self.forwarded += Wrapping(u32::try_from(written).unwrap_or(u32::MAX));
                let used = (self.forwarded - self.announced).0;
                self.owes_credit |= used >= LOW_CREDIT;
                written
            }
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(_) => {
                self.owes_reset = true;
                0
            }
        }
    }

    /// The stream has become ready.
    pub fn ready(&mut self, readable: bool, writable: bool, hung_up: bool) {
        self.readable |= readable || hung_up;
        if hung_up {
            self.host_shutdown |= SHUTDOWN_RECEIVE;
        }
        if writable {
            self.flush();
        }
    }

    /// Passes the backlog on, and what the guest has closed once nothing is left of it.
    fn flush(&mut self) {
        while !self.backlog.is_empty() && !self.owes_reset {
            let (first, _) = self.backlog.as_slices();
            let first = first.to_vec();
            let written = self.pass_on(&first);
            self.backlog.drain(..written);
            if written < first.len() {
                return;
            }
        }
        if self.guest_shutdown & SHUTDOWN_SEND != 0 {
            let _ = shutdown(&self.stream, Shutdown::Write);
            if self.guest_shutdown & SHUTDOWN_RECEIVE != 0 {
                self.owes_reset = true;
            }
        }
    }

    /// Room in the guest's buffer. What the guest claims beyond reason is no room.
    fn room(&self) -> usize {
        let in_flight = (self.sent - Wrapping(self.guest.fwd_cnt)).0;
        self.guest.buf_alloc.saturating_sub(in_flight) as usize
    }

    /// Whether [`Connection::next`] may have a packet.
    pub fn wants_to_send(&self) -> bool {
        self.owes_reset
            || self.owes_response
            || self.owes_credit
            || (self.readable && self.room() > 0 && !self.deaf())
            || self.owes_shutdown()
    }

    /// The supervisor has shut something down that the guest does not know of, and every byte
    /// before has been sent.
    fn owes_shutdown(&self) -> bool {
        self.host_shutdown & !self.told_shutdown != 0 && (!self.readable || self.deaf())
    }

    /// The guest takes no more bytes.
    fn deaf(&self) -> bool {
        self.guest_shutdown & SHUTDOWN_RECEIVE != 0 || self.host_shutdown & SHUTDOWN_SEND != 0
    }

    /// The next packet for the guest; a payload is put into `buffer`. After a
    /// [`Operation::Reset`] the connection is over.
    pub fn next(&mut self, buffer: &mut [u8]) -> Option<Outgoing> {
        if self.owes_reset {
            return Some(Outgoing::bare(Operation::Reset, 0));
        }
        if std::mem::take(&mut self.owes_response) {
            return Some(Outgoing::bare(Operation::Response, 0));
        }
        if self.readable && !self.deaf() {
            let length = buffer.len().min(self.room());
            if length > 0
                && let Some(length) = self.read(&mut buffer[..length])
            {
                return Some(Outgoing { operation: Operation::ReadWrite, flags: 0, length });
            }
        }
        if self.owes_shutdown() {
            self.told_shutdown = self.host_shutdown;
            return Some(Outgoing::bare(Operation::Shutdown, self.host_shutdown));
        }
        self.owes_credit.then(|| Outgoing::bare(Operation::CreditUpdate, 0))
    }

    /// Reads from the stream; `None` if there is nothing now.
    fn read(&mut self, buffer: &mut [u8]) -> Option<u32> {
        match recv(&self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                self.readable = false;
                self.host_shutdown |= SHUTDOWN_SEND;
                None
            }
            Ok((_, length)) => {
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                self.sent += Wrapping(length);
                Some(length)
            }
            Err(Errno::INTR) => None,
            Err(Errno::AGAIN) => {
                self.readable = false;
                None
            }
            Err(_) => {
                self.readable = false;
                self.host_shutdown |= SHUTDOWN_SEND | SHUTDOWN_RECEIVE;
                None
            }
        }
    }
}

#[cfg(test)]
mod model;
