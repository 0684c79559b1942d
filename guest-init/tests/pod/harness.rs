//! The host of a guest-init that is not in a virtual machine: PID 1 of a PID namespace, with
//! sockets in place of vsock, bind mounts in place of virtio-fs and loop devices in place of
//! virtio-blk. All else is the real thing.

use guest_init::disk::{Device, Disk};
use guest_init::{Error, host::Host};
use rustix::fs::{CWD, Mode, mkdirat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sandbox_protocol::{
    App, ExitStatus, FIRST_STREAM_PORT, Pod, Root, Stdio, ToGuest, ToHost, read_to_host,
    write_to_guest,
};
use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take before a test fails, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What makes this program the guest instead of the tests.
pub const GUEST: &str = "--be-the-guest";

/// The guest's view of the host: it passes ends of socket pairs, each with a port number.
struct Sockets {
    device: OwnedFd,
    shares: Vec<(String, OwnedFd)>,
    disks: Vec<Disk>,
}

impl Host for Sockets {
    fn connect(&self, port: u32) -> Result<OwnedFd, Error> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let theirs = [theirs.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&theirs)));
        let bytes = port.to_le_bytes();
        sendmsg(&self.device, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
        Ok(ours)
    }

    fn mount_shares(&self, tag: &str, directory: &str) -> Result<(), Error> {
        assert_eq!(tag, "pod");
        for (name, tree) in &self.shares {
            let path = format!("{directory}/{name}");
            if rustix::fs::fstat(tree).unwrap().st_mode & libc::S_IFMT == libc::S_IFDIR {
                mkdirat(CWD, &path, Mode::from_raw_mode(0o755)).unwrap();
            } else {
                std::fs::write(&path, "").unwrap();
            }
            move_mount(tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        }
        Ok(())
    }

    fn disks(&self) -> Result<Vec<Disk>, Error> {
        Ok(self.disks.clone())
    }
}

/// What says in the guest's arguments that a share is a disk.
const DISK: &str = "disk:";

/// Runs guest-init in a cgroup of its own, with the shares `NAME=PATH` and the disks
/// `disk:SERIAL=PATH`.
pub fn be_the_guest(cgroup: &str, files: &[String]) {
    // The root of the guest's hierarchy must be without processes, as no real root has to be.
    let own = format!("{cgroup}/init");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0").unwrap();
    // SAFETY: the guest has one thread.
    unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }.unwrap();
    std::fs::write(format!("{own}/cgroup.procs"), "0").unwrap();
    let device = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let clone = |share: &String| {
        let (name, path) = share.split_once('=').unwrap();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        (name.to_owned(), open_tree(CWD, path, flags).unwrap())
    };
    let (disks, shares): (Vec<&String>, _) = files.iter().partition(|file| file.starts_with(DISK));
    let shares = shares.into_iter().map(clone).collect();
    let host =
        Sockets { device, shares, disks: disks.into_iter().map(|file| disk(file)).collect() };
    if let Err(error) = guest_init::pod::run(&host) {
        eprintln!("guest-init: {error}");
        std::process::exit(1);
    }
}

fn disk(disk: &str) -> Disk {
    let (serial, path) = disk[DISK.len()..].split_once('=').unwrap();
    let number = rustix::fs::stat(path).unwrap().st_rdev;
    let device = Device { major: rustix::fs::major(number), minor: rustix::fs::minor(number) };
    let sectors = std::fs::read_to_string(format!("/sys/dev/block/{device}/size")).unwrap();
    Disk { serial: serial.into(), device, sectors: sectors.trim().parse().unwrap() }
}

/// A disk of the guest: a loop device with a file of its own.
pub struct LoopDevice {
    pub path: PathBuf,
    _file: tempfile::NamedTempFile,
}

