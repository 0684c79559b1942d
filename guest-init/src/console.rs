//! The guest's console: the kernel's log, which is all there is before the host answers.

use rustix::fs::{Mode, OFlags, open};
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

static KERNEL_LOG: OnceLock<OwnedFd> = OnceLock::new();

/// Opens the kernel's log, makes a panic end up in it, and says that PID 1 is up.
///
/// Each character of a line costs two exits to the monitor, so lines are short.
pub fn open_kernel_log() {
    if let Ok(log) = open("/dev/kmsg", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = KERNEL_LOG.set(log);
    }
    say("up");
    std::panic::set_hook(Box::new(|panic| say(panic)));
}

/// Writes one line to the kernel's log, as critical: that reaches the console. The kernel holds a
/// line without an end back until the next one.
pub fn say(what: impl Display) {
    let mut line = format!("<2>guest-init: {what}").replace('\n', " ");
    line.push('\n');
    if let Some(log) = KERNEL_LOG.get() {
        let _ = rustix::io::write(log, line.as_bytes());
    }
}
