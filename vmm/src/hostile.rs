//! The monitor that its guest has taken over, in a build of its own: see `tests/hostile`.
//!
//! [`start`] forks the server of attempts when the process is jailed and has one thread, before any
//! filter is installed. Connections of the guest's to [`PORT`] go to it instead of the supervisor.

use crate::VmmError;
use crate::control::{self, ControlError, Event};
use crate::filter::{self, Thread};
use rustix::process::Signal;
use sandbox_hostile::call;
use sandbox_hostile::server::answer;
use sandbox_hostile::targets::Targets;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

pub use sandbox_hostile::PORT;

/// Our end of the server's socket.
static SERVER: OnceLock<OwnedFd> = OnceLock::new();

/// Forks the server, if the environment says what to attack.
///
/// # Errors
/// [`VmmError::Thread`] if the host gives no process.
pub fn start() -> Result<(), VmmError> {
    let Some(targets) = Targets::of_environment() else { return Ok(()) };
    let thread = |error: ControlError| VmmError::Thread(std::io::Error::other(error));
    let (ours, servers) = control::pair().map_err(thread)?;
    // SAFETY: this process has one thread, so the child finds no lock that another one holds.
    match unsafe { libc::fork() } {
        0 => {
            drop(ours);
            serve(&servers, &targets);
            std::process::exit(0);
        }
        -1 => Err(VmmError::Thread(std::io::Error::last_os_error())),
        _ => {
            let _ = SERVER.set(ours);
            Ok(())
        }
    }
}

/// Where a connection to this port goes, if not to the supervisor.
pub fn control(port: u32) -> Option<&'static OwnedFd> {
    SERVER.get().filter(|_| port == PORT)
}

/// Serves one connection after the other. Requests and answers are lines.
fn serve(socket: &OwnedFd, targets: &Targets) {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let _ = call!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
    while let Ok(Some(Event::Connection { stream, .. })) = control::receive(socket) {
        let stream = File::from(stream);
        let Ok(requests) = stream.try_clone() else { continue };
        let mut answers = stream;
        for request in BufReader::new(requests).lines() {
            let Ok(request) = request else { break };
            let answer = answer(&request, targets, &install) + "\n";
            if answers.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
    }
}

/// Installs the filter of a thread of this kind.
fn install(thread: &str) -> bool {
    let kind = match thread {
        "vcpu" => Thread::Vcpu,
        "disk" => Thread::Disk,
        _ => Thread::Main,
    };
    filter::install(kind).is_ok()
}
