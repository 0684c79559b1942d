//! What the process can no longer do once it is confined, each tried in a process of its own.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

use crate::{confine, filter};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    io::Errno,
    net::{AddressFamily, Protocol, SocketType, ipproto, netlink, socket},
    process::{Uid, geteuid, getppid, test_kill_process},
    thread::set_thread_res_uid,
};
use sandbox_image::protocol::{Confinement, Profile};
use std::{
    env,
    fs::File,
    io::{self, Read as _},
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _, process::ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitStatus, exit},
    thread,
};

/// Names the attempt in the process that makes it.
const ATTEMPT: &str = "SANDBOX_FETCH_ATTEMPT";
/// The directory that is given to it.
const DIRECTORY: &str = "SANDBOX_FETCH_DIRECTORY";
/// A user that nobody is.
const USER: u32 = 0x7000_1234;
/// The exit code after an attempt that succeeded; the error's number is added if it failed.
const TRIED: i32 = 100;
const SIGSYS: i32 = libc::SIGSYS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Killed,
    Refused(Errno),
    Works,
}
use Outcome::{Killed, Refused, Works};

const PROFILES: [Profile; 3] = [Profile::Offline, Profile::Network, Profile::Unpack];

/// Attempts, and what becomes of them in each profile.
#[rustfmt::skip]
const ATTEMPTS: &[(&str, [Outcome; 3])] = &[
    ("read a file",            [Refused(Errno::NOSYS), Refused(Errno::ACCESS), Refused(Errno::ACCESS)]),
    ("read the list of hosts", [Refused(Errno::NOSYS), Works,                  Refused(Errno::ACCESS)]),
    ("make a file elsewhere",  [Refused(Errno::NOSYS), Refused(Errno::ACCESS), Refused(Errno::ACCESS)]),
    ("make a file",            [Refused(Errno::NOSYS), Refused(Errno::ACCESS), Works]),
    ("make a file above",      [Refused(Errno::NOSYS), Refused(Errno::ACCESS), Refused(Errno::ACCESS)]),
    ("make a device",          [Killed,                Killed,                 Killed]),
    ("list processes",         [Refused(Errno::NOSYS), Refused(Errno::ACCESS), Refused(Errno::ACCESS)]),
    ("connect",                [Killed,                Refused(Errno::CONNREFUSED), Killed]),
    ("unix socket",            [Killed,                Refused(Errno::NOSYS),  Killed]),
    ("packet socket",          [Killed,                Refused(Errno::NOSYS),  Killed]),
    ("multipath TCP socket",   [Killed,                Refused(Errno::NOSYS),  Killed]),
    ("sequenced socket",       [Killed,                Refused(Errno::NOSYS),  Killed]),
    ("list of addresses",      [Killed,                Works,                  Killed]),
    ("list of sockets",        [Killed,                Refused(Errno::NOSYS),  Killed]),
    ("socket pair",            [Killed,                Killed,                 Killed]),
    ("start a process",        [Killed,                Killed,                 Killed]),
    ("run a program",          [Killed,                Killed,                 Killed]),
    ("signal a process",       [Killed,                Killed,                 Killed]),
    ("become root",            [Killed,                Killed,                 Killed]),
    ("start a thread",         [Works,                 Works,                  Works]),
];

fn attempt(name: &str, directory: &Path) -> io::Result<()> {
    match name {
        "read a file" => File::open("/etc/passwd").map(drop),
        "read the list of hosts" => File::open("/etc/hosts").map(drop),
        "make a file elsewhere" => File::create("/tmp/sandbox-fetch-attempt").map(drop),
        "make a file" => File::create(directory.join("file")).map(drop),
        "make a file above" => File::create(directory.join("../above")).map(drop),
        "make a device" => {
            let path = directory.join("null");
            let made = mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, 0x103);
            made.map_err(io::Error::from)
        }
        "list processes" => std::fs::read_dir("/proc").map(drop),
        "connect" => TcpStream::connect(("127.0.0.1", 1)).map(drop),
        "unix socket" => open_socket(AddressFamily::UNIX, SocketType::STREAM, None),
        "packet socket" => open_socket(AddressFamily::PACKET, SocketType::DGRAM, None),
        "multipath TCP socket" => {
            open_socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP))
        }
        "sequenced socket" => open_socket(AddressFamily::INET6, SocketType::SEQPACKET, None),
        // The protocol is number 0.
        "list of addresses" => open_socket(AddressFamily::NETLINK, SocketType::RAW, None),
        "list of sockets" => {
            open_socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG))
        }
        "socket pair" => UnixStream::pair().map(drop),
        "start a process" => Command::new("/bin/true").spawn().map(drop),
        "run a program" => Err(Command::new("/bin/true").exec()),
        "signal a process" => Ok(test_kill_process(getppid().unwrap())?),
        "become root" => Ok(set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?),
        "start a thread" => {
            thread::spawn(|| ()).join().unwrap();
            Ok(())
        }
        _ => panic!("{name}"),
    }
}

