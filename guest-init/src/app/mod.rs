//! An app of the pod, from its start to the end of its output.

mod exec;
mod inside;
pub(crate) mod root;
pub(crate) mod stdio;
mod user;

use crate::cgroup::Cgroup;
use crate::error::{Error, Tried};
use crate::host::Host;
use crate::mounts::new_filesystem;
use crate::process::{Process, fork};
use exec::Program;
use rustix::fs::Mode;
use rustix::mount::MountAttrFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use sandbox_protocol::{ExitStatus, Pod};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use stdio::{Ends, Streams};

/// How long output is waited for after all processes of an app were killed. It only matters if a
/// process of another app holds the other end of a stream.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// An app that was started.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) streams: Streams,
    cgroup: Cgroup,
    process: Option<Process>,
    /// Closed by the execution of the program; before that an error may be written to it.
    report: Option<OwnedFd>,
    ended: Option<Ended>,
    /// When output is no longer waited for.
    last_call: Option<Instant>,
}

/// How an app ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out_of_memory: bool,
}

/// Starts an app: connects its streams, and forks a process that makes everything else and then
/// executes the app's program.
pub(crate) fn start(host: &dyn Host, pod: &Pod, index: u16) -> Result<Running, Error> {
    let app = pod
        .apps
        .get(usize::from(index))
        .ok_or_else(|| Error::Refused(format!("there is no app {index}")))?;
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let terminals = new_filesystem("devpts", &options, attributes)?;
    let (streams, ends) = Streams::connect(host, &app.stdio, terminals.as_fd())?;
    let cgroup = Cgroup::new(index)?;
    if let Some(bytes) = app.memory {
        cgroup.limit_memory(bytes)?;
    }
    if let Some(millis) = app.cpu_millis {
        cgroup.limit_cpu(millis)?;
    }
    let (report, to_report) = pipe_with(PipeFlags::CLOEXEC).tried("making a pipe")?;
    match fork(Some(cgroup.as_fd()))? {
        Some(process) => Ok(Running {
            streams,
            cgroup,
            process: Some(process),
            report: Some(report),
            ended: None,
            last_call: None,
        }),
        None => {
            let error = become_app(pod, index, terminals, ends);
            let _ = rustix::io::write(&to_report, error.to_string().as_bytes());
            // SAFETY: nothing of guest-init's is to run in this process any more.
            unsafe { libc::_exit(127) }
        }
    }
}

/// What the new process does; returns only if something fails.
fn become_app(pod: &Pod, index: u16, terminals: OwnedFd, ends: Ends) -> Error {
    match try_to_become_app(pod, index, terminals, ends) {
        Ok(program) => program.execute(),
        Err(error) => error,
    }
}

fn try_to_become_app(
    pod: &Pod,
    index: u16,
    terminals: OwnedFd,
    ends: Ends,
) -> Result<Program, Error> {
    let app = &pod.apps[usize::from(index)];
    let mut program = Program::new(&app.argv, &app.environment)?;
    root::enter(pod, index, app, terminals)?;
    let root = rustix::fs::open("/", rustix::fs::OFlags::PATH, Mode::empty())
        .tried("opening the root of the app")?;
    let identity = user::resolve(root.as_fd(), &app.user, &app.group, &app.supplementary_groups)?;
    program.set_default("HOME", identity.home.as_deref().unwrap_or(b"/"));
    ends.install(identity.uid)?;
    exec::drop_privileges(&identity)?;
    exec::reset_process();
    Ok(program)
}

impl Running {
    /// The app's main process, as long as it has not ended.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// What becomes readable, or ends, when the app's program was executed or could not be.
    pub(crate) fn report(&self) -> Option<BorrowedFd<'_>> {
        self.report.as_ref().map(|report| report.as_fd())
    }

    /// Reads the report. `None` if it was read before, an error's text if the app was not started.
    pub(crate) fn read_report(&mut self) -> Option<Result<(), String>> {
        let report = self.report.take()?;
        let mut text = vec![0; sandbox_protocol::Text::MAX];
        let length = rustix::io::read(&report, &mut text).unwrap_or(0);
        Some(match &text[..length] {
            [] => Ok(()),
            error => Err(String::from_utf8_lossy(error).into_owned()),
        })
    }

    /// Takes the end of the app's main process in: all its other processes are killed, as when the
    /// first process of a container ends.
    pub(crate) fn take_end(&mut self) -> Result<(), Error> {
        let Some(process) = self.process.take() else { return Ok(()) };
        let status = process.wait()?;
        self.streams.end_input();
        self.cgroup.kill()?;
        let out_of_memory = self.cgroup.ran_out_of_memory();
        self.ended = Some(Ended { status, out_of_memory });
        self.last_call = Some(Instant::now() + LAST_OUTPUT);
        Ok(())
    }

    /// When output is no longer waited for, as long as that lies ahead.
    pub(crate) fn last_call(&self) -> Option<Instant> {
        self.last_call
    }

    /// Passes on what output there is, and no more.
    pub(crate) fn call_last(&mut self) {
        self.last_call = None;
        self.streams.call_last();
    }

    /// How the app ended, as soon as all its output was passed on.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.filter(|_| self.streams.output_is_over())
    }
}