impl LoopDevice {
    /// A disk of so many bytes with an empty ext4, made as for a scratch disk.
    pub fn ext4(bytes: u64) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-m", "0", "-O", "^has_journal"]).arg(file.path());
        assert!(make.status().unwrap().success());
        let output =
            Command::new("losetup").args(["--find", "--show"]).arg(file.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let path = String::from_utf8(output.stdout).unwrap().trim().into();
        Self { path, _file: file }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

struct Process {
    child: Child,
    _cgroup: Cgroup,
}

/// A guest, seen from its host.
pub struct Guest {
    process: Process,
    device: OwnedFd,
    control: UnixStream,
    connections: HashMap<u32, UnixStream>,
}

impl Guest {
    /// Starts a guest whose shares are the given paths, and sends it the pod.
    pub fn start(pod: Pod, shares: &[(&str, &Path)]) -> Self {
        Self::start_with_disks(pod, shares, &[])
    }

    /// The same with disks, by their serials.
    pub fn start_with_disks(
        pod: Pod,
        shares: &[(&str, &Path)],
        disks: &[(&str, &LoopDevice)],
    ) -> Self {
        let pair =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (device, theirs) = pair.unwrap();
        let cgroup = Cgroup::new();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]);
        command.arg(std::env::current_exe().unwrap()).args([GUEST, &cgroup.0]);
        command.stdin(theirs);
        for (name, path) in shares {
            command.arg(format!("{name}={}", path.display()));
        }
        for (serial, disk) in disks {
            command.arg(format!("{DISK}{serial}={}", disk.path.display()));
        }
        let process = Process { child: command.spawn().unwrap(), _cgroup: cgroup };
        let mut guest =
            Self { control: receive(&device).1, process, device, connections: HashMap::new() };
        assert!(matches!(guest.hear(), ToHost::Hello { version: sandbox_protocol::VERSION, .. }));
        guest.say(&ToGuest::Setup(pod));
        guest
    }

    /// Sends a control message.
    pub fn say(&mut self, message: &ToGuest) {
        write_to_guest(&mut self.control, message).unwrap();
    }

    /// Receives the next control message.
    pub fn hear(&mut self) -> ToHost {
        read_to_host(&mut self.control).unwrap().expect("the guest hung up")
    }

    /// The key of a guest that has just been told a pod with secrets or evidence.
    pub fn key(&mut self) -> [u8; 32] {
        match self.hear() {
            ToHost::Key { public } => public,
            other => panic!("expected a key, got {other:?}"),
        }
    }

    /// The next question for evidence: its nonce, and where the answer goes.
    pub fn question(&mut self) -> (Vec<u8>, UnixStream) {
        let mut connection = self.connection(sandbox_protocol::EVIDENCE_PORT);
        let nonce = sandbox_protocol::evidence::read_question(&mut connection).unwrap();
        (nonce, connection)
    }

    /// Asserts what the next control message is.
    #[track_caller]
    pub fn hears(&mut self, expected: &ToHost) {
        assert_eq!(&self.hear(), expected);
    }

