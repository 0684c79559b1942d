//! Processes: the pod's PID namespace, and forking into a cgroup.
//!
//! # One PID namespace for the pod, apart from guest-init's
//!
//! The apps of a pod see each other's processes (appc `pods.md`), and neither guest-init nor
//! kernel threads. No app is PID 1: a process with that number ignores SIGTERM unless it handles
//! it, and would have to reap what others leave behind. PID 1 of the pod's namespace is a copy of
//! guest-init that does nothing, without privileges and descriptors; since it ignores SIGCHLD the
//! kernel reaps for it. Killing it ends every process of the pod, whatever they try.

use crate::error::{Error, Tried, checked};
use crate::mounts::new_filesystem;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;
use rustix::process::{
    DumpableBehavior, Signal, WaitId, WaitIdOptions, WaitOptions, pidfd_send_signal,
    set_dumpable_behavior, wait, waitid,
};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, set_capabilities, set_name};
use sandbox_protocol::ExitStatus;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `CLONE_INTO_CGROUP` of linux/sched.h, for which libc's type is too short.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Blocks all signals: guest-init asks descriptors what has happened.
pub(crate) fn block_signals() {
    // SAFETY: sigset_t is plain bits, for which zero is valid, and sigfillset writes only to it.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

/// A child of guest-init.
#[derive(Debug)]
pub(crate) struct Process {
    pidfd: OwnedFd,
}

/// PID 1 of the pod's namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    init: Process,
}

impl Namespace {
    /// Makes the PID namespace that all later children of guest-init are in, and its PID 1.
    pub(crate) fn enter() -> Result<Self, Error> {
        // Neither this process nor its children before exec can be looked into or traced by apps,
        // which may well have the same user and capabilities.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .tried("protecting guest-init from being traced")?;
        // SAFETY: only processes made later are concerned, and none of them is a thread.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
            .tried("making the pod's PID namespace")?;
        match fork(None)? {
            Some(init) => Ok(Self { init }),
            None => be_init(),
        }
    }

    /// Kills all that is left in the namespace, and waits until it is gone.
    pub(crate) fn kill(self) {
        let _ = pidfd_send_signal(&self.init.pidfd, Signal::KILL);
        // Its PID 1 ends after all others, of which this process has to reap its own children.
        while wait(WaitOptions::empty()).is_ok() {}
    }
}

fn be_init() -> ! {
    let _ = set_name(c"pod");
    let _ = survive_lack_of_memory();
    let nothing = CapabilitySet::empty();
    let _ = set_capabilities(
        None,
        CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing },
    );
    // SAFETY: this process, which has one thread, uses no descriptor any more; to ignore a signal
    // needs no handler.
    unsafe {
        libc::close_range(0, libc::c_uint::MAX, 0);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    loop {
        // SAFETY: pause touches no memory.
        unsafe { libc::pause() };
    }
}

/// Keeps the kernel from choosing this process when memory is exhausted: it may well be the largest
/// one where all the memory is files, and all apps would end with it.
fn survive_lack_of_memory() -> Result<(), Error> {
    let proc = new_filesystem("proc", &[], MountAttrFlags::empty())?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    openat(&proc, "self/oom_score_adj", flags, Mode::empty())
        .and_then(|file| rustix::io::write(&file, b"-1000"))
        .tried("protecting the pod's first process")?;
    Ok(())
}

/// Forks this process, which must have one thread; `None` is returned in the child.
pub(crate) fn fork(cgroup: Option<BorrowedFd<'_>>) -> Result<Option<Process>, Error> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain numbers, for which zero is valid.
    let mut request: libc::clone_args = unsafe { std::mem::zeroed() };
    request.flags = libc::CLONE_PIDFD as u64;
    request.pidfd = (&raw mut pidfd).addr() as u64;
    request.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        // Born there: moving a process later waits for a grace period of the whole kernel.
        request.flags |= CLONE_INTO_CGROUP;
        request.cgroup = cgroup.as_raw_fd().cast_unsigned().into();
    }
    // SAFETY: without CLONE_VM this is fork(2): the child goes on with a copy of the memory. This
    // process has one thread, so no lock is held by a thread that the copy does not have.
    let child = checked(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut request, size_of_val(&request))
    })
    .tried("making a process")?;
    if child == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has made this descriptor for this call.
    Ok(Some(Process { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }))
}

impl Process {
    /// Sends a signal to the process, if it still runs. Numbers that are no signals are ignored.
    pub(crate) fn signal(&self, number: u8) {
        if (1..=64).contains(&number) {
            // SAFETY: the number only goes to the kernel, to another process.
            let signal = unsafe { Signal::from_raw_unchecked(number.into()) };
            let _ = pidfd_send_signal(&self.pidfd, signal);
        }
    }

    /// Waits for the end of the process; its descriptor is readable when this does not block.
    pub(crate) fn wait(&self) -> Result<ExitStatus, Error> {
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
            .tried("waiting for a process")?;
        let number = |value: Option<i32>| value.and_then(|value| u8::try_from(value).ok());
        Ok(match status {
            Some(status) if status.exited() => {
                ExitStatus::Code(number(status.exit_status()).unwrap_or(u8::MAX))
            }
            Some(status) => {
                ExitStatus::Signal(number(status.terminating_signal()).unwrap_or(u8::MAX))
            }
            None => ExitStatus::Signal(u8::MAX),
        })
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