fn open_socket(
    family: AddressFamily,
    kind: SocketType,
    protocol: Option<Protocol>,
) -> io::Result<()> {
    socket(family, kind, protocol)?;
    Ok(())
}

/// Confines this process as it is done for an image.
fn confine(profile: Profile, directory: &Path) {
    let parent = u32::try_from(getppid().unwrap().as_raw_pid()).unwrap();
    let user = geteuid().is_root().then_some(USER);
    let confinement = Confinement { parent, user, file_size: 1 << 20, memory: 4 << 30 };
    let files = [OwnedFd::from(File::open(directory).unwrap())];
    confine::give_up(&confinement, profile, &files).unwrap();
    filter::install(profile).unwrap();
}

/// Runs this test again in a process of its own.
fn in_a_process(test: &str, profile: usize, name: &str) -> ExitStatus {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command.env(ATTEMPT, format!("{profile} {name}")).env(DIRECTORY, &below);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(101), "{name}: {said}");
    output.status
}

/// What this process is to try, if it was started for that.
fn asked_for() -> Option<(Profile, String, std::path::PathBuf)> {
    let text = env::var(ATTEMPT).ok()?;
    let (profile, name) = text.split_once(' ').unwrap();
    let profile = PROFILES[profile.parse::<usize>().unwrap()];
    Some((profile, name.to_owned(), env::var_os(DIRECTORY).unwrap().into()))
}

#[test]
fn what_is_not_needed_is_refused() {
    if let Some((profile, name, directory)) = asked_for() {
        confine(profile, &directory);
        let error = attempt(&name, &directory).err();
        exit(TRIED + error.map_or(0, |error| error.raw_os_error().unwrap()));
    }
    for (name, outcomes) in ATTEMPTS {
        for (number, expected) in outcomes.iter().enumerate() {
            let status = in_a_process("tests::what_is_not_needed_is_refused", number, name);
            let outcome = match (status.signal(), status.code()) {
                (Some(SIGSYS), _) => Killed,
                (None, Some(TRIED)) => Works,
                (None, Some(code)) => Refused(Errno::from_raw_os_error(code - TRIED)),
                _ => panic!("{name}: {status}"),
            };
            assert_eq!(outcome, *expected, "{name}, {:?}", PROFILES[number]);
        }
    }
}

#[test]
fn no_privileges_are_left_but_those_to_make_files() {
    if let Some((profile, _, directory)) = asked_for() {
        let was_root = geteuid().is_root();
        let mut status = File::open("/proc/thread-self/status").unwrap();
        confine(profile, &directory);
        let mut text = String::new();
        status.read_to_string(&mut text).unwrap();
        let of = |name: &str| {
            let mut fields = text.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = fields.find(|(field, _)| *field == name).unwrap();
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SETFCAP.
        let makes_files = was_root && profile == Profile::Unpack;
        let capabilities = if makes_files { "000000008000001b" } else { "0000000000000000" };
        assert_eq!([of("CapEff"), of("CapPrm")], [capabilities; 2]);
        assert_eq!([of("CapInh"), of("CapAmb")], ["0000000000000000"; 2]);
        assert_eq!((of("NoNewPrivs"), of("Seccomp")), ("1".into(), "2".into()));
        if was_root && profile != Profile::Unpack {
            let user = vec![USER.to_string(); 4].join(" ");
            assert_eq!([of("Uid"), of("Gid")], [user.clone(), user]);
            assert_eq!(of("Groups"), "");
        }
        exit(TRIED);
    }
    for (number, profile) in PROFILES.into_iter().enumerate() {
        let test = "tests::no_privileges_are_left_but_those_to_make_files";
        let status = in_a_process(test, number, "look");
        assert_eq!(status.code(), Some(TRIED), "{profile:?}");
    }
}
