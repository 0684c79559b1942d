//! What a jailed process can no longer do, and which layer refuses it: each attempt is made in a
//! process of its own, that was started as the supervisor starts the monitor.

use super::{enter, identity, landlock, limits, namespaces};
use crate::config::{CommandLine, Config, MemoryMib, Unchecked, Vcpus};
use rustix::fs::{CWD, FileType, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, getpid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use sandbox_spawn::{Namespaces, Spawn, Started, User};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::exit;

/// A user that nobody is.
const USER: User = User { uid: 1_900_065_535, gid: 1_900_065_535 };
/// The exit code after an attempt that succeeded; the error's number is added if it failed.
const TRIED: i32 = 110;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Refused(Errno),
    Works,
}
use Outcome::{Refused, Works};

/// The layers that an attempt is made with; the first one is all of them.
const LAYERS: [&str; 4] = ["all", "identity", "namespaces", "landlock"];

const ACCESS: Outcome = Refused(Errno::ACCESS);
const PERM: Outcome = Refused(Errno::PERM);
const NOENT: Outcome = Refused(Errno::NOENT);

/// Attempts, and what becomes of them with each of [`LAYERS`].
#[rustfmt::skip]
const ATTEMPTS: &[(&str, [Outcome; 4])] = &[
    ("read a file",           [NOENT,                  Works,  NOENT,                  ACCESS]),
    ("list the root",         [ACCESS,                 Works,  Works,                  ACCESS]),
    ("list processes",        [NOENT,                  Works,  NOENT,                  ACCESS]),
    ("make a file",           [Refused(Errno::ROFS),   ACCESS, Refused(Errno::ROFS),   ACCESS]),
    ("open a device",         [NOENT,                  Works,  NOENT,                  ACCESS]),
    ("mount",                 [PERM,                   PERM,   Works,                  PERM]),
    ("unmount the root",      [PERM,                   PERM,   Refused(Errno::INVAL),  Refused(Errno::INVAL)]),
    ("make a device",         [Refused(Errno::ROFS),   ACCESS, Refused(Errno::ROFS),   ACCESS]),
    ("make user namespace",   [Refused(Errno::NOSPC),  Works,  Refused(Errno::NOSPC),  Works]),
    ("make mount namespace",  [PERM,                   PERM,   Works,                  Works]),
    ("name the host",         [PERM,                   PERM,   Works,                  Works]),
    ("change the root",       [PERM,                   PERM,   Works,                  Works]),
    ("take capabilities",     [PERM,                   PERM,   Works,                  Works]),
    ("become another user",   [Refused(Errno::INVAL),  Refused(Errno::INVAL), Refused(Errno::INVAL), Refused(Errno::INVAL)]),
    ("signal supervisor",     [Refused(Errno::SRCH),   Refused(Errno::SRCH),  Refused(Errno::SRCH),  Refused(Errno::SRCH)]),
    ("reach the network",     [Refused(Errno::NETUNREACH); 4]),
];

fn attempt(name: &str, supervisor: Pid) -> io::Result<()> {
    match name {
        "read a file" => File::open("/etc/passwd").map(drop),
        "list the root" => std::fs::read_dir("/").map(drop),
        "list processes" => std::fs::read_dir("/proc").map(drop),
        "make a file" => File::create("/sandbox-attempt").map(drop),
        "open a device" => File::options().write(true).open("/dev/null").map(drop),
        "mount" => {
            let flags = rustix::mount::MountFlags::empty();
            Ok(rustix::mount::mount(c"none", c"/", c"tmpfs", flags, None)?)
        }
        "unmount the root" => {
            Ok(rustix::mount::unmount(c"/", rustix::mount::UnmountFlags::DETACH)?)
        }
        "make a device" => {
            let kind = FileType::CharacterDevice;
            Ok(rustix::fs::mknodat(CWD, "/sandbox-attempt", kind, Mode::RWXU, 0x103)?)
        }
        "make user namespace" => unshare(UnshareFlags::NEWUSER),
        "make mount namespace" => unshare(UnshareFlags::NEWNS),
        "name the host" => Ok(rustix::system::sethostname(b"attempt")?),
        "change the root" => Ok(rustix::process::chroot(c"/")?),
        "take capabilities" => {
            let all = CapabilitySet::SYS_ADMIN;
            let sets = CapabilitySets { effective: all, permitted: all, inheritable: all };
            Ok(rustix::thread::set_capabilities(None, sets)?)
        }
        "become another user" => {
            let user = rustix::process::Uid::from_raw(1);
            Ok(rustix::thread::set_thread_res_uid(user, user, user)?)
        }
        "signal supervisor" => Ok(rustix::process::test_kill_process(supervisor)?),
        "reach the network" => match TcpStream::connect(("127.0.0.1", 1)) {
            // Where Landlock has rules of ports, it is asked first.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Errno::NETUNREACH.into())
            }
            other => other.map(drop),
        },
        _ => panic!("{name}"),
    }
}

