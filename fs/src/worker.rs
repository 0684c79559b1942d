//! One worker, from its command line to the end of its frontend.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;
use vhost::vhost_user::{BackendReqHandler, Error as VhostUserError};
use virtiofsd::passthrough::{self, CachePolicy, InodeFileHandlesMode, PassthroughFs};

use crate::confine::{self, ConfineError};
use crate::device::{Device, QUEUES};
use crate::diagnostics;
use crate::filter::{self, FilterError};
use crate::footprint;
use crate::guard::Guard;
use crate::share::{Share, ShareError};
use crate::view::{self, ViewError};

/// How long the frontend may take to connect, in seconds. It normally has connected before the
/// worker starts; without a bound, a supervisor that dies in between would leave the worker behind.
const CONNECT_TIMEOUT_SECONDS: i64 = 30;

/// How long the guest may rely on names and attributes it has seen before it asks again.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why the worker failed.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The command line is wrong.
    #[error("{0}; usage: sandbox-fs --fd N --share NAME=PATH[:ro] ...")]
    Usage(String),
    /// A share's argument is wrong.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The process could not be confined.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The view of the shares could not be built.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The system calls could not be limited.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The file server does not start.
    #[error("cannot start the file server")]
    Server(#[source] io::Error),
    /// The frontend did not connect, or the connection could not be watched.
    #[error("cannot accept the frontend")]
    Accept(#[source] io::Error),
    /// Waiting for the frontend or the guest failed.
    #[error("cannot wait for requests")]
    Wait(#[source] io::Error),
    /// The frontend passed a descriptor that is no event descriptor.
    #[error("cannot read the kick descriptor of queue {0}")]
    Kick(usize, #[source] io::Error),
    /// The frontend broke the vhost-user protocol.
    #[error("the frontend sent a wrong vhost-user message: {0}")]
    Protocol(VhostUserError),
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of the inherited listening socket.
    pub fd: RawFd,
    /// What to serve; at least one, with distinct names.
    pub shares: Vec<Share>,
}

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// [`WorkerError::Usage`] or [`WorkerError::Share`].
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, WorkerError> {
        let (mut fd, mut shares) = (None, Vec::<Share>::new());
        let mut arguments = arguments.into_iter();
        while let Some(option) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| WorkerError::Usage(format!("{option:?} needs a value")))?;
            match option.as_bytes() {
                b"--fd" => {
                    let number = value.to_str().and_then(|value| value.parse::<RawFd>().ok());
                    fd = Some(number.filter(|number| *number > 2).ok_or_else(|| {
                        WorkerError::Usage(format!("--fd {value:?}: expected a number above 2"))
                    })?);
                }
                b"--share" => {
                    let share = Share::parse(&value)?;
                    if shares.iter().any(|other| other.name() == share.name()) {
                        let name = share.name();
                        return Err(WorkerError::Usage(format!("--share {name}: given twice")));
                    }
                    shares.push(share);
                }
                _ => return Err(WorkerError::Usage(format!("unknown option {option:?}"))),
            }
        }
        let fd = fd.ok_or_else(|| WorkerError::Usage("--fd is missing".to_owned()))?;
        if shares.is_empty() {
            return Err(WorkerError::Usage("--share is missing".to_owned()));
        }
        Ok(Self { fd, shares })
    }
}

/// Confines the process and serves until the frontend hangs up.
///
/// The process must have one thread and must have opened nothing yet.
///
/// # Errors
/// [`WorkerError`]: nothing has been served, or the frontend broke the protocol.
pub fn run(options: &Options) -> Result<(), WorkerError> {
    diagnostics::install();
    // It was executed by a descriptor, whose number older kernels take for its name. For people.
    let _ = rustix::thread::set_name(c"sandbox-fs");
    footprint::keep_heap_small();
    confine::keep_core()?;
    let listener = confine::keep_only(options.fd)?;
    let view = view::enter(&options.shares)?;
    let guest_files = confine::limit_resources()?;
    confine::drop_privileges()?;
    let files = file_server(view.proc_self_fd, guest_files).map_err(WorkerError::Server)?;
    let device = Device::new(files).map_err(WorkerError::Protocol)?;
    #[cfg(feature = "hostile")]
    crate::hostile::start().map_err(WorkerError::Server)?;
    filter::install()?;
    footprint::release_start();
    serve(accept(listener)?, device)
}

/// The file server on the root directory, which is the view's. The guest may hold so many files.
///
/// # Errors
/// What opening the root directory answers.
pub fn file_server(proc_self_fd: File, guest_files: u64) -> io::Result<Guard> {
    let config = passthrough::Config {
        root_dir: "/".to_owned(),
        proc_sfd_rawfd: Some(proc_self_fd),
        guest_fd_limit: guest_files,
        // Inodes are held by descriptor: opening by handle needs DAC_READ_SEARCH, and a handle can
        // name any file of the file system the share lies on.
        inode_file_handles: InodeFileHandlesMode::Never,
        announce_submounts: true,
        cache_policy: CachePolicy::Auto,
        entry_timeout: TIMEOUT,
        attr_timeout: TIMEOUT,
        writeback: false,
        readdirplus: true,
        xattr: true,
        killpriv_v2: true,
        ..passthrough::Config::default()
    };
    PassthroughFs::new(config).map(Guard::new)
}

