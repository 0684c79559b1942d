//! Evidence for the pod's own programs: a socket in every app, `/run/sandbox/attest.sock`, that
//! speaks HTTP/1.1, one request for each connection.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/pod` | the pod's UUID, tenant, and the public key of its guest, as JSON |
//! | `GET /v1/evidence?nonce=HEX` | evidence over a nonce of 16 to 64 bytes, made by the host and passed on |
//!
//! Apps may be hostile to each other: all that one says is bounded in size and time, one question is
//! put to the host at a time, and the others wait in their order. All of it is done in guest-init's
//! one loop: nothing blocks.

mod request;

use crate::error::{Error, Tried};
use crate::host::Host;
use crate::mounts;
use request::{Parsed, Request};
use rustix::event::PollFlags;
use rustix::fs::{AtFlags, OFlags};
use rustix::fs::{CWD, Mode, chmodat, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    send, socket_with,
};
use sandbox_protocol::evidence::{Header, Kind, write_question};
use sandbox_protocol::secret::KEY;
use sandbox_protocol::{EVIDENCE_PORT, Measured, Text};
use serde_json::json;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most connections at a time; more wait in the kernel.
const VISITORS: usize = 16;

/// How long an app may take for its request.
const ASKING: Duration = Duration::from_secs(10);

/// How long all the rest may take: the host's turn at the TPM, and the app's reading.
const ANSWERING: Duration = Duration::from_secs(180);

/// Bytes that are held for an app that reads slowly.
const BUFFER: usize = 64 << 10;

/// The socket and those who ask at it.
pub(crate) struct Desk<'a> {
    host: &'a dyn Host,
    listener: OwnedFd,
    /// The answer to `GET /v1/pod`.
    about: String,
    visitors: Vec<Visitor>,
}

/// Whose descriptor it is; visitors by index.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Listener,
    App(usize),
    Host(usize),
}

struct Visitor {
    app: OwnedFd,
    until: Instant,
    state: State,
}

enum State {
    /// The request is on its way.
    Reading(Vec<u8>),
    /// Others come first.
    Waiting(Vec<u8>),
    /// The host has the question; what came of its answer so far is less than it has to say before
    /// the app can be told something.
    Asking { host: File, answer: Vec<u8> },
    /// Bytes for the app from `start` on, and so many more from the host.
    Answering { buffer: Vec<u8>, start: usize, more: Option<(File, u32)> },
    /// It has gone.
    Over,
}

impl<'a> Desk<'a> {
    /// Makes the socket, in guest-init's own tree.
    pub(crate) fn open(
        measured: &Measured,
        public_key: [u8; KEY],
        host: &'a dyn Host,
    ) -> Result<Self, Error> {
        let path = format!("{}/attest.sock", mounts::EVIDENCE);
        mounts::directory(mounts::EVIDENCE, 0o755)?;
        let make = || -> rustix::io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            bind(&listener, &SocketAddrUnix::new(path.as_str())?)?;
            chmodat(CWD, path.as_str(), Mode::from_raw_mode(0o666), AtFlags::empty())?;
            listen(&listener, 16)?;
            Ok(listener)
        };
        let listener = make().tried("making the socket for evidence")?;
        let tenant = Some(&measured.tenant).filter(|tenant| !tenant.is_empty());
        let about = json!({
            "version": 1,
            "pod": measured.uuid,
            "tenant": tenant,
            "guestKey": hex(&public_key),
        });
        Ok(Self { host, listener, about: about.to_string(), visitors: Vec::new() })
    }

    /// What to poll for.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Part, BorrowedFd<'_>, PollFlags)> {
        let listener = (self.visitors.len() < VISITORS)
            .then(|| (Part::Listener, self.listener.as_fd(), PollFlags::IN));
        let visitors = self.visitors.iter().enumerate().flat_map(|(index, visitor)| {
            // That an app goes away shows even if nothing is asked for.
            let (app, host) = match &visitor.state {
                State::Reading(_) => (PollFlags::IN, None),
                State::Waiting(_) | State::Over => (PollFlags::empty(), None),
                State::Asking { host, .. } => (PollFlags::empty(), Some(host)),
                State::Answering { buffer, start, .. } if *start < buffer.len() => {
                    (PollFlags::OUT, None)
                }
                State::Answering { more, .. } => {
                    (PollFlags::empty(), more.as_ref().map(|(host, _)| host))
                }
            };
            let host = host.map(|host| (Part::Host(index), host.as_fd(), PollFlags::IN));
            std::iter::once((Part::App(index), visitor.app.as_fd(), app)).chain(host)
        });
        listener.into_iter().chain(visitors)
    }

    /// When somebody's time is over, if somebody is there.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.visitors.iter().map(|visitor| visitor.until).min()
    }

    /// Reacts to what a poll for one of the interests has found.
    pub(crate) fn react(&mut self, part: Part, events: PollFlags) {
        match part {
            Part::Listener => self.accept(),
            Part::App(index) | Part::Host(index) => {
                let Some(visitor) = self.visitors.get_mut(index) else { return };
                let gone = PollFlags::HUP | PollFlags::ERR;
                if matches!(part, Part::App(_)) && events.intersects(gone) {
                    visitor.state = State::Over;
                }
                visitor.turn(&self.about);
            }
        }
    }

    /// Shows those out who are done or whose time is over, and asks the host for the next one.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.visitors
            .retain(|visitor| !matches!(visitor.state, State::Over) && visitor.until > now);
        let asks = |visitor: &Visitor| match &visitor.state {
            State::Asking { .. } => true,
            State::Answering { more, .. } => more.is_some(),
            _ => false,
        };
        if self.visitors.iter().any(asks) {
            return;
        }
        for visitor in &mut self.visitors {
            if let State::Waiting(nonce) = &visitor.state {
                visitor.state = match ask(self.host, nonce) {
                    Ok(host) => State::Asking { host, answer: Vec::new() },
                    Err(error) => {
                        answer(request::error("503 Service Unavailable", &error.to_string()))
                    }
                };
                return;
            }
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // One that has gone meanwhile is none.
        if let Ok(app) = accept_with(&self.listener, flags) {
            let until = Instant::now() + ASKING;
            self.visitors.push(Visitor { app, until, state: State::Reading(Vec::new()) });
        }
    }
}

