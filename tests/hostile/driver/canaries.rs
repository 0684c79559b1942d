//! The canaries: what on the host an attempt may reach, and what puts it back.

use crate::canary::Canary;
use sandbox_hostile::call;
use sandbox_hostile::call::{Result as Called, read, written};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// How every secret begins: what an eavesdropper looks for.
const MARKER: &str = "canary:";

/// A cgroup of the host's.
const CGROUP: &str = "/sys/fs/cgroup/hostile-canary";

/// All of them.
#[derive(Debug)]
pub struct Canaries {
    /// What an attempt has to come back with.
    pub secret: String,
    /// What an attacker knows: names and values.
    targets: Vec<(String, String)>,
    /// What the sockets have heard.
    pub heard: Arc<Mutex<Vec<String>>>,
    /// A process of root's.
    pub process: Canary,
    base: PathBuf,
    /// A kernel module in hexadecimal.
    pub module: String,
    queue: usize,
}

/// A call of the harness's own that must not fail.
pub fn raw(what: &str, result: Called<usize>) -> usize {
    result.unwrap_or_else(|errno| panic!("{what}: {}", std::io::Error::from_raw_os_error(errno)))
}

impl Canaries {
    /// Makes them.
    pub fn set_up() -> Self {
        let base = sandbox_tests::home().join("hostile");
        fs::create_dir_all(&base).unwrap();
        let secret = format!("{MARKER}{}", uuid());
        let process = Canary::start(&secret);
        let heard = Arc::default();
        let mut canaries = Self {
            secret,
            targets: Vec::new(),
            heard,
            process,
            base,
            module: String::new(),
            queue: 0,
        };
        canaries.files();
        canaries.sockets();
        canaries.kernel();
        canaries.set("marker", MARKER);
        canaries.set("pid", canaries.process.pid());
        canaries.set("address", canaries.process.address);
        canaries.set("scribble", canaries.process.scribble);
        canaries.set("descriptor", canaries.process.descriptor);
        canaries
    }

