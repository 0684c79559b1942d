//! What happens in the new process until it is another program.
//!
//! It is a copy of a process that may have threads, none of which is in the copy: whatever they
//! held a lock of stays locked. So there are only system calls here, made directly: no allocation,
//! no formatting, nothing that can panic.

use crate::{SpawnError, owned};
use rustix::process::Pid;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// All that the child needs, made before it is.
#[derive(Debug)]
pub struct Child<'a> {
    /// The file that it becomes.
    pub program: RawFd,
    /// With a null pointer at the end.
    pub arguments: &'a [*const libc::c_char],
    /// The same.
    pub environment: &'a [*const libc::c_char],
    /// What stays open besides the standard streams.
    pub inherited: &'a [RawFd],
    /// With its terminating NUL, as the kernel has it.
    pub label: Option<&'a [u8]>,
    /// `/dev/null`
    pub null: RawFd,
    /// What becomes standard error.
    pub stderr: RawFd,
    /// The socket to the supervisor.
    pub supervisor: RawFd,
    /// The supervisor's end of it, which is open here, too.
    pub supervisors_end: RawFd,
    /// Whether it becomes root of its user namespace.
    pub becomes_root: bool,
    /// Which user of the host it becomes, without a namespace of its own.
    #[cfg(feature = "hostile")]
    pub becomes: Option<crate::User>,
    /// Whether it gives up supplementary groups.
    pub drops_groups: bool,
    /// Whether it gets a cgroup namespace that begins at its cgroup.
    pub enters_cgroup_namespace: bool,
}

/// What the child can fail at; its number is what the supervisor is told.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Step {
    Wait,
    Label,
    User,
    Cgroup,
    DeathSignal,
    Directory,
    Signals,
    Streams,
    Descriptors,
    Execute,
}

impl Step {
    const ALL: [(Self, &'static str); 10] = [
        (Self::Wait, "hear of the supervisor"),
        (Self::Label, "set the SELinux context of a process (/proc/thread-self/attr/exec)"),
        (Self::User, "become root of a user namespace"),
        (Self::Cgroup, "make a cgroup namespace"),
        (Self::DeathSignal, "tie a process to its supervisor"),
        (Self::Directory, "change to the root directory"),
        (Self::Signals, "ignore signals"),
        (Self::Streams, "set up standard streams"),
        (Self::Descriptors, "choose the descriptors that a process gets"),
        (Self::Execute, "execute the program"),
    ];
}

/// What the child says when it failed: the step, and the kernel's answer.
#[derive(Debug)]
pub struct Report;

impl Report {
    /// In bytes.
    pub const SIZE: usize = 5;

    fn of(step: Step, error: i32) -> [u8; Self::SIZE] {
        let [e0, e1, e2, e3] = error.to_le_bytes();
        [step as u8, e0, e1, e2, e3]
    }

    /// Reads one.
    pub fn parse([step, error @ ..]: [u8; Self::SIZE]) -> Option<(&'static str, io::Error)> {
        let (_, name) = Step::ALL.into_iter().find(|(known, _)| *known as u8 == step)?;
        Some((name, io::Error::from_raw_os_error(i32::from_le_bytes(error))))
    }
}

/// `struct clone_args` of the kernel, version 2 (clone(2)).
#[derive(Default)]
#[repr(C, align(8))]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Handlers of this process are not the child's.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// The child begins in the cgroup whose directory is open as `cgroup`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes the child. It waits until it hears of us.
pub fn clone(
    child: &Child<'_>,
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(Pid, OwnedFd), SpawnError> {
    let mut pidfd: RawFd = -1;
    let mut arguments = CloneArgs {
        flags: u64::from(namespaces.cast_unsigned())
            | u64::from(libc::CLONE_PIDFD.cast_unsigned())
            | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: the structure is the kernel's, and so is its size. Without CLONE_VM the child has
    // memory of its own, a copy of ours with this stack, as after fork(2). It makes system calls
    // only, see `Child::run`, and never returns from there.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) };
    match pid {
        0 => child.run(),
        -1 => Err(SpawnError::Namespaces(io::Error::last_os_error())),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(SpawnError::Ended)?;
            Ok((pid, owned(pidfd)))
        }
    }
}

type Outcome<T = ()> = Result<T, (Step, i32)>;

/// A system call with this number and these arguments.
macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {
        // SAFETY: pointers among the arguments, if any, are to memory of `Child` or of this
        // module, which the child has a copy of; it has one thread, so nothing else of the process
        // can be affected.
        check(unsafe { libc::syscall($number $(, $argument)*) })
    };
}

fn check(result: libc::c_long) -> Result<libc::c_long, i32> {
    if result >= 0 {
        return Ok(result);
    }
    // SAFETY: the address of this thread's error number, which the C library keeps for the thread's
    // whole life.
    Err(unsafe { *libc::__errno_location() })
}

fn at(step: Step) -> impl Fn(i32) -> (Step, i32) {
    move |error| (step, error)
}

const NUL: *const libc::c_char = c"".as_ptr();

impl Child<'_> {
    fn run(&self) -> ! {
        let Err((step, error)) = self.become_program();
        let report = Report::of(step, error);
        // If this fails, there is no supervisor.
        let _ = call!(libc::SYS_write, self.supervisor, report.as_ptr(), report.len());
        loop {
            let _ = call!(libc::SYS_exit_group, 127);
        }
    }

