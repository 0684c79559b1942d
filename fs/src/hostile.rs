//! The file server that its guest has taken over, in a build of its own: see `tests/hostile`.
//!
//! [`start`] forks the server of attempts when the process is confined and has one thread, before
//! its filter is installed. The guest asks by reading an extended attribute.

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Signal;
use sandbox_hostile::targets::Targets;
use sandbox_hostile::{ATTRIBUTE, call, server};
use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

/// Longest request or answer in bytes.
const MAX: usize = 4096;

/// Our end of the server's socket.
static SERVER: OnceLock<OwnedFd> = OnceLock::new();

/// Forks the server, if the environment says what to attack.
///
/// # Errors
/// The host gives no process.
pub fn start() -> io::Result<()> {
    let Some(targets) = Targets::of_environment() else { return Ok(()) };
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let (ours, servers) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?;
    // SAFETY: this process has one thread, so the child finds no lock that another one holds.
    match unsafe { libc::fork() } {
        0 => {
            drop(ours);
            serve(&servers, &targets);
            std::process::exit(0);
        }
        -1 => Err(io::Error::last_os_error()),
        _ => {
            let _ = SERVER.set(ours);
            Ok(())
        }
    }
}

fn serve(socket: &OwnedFd, targets: &Targets) {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = call!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
    let mut request = [0; MAX];
    while let Ok((length @ 1.., _)) =
        rustix::net::recv(socket, &mut request[..], RecvFlags::empty())
    {
        let request = String::from_utf8_lossy(&request[..length]);
        let answer = server::answer(&request, &targets.clone(), &install);
        if rustix::net::send(socket, answer.as_bytes(), SendFlags::NOSIGNAL).is_err() {
            return;
        }
    }
}

/// Installs the file server's filter.
fn install(_thread: &str) -> bool {
    crate::filter::install().is_ok()
}

/// The answer to an attribute that is a request.
pub fn answer(attribute: &CStr) -> Option<Vec<u8>> {
    let request = attribute.to_bytes().strip_prefix(ATTRIBUTE.as_bytes())?;
    let server = SERVER.get()?;
    // By calls that the filter lets through.
    rustix::io::write(server, request).ok()?;
    let mut answer = vec![0; MAX];
    let length = rustix::io::read(server, &mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}