    /// Where they are.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Lets the attacker know something.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.targets.retain(|(known, _)| known != name);
        self.targets.push((name.to_owned(), value.to_string()));
    }

    /// What the attacker knows by this name.
    pub fn get(&self, name: &str) -> &str {
        let found = self.targets.iter().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("no target {name}"), |(_, value)| value)
    }

    /// A text with `{NAME}` replaced by what is known by the name.
    pub fn resolve(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.targets {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        text
    }

    /// All of it, as the attacker gets it.
    pub fn targets(&self) -> String {
        let pairs: Vec<_> =
            self.targets.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(";")
    }

    fn files(&mut self) {
        let (closed, open) = (self.base.join("closed"), self.base.join("open"));
        for (directory, mode) in [(&closed, 0o700), (&open, 0o777)] {
            fs::create_dir_all(directory).unwrap();
            fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
        }
        let secret = closed.join("secret");
        fs::write(&secret, &self.secret).unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        let shared = open.join("shared");
        fs::write(&shared, "").unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o666)).unwrap();
        let agent = self.base.join("agent");
        let script = format!("#!/bin/sh\n: >{}/release_agent_run\n", open.display());
        fs::write(&agent, script).unwrap();
        fs::set_permissions(&agent, Permissions::from_mode(0o755)).unwrap();
        let swap = self.base.join("hostile.swap");
        fs::write(&swap, vec![0; 1 << 20]).unwrap();
        fs::set_permissions(&swap, Permissions::from_mode(0o600)).unwrap();
        succeeds(Command::new("mkswap").arg(&swap));
        fs::write(self.base.join("acct"), "").unwrap();
        for name in ["mount_point", "mounted"] {
            fs::create_dir_all(self.base.join(name)).unwrap();
        }
        let handle = handle(&secret);
        for (name, path) in [
            ("secret", secret),
            ("closed", closed),
            ("open", open.clone()),
            ("shared", shared),
            ("doomed", open.join("doomed")),
            ("agent", agent),
            ("swap", swap),
            ("acct", self.base.join("acct")),
            ("mount_point", self.base.join("mount_point")),
            ("mounted", self.base.join("mounted")),
            ("programs", "/usr/libexec/sandbox".into()),
            ("share", "/volume-v".into()),
            ("share_path", self.base.join("attacker-volume")),
        ] {
            self.set(name, path.display());
        }
        self.set("handle", handle);
        self.mount();
        let disk = Path::new("/dev/nvme0n1");
        self.set("disk", disk.display());
        self.set("disk_number", fs::metadata(disk).unwrap().rdev());
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        succeeds(mount.args(["-t", "tmpfs", "sandbox-canary", self.get("mounted")]));
    }

    /// Sockets that anybody may use, and threads that note what is said there.
    fn sockets(&mut self) {
        let path = self.base.join("socket");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        self.set("unix", path.display());
        self.listen(move || listener.accept().ok().map(|(stream, _)| stream));

        let name = format!("sandbox-{}", uuid());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        self.set("abstract", &name);
        self.listen(move || listener.accept().ok().map(|(stream, _)| stream));

        let name = format!("sandbox-{}", uuid());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap());
        self.set("abstract_datagram", &name);
        let socket = socket.unwrap();
        self.receive(move |buffer| socket.recv(buffer));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.set("tcp", listener.local_addr().unwrap().port());
        self.listen(move || listener.accept().ok().map(|(stream, _)| stream));

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        self.set("udp", socket.local_addr().unwrap().port());
        self.receive(move |buffer| socket.recv(buffer));
        self.talk();
    }

    fn listen<S: Read>(&self, mut accept: impl FnMut() -> Option<S> + Send + 'static) {
        let heard = self.heard.clone();
        spawn(move || {
            while let Some(mut stream) = accept() {
                let mut buffer = [0; 256];
                let length = stream.read(&mut buffer).unwrap_or(0);
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                heard.lock().unwrap().push(text);
            }
        });
    }

    fn receive(
        &self,
        mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize> + Send + 'static,
    ) {
        let heard = self.heard.clone();
        spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(length) = receive(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                heard.lock().unwrap().push(text);
            }
        });
    }

    /// Somebody who tells the secret to whoever listens at a port, and over the loopback interface.
    fn talk(&mut self) {
        let (callback, secret) = (23_117, self.secret.clone());
        self.set("callback", callback);
        spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            loop {
                if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", callback)) {
                    let _ = stream.write_all(secret.as_bytes());
                }
                let _ = socket.send_to(secret.as_bytes(), ("127.0.0.1", callback));
                sleep(Duration::from_millis(20));
            }
        });
    }

    /// What only the kernel has.
    fn kernel(&mut self) {
        fs::write("/proc/sys/kernel/printk_devkmsg", "on\n").unwrap();
        // What nobody may do here without any sandbox would prove nothing.
        let may = ["allow_execmem=1", "allow_execstack=1", "allow_execheap=1", "allow_execmod=1"];
        succeeds(Command::new("setsebool").args(may));
        fs::create_dir_all(CGROUP).unwrap();
        self.set("cgroup", CGROUP);
        self.set("bpf", bpf_map(self.secret.as_bytes()));
        let segment = raw("shmget", call!(SYS_shmget, libc::IPC_PRIVATE, 4096, 0o666));
        let at = raw("shmat", call!(SYS_shmat, segment, 0, 0));
        // SAFETY: a segment of a page that was just attached here.
        unsafe {
            std::ptr::copy_nonoverlapping(self.secret.as_ptr(), at as *mut u8, self.secret.len());
        };
        self.set("shm", segment);
        self.queue = raw("msgget", call!(SYS_msgget, libc::IPC_PRIVATE, 0o666));
        self.set("queue", self.queue);
        self.send();
        let file = self.base.join("dummy.ko");
        let script = format!(
            "found=$(find /lib/modules -name 'dummy.ko*' | head -n 1); case $found in \
             *.xz) xz -dc $found ;; *) cat $found ;; esac >{}",
            file.display()
        );
        succeeds(Command::new("sh").args(["-c", &script]));
        succeeds(Command::new("chcon").args(["-t", "modules_object_t"]).arg(&file));
        let module = fs::read(&file).unwrap();
        assert!(!module.is_empty() && module.len() < 65_000, "dummy.ko: {} bytes", module.len());
        self.module = module.iter().map(|byte| format!("{byte:02x}")).collect();
        self.set("module", file.display());
    }

    /// A message for whoever may read the queue.
    fn send(&self) {
        let mut message = vec![1_u8, 0, 0, 0, 0, 0, 0, 0];
        message.extend(self.secret.as_bytes());
        raw("msgsnd", call!(SYS_msgsnd, self.queue, &message[..], message.len() - 8, 0));
    }

    /// Undoes what an attempt has changed.
    pub fn put_back(&self, name: &str) {
        let write = |path: &str, text: &str| {
            fs::write(path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
        };
        match name {
            "message_taken" => self.send(),
            "host_named" => write("/proc/sys/kernel/hostname", "host"),
            "core_pattern_set" => write("/proc/sys/kernel/core_pattern", "core"),
            "setting_changed" => write("/sys/kernel/mm/ksm/sleep_millisecs", "20"),
            "restart_by_keys_disabled" => write("/proc/sys/kernel/ctrl-alt-del", "1"),
            "cgroup_frozen" => write(&format!("{CGROUP}/cgroup.freeze"), "0"),
            "cgroup_of_other_pod_limited" => write(&format!("{CGROUP}/pids.max"), "max"),
            "made_first_to_be_killed" => {
                write(&self.resolve("/proc/{victim_monitor}/oom_score_adj"), "0");
            }
            "interface_changed" => write("/sys/class/net/lo/mtu", "65536"),
            "accounting_switched_on" => {
                raw("acct", call!(SYS_acct, 0));
                write(self.get("acct"), "");
            }
            "module_loaded" | "module_file_loaded" => {
                raw("delete_module", call!(SYS_delete_module, c"dummy", libc::O_NONBLOCK));
            }
            "other_kernel_loaded" => {
                raw("kexec_load", call!(SYS_kexec_load, 0, 0, 0, 0));
            }
            "interface_made" => succeeds(Command::new("ip").args(["link", "del", "hostile0"])),
            "swap_added" => succeeds(Command::new("swapoff").arg(self.get("swap"))),
            "mounted" => succeeds(Command::new("umount").arg(self.get("mount_point"))),
            "unmounted" => self.mount(),
            "limits_changed" => {
                let limit = [1024_u64, 4096];
                let pid = self.process.pid();
                raw("prlimit", call!(SYS_prlimit64, pid, libc::RLIMIT_NOFILE, &limit[..], 0));
            }
            "priority_lowered" => {
                let pid = self.process.pid();
                raw("setpriority", call!(SYS_setpriority, libc::PRIO_PROCESS, pid, 0));
            }
            _ => {}
        }
    }
}

