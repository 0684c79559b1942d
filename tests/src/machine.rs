//! The monitor by itself, under a supervisor of a few lines.

use crate::eventually;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use sandbox_protocol::{CONTROL_PORT, Pod, ToGuest, ToHost, read_to_host, write_to_guest};
use sandbox_spawn::{Namespaces, Spawn, Started, User};
use sandbox_vmm::config::{
    CommandLine, Config, Disk, MemoryMib, Serial, Share, Tag, Unchecked, Vcpus,
};
use sandbox_vmm::control::{self, Event};
use sandbox_vmm::exit::Exit;
use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// How long a microVM may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The installed guest kernel.
pub const KERNEL: &str = "/usr/lib/sandbox/vmlinux";
/// The installed initramfs.
pub const INITRAMFS: &str = "/usr/lib/sandbox/initramfs";

/// The user that a monitor without a pod is.
pub const USER: User = User { uid: 1_900_065_535, gid: 1_900_065_535 };

/// A running microVM.
#[derive(Debug)]
pub struct Machine {
    monitor: Started,
    /// Its end, once it was waited for.
    status: Option<ExitStatus>,
    console: File,
    /// The supervisor's end; it goes to hang up.
    pub control: Option<OwnedFd>,
}

/// A disk of a microVM.
#[derive(Debug)]
pub struct DiskFile {
    /// What the guest knows it by.
    pub serial: &'static str,
    /// Open for reading only if the disk is read-only, and for both if not.
    pub file: File,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// What a microVM is made of.
#[derive(Debug)]
pub struct Setup {
    /// The monitor.
    pub program: PathBuf,
    /// Its environment, `NAME=VALUE`: what test builds of it read.
    pub environment: Vec<String>,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
    /// A virtio-fs device, `pod`, whose back end is at the end of this connection.
    pub share: Option<OwnedFd>,
    /// Its disks, in this order.
    pub disks: Vec<DiskFile>,
}

impl Setup {
    /// A microVM of one CPU and 128 MiB, with the installed monitor.
    pub fn new(kernel: &Path, initramfs: &Path) -> Self {
        Self {
            program: "/usr/libexec/sandbox/sandbox-vmm".into(),
            environment: Vec::new(),
            kernel: kernel.to_owned(),
            initramfs: initramfs.to_owned(),
            share: None,
            disks: Vec::new(),
        }
    }
}

impl Machine {
    /// Starts a microVM of one CPU and 128 MiB.
    pub fn start(kernel: &Path, initramfs: &Path) -> Self {
        Self::with_share(kernel, initramfs, None)
    }

    /// The same with a virtio-fs device, `pod`, whose back end is at the end of this connection.
    pub fn with_share(kernel: &Path, initramfs: &Path, share: Option<OwnedFd>) -> Self {
        Self::of(Setup { share, ..Setup::new(kernel, initramfs) })
    }

    /// The same with these disks, in this order.
    pub fn with_disks(kernel: &Path, initramfs: &Path, disks: Vec<DiskFile>) -> Self {
        Self::of(Setup { disks, ..Setup::new(kernel, initramfs) })
    }

