//! The standard streams of an app: connections to the host on one side, pipes or a terminal on the
//! other. The connections themselves are not given to the app: programs open `/dev/stdout`, which
//! works for a pipe and not for a socket.

use crate::error::{Error, Tried};
use crate::host::Host;
use crate::relay::{Relay, Side};
use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags, fchown, fcntl_getfl, fcntl_setfl, open, openat};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::SendFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Uid, ioctl_tiocsctty};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};
use sandbox_protocol::{Stdio, TerminalSize};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

/// guest-init's side of an app's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    input: Option<Relay>,
    outputs: Vec<Relay>,
    terminal: Option<Terminal>,
}

#[derive(Debug)]
struct Terminal {
    master: Rc<OwnedFd>,
    connection: Rc<OwnedFd>,
    /// Held so that the terminal lives as long as the app, whether or not it has it open.
    _slave: OwnedFd,
}

/// The app's side of its streams.
#[derive(Debug)]
pub(crate) enum Ends {
    Terminal(OwnedFd),
    /// Standard input is `/dev/null` where there is none.
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
}

/// Which of an app's relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Input,
    Output(usize),
}

impl Streams {
    /// Connects the streams. A terminal comes from `terminals`, the app's own devpts.
    pub(crate) fn connect(
        host: &dyn Host,
        stdio: &Stdio,
        terminals: BorrowedFd<'_>,
    ) -> Result<(Self, Ends), Error> {
        let connect = |port| -> Result<Rc<OwnedFd>, Error> {
            let connection = host.connect(port)?;
            set_nonblocking(&connection)?;
            Ok(Rc::new(connection))
        };
        match *stdio {
            Stdio::Terminal { port, size } => {
                let connection = connect(port)?;
                let (master, slave) = open_terminal(terminals).tried("opening a terminal")?;
                let ours = fcntl_dupfd_cloexec(&slave, 0).tried("sharing a terminal")?;
                let streams = Self {
                    input: Some(Relay::new(connection.clone(), master.clone())),
                    outputs: vec![Relay::new(master.clone(), connection.clone())],
                    terminal: Some(Terminal { master, connection, _slave: ours }),
                };
                streams.resize(size);
                Ok((streams, Ends::Terminal(slave)))
            }
            Stdio::Streams { stdin, stdout, stderr } => {
                let stdin = stdin.map(|port| input_pipe(connect(port)?)).transpose()?;
                let (output, stdout) = output_pipe(connect(stdout)?)?;
                let (errors, stderr) = output_pipe(connect(stderr)?)?;
                let (input, stdin) = stdin.unzip();
                let streams = Self { input, outputs: vec![output, errors], terminal: None };
                Ok((streams, Ends::Pipes { stdin, stdout, stderr }))
            }
        }
    }