    fn become_program(&self) -> Outcome<std::convert::Infallible> {
        self.wait_for_supervisor()?;
        // First, while this is still the supervisor's user and `/proc` the supervisor's.
        self.set_label().map_err(at(Step::Label))?;
        self.change_user().map_err(at(Step::User))?;
        if self.enters_cgroup_namespace {
            call!(libc::SYS_unshare, libc::CLONE_NEWCGROUP).map_err(at(Step::Cgroup))?;
        }
        // A change of user forgets the signal, so this comes after it.
        self.die_with_supervisor()?;
        call!(libc::SYS_chdir, c"/".as_ptr()).map_err(at(Step::Directory))?;
        set_signals().map_err(at(Step::Signals))?;
        for (from, to) in [(self.null, 0), (self.null, 1), (self.stderr, 2)] {
            call!(libc::SYS_dup3, from, to, 0).map_err(at(Step::Streams))?;
        }
        self.choose_descriptors().map_err(at(Step::Descriptors))?;
        call!(
            libc::SYS_execveat,
            self.program,
            NUL,
            self.arguments.as_ptr(),
            self.environment.as_ptr(),
            libc::AT_EMPTY_PATH
        )
        .map_err(at(Step::Execute))?;
        // execveat returns with an error only.
        Err((Step::Execute, 0))
    }

    /// Waits for the byte that says that our user is mapped.
    fn wait_for_supervisor(&self) -> Outcome {
        let step = at(Step::Wait);
        // Without it, the end of the supervisor is the end of the socket.
        call!(libc::SYS_close, self.supervisors_end).map_err(&step)?;
        let mut byte = [0_u8];
        loop {
            match call!(libc::SYS_read, self.supervisor, byte.as_mut_ptr(), 1) {
                Ok(1) => return Ok(()),
                Err(libc::EINTR) => {}
                Err(error) => return Err(step(error)),
                Ok(_) => return Err(step(libc::EPIPE)),
            }
        }
    }

    fn set_label(&self) -> Result<(), i32> {
        let Some(label) = self.label else { return Ok(()) };
        let file = call!(
            libc::SYS_openat,
            libc::AT_FDCWD,
            c"/proc/thread-self/attr/exec".as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC
        )?;
        call!(libc::SYS_write, file, label.as_ptr(), label.len())?;
        call!(libc::SYS_close, file).map(drop)
    }

    fn change_user(&self) -> Result<(), i32> {
        #[cfg(feature = "hostile")]
        if let Some(user) = self.becomes {
            call!(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>())?;
            call!(libc::SYS_setresgid, user.gid, user.gid, user.gid)?;
            call!(libc::SYS_setresuid, user.uid, user.uid, user.uid)?;
        }
        if self.drops_groups {
            call!(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>())?;
        }
        if self.becomes_root {
            call!(libc::SYS_setresgid, 0, 0, 0)?;
            call!(libc::SYS_setresuid, 0, 0, 0)?;
        }
        Ok(())
    }

    fn die_with_supervisor(&self) -> Outcome {
        let step = at(Step::DeathSignal);
        call!(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0).map_err(&step)?;
        // It may have died before it could be asked for. getppid(2) can't tell: the parent of the
        // first process of a PID namespace has no number there.
        let mut byte = [0_u8];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let none = std::ptr::null::<libc::sockaddr>();
        match call!(
            libc::SYS_recvfrom,
            self.supervisor,
            byte.as_mut_ptr(),
            1,
            flags,
            none,
            std::ptr::null::<libc::socklen_t>()
        ) {
            Err(libc::EAGAIN) => Ok(()),
            Err(error) => Err(step(error)),
            Ok(_) => Err(step(libc::EPIPE)),
        }
    }

    fn choose_descriptors(&self) -> Result<(), i32> {
        // The supervisor's own descriptors are closed on exec already; those that it inherited may
        // not be.
        call!(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
        for descriptor in self.inherited {
            call!(libc::SYS_fcntl, *descriptor, libc::F_SETFD, 0)?;
        }
        Ok(())
    }
}

/// `struct sigaction` of the kernel on x86-64, which is another one than the C library's.
#[repr(C)]
struct SignalAction {
    handler: libc::sighandler_t,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Ignores what ends a group of processes, and has no signal blocked.
fn set_signals() -> Result<(), i32> {
    let action = |handler| SignalAction { handler, flags: 0, restorer: 0, mask: 0 };
    let size = size_of::<u64>();
    for (signal, handler) in [
        (libc::SIGINT, libc::SIG_IGN),
        (libc::SIGTERM, libc::SIG_IGN),
        (libc::SIGHUP, libc::SIG_IGN),
        (libc::SIGQUIT, libc::SIG_IGN),
        // Rust's runtime ignores it in the supervisor.
        (libc::SIGPIPE, libc::SIG_DFL),
    ] {
        let action = action(handler);
        let none = std::ptr::null_mut::<SignalAction>();
        call!(libc::SYS_rt_sigaction, signal, &raw const action, none, size)?;
    }
    let none = std::ptr::null_mut::<u64>();
    let mask = 0_u64;
    call!(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, none, size).map(drop)
}
