//! Starts a process of a pod: in namespaces, a cgroup and a label of its own, as a user that nobody
//! else is, with the descriptors that it was given and nothing else.
//!
//! ```text
//! supervisor                                  child
//! clone3 ───────────────────────────────────▶ waits
//! writes uid_map and gid_map
//! says go ──────────────────────────────────▶ label, groups, root of its namespace, cgroup
//!                                             namespace, death signal, descriptors
//! hears of the step that failed, or ◀──────── execveat by descriptor
//! of nothing: the program runs
//! ```
//!
//! A program that is started as the root of a user namespace keeps its capabilities over that
//! namespace and what belongs to it, and has none over anything of the host's. So it can build an
//! empty root directory for itself, and then has to give them up; see `sandbox-vmm`'s jail.
//!
//! The program is executed by a descriptor that was opened before: whatever has its name by then,
//! the file that was opened, and maybe measured, is what runs. The kernel takes a mount of another
//! mount namespace for one with `nosuid`, so an SELinux policy has to allow `nosuid_transition`.

mod child;
#[cfg(test)]
mod tests;

use child::{Child, Report};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// Which of the kernel's namespaces a process gets of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// A PID namespace: it sees no process, and what it starts ends with it.
    Pid,
    /// All that there are but the one for clocks: user, mount, PID, IPC, network, UTS and cgroup.
    /// The process is root of the user namespace, which is this user of the host.
    All(User),
    /// The host's. Only where the layers are attacked one by one (`tests/hostile`): as this user of
    /// the host, or as who starts it.
    #[cfg(feature = "hostile")]
    Host(Option<User>),
}

/// A user of the host, and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group, the only one of the process where [`User::has_no_groups`].
    pub gid: u32,
}

impl User {
    /// The user that this process is. A process of its own can't give up supplementary groups.
    pub fn own() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// A process that is to be started.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program's file, open.
    pub program: BorrowedFd<'a>,
    /// The program's arguments, the first of which is its name.
    pub arguments: Vec<CString>,
    /// Its environment, `NAME=VALUE`.
    pub environment: Vec<CString>,
    /// Descriptors that it gets, under the same numbers. None of the standard streams.
    pub inherited: &'a [BorrowedFd<'a>],
    /// Namespaces of its own.
    pub namespaces: Namespaces,
    /// The directory of the cgroup, of version 2, that it starts in; the supervisor's without.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The SELinux context that it runs with; without, the one that the policy has for it.
    pub label: Option<&'a CStr>,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There are no namespaces to be had.
    #[error(
        "cannot make a process in namespaces of its own: {0}; the sysctls user.max_*_namespaces \
         have to allow them"
    )]
    Namespaces(io::Error),
    /// The process can't be told which user it is.
    #[error("cannot map the user of a new process: {0}")]
    Map(io::Error),
    /// Pipes, sockets, files.
    #[error("cannot prepare a new process: {0}")]
    Prepare(#[from] io::Error),
    /// It could not become the program.
    #[error("cannot {step}: {error}")]
    Step {
        /// What it tried.
        step: &'static str,
        /// What the kernel answered.
        error: io::Error,
    },
    /// It ended before it was the program, and didn't say why.
    #[error("the new process ended before it was the program")]
    Ended,
}

impl From<Errno> for SpawnError {
    fn from(error: Errno) -> Self {
        Self::Prepare(error.into())
    }
}

/// A process that runs its program.
#[derive(Debug)]
pub struct Started {
    pid: Pid,
    /// Refers to it, and to no other one that has its number later.
    pub pidfd: OwnedFd,
    /// What it writes to standard error.
    pub stderr: OwnedFd,
}

impl Started {
    /// Its number, which another process may have once it was waited for.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// Those of `wait4(2)`.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        wait(self.pid)
    }

    /// Kills it, if it has not ended.
    ///
    /// # Errors
    /// None that there is a reason for: it is this process's own child.
    pub fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits for the end of a child of ours that nobody else waits for.