fn accept(listener: UnixListener) -> Result<UnixStream, WorkerError> {
    let timeout = Timespec { tv_sec: CONNECT_TIMEOUT_SECONDS, tv_nsec: 0 };
    let mut descriptors = [PollFd::new(&listener, PollFlags::IN)];
    match retry(|| poll(&mut descriptors, Some(&timeout))) {
        Ok(0) => Err(WorkerError::Accept(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("nobody connected within {CONNECT_TIMEOUT_SECONDS} s"),
        ))),
        Ok(_) => listener.accept().map(|(stream, _)| stream).map_err(WorkerError::Accept),
        Err(error) => Err(WorkerError::Accept(error.into())),
    }
}

/// Serves the frontend's messages and the guest's requests until the frontend hangs up.
fn serve(frontend: UnixStream, device: Device) -> Result<(), WorkerError> {
    let device = Arc::new(Mutex::new(device));
    let mut messages = BackendReqHandler::from_stream(frontend, Arc::clone(&device));
    let mut pending = [false; QUEUES];
    loop {
        let ready = wait(&messages, &lock(&device), pending)?;
        if ready.hung_up {
            return Ok(());
        }
        if ready.message {
            match messages.handle_request() {
                Ok(()) | Err(VhostUserError::SocketRetry(_)) => {}
                Err(
                    VhostUserError::Disconnected
                    | VhostUserError::PartialMessage
                    | VhostUserError::SocketBroken(_),
                ) => return Ok(()),
                Err(error) => return Err(WorkerError::Protocol(error)),
            }
        }
        for (index, more) in pending.iter_mut().enumerate() {
            let kicked = ready.kicked[index];
            if kicked || *more {
                *more = lock(&device)
                    .process(index, kicked)
                    .map_err(|error| WorkerError::Kick(index, error))?;
            }
        }
    }
}

/// What [`wait`] found.
#[derive(Default)]
struct Ready {
    message: bool,
    hung_up: bool,
    kicked: [bool; QUEUES],
}

/// Waits for a message or a kick; only looks if there is work left from before.
fn wait(
    messages: &BackendReqHandler<Mutex<Device>>,
    device: &Device,
    pending: [bool; QUEUES],
) -> Result<Ready, WorkerError> {
    let raw = messages.as_raw_fd();
    // SAFETY: the descriptor belongs to `messages`, which is borrowed for longer than this.
    let socket = unsafe { BorrowedFd::borrow_raw(raw) };
    let kicks: [Option<BorrowedFd<'_>>; QUEUES] = std::array::from_fn(|index| device.kick(index));
    // A queue without a kick descriptor is represented by the socket, without any event.
    let watched = |kick: Option<BorrowedFd<'_>>| kick.map_or(PollFlags::empty(), |_| PollFlags::IN);
    let mut descriptors = [
        PollFd::from_borrowed_fd(socket, PollFlags::IN),
        PollFd::from_borrowed_fd(kicks[0].unwrap_or(socket), watched(kicks[0])),
        PollFd::from_borrowed_fd(kicks[1].unwrap_or(socket), watched(kicks[1])),
    ];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let timeout = pending.contains(&true).then_some(&now);
    retry(|| poll(&mut descriptors, timeout)).map_err(|error| WorkerError::Wait(error.into()))?;

    let [message, first, second] = descriptors.map(|descriptor| descriptor.revents());
    let broken = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    // Reading from a broken kick descriptor tells what is wrong with it.
    let kicked =
        |watched: bool, events: PollFlags| watched && events.intersects(PollFlags::IN | broken);
    Ok(Ready {
        message: message.contains(PollFlags::IN),
        hung_up: message.intersects(broken),
        kicked: [kicked(kicks[0].is_some(), first), kicked(kicks[1].is_some(), second)],
    })
}

/// There is one thread, so nobody can have failed while holding the lock.
fn lock(device: &Mutex<Device>) -> MutexGuard<'_, Device> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

fn retry<T>(
    mut call: impl FnMut() -> Result<T, rustix::io::Errno>,
) -> Result<T, rustix::io::Errno> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(arguments.iter().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_names_a_socket_and_at_least_one_share() {
        let options = parse(&["--fd", "7", "--share", "a=/a:ro", "--share", "b=/b"]).unwrap();
        assert_eq!(options.fd, 7);
        assert_eq!(options.shares.len(), 2);
        for (arguments, reason) in [
            (&["--share", "a=/a"][..], "--fd is missing"),
            (&["--fd", "7"], "--share is missing"),
            (&["--fd"], "needs a value"),
            (&["--fd", "1", "--share", "a=/a"], "expected a number above 2"),
            (&["--fd", "7", "--share", "a=/a", "--share", "a=/b"], "given twice"),
            (&["--fd", "7", "--tag", "a"], "unknown option"),
        ] {
            let error = parse(arguments).unwrap_err();
            assert!(error.contains(reason), "{arguments:?}: {error}");
        }
    }
}