/// Runs a command that must not fail.
pub fn succeeds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {said}", output.status);
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}

/// The file's handle, in hexadecimal.
fn handle(file: &Path) -> String {
    let path = std::ffi::CString::new(file.as_os_str().as_bytes()).unwrap();
    let mut handle = [0_u8; 136];
    handle[..4].copy_from_slice(&128_u32.to_ne_bytes());
    let mut mount = 0_i32;
    let at = libc::AT_FDCWD;
    let made =
        call!(SYS_name_to_handle_at, at, path.as_c_str(), &mut handle[..], written(&mut mount), 0);
    raw("name_to_handle_at", made);
    let length = 8 + u32::from_ne_bytes(handle[..4].try_into().unwrap()) as usize;
    handle[..length].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes an array of one value of 64 bytes; its number. It stays as long as this process.
fn bpf_map(value: &[u8]) -> u32 {
    // BPF_MAP_CREATE: type array, size of key, size of value, entries.
    let create = [2_u32, 4, 64, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let map = raw("bpf map", call!(SYS_bpf, 0, &create[..], 48));
    let mut padded = [0_u8; 64];
    padded[..value.len()].copy_from_slice(value);
    let key = 0_u32;
    // BPF_MAP_UPDATE_ELEM
    let update = [map as u64, read(&key) as u64, read(&padded) as u64, 0];
    raw("bpf map", call!(SYS_bpf, 2, &update[..], 32));
    // BPF_OBJ_GET_INFO_BY_FD
    let mut information = [0_u32; 32];
    let descriptor_and_size = (map as u64) | (128 << 32);
    let ask = [descriptor_and_size, written(&mut information) as u64];
    raw("bpf map", call!(SYS_bpf, 15, &ask[..], 16));
    information[1]
}

/// A log of the kernel's, from now on.
#[derive(Debug)]
pub struct KernelLog(fs::File);

impl KernelLog {
    /// From now on.
    pub fn new() -> Self {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
        raw("lseek", call!(SYS_lseek, file.as_raw_fd(), 0, libc::SEEK_END));
        Self(file)
    }

    /// What has come.
    pub fn read(&mut self) -> String {
        let (mut text, mut buffer) = (String::new(), [0; 8192]);
        loop {
            match self.0.read(&mut buffer) {
                Ok(length @ 1..) => text += &String::from_utf8_lossy(&buffer[..length]),
                // Records were overwritten before they were read.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                _ => return text,
            }
        }
    }
}
