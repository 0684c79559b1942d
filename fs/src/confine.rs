//! What the process may no longer do, besides what it can no longer see ([`crate::view`]) and no
//! longer call ([`crate::filter`]).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};
use thiserror::Error;

/// Descriptors the process may have open. Every file the guest's kernel knows costs one, so this
/// also bounds the host memory that a guest can pin. A guest of 256 MiB has no room for more; a
/// larger one sees `ENFILE` instead of a host that runs out.
const MAX_OPEN_FILES: u64 = 1 << 18;

/// Descriptors out of [`MAX_OPEN_FILES`] that are the worker's own: standard streams, sockets,
/// guest memory, event notifications, and what a request holds while it runs.
const OWN_FILES: u64 = 64;

/// What a file server needs to serve files of any owner, on behalf of any user of the guest.
///
/// Not among them: `MKNOD` (a guest makes no device nodes; overlay whiteouts need no capability),
/// `DAC_READ_SEARCH` (inodes are held by descriptors, never by file handles, which could name
/// files outside of the shares), `LINUX_IMMUTABLE`, `SYS_RESOURCE` and `SYS_ADMIN`.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP);

/// Why the process could not be confined.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// The number given with `--fd` isn't an inherited listening Unix stream socket.
    #[error("--fd {fd}: not a listening Unix stream socket")]
    Listener {
        /// The descriptor.
        fd: RawFd,
        /// What the kernel answered, if it isn't simply another kind of file.
        source: io::Error,
    },
    /// One of the steps failed.
    #[error("cannot {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

fn failed(step: &'static str) -> impl Fn(rustix::io::Errno) -> ConfineError {
    move |error| ConfineError::Step { step, source: error.into() }
}

/// Takes the listening socket `fd` and closes everything else that was inherited, except for
/// standard error. Standard input and output become `/dev/null`.
///
/// Must be called once, before the process opens anything.
///
/// # Errors
/// [`ConfineError::Listener`] if `fd` isn't what it should be.
pub fn keep_only(fd: RawFd) -> Result<UnixListener, ConfineError> {
    let not_a_listener = |source| ConfineError::Listener { fd, source };
    let number = u32::try_from(fd)
        .ok()
        .filter(|number| *number > 2)
        .ok_or_else(|| not_a_listener(io::ErrorKind::InvalidInput.into()))?;
    close_range(3, number - 1)?;
    close_range(number + 1, u32::MAX)?;

    // SAFETY: the caller of the process passed the descriptor to us, and nothing in this process
    // owns it: this function is called once, before anything is opened.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let listens = sockopt::socket_domain(&socket).and_then(|domain| {
        Ok(domain == AddressFamily::UNIX
            && sockopt::socket_type(&socket)? == SocketType::STREAM
            && sockopt::socket_acceptconn(&socket)?)
    });
    match listens {
        Ok(true) => {}
        Ok(false) => return Err(not_a_listener(io::ErrorKind::InvalidInput.into())),
        Err(error) => {
            // It may not even be open, and closing it a second time would be an error of ours.
            std::mem::forget(socket);
            return Err(not_a_listener(error.into()));
        }
    }

    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open /dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(failed("replace standard input"))?;
    rustix::stdio::dup2_stdout(&null).map_err(failed("replace standard output"))?;
    Ok(UnixListener::from(socket))
}

fn close_range(first: u32, last: u32) -> Result<(), ConfineError> {
    if first > last {
        return Ok(());
    }
    // SAFETY: called by `keep_only` alone, before anything in this process owns a descriptor in the
    // range; the standard streams are below it.
    if unsafe { libc::close_range(first, last, 0) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(ConfineError::Step { step: "close inherited descriptors", source })
}

/// Bounds what the process can use up, and leaves no core file. Returns how many descriptors the
/// guest may hold.
///
/// # Errors
/// [`ConfineError::Step`] if a limit can't be set or is too low to serve anything.
pub fn limit_resources() -> Result<u64, ConfineError> {
    #[cfg(feature = "hostile")]
    if !sandbox_hostile::layers::has("limits") {
        return Ok(OWN_FILES);
    }
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(failed("forbid core files"))?;

    let limit = |files| Rlimit { current: Some(files), maximum: Some(files) };
    let files = if rustix::process::setrlimit(Resource::Nofile, limit(MAX_OPEN_FILES)).is_ok() {
        MAX_OPEN_FILES
    } else {
        // The hard limit is lower and can't be raised.
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(MAX_OPEN_FILES);
        rustix::process::setrlimit(Resource::Nofile, limit(hard))
            .map_err(failed("limit the number of open files"))?;
        hard
    };
    files.checked_sub(OWN_FILES).filter(|guest| *guest > OWN_FILES).ok_or(ConfineError::Step {
        step: "serve files: the limit on open files (RLIMIT_NOFILE, ulimit -n) is below 128",
        source: io::ErrorKind::InvalidInput.into(),
    })
}

/// Gives up everything but [`CAPABILITIES`] for good.
///
/// # Errors
/// [`ConfineError::Step`]; the process must then exit.
pub fn drop_privileges() -> Result<(), ConfineError> {
    #[cfg(feature = "hostile")]
    if !sandbox_hostile::layers::has("identity") {
        return Ok(());
    }
    // No terminal can signal the worker: it ends when its frontend does, not by Ctrl-C, which is
    // the application's. Fails only if the process leads a session or group already.
    let _ = rustix::process::setsid();

    let root = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).map_err(failed("drop supplementary groups"))?;
    rustix::thread::set_thread_res_gid(root.1, root.1, root.1).map_err(failed("become gid 0"))?;
    rustix::thread::set_thread_res_uid(root.0, root.0, root.0).map_err(failed("become uid 0"))?;

    rustix::thread::clear_ambient_capability_set()
        .map_err(failed("clear the ambient capabilities"))?;
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if CAPABILITIES.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last capability this kernel has.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(failed("shrink the capability bounding set")(error)),
        }
    }
    let sets = CapabilitySets {
        effective: CAPABILITIES,
        permitted: CAPABILITIES,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed("drop capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("set no_new_privs"))?;
    // An exec that changes the SELinux domain makes the kernel forget it. Should the supervisor have
    // died since, the frontend is dead, too, or never comes.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("die with sandbox"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(failed("forbid tracing"))
}

/// Keeps other processes from the core that this one runs on, as the monitor does for its own (Linux
/// Documentation/admin-guide/hw-vuln/core-scheduling.rst).
///
/// # Errors
/// [`ConfineError::Step`] if the kernel can do it and doesn't.
pub fn keep_core() -> Result<(), ConfineError> {
    use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
    let process = rustix::process::getpid();
    match create_core_scheduling_cookie(process, CoreSchedulingScope::ThreadGroup) {
        // No core has several threads, or the kernel can't.
        Err(rustix::io::Errno::NODEV | rustix::io::Errno::INVAL) => Ok(()),
        result => result.map_err(failed("keep others from its core")),
    }
}
