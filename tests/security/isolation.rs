//! What a pod's processes are, seen from the host while the pod runs: what the kernel would hold a
//! monitor to that its guest has taken over.

use sandbox_tests::data::process;
use sandbox_tests::{Data, Running, eventually, run, tiny};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The namespaces that each process of a pod has of its own, the worker in the host's user namespace.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "ipc", "net", "uts", "cgroup"];

/// A process of a pod.
struct Seen {
    place: PathBuf,
}

impl Seen {
    /// The process of a pod of this directory that runs this program.
    fn of(data: &Path, program: &str) -> Self {
        let mut found = None;
        eventually(Duration::from_secs(60), || {
            found = process(data, program);
            found.is_some()
        });
        let pid = found.unwrap_or_else(|| panic!("{program} runs"));
        let seen = Self { place: PathBuf::from(format!("/proc/{pid}")) };
        // The filters are what a process sets last of all.
        eventually(Duration::from_secs(60), || {
            seen.status("Seccomp").iter().all(|mode| mode == "2")
        });
        seen
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.place.join(file)).unwrap()
    }

    /// A field of the status of each thread.
    fn status(&self, field: &str) -> Vec<String> {
        let threads = fs::read_dir(self.place.join("task")).unwrap();
        let of = |thread: fs::DirEntry| {
            // One that makes the virtual machine may have ended since.
            let text = fs::read_to_string(thread.path().join("status")).ok()?;
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = lines.find(|(name, _)| *name == field).unwrap();
            Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        threads.filter_map(|thread| of(thread.unwrap())).collect()
    }

    /// The same, where no thread differs.
    fn all(&self, field: &str) -> String {
        let mut values = self.status(field);
        values.dedup();
        assert_eq!(values.len(), 1, "{field}: {values:?}");
        values.remove(0)
    }

    fn namespaces(&self) -> BTreeMap<&'static str, PathBuf> {
        NAMESPACES
            .map(|kind| (kind, fs::read_link(self.place.join("ns").join(kind)).unwrap()))
            .into()
    }

    /// What its descriptors are.
    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.place.join("fd")).unwrap();
        let target = |file: fs::DirEntry| fs::read_link(file.path()).unwrap();
        files.map(|file| target(file.unwrap()).display().to_string()).collect()
    }
}

fn host() -> Seen {
    Seen { place: "/proc/self".into() }
}

/// A pod with a volume. The file server is found by what it shares.
fn start(data: &Data) -> Running {
    run(tiny())
        .data(data.path())
        .volume("v", data.path(), ",readOnly=true", "/v")
        .exec("/bin/sleep", ["1000"])
        .start()
}

/// "own uid, empty root, own namespaces, per-thread seccomp (kill), no capability": of the monitor,
/// and of no two pods the same.
#[test]
fn a_monitor_is_nobody_and_has_nothing() {
    let pods: Vec<_> = [(); 2]
        .into_iter()
        .map(|()| {
            let data = Data::new();
            let pod = start(&data);
            (Seen::of(data.path(), "sandbox-vmm"), pod, data)
        })
        .collect();
    for (monitor, ..) in &pods {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(monitor.all(set), "0000000000000000", "{set}");
        }
        assert_eq!(monitor.all("NoNewPrivs"), "1");
        assert_eq!(monitor.all("Seccomp"), "2");
        assert_eq!(monitor.all("Groups"), "");
        let user: u32 = monitor.all("Uid").split(' ').next().unwrap().parse().unwrap();
        assert!((1_900_000_000..1_900_065_536).contains(&user), "{user}");
        assert_eq!(monitor.all("Uid"), vec![user.to_string(); 4].join(" "));
        assert_eq!(monitor.all("Gid"), vec![user.to_string(); 4].join(" "));
        for map in ["uid_map", "gid_map"] {
            let words = monitor.read(map);
            let words: Vec<_> = words.split_whitespace().collect();
            assert_eq!(words, ["0", &user.to_string(), "1"], "{map}");
        }
        let numbers = monitor.read("status");
        let numbers = numbers.lines().find(|line| line.starts_with("NSpid:")).unwrap();
        assert!(numbers.ends_with("\t1"), "{numbers}");
        let mounts = monitor.read("mountinfo");
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" / / ro,nosuid,nodev,noexec,"), "{mounts}");
        assert_eq!(fs::read_dir(monitor.place.join("root")).unwrap().count(), 0);
        let core = monitor.read("limits");
        let core = core.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // Streams, sockets, events, guest memory, KVM, and files that are on no path.
        let open = |file: &String| !file.contains(':') || file.starts_with("/proc");
        let named: Vec<_> = monitor.files().into_iter().filter(open).collect();
        for file in &named {
            let is_known = ["/dev/null", "/dev/kvm", "/console", "/rootfs", "/scratch", "/memfd:"]
                .iter()
                .any(|known| file.contains(known));
            assert!(is_known, "{file} among {named:?}");
        }
    }
    let [(one, ..), (other, ..)] = pods.as_slice() else { unreachable!() };
    for (kind, namespace) in one.namespaces() {
        assert_ne!(namespace, host().namespaces()[kind], "{kind} is the host's");
        assert_ne!(namespace, other.namespaces()[kind], "{kind} is another pod's");
    }
    assert_ne!(one.all("Uid"), other.all("Uid"));
}

/// "own mount namespace holding the shares and nothing else, own seccomp, no network": the worker.
#[test]
fn a_file_server_sees_its_shares_and_nothing_else() {
    let data = Data::new();
    let _pod = start(&data);
    let worker = Seen::of(data.path(), "sandbox-fs");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID and SETFCAP.
    for set in ["CapPrm", "CapBnd"] {
        assert_eq!(worker.all(set), "00000000800000db", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(worker.all(set), "0000000000000000", "{set}");
    }
    assert_eq!((worker.all("NoNewPrivs"), worker.all("Seccomp")), ("1".into(), "2".into()));
    for (kind, namespace) in worker.namespaces() {
        let is_hosts = namespace == host().namespaces()[kind];
        assert_eq!(is_hosts, kind == "user", "{kind}");
    }
    let mounts = worker.read("mountinfo");
    let points: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    assert_eq!(points, ["/", "/volume-v"], "{mounts}");
}