    /// The text of the error that the guest reports next.
    #[track_caller]
    pub fn failure(&mut self) -> String {
        match self.hear() {
            ToHost::Failed { error, .. } => error.to_string(),
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    /// The connection that the guest opens to a port, once.
    pub fn connection(&mut self, port: u32) -> UnixStream {
        loop {
            if let Some(connection) = self.connections.remove(&port) {
                return connection;
            }
            let (port, connection) = receive(&self.device);
            connection.set_read_timeout(Some(PATIENCE)).unwrap();
            connection.set_write_timeout(Some(PATIENCE)).unwrap();
            self.connections.insert(port, connection);
        }
    }

    /// All output of an app on one stream.
    pub fn output(&mut self, port: u32) -> String {
        let mut text = Vec::new();
        self.connection(port).read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Whether the guest still runs.
    pub fn is_there(&mut self) -> bool {
        self.process.child.try_wait().unwrap().is_none()
    }

    /// Takes the end of the pod in: nothing else may be reported, and the guest ends by itself.
    pub fn finish(mut self) {
        self.hears(&ToHost::Finished);
        drop(self.control);
        drop(self.connections);
        assert!(self.process.child.wait().unwrap().success());
    }

    /// Hangs up in the middle; the guest has to end by itself.
    pub fn hang_up(mut self) {
        drop(self.control);
        assert!(self.process.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    /// A test that fails leaves no guest behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A cgroup for one guest.
struct Cgroup(String);

/// Where the tests' own mount of the cgroup hierarchy is.
static HIERARCHY: OnceLock<TempDir> = OnceLock::new();

/// The hierarchy, in a mount namespace of the tests' own.
fn hierarchy() -> &'static TempDir {
    HIERARCHY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        // SAFETY: the tests have one thread.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let flags = MountFlags::empty();
        mount("cgroup2", directory.path(), "cgroup2", flags, None).unwrap();
        directory
    })
}

/// Whether guests get a controller: where the machine uses version 1 of cgroups they do not.
pub fn has_controller(name: &str) -> bool {
    let list = std::fs::read_to_string(hierarchy().path().join("cgroup.subtree_control")).unwrap();
    list.split_whitespace().any(|controller| controller == name)
}

/// How many tests were skipped.
static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Says why a test is skipped; on the test host, where everything is there, none may be.
pub fn skip(why: &str) {
    println!("skipped: {why}");
    SKIPPED.fetch_add(1, Ordering::Relaxed);
}

/// How many tests were skipped so far.
pub fn skipped() -> usize {
    SKIPPED.load(Ordering::Relaxed)
}

impl Cgroup {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("guest-init-test-{}-{count}", std::process::id());
        let path = hierarchy().path().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path.to_str().unwrap().to_owned())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Of a guest that failed something may be left, and takes a moment to end.
        let _ = std::fs::write(format!("{}/cgroup.kill", self.0), "1");
        let begin = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && begin.elapsed() < PATIENCE {
            for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = std::fs::remove_dir(entry.path());
            }
        }
    }
}

/// Removes what the tests have mounted.
pub fn clean_up() {
    if let Some(hierarchy) = HIERARCHY.get() {
        unmount(hierarchy.path(), UnmountFlags::DETACH).unwrap();
        std::fs::remove_dir(hierarchy.path()).unwrap();
    }
}

fn receive(device: &OwnedFd) -> (u32, UnixStream) {
    let mut port = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut port)];
    let received = recvmsg(device, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    assert_eq!(received.bytes, 4, "the guest ended");
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    (u32::from_le_bytes(port), UnixStream::from(descriptors.next().unwrap()))
}

/// A pod of one app that runs a shell script in the image of the share `root`.
pub fn shell(script: &str) -> Pod {
    let shares = Some("pod".to_owned());
    let app = app("main", script, 0);
    Pod {
        hostname: "the-pod".into(),
        share_tag: shares,
        images: Vec::new(),
        scratch: None,
        volumes: Vec::new(),
        apps: vec![app],
        measured: None,
    }
}

/// An app that runs a shell script, with standard output and error on the ports that belong to its
/// index in the pod.
pub fn app(name: &str, script: &str, index: u32) -> App {
    App {
        name: name.into(),
        root: Root::Share("root".into()),
        root_read_only: false,
        argv: ["sh", "-c", script].map(|argument| argument.as_bytes().to_vec()).to_vec(),
        environment: vec![b"PATH=/usr/bin:/bin".to_vec()],
        working_directory: b"/".to_vec(),
        user: "0".into(),
        group: "0".into(),
        supplementary_groups: Vec::new(),
        mounts: Vec::new(),
        memory: None,
        cpu_millis: None,
        stdio: Stdio::Streams { stdin: None, stdout: stdout(index), stderr: stderr(index) },
    }
}

/// The port of an app's standard output.
pub fn stdout(index: u32) -> u32 {
    FIRST_STREAM_PORT + 2 * index
}

/// The port of an app's standard error.
pub fn stderr(index: u32) -> u32 {
    stdout(index) + 1
}

/// What the guest reports when an app was executed.
pub fn started(app: u16) -> ToHost {
    ToHost::Started { app }
}

/// What the guest reports when an app has exited.
pub fn exited(app: u16, code: u8) -> ToHost {
    ToHost::Exited { app, status: ExitStatus::Code(code), out_of_memory: false }
}

/// What the guest reports when a signal has ended an app.
pub fn killed(app: u16, signal: u8) -> ToHost {
    ToHost::Exited { app, status: ExitStatus::Signal(signal), out_of_memory: false }
}
