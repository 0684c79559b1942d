//! The monitor by itself, under a supervisor of a few lines.

use crate::eventually;
use rustix::fs::MemfdFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use sandbox_protocol::{CONTROL_PORT, Pod, ToGuest, ToHost, read_to_host, write_to_guest};
use sandbox_vmm::config::{CommandLine, Config, MemoryMib, Share, Tag, Unchecked, Vcpus};
use sandbox_vmm::control::{self, Event};
use sandbox_vmm::exit::Exit;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a microVM may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The installed guest kernel.
pub const KERNEL: &str = "/usr/lib/sandbox/vmlinux";
/// The installed initramfs.
pub const INITRAMFS: &str = "/usr/lib/sandbox/initramfs";

/// A running microVM.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    console: File,
    /// The supervisor's end; it goes to hang up.
    pub control: Option<OwnedFd>,
}

impl Machine {
    /// Starts a microVM of one CPU and 128 MiB.
    pub fn start(kernel: &Path, initramfs: &Path) -> Self {
        Self::with_share(kernel, initramfs, None)
    }

    /// The same with a virtio-fs device, `pod`, whose back end is at the end of this connection.
    pub fn with_share(kernel: &Path, initramfs: &Path, share: Option<OwnedFd>) -> Self {
        let (monitor, control) = control::pair().unwrap();
        let console = tempfile::tempfile().unwrap();
        let mut inherited: Vec<OwnedFd> = vec![monitor, console.try_clone().unwrap().into()];
        inherited.extend(share);
        let numbers: Vec<i32> = inherited.iter().map(|one| one.as_raw_fd()).collect();
        let tag = || Tag::try_from("pod".to_owned()).unwrap();
        let config = Config::try_from(Unchecked {
            kernel: kernel.to_owned(),
            initramfs: initramfs.to_owned(),
            command_line: CommandLine::default(),
            vcpus: Vcpus::try_from(1).unwrap(),
            memory_mib: MemoryMib::try_from(128).unwrap(),
            control_fd: numbers[0],
            console_fd: numbers[1],
            shares: numbers[2..].iter().map(|fd| Share { tag: tag(), fd: *fd }).collect(),
        })
        .unwrap();
        let file = rustix::fs::memfd_create("config", MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(file);
        file.write_all(&serde_json::to_vec(&config).unwrap()).unwrap();
        file.rewind().unwrap();
        let number = file.as_raw_fd().to_string();
        inherited.push(file.into());

        let mut command = Command::new("/usr/libexec/sandbox/sandbox-vmm");
        command.args(["--config-fd", &number]).stdin(Stdio::null());
        let child = spawn_with(&mut command, &inherited);
        Self { child, console, control: Some(control) }
    }

    /// The next event of the monitor's; `None` when it has closed its end.
    pub fn event(&self) -> Option<Event> {
        control::receive(self.control.as_ref().unwrap()).unwrap()
    }

    /// Runs a pod as a supervisor does, with a closed standard input, and returns what its apps
    /// wrote to streams other than the control connection, and all that the guest said.
    pub fn run(&mut self, pod: &Pod) -> (String, Vec<ToHost>) {
        let (mut guest, mut output) = (None, String::new());
        let mut said = Vec::new();
        let mut streams: Vec<UnixStream> = Vec::new();
        while let Some(event) = self.event() {
            let Event::Connection { port, stream } = event else { continue };
            let stream = UnixStream::from(stream);
            if port != CONTROL_PORT {
                streams.push(stream);
                continue;
            }
            guest = Some(stream.try_clone().unwrap());
            let hello = read_to_host(&mut &stream).unwrap().unwrap();
            assert!(matches!(hello, ToHost::Hello { .. }), "{hello:?}");
            write_to_guest(&mut &stream, &ToGuest::Setup(pod.clone())).unwrap();
            // Standard output and standard error of each app.
            while streams.len() < 2 * pod.apps.len() {
                if let Some(Event::Connection { stream, .. }) = self.event() {
                    streams.push(stream.into());
                }
            }
            while !matches!(said.last(), Some(ToHost::Finished)) {
                said.push(read_to_host(&mut &stream).unwrap().expect("it goes on to Finished"));
            }
            for stream in &mut streams {
                stream.read_to_string(&mut output).unwrap();
            }
            break;
        }
        // Now the guest may reset its machine.
        drop(guest);
        (output, said)
    }

    /// Waits for the monitor's end and says how the microVM ended.
    pub fn ends(&mut self) -> Option<Exit> {
        let mut status = None;
        eventually(LIMIT, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let Some(status) = status else {
            let _ = self.child.kill();
            panic!("the monitor does not end; the console:\n{}", self.console());
        };
        Exit::from_code(u8::try_from(status.code()?).ok()?)
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