    /// Sets the size of the app's terminal, if it has one; the kernel tells the app.
    pub(crate) fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            let size =
                Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(&terminal.master, size);
        }
    }

    /// What to poll for while the app runs or its output is on its way.
    pub(crate) fn interests(
        &self,
    ) -> impl Iterator<Item = (Stream, Side, BorrowedFd<'_>, PollFlags)> {
        let input = self.input.iter().map(|relay| (Stream::Input, relay));
        let output = |(index, relay)| (Stream::Output(index), relay);
        input.chain(self.outputs.iter().enumerate().map(output)).flat_map(|(stream, relay)| {
            relay.interests().map(move |(side, fd, flags)| (stream, side, fd, flags))
        })
    }

    /// Reacts to what a poll for one of the interests has found.
    pub(crate) fn react(&mut self, stream: Stream, side: Side, events: PollFlags) {
        let relay = match stream {
            Stream::Input => self.input.as_mut(),
            Stream::Output(index) => self.outputs.get_mut(index),
        };
        if let Some(relay) = relay {
            relay.react(side, events);
        }
        if self.terminal.as_ref().is_some_and(|terminal| self.was_hung_up(terminal)) {
            // Closing the terminal sends SIGHUP to the programs in it.
            self.terminal = None;
            self.input.iter_mut().chain(&mut self.outputs).for_each(Relay::give_up);
        }
    }

    /// Whether the host's side of a terminal has gone. The end of the host's input alone does not
    /// say so: it may still want the output.
    fn was_hung_up(&self, terminal: &Terminal) -> bool {
        if self.outputs.iter().any(Relay::is_over) {
            return self.outputs.iter().any(|relay| relay.ended_connection().is_none());
        }
        // Sending nothing tells whether the other side still reads.
        self.input.as_ref().is_some_and(Relay::is_over)
            && rustix::net::send(&terminal.connection, &[], SendFlags::NOSIGNAL).is_err()
    }

    /// Reacts to the end of the app: its input is closed, its output goes on until it was read.
    pub(crate) fn end_input(&mut self) {
        self.input = None;
        self.terminal = None;
    }

    /// Says that all that writes to the output has ended.
    pub(crate) fn call_last(&mut self) {
        self.outputs.iter_mut().for_each(Relay::call_last);
    }

    /// Whether all output was passed on.
    pub(crate) fn output_is_over(&self) -> bool {
        self.outputs.iter().all(Relay::is_over)
    }

    /// Connections that were told their end and that the host has not closed yet.
    pub(crate) fn ended_connections(&mut self) -> impl Iterator<Item = &mut Relay> {
        self.outputs.iter_mut().filter(|relay| relay.ended_connection().is_some())
    }
}

impl Ends {
    /// Makes these the standard streams of this process, which becomes the leader of a session of
    /// its own, and gives them to the user that the app runs as, who may then open them again
    /// through `/dev/stdout` and the like.
    pub(crate) fn install(self, uid: u32) -> Result<(), Error> {
        let owner = Some(Uid::from_raw(uid));
        let give = |fd: &OwnedFd| fchown(fd, owner, None);
        let install = || -> rustix::io::Result<()> {
            rustix::process::setsid()?;
            match &self {
                Self::Terminal(slave) => {
                    ioctl_tiocsctty(slave)?;
                    give(slave)?;
                    dup2_stdin(slave)?;
                    dup2_stdout(slave)?;
                    dup2_stderr(slave)
                }
                Self::Pipes { stdin, stdout, stderr } => {
                    match stdin {
                        Some(stdin) => {
                            give(stdin)?;
                            dup2_stdin(stdin)?;
                        }
                        None => dup2_stdin(open(
                            "/dev/null",
                            OFlags::RDONLY | OFlags::CLOEXEC,
                            Mode::empty(),
                        )?)?,
                    }
                    give(stdout)?;
                    give(stderr)?;
                    dup2_stdout(stdout)?;
                    dup2_stderr(stderr)
                }
            }
        };
        install().tried("setting the standard streams up")
    }
}

fn output_pipe(connection: Rc<OwnedFd>) -> Result<(Relay, OwnedFd), Error> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).tried("making a pipe")?;
    set_nonblocking(&ours)?;
    Ok((Relay::new(Rc::new(ours), connection), theirs))
}

fn input_pipe(connection: Rc<OwnedFd>) -> Result<(Relay, OwnedFd), Error> {
    let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).tried("making a pipe")?;
    set_nonblocking(&ours)?;
    Ok((Relay::new(connection, Rc::new(ours)), theirs))
}

/// Opens a new terminal: guest-init's side, the app's side.
fn open_terminal(terminals: BorrowedFd<'_>) -> rustix::io::Result<(Rc<OwnedFd>, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = openat(terminals, "ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    Ok((Rc::new(master), slave))
}

fn set_nonblocking(fd: &OwnedFd) -> Result<(), Error> {
    fcntl_getfl(fd)
        .and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .tried("making a stream non-blocking")
}