/// Tries that in a process of one thread, which this one need not be.
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the child makes two system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it has one thread.
        let error = unsafe { rustix::thread::unshare_unsafe(flags) }.err();
        // SAFETY: nothing is to be done at its end.
        unsafe { libc::_exit(error.map_or(0, Errno::raw_os_error)) };
    }
    let (_, status) =
        rustix::process::waitpid(Pid::from_raw(child), rustix::process::WaitOptions::empty())?
            .unwrap();
    match status.exit_status().unwrap() {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// A configuration of these descriptors.
fn config(files: &[OwnedFd; 5]) -> Config {
    let [kvm_fd, kernel_fd, initramfs_fd, control_fd, console_fd] =
        files.each_ref().map(|file| file.as_raw_fd());
    Config::try_from(Unchecked {
        kvm_fd,
        kernel_fd,
        initramfs_fd,
        control_fd,
        console_fd,
        command_line: CommandLine::default(),
        vcpus: Vcpus::try_from(1).unwrap(),
        memory_mib: MemoryMib::try_from(64).unwrap(),
        shares: Vec::new(),
        disks: Vec::new(),
    })
    .unwrap()
}

fn files() -> [OwnedFd; 5] {
    [(); 5].map(|()| rustix::fs::memfd_create("file", MemfdFlags::CLOEXEC).unwrap())
}

/// Runs a test of this module again as a monitor is run, with these words at its disposal. It sees
/// `files` under their numbers.
fn in_a_jail(test: &str, words: &str, files: &[OwnedFd; 5]) -> Started {
    let program = File::open(std::env::current_exe().unwrap()).unwrap();
    let name = format!("jail::tests::{test}");
    let words = format!("words={words}");
    let arguments = ["test", "--exact", &name, "--nocapture", "--test-threads=1", &words]
        .map(|argument| CString::new(argument).unwrap());
    let own = User::own();
    let spawn = Spawn {
        program: program.as_fd(),
        arguments: arguments.into(),
        environment: Vec::new(),
        inherited: &files.each_ref().map(|file| file.as_fd()),
        namespaces: Namespaces::All(if own.uid == 0 { USER } else { own }),
        cgroup: None,
        label: None,
    };
    spawn.start().unwrap()
}

/// Waits for a process of [`in_a_jail`]: its exit code, and what it said.
fn ended(words: &str, started: Started) -> (i32, String) {
    let mut said = String::new();
    let status = started.wait().unwrap();
    File::from(started.stderr).read_to_string(&mut said).unwrap();
    let code = status.code().unwrap_or_else(|| panic!("{status}: {said}"));
    assert_ne!(code, 101, "{words}: {said}");
    (code, said)
}

/// The words of [`in_a_jail`], in the process that it has started.
fn words() -> Option<Vec<String>> {
    let argument = std::env::args().find_map(|it| it.strip_prefix("words=").map(str::to_owned))?;
    Some(argument.split(',').map(str::to_owned).collect())
}

/// Descriptors as words, and back.
fn numbers(files: &[OwnedFd; 5]) -> String {
    files.each_ref().map(|file| file.as_raw_fd().to_string()).join(":")
}

/// The configuration that says these numbers.
fn config_of(numbers: &str) -> Config {
    // SAFETY: the numbers are those of descriptors that this process has inherited for it.
    let take = |number: &str| unsafe {
        <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number.parse().unwrap())
    };
    let files: Vec<OwnedFd> = numbers.split(':').map(take).collect();
    let files: [OwnedFd; 5] = files.try_into().unwrap();
    let config = config(&files);
    std::mem::forget(files);
    config
}

