//! A running pod: its processes, its streams, its signals, its end.
//!
//! The main thread handles one [`event::Event`] after the other ([`watch`]); every other thread
//! blocks on one thing and turns it into events, or copies one stream. The order of a run:
//!
//! 1. the pod's directory moves to `run`, `pid` is written;
//! 2. if the pod has volumes of the host, the worker `sandbox-fs` starts with a listening socket that
//!    only we have ever connected to;
//! 3. the monitor `sandbox-vmm` starts with our end of that connection, the files of the images and
//!    of the scratch disk, a control socket and the console's file;
//! 4. the guest connects to the control port, greets, is told its pod, and connects the streams;
//!    that of a pod that was measured sends a key, and gets the secrets sealed for it ([`inside`]);
//! 5. apps run, end, and the guest says that it has finished;
//! 6. it is let go, resets its machine, and both processes end.
//!
//! When the guest reads a block of an image that is not what was verified, it gets an error, and we
//! say so ([`corruption`]).
//!
//! Whatever happens in between, at the end no process, socket or file of the pod is left. If we
//! are killed, the kernel kills both processes, and `gc` finds the directory without its lock.

mod console;
mod control;
mod corruption;
mod disks;
pub mod event;
mod inside;
mod layers;
mod limits;
mod process;
mod processes;
mod relay;
mod session;
pub mod signals;
pub mod terminal;
mod trouble;
mod watch;

#[cfg(test)]
mod tests;

use crate::cli::FAILURE;
use crate::installation::Installation;
use crate::jail::SettingsError;
use crate::measure::{Installed, Launch, Secrets};
use crate::message::Messages;
use crate::pod::{Console, DirectoryError, PermittedPod, PodParts, SlotError, State, message};
use console::last_lines;
use corruption::ImageFile;
use event::{Event, Inbox};
use inside::Inside;
use limits::TimeLimits;
use processes::Processes;
use rustix::io::Errno;
use sandbox_attestation::record::{End, Reason};
use sandbox_protocol::Measured;
use sandbox_spawn::SpawnError;
use sandbox_vmm::config::ConfigError;
use sandbox_vmm::control::ControlError;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use trouble::Trouble;
use watch::{Ending, HostStreams, Watch};

