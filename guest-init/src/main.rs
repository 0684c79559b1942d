//! `/init` of the guest: see the library.
#![no_main]

use guest_init::{console, host::Machine, mounts, pod};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot};
use std::os::fd::{AsRawFd, IntoRawFd};

/// Open files of a process: what programs that use select(2) survive, and what they may raise it
/// to; the same figures as on a host that runs systemd.
const OPEN_FILES: Rlimit = Rlimit { current: Some(1024), maximum: Some(524_288) };

/// Starts without the standard library's runtime, which aborts if it finds neither standard
/// streams nor `/dev/null`: in an initramfs there is nothing yet.
///
/// PID 1 must never return, so neither does this.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    let devices = mounts::mount_devices();
    open_standard_streams();
    console::open_kernel_log();
    // Inherited by every app. It cannot fail for PID 1, and would not be worth stopping for.
    let _ = setrlimit(Resource::Nofile, OPEN_FILES);
    if let Err(error) = devices.and_then(|()| pod::run(&Machine)) {
        console::say(error);
    }
    reset()
}

/// Takes the numbers of the standard streams, so that nothing else gets them.
fn open_standard_streams() {
    while let Ok(null) = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        if null.as_raw_fd() > 2 {
            break;
        }
        let _ = null.into_raw_fd();
    }
}

/// Resets the machine, which the monitor takes as its end.
fn reset() -> ! {
    loop {
        if let Err(error) = reboot(RebootCommand::Restart) {
            console::say(format_args!("resetting the machine: {error}"));
            std::process::abort();
        }
    }
}