/// Puts a question to the host, on a connection of its own.
fn ask(host: &dyn Host, nonce: &[u8]) -> Result<File, Error> {
    let mut connection = File::from(host.connect(EVIDENCE_PORT)?);
    let asked = write_question(&mut connection, nonce)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    asked
        .and_then(|()| fcntl_getfl(&connection))
        .and_then(|flags| fcntl_setfl(&connection, flags | OFlags::NONBLOCK))
        .tried("asking the host for evidence")?;
    Ok(connection)
}

fn answer(buffer: Vec<u8>) -> State {
    State::Answering { buffer, start: 0, more: None }
}

impl Visitor {
    /// Does what can be done now.
    fn turn(&mut self, about: &str) {
        loop {
            let state = std::mem::replace(&mut self.state, State::Over);
            let (state, again) = match state {
                State::Reading(request) => self.read(request, about),
                State::Asking { host, answer } => hear(host, answer),
                State::Answering { buffer, start, more } => self.write(buffer, start, more),
                state @ (State::Waiting(_) | State::Over) => (state, false),
            };
            self.state = state;
            if !again {
                return;
            }
        }
    }

    fn read(&mut self, mut request: Vec<u8>, about: &str) -> (State, bool) {
        let mut chunk = [0; 1024];
        match rustix::io::read(&self.app, &mut chunk) {
            Ok(0) => return (State::Over, false),
            Ok(length) => request.extend_from_slice(&chunk[..length]),
            Err(Errno::AGAIN | Errno::INTR) => return (State::Reading(request), false),
            Err(_) => return (State::Over, false),
        }
        let (state, again) = match request::parse(&request) {
            Parsed::Incomplete => return (State::Reading(request), true),
            Parsed::Request(Request::Pod) => (answer(request::json(about)), true),
            Parsed::Request(Request::Evidence(nonce)) => (State::Waiting(nonce), false),
            Parsed::Refused(response) => (answer(response), true),
        };
        self.until = Instant::now() + ANSWERING;
        (state, again)
    }

    fn write(
        &self,
        mut buffer: Vec<u8>,
        mut start: usize,
        mut more: Option<(File, u32)>,
    ) -> (State, bool) {
        if let Some(rest) = buffer.get(start..).filter(|rest| !rest.is_empty()) {
            match send(&self.app, rest, SendFlags::NOSIGNAL) {
                Ok(length) => start += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    return (State::Answering { buffer, start, more }, false);
                }
                Err(_) => return (State::Over, false),
            }
            return (State::Answering { buffer, start, more }, true);
        }
        let Some((host, left)) = &mut more else { return (State::Over, false) };
        let most = BUFFER.min(usize::try_from(*left).unwrap_or(BUFFER));
        buffer.resize(most, 0);
        match rustix::io::read(&*host, &mut buffer) {
            // Less than it had announced: the app sees that by the length.
            Ok(0) => return (State::Over, false),
            Ok(length) => {
                buffer.truncate(length);
                *left -= u32::try_from(length).unwrap_or(*left);
            }
            Err(Errno::AGAIN | Errno::INTR) => {
                buffer.clear();
                return (State::Answering { buffer, start: 0, more }, false);
            }
            Err(_) => return (State::Over, false),
        }
        let more = more.filter(|(_, left)| *left > 0);
        (State::Answering { buffer, start: 0, more }, true)
    }
}

/// Takes the host's answer in, as far as it has to be known before the app can be answered.
fn hear(host: File, mut heard: Vec<u8>) -> (State, bool) {
    let broken = || {
        let error = "the host did not answer the question for evidence";
        (answer(request::error("502 Bad Gateway", error)), true)
    };
    let header = heard.first_chunk().map(|header| Header::parse(*header));
    let needed = match header {
        None => Header::LENGTH,
        Some(None) => return broken(),
        Some(Some(Header { kind: Kind::Evidence, length })) => {
            let more = Some((host, length)).filter(|_| length > 0);
            let buffer = request::head("200 OK", length as usize);
            return (State::Answering { buffer, start: 0, more }, true);
        }
        Some(Some(Header { length, .. })) => Header::LENGTH + length as usize,
    };
    if heard.len() == needed {
        let reason = Text::new(&heard[Header::LENGTH..]).to_string();
        let response = match header {
            Some(Some(Header { kind: Kind::Busy, .. })) => request::busy(),
            _ => request::error("503 Service Unavailable", &reason),
        };
        return (answer(response), true);
    }
    let start = heard.len();
    heard.resize(needed, 0);
    match rustix::io::read(&host, &mut heard[start..]) {
        Ok(0) => broken(),
        Ok(length) => {
            heard.truncate(start + length);
            (State::Asking { host, answer: heard }, true)
        }
        Err(Errno::AGAIN | Errno::INTR) => {
            heard.truncate(start);
            (State::Asking { host, answer: heard }, false)
        }
        Err(_) => broken(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