#[test]
fn what_a_monitor_does_not_need_is_refused_and_each_layer_refuses_its_own() {
    let test = "what_a_monitor_does_not_need_is_refused_and_each_layer_refuses_its_own";
    if let Some(words) = words() {
        let [layer, name, supervisor, numbers] = words.try_into().unwrap();
        match layer.as_str() {
            "all" => enter(&config_of(&numbers)).unwrap(),
            "identity" => identity::give_up().unwrap(),
            "namespaces" => namespaces::empty().unwrap(),
            "landlock" => landlock::forbid_everything().unwrap(),
            _ => panic!("{layer}"),
        }
        let supervisor = Pid::from_raw(supervisor.parse().unwrap()).unwrap();
        let error = attempt(&name, supervisor).err();
        exit(TRIED + error.map_or(0, |error| error.raw_os_error().unwrap()));
    }
    let files = files();
    for (name, outcomes) in ATTEMPTS {
        for (layer, expected) in LAYERS.into_iter().zip(outcomes) {
            let supervisor = getpid().as_raw_pid();
            let words = format!("{layer},{name},{supervisor},{}", numbers(&files));
            let outcome = match ended(&words, in_a_jail(test, &words, &files)) {
                (TRIED, _) => Works,
                (code, _) => Refused(Errno::from_raw_os_error(code - TRIED)),
            };
            assert_eq!(outcome, *expected, "{name}, {layer}");
        }
    }
}

#[test]
fn nothing_is_left_but_what_the_configuration_names() {
    let test = "nothing_is_left_but_what_the_configuration_names";
    if let Some(words) = words() {
        let [numbers] = words.try_into().unwrap();
        let other = File::open("/etc/passwd").unwrap();
        let config = config_of(&numbers);
        enter(&config).unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&other), Err(Errno::BADF), "it is not named");
        std::mem::forget(other);
        let limit = |resource| rustix::process::getrlimit(resource).maximum;
        assert_eq!(limit(Resource::Core), Some(0));
        assert_eq!(limit(Resource::Nproc), Some(limits::THREADS + 1));
        let more = Rlimit { current: Some(1), maximum: Some(1) };
        assert_eq!(rustix::process::setrlimit(Resource::Core, more), Err(Errno::PERM));
        let large = rustix::fs::memfd_create("large", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(rustix::fs::ftruncate(&large, 1 << 30), Err(Errno::FBIG));
        drop(large);
        assert_eq!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        eprintln!("ready");
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
    let files = files();
    let started = in_a_jail(test, &numbers(&files), &files);
    let mut said = String::new();
    for line in BufReader::new(File::from(started.stderr.try_clone().unwrap())).lines() {
        said += &line.unwrap();
        if said.ends_with("ready") {
            break;
        }
    }
    assert!(said.ends_with("ready"), "{said}");
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", started.id())).unwrap();
    // The threads besides the main one inherit what it has; the test runs in one of them.
    let thread = std::fs::read_dir(format!("/proc/{}/task", started.id())).unwrap().last();
    let thread = thread.unwrap().unwrap().file_name().into_string().unwrap();
    let text = read(&format!("task/{thread}/status"));
    let of = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim())
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(of(set), Some("0000000000000000"), "{set}");
    }
    assert_eq!(of("NoNewPrivs"), Some("1"));
    let mounts = read("mountinfo");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec,"), "{mounts}");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", started.id())).unwrap();
    let mut descriptors: Vec<i32> = descriptors
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    descriptors.sort_unstable();
    let mut expected = vec![0, 1, 2];
    expected.extend(files.each_ref().map(|file| file.as_raw_fd()));
    expected.sort_unstable();
    assert_eq!(descriptors, expected);
    started.kill().unwrap();
    started.wait().unwrap();
}

#[test]
fn a_process_in_the_hosts_namespaces_is_not_jailed() {
    let error = namespaces::empty().unwrap_err();
    assert!(error.to_string().contains("started by sandbox"), "{error}");
    rustix::fs::open("/etc", OFlags::RDONLY, Mode::empty()).unwrap();
}