/// Why a pod could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// See [`DirectoryError`].
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A process could not be started.
    #[error("cannot start {program}: {error}")]
    Start {
        /// Its path.
        program: String,
        /// What was tried, and what the system says.
        error: SpawnError,
    },
    /// A file that a process gets can't be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// See [`SlotError`].
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// See [`SettingsError`].
    #[error(transparent)]
    Jail(#[from] SettingsError),
    /// Sockets or files for the processes could not be made.
    #[error("cannot prepare the pod's processes: {0}")]
    Plumbing(#[from] io::Error),
    /// The monitor's configuration can't be.
    #[error("configuration of the monitor: {0}")]
    Config(#[from] ConfigError),
}

impl From<Errno> for RunError {
    fn from(error: Errno) -> Self {
        Self::Plumbing(error.into())
    }
}

impl From<ControlError> for RunError {
    fn from(error: ControlError) -> Self {
        Self::Plumbing(io::Error::other(error.to_string()))
    }
}

/// How a pod is run, besides what it is.
#[derive(Debug)]
pub struct RunOptions {
    /// Host name of the guest.
    pub hostname: String,
    /// How the apps' standard streams are connected.
    pub console: Console,
    /// What a pod that is measured gets from outside, and nobody else.
    pub secrets: Secrets,
    /// Where lines for the user go.
    pub messages: Messages,
}

/// Runs a pod to its end. Nothing but a pod that the gate has permitted can be run. Its exit status
/// is the result: that of its first failing app, or 128 and the number of the signal that ended it.
/// `events` fills `inbox`, in which signals arrive, too. `measured` is the launch as it is in the
/// TPM, if it is, and what the pod then has to run on.
///
/// # Errors
/// See [`RunError`]; nothing is left behind.
pub fn run(
    pod: PermittedPod,
    measured: Option<(Launch, Installed)>,
    options: &RunOptions,
    events: &SyncSender<Event>,
    inbox: &Inbox,
) -> Result<u8, RunError> {
    let (mut pod, _permit) = pod.into_parts();
    let outcome = run_processes(&mut pod, measured.as_ref(), options, events, inbox);
    let end = outcome.as_ref().map_or(End::Reason(Reason::Aborted), |(_, end)| *end);
    match measured.map(|(launch, _)| launch.end(end)) {
        None | Some(Ok(())) => {
            let removed = pod.directory.remove();
            // What failed first is what has to be told.
            if outcome.is_ok() {
                removed?;
            }
        }
        Some(Err(error)) => {
            options.messages.say(format_args!(
                "the pod has ended, and that cannot be written into the TPM: {error}; 'sandbox gc' \
                 tries again"
            ));
            pod.directory.leave();
        }
    }
    outcome.map(|(status, _)| status)
}

/// The same, up to the end of the pod's processes; and how the pod ended.
fn run_processes(
    pod: &mut PodParts,
    measured: Option<&(Launch, Installed)>,
    options: &RunOptions,
    events: &SyncSender<Event>,
    inbox: &Inbox,
) -> Result<(u8, End), RunError> {
    let messages = options.messages;
    let installed = measured.map(|(_, installed)| installed);
    let mut guest_pod = message(pod.plan.spec(), &pod.disks(), &options.hostname, options.console);
    guest_pod.measured = measured.map(|_| Measured {
        uuid: pod.directory.uuid().to_string(),
        tenant: pod.plan.launch().tenant.clone().unwrap_or_default(),
        secrets: options.secrets.for_guest(),
    });
    let image_files = pod.images.iter().map(ImageFile::of).collect();
    let streams = HostStreams {
        stdin: own(io::stdin())?,
        stdout: own(io::stdout())?,
        stderr: own(io::stderr())?,
    };
    pod.directory.move_to(State::Running)?;
    pod.directory.write("pid", format!("{}\n", std::process::id()).as_bytes())?;
    let console = pod.directory.create_console()?;
    let processes = Processes::start(pod, installed, &console, events)?;
    let guard = || installed.map_or(Ok(()), |installed| processes.run(installed));

    let mut watch = Watch::new(
        &guest_pod,
        image_files,
        &processes.control,
        streams,
        events.clone(),
        TimeLimits::default(),
        messages,
    )
    .guarded_by(&guard);
    if let Some((launch, _)) = measured {
        let witness = launch.witness(options.secrets.clone());
        watch = watch.proven_by(Inside::new(Arc::new(witness), messages));
    }
    let ending = watch.run(inbox);
    watch.settle(inbox, || processes.kill());
    watch.release_terminal();
    Ok(match ending {
        Ending::Finished => (watch.status(), End::Status(watch.status())),
        Ending::Signal(signal) => {
            (u8::try_from(128 + signal).unwrap_or(u8::MAX), End::Reason(Reason::Stopped))
        }
        Ending::Trouble(trouble) => {
            let cause = watch.cause(trouble);
            explain(&cause, &console, pod.plan.installation(), messages);
            let reason = match cause {
                // No app has started.
                Trouble::Secrets(_) => Reason::Aborted,
                _ => Reason::Crash,
            };
            (FAILURE, End::Reason(reason))
        }
    })
}

fn own(stream: impl AsFd) -> io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// Says what happened, with the last lines of who would know why.
fn explain(trouble: &Trouble, console: &File, installation: &Installation, messages: Messages) {
    let (of, lines) = match trouble {
        Trouble::Monitor(end) | Trouble::Worker(end) if !end.last_words.is_empty() => {
            ("its last words", console::lines(&end.last_words))
        }
        Trouble::Pod(_) | Trouble::Secrets(_) | Trouble::Violation(_) => ("", Vec::new()),
        _ => ("last lines of the guest's console", last_lines(console)),
    };
    let hint = match trouble {
        Trouble::Boot(_) => crate::doctor::kvm_is_usable().err(),
        Trouble::Monitor(end) if trouble::exit(end).is_none() => {
            // The monitor knows no file by its name.
            let kernel = || format!("its guest kernel is {}", installation.kernel.display());
            let other = Some(installation).filter(|it| !it.kernel_is_installed);
            crate::doctor::kvm_is_usable().err().or_else(|| other.map(|_| kernel()))
        }
        _ => None,
    };
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    if lines.is_empty() {
        messages.say(format_args!("{trouble}{hint}"));
    } else {
        messages.say(format_args!("{trouble}{hint}; {of}:"));
    }
    for line in lines {
        messages.say(format_args!("  {line}"));
    }
}
