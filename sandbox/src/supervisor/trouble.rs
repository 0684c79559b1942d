use super::process::End;
use super::session::Violation;
use crate::measure::InstalledError;
use sandbox_protocol::{FrameError, Text};
use sandbox_vmm::exit::Exit;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// What went wrong with a pod.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The pod does not run on what was measured.
    #[error(transparent)]
    Measured(#[from] InstalledError),
    /// No greeting came.
    #[error("the guest did not start within {} s", .0.as_secs())]
    Boot(Duration),
    /// The apps were not started.
    #[error("the guest did not start the apps within {} s", .0.as_secs())]
    Setup(Duration),
    /// The end did not come.
    #[error(
        "the guest did not finish within {} s after its apps had ended; what they wrote to volumes \
         last may be missing", .0.as_secs()
    )]
    Finish(Duration),
    /// See [`Violation`].
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The control connection carried something else than messages.
    #[error("the guest's control connection: {0}")]
    Frame(#[from] FrameError),
    /// The control connection ended.
    #[error("the guest closed its control connection before the pod had ended")]
    Silent,
    /// The guest could not set the pod up.
    #[error("{0}")]
    Pod(Text),
    /// The pod can't have its secrets.
    #[error("the pod does not get its secrets, so that it is not started: {0}")]
    Secrets(String),
    /// The monitor ended.
    #[error("{}", monitor_end(.0))]
    Monitor(End),
    /// The monitor's control socket ended, or carried what is no event.
    #[error("the monitor sandbox-vmm broke off its control connection")]
    MonitorSilent,
    /// The worker failed.
    #[error("the file server sandbox-fs failed: {}", .0.status)]
    Worker(End),
    /// The worker ended under a running pod, without an error of its own.
    #[error("the file server sandbox-fs ended while the pod was running")]
    WorkerGone,
    /// A thread's or descriptor's worth of resources is missing.
    #[error("cannot take the guest's connection: {0}")]
    Connection(io::Error),
}

/// What the monitor's exit status says about the end of the microVM.
pub fn exit(end: &End) -> Option<Exit> {
    end.status.code().and_then(|code| Exit::from_code(u8::try_from(code).ok()?))
}

fn monitor_end(end: &End) -> String {
    match exit(end) {
        Some(Exit::Reset) => "the guest reset the machine before the pod had ended".into(),
        Some(exit) => exit.to_string(),
        None if end.status.signal().is_some() => {
            format!("the monitor sandbox-vmm crashed: {}", end.status)
        }
        None => "the monitor sandbox-vmm failed".into(),
    }
}
