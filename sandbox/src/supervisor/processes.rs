//! The processes of a pod, and what each of them gets: namespaces, a user, descriptors.
//!
//! | | `sandbox-vmm` | `sandbox-fs` |
//! |---|---|---|
//! | user | one that no other pod has, root of its own user namespace | root, with the capabilities of a file server |
//! | namespaces | all of its own | a PID namespace; the others it makes itself |
//! | descriptors | its configuration, the control socket, the console, KVM, kernel, initramfs, disks, the connection to the worker | the socket that the monitor is connected to |
//!
//! A file server serves files of any owner, and so has to be root in the host's user namespace:
//! capabilities over another one are none over the shares' files. See its own description of what it
//! gives up instead.

use super::RunError;
use super::control::Monitor;
use super::disks;
use super::event::{Event, Role};
use super::layers;
use super::process::{End, Process};
use crate::installation::Installation;
use crate::measure::{Installed, InstalledError};
use crate::pod::{PodDir, PodParts, SHARE_TAG, Share};
use rustix::fs::MemfdFlags;
use sandbox_spawn::{Namespaces, Spawn, number};
use sandbox_vmm::config::{Config, ConfigError, Share as Device, Tag, Unchecked};
use std::ffi::{CString, NulError, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::SyncSender;

/// The processes of a pod.
pub struct Processes {
    /// What the monitor is told, and tells.
    pub control: Monitor,
    monitor: Process,
    /// Only a pod with volumes of the host has one.
    worker: Option<Process>,
}

/// The files that a pod runs on, open.
struct Files {
    kvm: File,
    kernel: File,
    initramfs: File,
    monitor: OwnedFd,
}

impl Files {
    /// Opens those that were measured, where they were, and whatever has their names otherwise.
    fn open(installation: &Installation, installed: Option<&Installed>) -> Result<Self, RunError> {
        let path = |path: &Path| path.to_owned();
        let (kernel, initramfs) = match installed {
            None => (path(&installation.kernel), path(&installation.initramfs)),
            // Opened anew, so that the monitor shares no position in the file with us.
            Some(it) => (by_descriptor(it.kernel.file()), by_descriptor(it.initramfs.file())),
        };
        let kvm = Path::new("/dev/kvm");
        Ok(Self {
            kvm: OpenOptions::new().read(true).write(true).open(kvm).map_err(failed(kvm))?,
            kernel: File::open(kernel).map_err(failed(&installation.kernel))?,
            initramfs: File::open(initramfs).map_err(failed(&installation.initramfs))?,
            monitor: program(&installation.monitor, installed.map(|it| it.monitor.file()))?,
        })
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> RunError {
    move |error| RunError::Open { path: path.to_owned(), error }
}

/// The program that was measured, or the one of this name.
fn program(path: &Path, measured: Option<&File>) -> Result<OwnedFd, RunError> {
    match measured {
        Some(file) => file.as_fd().try_clone_to_owned(),
        None => sandbox_spawn::open(path),
    }
    .map_err(failed(path))
}

impl Processes {
    /// Starts them.
    ///
    /// # Errors
    /// See [`RunError`]; nothing runs then.
    pub fn start(
        pod: &PodParts,
        installed: Option<&Installed>,
        console: &File,
        events: &SyncSender<Event>,
    ) -> Result<Self, RunError> {
        let ended = |role| {
            let events = events.clone();
            move |end: End| {
                // Without a receiver nobody waits any more.
                let _ = events.send(Event::Ended(role, end));
            }
        };
        let installation = pod.plan.installation();
        let files = Files::open(installation, installed)?;
        let user = pod.plan.jail().user(pod.directory.slot()?)?;

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
            let path = &installation.worker;
            let program = program(path, installed.map(|it| it.worker.file()))?;
            let spawn = Spawn {
                program: program.as_fd(),
                arguments: command(path, arguments)?,
                environment: layers::environment(),
                inherited: &[listener.as_fd()],
                namespaces: layers::namespaces(Namespaces::Pid),
                cgroup: None,
                label: None,
            };
            worker = Some(started(path, Process::start(spawn, ended(Role::Worker)))?);
            device = Some(connection);
        }
        let disks = disks::of(pod);

        let (monitor_end, our_end) = sandbox_vmm::control::pair()?;
        let config = Config::try_from(Unchecked {
            kvm_fd: number(&files.kvm),
            kernel_fd: number(&files.kernel),
            initramfs_fd: number(&files.initramfs),
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
        let mut inherited: Vec<BorrowedFd<'_>> = vec![config.as_fd(), monitor_end.as_fd()];
        inherited
            .extend([console, &files.kvm, &files.kernel, &files.initramfs].map(|it| it.as_fd()));
        inherited.extend(device.iter().map(|device| device.as_fd()));
        inherited.extend(disks.iter().map(|disk| disk.file.as_fd()));
        let path = &installation.monitor;
        let spawn = Spawn {
            program: files.monitor.as_fd(),
            arguments: command(path, ["--config-fd".into(), number(&config).to_string().into()])?,
            environment: layers::environment(),
            inherited: &inherited,
            namespaces: layers::namespaces(Namespaces::All(user)),
            cgroup: None,
            label: None,
        };
        let monitor = started(path, Process::start(spawn, ended(Role::Monitor)))?;
        let control = Monitor::listen(our_end, events.clone())?;
        Ok(Self { control, monitor, worker })
    }

    /// Whether they are the programs that were measured, and what they have read by now is what was
    /// measured.
    ///
    /// # Errors
    /// See [`InstalledError`].
    pub fn run(&self, installed: &Installed) -> Result<(), InstalledError> {
        installed.monitor.is_run_by(self.monitor.id())?;
        if let Some(worker) = &self.worker {
            installed.worker.is_run_by(worker.id())?;
        }
        installed.check()
    }

    /// Kills them.
    pub fn kill(&self) {
        self.monitor.kill();
        if let Some(worker) = &self.worker {
            worker.kill();
        }
    }
}

fn started(
    program: &Path,
    process: Result<Process, sandbox_spawn::SpawnError>,
) -> Result<Process, RunError> {
    process.map_err(|error| RunError::Start { program: program.display().to_string(), error })
}

/// A program's name and its arguments.
fn command(
    program: &Path,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Vec<CString>, io::Error> {
    let words = std::iter::once(program.as_os_str().to_owned()).chain(arguments);
    let words: Result<_, NulError> =
        words.map(|word| CString::new(OsString::into_vec(word))).collect();
    Ok(words?)
}

/// An open file as a path in our eyes: whatever has the file's name by then, it is this one.
fn by_descriptor(file: &File) -> std::path::PathBuf {
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
