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
mod limits;
mod process;
mod relay;
mod session;
pub mod signals;
pub mod terminal;
mod trouble;
mod watch;

#[cfg(test)]
mod tests;

use crate::cli::FAILURE;
use crate::measure::{Installed, InstalledError, Launch, Secrets};
use crate::message::Messages;
use crate::pod::{
    Console, DirectoryError, PermittedPod, PodDir, PodParts, SHARE_TAG, Share, State, message,
};
use console::last_lines;
use control::Monitor;
use corruption::ImageFile;
use event::{Event, Inbox, Role};
use inside::Inside;
use limits::TimeLimits;
use process::{Process, number};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use sandbox_attestation::record::{End, Reason};
use sandbox_protocol::Measured;
use sandbox_vmm::config::{Config, ConfigError, Share as Device, Tag, Unchecked};
use sandbox_vmm::control::ControlError;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
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
        /// What the system says.
        error: io::Error,
    },
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
            explain(&cause, &console, messages);
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
fn explain(trouble: &Trouble, console: &File, messages: Messages) {
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
            crate::doctor::kvm_is_usable().err()
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

/// The processes of a pod.
struct Processes {
    control: Monitor,
    monitor: Process,
    /// Only a pod with volumes of the host has one.
    worker: Option<Process>,
}

impl Processes {
    fn start(
        pod: &PodParts,
        installed: Option<&Installed>,
        console: &File,
        events: &SyncSender<Event>,
    ) -> Result<Self, RunError> {
        let ended = |role| {
            let events = events.clone();
            move |end| {
                // Without a receiver nobody waits any more.
                let _ = events.send(Event::Ended(role, end));
            }
        };
        let started = |program: &std::path::Path, process: io::Result<Process>| {
            process
                .map_err(|error| RunError::Start { program: program.display().to_string(), error })
        };

        let installation = pod.plan.installation();
        let mut worker = None;
        let mut device = None;
        if !pod.plan.shares().is_empty() {
            let (listener, connection) = worker_socket(&pod.directory)?;
            let mut arguments: Vec<OsString> =
                vec!["--fd".into(), number(&listener).to_string().into()];
            for share in pod.plan.shares() {
                arguments.push("--share".into());
                arguments.push(share_argument(share));
            }
            worker = Some(started(
                &installation.worker,
                Process::spawn(
                    &installation.worker,
                    arguments,
                    &[listener.as_fd()],
                    ended(Role::Worker),
                ),
            )?);
            device = Some(connection);
        }
        let disks = disks::of(pod);

        let (monitor_end, our_end) = sandbox_vmm::control::pair()?;
        let config = Config::try_from(Unchecked {
            kernel: installed
                .map_or(installation.kernel.clone(), |it| by_descriptor(it.kernel.file())),
            initramfs: installed
                .map_or(installation.initramfs.clone(), |it| by_descriptor(it.initramfs.file())),
            command_line: sandbox_vmm::config::CommandLine::default(),
            vcpus: pod.plan.size().vcpus,
            memory_mib: pod.plan.size().memory,
            control_fd: number(&monitor_end),
            console_fd: number(console),
            shares: device
                .iter()
                .map(|device| {
                    let tag = Tag::try_from(SHARE_TAG.to_owned())?;
                    Ok(Device { tag, fd: number(device) })
                })
                .collect::<Result<_, ConfigError>>()?,
            disks: disks.iter().map(disks::Disk::device).collect::<Result<_, ConfigError>>()?,
        })?;
        let config = config_file(&config)?;
        let mut inherited = vec![config.as_fd(), monitor_end.as_fd(), console.as_fd()];
        inherited.extend(device.iter().map(AsFd::as_fd));
        let files = installed.map(|it| [it.kernel.file().as_fd(), it.initramfs.file().as_fd()]);
        inherited.extend(files.into_iter().flatten());
        inherited.extend(disks.iter().map(|disk| disk.file.as_fd()));
        let monitor = started(
            &installation.monitor,
            Process::spawn(
                &installation.monitor,
                ["--config-fd".to_owned(), number(&config).to_string()],
                &inherited,
                ended(Role::Monitor),
            ),
        )?;
        let control = Monitor::listen(our_end, events.clone())?;
        Ok(Self { control, monitor, worker })
    }

    /// Whether they are the programs that were measured, and what they have read by now is what was
    /// measured.
    fn run(&self, installed: &Installed) -> Result<(), InstalledError> {
        installed.monitor.is_run_by(self.monitor.id())?;
        if let Some(worker) = &self.worker {
            installed.worker.is_run_by(worker.id())?;
        }
        installed.check()
    }

    fn kill(&self) {
        self.monitor.kill();
        if let Some(worker) = &self.worker {
            worker.kill();
        }
    }
}

/// An open file that the monitor inherits, as a path in its eyes: whatever has the file's name by
/// then, it gets this one.
fn by_descriptor(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", number(file)).into()
}

/// Makes the socket that the worker listens on, and the one connection that it gets. The socket
/// has a name only in between, in a directory that is ours.
fn worker_socket(directory: &PodDir) -> io::Result<(UnixListener, UnixStream)> {
    let descriptor = directory.descriptor().ok_or(io::ErrorKind::NotFound)?;
    // The path of a socket is short; a data directory's may not be.
    let short = format!("/proc/self/fd/{}/fs.sock", number(&descriptor));
    let listener = UnixListener::bind(&short)?;
    let connection = UnixStream::connect(&short);
    fs::remove_file(directory.path().join("fs.sock"))?;
    Ok((listener, connection?))
}

fn share_argument(share: &Share) -> OsString {
    let mut argument = OsString::from(&share.name);
    argument.push("=");
    argument.push(&share.path);
    argument.push(if share.read_only { ":ro" } else { ":rw" });
    if !share.recursive {
        argument.push(",norecursive");
    }
    argument
}

/// The monitor's configuration as a file without a name.
fn config_file(config: &Config) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("sandbox-vmm.json", MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(&serde_json::to_vec(config)?)?;
    file.rewind()?;
    Ok(file.into())
}
