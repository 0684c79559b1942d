//! How a worker starts and ends.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::guest::{Guest, LINUX, ROOT, Worker};

fn failure(shares: &[String]) -> String {
    let (mut worker, _stream) = Worker::start(shares);
    let (status, message) = worker.wait();
    assert_eq!(status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn the_worker_exits_with_0_when_its_frontend_hangs_up() {
    let folder = tempfile::tempdir().unwrap();
    let (guest, _) = Guest::of(folder.path());
    let (status, message) = guest.hang_up();
    assert_eq!((status.code(), message.as_str()), (Some(0), ""));

    let (mut worker, stream) = Worker::start(&[format!("a={}", folder.path().display())]);
    drop(stream);
    assert_eq!(worker.wait().0.code(), Some(0), "hung up before the first message");
}

#[test]
fn an_error_names_the_share_its_path_and_what_to_do() {
    let message = failure(&["data=/nonexistent/path".to_owned()]);
    assert!(message.contains("share data: cannot open /nonexistent/path: No such file"));

    let folder = tempfile::tempdir().unwrap();
    let (link, socket) = (folder.path().join("link"), folder.path().join("socket"));
    symlink("/", &link).unwrap();
    let _listener = UnixListener::bind(&socket).unwrap();
    let message = failure(&[format!("v={}", link.display())]);
    assert!(message.contains("is a symbolic link") && message.contains("name its target"));
    let message = failure(&[format!("v={}", socket.display())]);
    assert!(message.contains("is a socket; only a directory or a regular file"));

    let message = failure(&["v=/proc".to_owned()]);
    assert!(message.contains("/v: a file system of type proc is mounted there"), "{message}");
}

#[test]
fn a_kernel_interface_below_a_share_is_refused_unless_mounts_below_are_left_out() {
    let message = failure(&["host=/:ro".to_owned()]);
    assert!(message.contains("norecursive"), "{message}");

    let mut guest = Guest::mount(&["host=/:ro,norecursive".to_owned()]);
    let host = guest.lookup(ROOT, "host").unwrap().nodeid;
    let proc = guest.lookup(host, "proc").unwrap().nodeid;
    assert_eq!(guest.names(proc).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_mount_below_a_share_is_served_and_as_read_only_as_the_share() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(c"none", &inner, c"tmpfs", flags, None).unwrap();
    fs::write(inner.join("file"), "inside").unwrap();

    let shares =
        [format!("ro={}:ro", folder.path().display()), format!("rw={}", folder.path().display())];
    let mut guest = Guest::mount(&shares);
    rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::DETACH).unwrap();
    for (name, result) in [("ro", Err(libc::EROFS)), ("rw", Ok(()))] {
        let share = guest.lookup(ROOT, name).unwrap().nodeid;
        let inner = guest.lookup(share, "inner").unwrap();
        assert_eq!(inner.attr.flags & 1, 1, "FUSE_ATTR_SUBMOUNT");
        let node = inner.nodeid;
        assert_eq!(guest.names(node).unwrap(), [b"file"]);
        assert_eq!(guest.mkdir(node, format!("by-{name}"), 0o755).map(drop), result);
    }
}

#[test]
fn a_reset_forgets_everything_the_guest_held() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (file, open) = guest.create(share, "file", libc::O_RDWR, 0o644).unwrap();
    guest.reset();
    guest.init(LINUX).unwrap();
    assert_eq!(guest.getattr(file.nodeid).map(drop), Err(libc::EBADF));
    assert_eq!(guest.read(file.nodeid, open.fh, 0, 1), Err(libc::EBADF));
    let share = guest.lookup(ROOT, "share").unwrap().nodeid;
    assert_eq!(guest.names(share).unwrap(), [b"file"]);
}

#[test]
fn without_privileges_the_error_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("sandbox-fs");
    fs::copy(crate::guest::program(), &program).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let output = Command::new(&program)
        .args(["--fd", &listener.as_raw_fd().to_string(), "--share", "a=/tmp"])
        .uid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("run as root (CAP_SYS_ADMIN)"), "{message}");
}

#[test]
fn nothing_of_the_worker_stays_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let (guest, _) = Guest::of(folder.path());
    assert_eq!(mounts(), before, "the view is the worker's alone");
    drop(guest);
    assert_eq!(mounts(), before);
    folder.close().unwrap();
}