fn wait(pid: Pid) -> io::Result<ExitStatus> {
    loop {
        match rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Spawn<'_> {
    /// Starts it, with `/` as its directory, and nothing to read on standard input or to say on
    /// standard output.
    ///
    /// It is killed when the calling thread ends, so call this from the main thread. It ignores the
    /// signals by which a terminal or a service manager ends a group of processes: a pod is ended
    /// by its supervisor, which hears them, too.
    ///
    /// # Errors
    /// See [`SpawnError`]. The process is gone then.
    pub fn start(self) -> Result<Started, SpawnError> {
        // Everything is made before: between clone and exec nothing can be allocated.
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let (stderr, child_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let inherited: Vec<RawFd> = self.inherited.iter().map(AsRawFd::as_raw_fd).collect();
        let [arguments, environment] = [&self.arguments, &self.environment].map(|words| {
            let words = words.iter().map(|word| word.as_ptr());
            words.chain([std::ptr::null()]).collect::<Vec<_>>()
        });
        let (namespaces, user) = match self.namespaces {
            Namespaces::Pid => (libc::CLONE_NEWPID, None),
            Namespaces::All(user) => (ALL, Some(user)),
            #[cfg(feature = "hostile")]
            Namespaces::Host(_) => (0, None),
        };
        let privileged = rustix::process::geteuid().is_root();
        let child = Child {
            program: self.program.as_raw_fd(),
            arguments: &arguments,
            environment: &environment,
            inherited: &inherited,
            label: self.label.map(CStr::to_bytes_with_nul),
            null: null.as_raw_fd(),
            stderr: child_stderr.as_raw_fd(),
            supervisor: theirs.as_raw_fd(),
            supervisors_end: ours.as_raw_fd(),
            becomes_root: user.is_some(),
            #[cfg(feature = "hostile")]
            becomes: match self.namespaces {
                Namespaces::Host(user) => user,
                _ => None,
            },
            // Without privilege, setgroups(2) has to be denied before gid_map can be written.
            drops_groups: user.is_some() && privileged,
            enters_cgroup_namespace: user.is_some(),
        };
        let (pid, pidfd) = child::clone(&child, namespaces, self.cgroup)?;
        drop((theirs, child_stderr, null));

        match go(pid, user, privileged, &ours) {
            Ok(()) => Ok(Started { pid, pidfd, stderr }),
            Err(error) => {
                // It may have ended already; a pidfd of our own child refuses nothing else.
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                wait(pid)?;
                Err(error)
            }
        }
    }
}

/// The namespaces that the child is made in. The cgroup namespace is none of them: one that is made
/// by clone begins at the cgroup of who calls it, and not at the one that the child is put into.
const ALL: libc::c_int = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUTS;

/// Gives the child its user, lets it go on and hears whether it has become the program.
fn go(pid: Pid, user: Option<User>, privileged: bool, child: &OwnedFd) -> Result<(), SpawnError> {
    if let Some(user) = user {
        map(pid, user, privileged).map_err(SpawnError::Map)?;
    }
    match rustix::net::send(child, &[1], SendFlags::NOSIGNAL) {
        // It has ended; maybe it has said why.
        Ok(_) | Err(Errno::PIPE) => {}
        Err(error) => return Err(error.into()),
    }
    let mut report = [0; Report::SIZE];
    let length = loop {
        match rustix::net::recv(child, &mut report[..], RecvFlags::empty()) {
            Ok((_, length)) => break length,
            Err(Errno::INTR) => {}
            // A packet of ours that it ended without having read.
            Err(Errno::CONNRESET) => return Err(SpawnError::Ended),
            Err(error) => return Err(error.into()),
        }
    };
    match (length, Report::parse(report)) {
        // The socket was closed by exec.
        (0, _) => Ok(()),
        (Report::SIZE, Some((step, error))) => Err(SpawnError::Step { step, error }),
        _ => Err(SpawnError::Ended),
    }
}

/// Makes a user of the host the root of the child's user namespace, and nobody else known there
/// (user_namespaces(7)).
fn map(pid: Pid, user: User, privileged: bool) -> io::Result<()> {
    let directory = format!("/proc/{}", pid.as_raw_pid());
    if !privileged {
        fs::write(format!("{directory}/setgroups"), "deny")?;
    }
    fs::write(format!("{directory}/uid_map"), format!("0 {} 1\n", user.uid))?;
    fs::write(format!("{directory}/gid_map"), format!("0 {} 1\n", user.gid))
}

/// Opens a program to execute it.
///
/// # Errors
/// Those of `open(2)`.
pub fn open(program: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open(program, flags, Mode::empty())?)
}

/// The same number as a descriptor, that a child sees what it inherits by.
pub fn number(descriptor: &impl AsFd) -> RawFd {
    descriptor.as_fd().as_raw_fd()
}

/// Takes what the kernel has put into a field of a structure.
fn owned(descriptor: RawFd) -> OwnedFd {
    // SAFETY: clone3 has just made it for this process, and nothing else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