    /// Starts any microVM.
    pub fn of(setup: Setup) -> Self {
        let Setup { program, environment, kernel, initramfs, share, disks } = setup;
        let (monitor, control) = control::pair().unwrap();
        let console = tempfile::tempfile().unwrap();
        let kvm = File::options().read(true).write(true).open("/dev/kvm").unwrap();
        let [kernel, initramfs] = [kernel, initramfs].map(|path| File::open(path).unwrap());
        let console_copy = console.try_clone().unwrap();
        let mut inherited: Vec<OwnedFd> = vec![monitor];
        inherited.extend([console_copy, kvm, kernel, initramfs].map(OwnedFd::from));
        let [control_fd, console_fd, kvm_fd, kernel_fd, initramfs_fd] =
            [0, 1, 2, 3, 4].map(|index| inherited[index].as_raw_fd());
        let tag = || Tag::try_from("pod".to_owned()).unwrap();
        let shares = share.iter().map(|end| Share { tag: tag(), fd: end.as_raw_fd() }).collect();
        inherited.extend(share);
        let disk = |disk: &DiskFile| Disk {
            serial: Serial::try_from(disk.serial.to_owned()).unwrap(),
            fd: disk.file.as_raw_fd(),
            read_only: disk.read_only,
        };
        let places = disks.iter().map(disk).collect();
        inherited.extend(disks.into_iter().map(|disk| disk.file.into()));
        let config = Config::try_from(Unchecked {
            kvm_fd,
            kernel_fd,
            initramfs_fd,
            command_line: CommandLine::default(),
            vcpus: Vcpus::try_from(1).unwrap(),
            memory_mib: MemoryMib::try_from(128).unwrap(),
            control_fd,
            console_fd,
            shares,
            disks: places,
        })
        .unwrap();
        let file = rustix::fs::memfd_create("config", MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(file);
        file.write_all(&serde_json::to_vec(&config).unwrap()).unwrap();
        file.rewind().unwrap();
        let number = file.as_raw_fd().to_string();
        inherited.push(file.into());

        let name = CString::new(program.as_os_str().as_bytes()).unwrap();
        let program = sandbox_spawn::open(&program).unwrap();
        let inherited: Vec<_> = inherited.iter().map(AsFd::as_fd).collect();
        let spawn = Spawn {
            program: program.as_fd(),
            arguments: vec![name, c"--config-fd".into(), CString::new(number).unwrap()],
            environment: environment.into_iter().map(|it| CString::new(it).unwrap()).collect(),
            inherited: &inherited,
            namespaces: Namespaces::All(USER),
            cgroup: None,
            label: None,
        };
        let monitor = spawn.start().unwrap();
        Self { monitor, status: None, console, control: Some(control) }
    }

    /// The next event of the monitor's; `None` when it has closed its end.
    pub fn event(&self) -> Option<Event> {
        control::receive(self.control.as_ref().unwrap()).unwrap()
    }

    /// Runs a pod as a supervisor does, with a closed standard input, and returns what its apps
    /// wrote to streams other than the control connection, and all that the guest said.
    pub fn run(&mut self, pod: &Pod) -> (String, Vec<ToHost>) {
        let Some(guest) = self.set_up(pod) else { return (String::new(), Vec::new()) };
        // Standard output and standard error of each app.
        let mut streams: Vec<UnixStream> = Vec::new();
        while streams.len() < 2 * pod.apps.len() {
            match self.event() {
                Some(Event::Connection { stream, .. }) => streams.push(stream.into()),
                Some(_) => {}
                None => panic!("the guest did not connect its apps: {}", self.console()),
            }
        }
        let said = listen(&guest);
        let mut output = String::new();
        for stream in &mut streams {
            stream.read_to_string(&mut output).unwrap();
        }
        // Now the guest may reset its machine.
        (output, said)
    }

    /// Lets a guest set up a pod that it has to refuse, and returns all that it said.
    pub fn refuses(&mut self, pod: &Pod) -> Vec<ToHost> {
        let guest = self.set_up(pod).expect("the guest calls");
        listen(&guest)
    }

    /// Takes the guest's call and sends it the pod.
    fn set_up(&mut self, pod: &Pod) -> Option<UnixStream> {
        while let Some(event) = self.event() {
            let Event::Connection { port: CONTROL_PORT, stream } = event else { continue };
            let stream = UnixStream::from(stream);
            let hello = read_to_host(&mut &stream).unwrap().unwrap();
            assert!(matches!(hello, ToHost::Hello { .. }), "{hello:?}");
            write_to_guest(&mut &stream, &ToGuest::Setup(pod.clone())).unwrap();
            return Some(stream);
        }
        None
    }

    /// Waits for the monitor's end and says how the microVM ended.
    pub fn ends(&mut self) -> Option<Exit> {
        Exit::from_code(u8::try_from(self.wait().code()?).ok()?)
    }

    /// The process of the monitor.
    pub fn pid(&self) -> u32 {
        self.monitor.id()
    }

    /// Waits for the monitor's end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = || {
            // A pidfd can be read when its process has ended.
            let mut waiting = [PollFd::new(&self.monitor.pidfd, PollFlags::IN)];
            poll(&mut waiting, Some(&Timespec::default())).unwrap() == 1
        };
        if !eventually(LIMIT, ended) {
            self.monitor.kill().unwrap();
            panic!("the monitor does not end; the console:\n{}", self.console());
        }
        *self.status.get_or_insert_with(|| self.monitor.wait().unwrap())
    }

    /// The guest's console so far.
    pub fn console(&self) -> String {
        let mut bytes = Vec::new();
        let mut file = File::open(format!("/proc/self/fd/{}", self.console.as_raw_fd())).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.monitor.kill();
            let _ = self.monitor.wait();
        }
    }
}

/// All that a guest says.
fn listen(guest: &UnixStream) -> Vec<ToHost> {
    let mut said = Vec::new();
    while !matches!(said.last(), Some(ToHost::Finished)) {
        said.push(read_to_host(&mut &*guest).unwrap().expect("it goes on to Finished"));
    }
    said
}

/// Starts a command with these descriptors, under the same numbers.
pub fn spawn_with(command: &mut Command, inherited: &[OwnedFd]) -> Child {
    // What another test starts this way must not get them, too: a copy of a control socket's end
    // would hide that the other end hung up.
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    for descriptor in inherited {
        fcntl_setfd(descriptor.as_fd(), FdFlags::empty()).unwrap();
    }
    let child = command.spawn().unwrap();
    for descriptor in inherited {
        fcntl_setfd(descriptor.as_fd(), FdFlags::CLOEXEC).unwrap();
    }
    child
}

/// The installed parts of a microVM.
pub fn installed() -> (PathBuf, PathBuf) {
    (KERNEL.into(), INITRAMFS.into())
}
