//! What the supervisor waits for: every thread but the main one only turns something that blocks
//! into events.

use super::process::End;
use sandbox_protocol::{FrameError, ToHost};
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// This process got a signal.
    Signal(i32),
    /// The guest connected to a port.
    Connection {
        /// The port.
        port: u32,
        /// The stream.
        stream: UnixStream,
    },
    /// The guest is about to run its first instruction, at this time of the monotonic clock.
    FirstEntry(Duration),
    /// The monitor's socket gives nothing more.
    MonitorSilent,
    /// What came over the control connection; `None` is its end.
    Message(Result<Option<ToHost>, FrameError>),
    /// The app closed one of its output streams, or writing it on failed here.
    OutputEnded(io::Result<()>),
    /// A process of the pod ended.
    Ended(Role, End),
}

/// A process of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `sandbox-vmm`
    Monitor,
    /// `sandbox-fs`
    Worker,
}

/// Most events that wait. Who has more to tell is held up, so that a hostile guest can't fill our
/// memory.
pub const QUEUE: usize = 64;
