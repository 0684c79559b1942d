//! Moving bytes from one descriptor to another without ever blocking.

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Bytes that are held for a slow reader: as much as a pipe holds.
const BUFFER: usize = 64 << 10;

/// Buffers that are moved in one turn, so that one busy stream does not hold up the others.
const ROUNDS: usize = 4;

/// One direction of a stream. Both descriptors are non-blocking.
#[derive(Debug)]
pub(crate) struct Relay {
    from: Option<Rc<OwnedFd>>,
    to: Option<Rc<OwnedFd>>,
    buffer: Vec<u8>,
    /// The bytes of the buffer that are still to be written.
    start: usize,
    end: usize,
    /// Whoever writes to `from` has ended: nothing to read now means never.
    last_call: bool,
    over: bool,
}

/// An end of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    From,
    To,
}

impl Relay {
    pub(crate) fn new(from: Rc<OwnedFd>, to: Rc<OwnedFd>) -> Self {
        Self {
            from: Some(from),
            to: Some(to),
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            last_call: false,
            over: false,
        }
    }

    /// Whether nothing more will be moved.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// What to poll for. A reader that goes away shows even if nothing is asked for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Side, BorrowedFd<'_>, PollFlags)> {
        let (reading, writing) = match self.start < self.end {
            true => (None, Some(PollFlags::OUT)),
            false => (Some(PollFlags::IN), Some(PollFlags::empty())),
        };
        let from = self.from.as_ref().zip(reading).map(|(fd, flags)| (Side::From, fd, flags));
        let to = self.to.as_ref().zip(writing).map(|(fd, flags)| (Side::To, fd, flags));
        let interests = from.into_iter().chain(to).filter(|_| !self.over);
        interests.map(|(side, fd, flags)| (side, fd.as_fd(), flags))
    }

    /// Reacts to what a poll for one of the interests has found.
    pub(crate) fn react(&mut self, side: Side, events: PollFlags) {
        let idle = self.start == self.end;
        if side == Side::To && idle && events.intersects(PollFlags::ERR | PollFlags::HUP) {
            self.give_up();
        }
        self.turn();
    }

    /// Says that whoever writes to `from` has ended, so that what can be read now is all.
    pub(crate) fn call_last(&mut self) {
        self.last_call = true;
        self.turn();
    }

    /// Ends the stream at once; what was not written yet is lost.
    pub(crate) fn give_up(&mut self) {
        self.over = true;
        self.from = None;
        self.to = None;
        self.buffer = Vec::new();
    }

    /// The connection that has been told the end of the stream, as long as the other side has not
    /// been seen to close it too.
    pub(crate) fn ended_connection(&self) -> Option<BorrowedFd<'_>> {
        self.to.as_ref().filter(|_| self.over).map(|to| to.as_fd())
    }

    /// Forgets the connection of [`Relay::ended_connection`].
    pub(crate) fn close(&mut self) {
        self.to = None;
    }

    /// Moves what can be moved now.
    fn turn(&mut self) {
        for _ in 0..ROUNDS {
            if self.over || (self.start == self.end && !self.fill()) || !self.drain() {
                return;
            }
        }
    }

    /// Reads into the empty buffer; false if there is nothing to write now.
    fn fill(&mut self) -> bool {
        let Some(from) = &self.from else { return false };
        match rustix::io::read(from, &mut self.buffer) {
            Ok(0) => self.finish(),
            Ok(length) => {
                self.start = 0;
                self.end = length;
                return true;
            }
            Err(Errno::AGAIN) if self.last_call => self.finish(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A terminal without programs says EIO, a connection that was reset ECONNRESET.
            Err(_) => self.finish(),
        }
        false
    }

    /// Writes from the buffer; false if some of it has to wait.
    fn drain(&mut self) -> bool {
        while let (true, Some(to)) = (self.start < self.end, &self.to) {
            match rustix::io::write(to, &self.buffer[self.start..self.end]) {
                Ok(length) => self.start += length,
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                Err(_) => self.give_up(),
            }
        }
        true
    }

    /// Passes the end of the stream on, after everything was written.
    fn finish(&mut self) {
        self.over = true;
        self.from = None;
        self.buffer = Vec::new();
        // A pipe is closed, a connection only from this side.
        if self.to.as_ref().is_some_and(|to| shutdown(to, Shutdown::Write).is_err()) {
            self.to = None;
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
