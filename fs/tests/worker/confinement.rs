//! What a guest must not be able to do, tried.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use virtiofsd::filesystem::{FsOptions, SetattrValid};
use virtiofsd::fuse::SetattrIn;

use crate::guest::{Guest, ROOT, Reply, Worker, program};

const SECRET: &str = "of the host";

/// A folder with `share/` to be shared, and a secret file beside it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    fs::write(folder.path().join("secret"), SECRET).unwrap();
    folder
}

/// What matters of a reply that should not come.
fn outcome<T>(reply: Reply<T>) -> Reply<()> {
    reply.map(drop)
}

#[test]
fn no_operation_takes_a_name_that_is_more_than_a_child() {
    let folder = folder();
    fs::create_dir(folder.path().join("share/inner")).unwrap();
    fs::write(folder.path().join("share/file"), "").unwrap();
    let (mut guest, share) = Guest::of(&folder.path().join("share"));
    let inner = guest.lookup(share, "inner").unwrap().nodeid;
    let file = guest.lookup(share, "file").unwrap().nodeid;

    for name in ["..", ".", "", "../secret", "inner/../../secret", "/etc/passwd", "inner/", "a/b"] {
        for parent in [ROOT, share, inner] {
            let refused = Err(libc::EINVAL);
            assert_eq!(outcome(guest.lookup(parent, name)), refused, "lookup {name:?}");
            assert_eq!(outcome(guest.mkdir(parent, name, 0o777)), refused, "mkdir {name:?}");
            assert_eq!(outcome(guest.mknod(parent, name, 0o100644, 0)), refused, "mknod {name:?}");
            assert_eq!(outcome(guest.symlink(parent, name, "/x")), refused, "symlink {name:?}");
            assert_eq!(outcome(guest.link(file, parent, name)), refused, "link {name:?}");
            assert_eq!(guest.unlink(parent, name), refused, "unlink {name:?}");
            assert_eq!(guest.rmdir(parent, name), refused, "rmdir {name:?}");
            assert_eq!(guest.rename(share, "file", parent, name, 0), refused, "rename to {name:?}");
            assert_eq!(guest.rename(parent, name, share, "new", 0), refused, "rename {name:?}");
            let created = guest.create(parent, name, libc::O_RDWR, 0o644).map(drop);
            assert_eq!(created, refused, "create {name:?}");
        }
    }
    assert_eq!(fs::read_to_string(folder.path().join("secret")).unwrap(), SECRET);
}

#[test]
fn symbolic_links_are_handed_out_but_never_followed() {
    let folder = folder();
    let (mut guest, share) = Guest::of(&folder.path().join("share"));
    let secret = folder.path().join("secret");
    for (name, target) in
        [("absolute", secret.to_str().unwrap()), ("relative", "../secret"), ("folder", "..")]
    {
        let link = guest.symlink(share, name, target).unwrap();
        assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(guest.readlink(link.nodeid).unwrap(), target.as_bytes());
        assert_eq!(guest.open(link.nodeid, libc::O_RDONLY).map(drop), Err(libc::EBADF));
        assert_eq!(guest.open(link.nodeid, libc::O_PATH).map(drop), Err(libc::EBADF));
        assert_eq!(guest.opendir(link.nodeid).map(drop), Err(libc::EBADF));
        assert_eq!(outcome(guest.lookup(link.nodeid, "secret")), Err(libc::ENOTDIR));
        let opened = guest.create(share, name, libc::O_RDWR, 0o644).map(drop);
        assert!(opened.is_err(), "create through {name}");
        let truncation = SetattrIn { valid: SetattrValid::SIZE.bits(), ..SetattrIn::default() };
        assert!(guest.setattr(link.nodeid, truncation).is_err());
    }
    // Changing a link's mode must not change its target's.
    let link = guest.lookup(share, "relative").unwrap().nodeid;
    let mode = SetattrIn { valid: SetattrValid::MODE.bits(), mode: 0o777, ..SetattrIn::default() };
    let before = fs::metadata(&secret).unwrap().mode();
    let _ = guest.setattr(link, mode);
    assert_eq!(fs::metadata(&secret).unwrap().mode(), before);
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
}

#[test]
fn a_link_that_the_host_left_behind_leads_nowhere_either() {
    let folder = folder();
    symlink("/", folder.path().join("share/root")).unwrap();
    symlink("/proc/self/root", folder.path().join("share/magic")).unwrap();
    let (mut guest, share) = Guest::of(&folder.path().join("share"));
    for name in ["root", "magic"] {
        let link = guest.lookup(share, name).unwrap();
        assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(outcome(guest.lookup(link.nodeid, "etc")), Err(libc::ENOTDIR));
    }
}

#[test]
fn nothing_moves_from_one_share_to_another_except_by_copying() {
    let folder = folder();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    for path in [&one, &two] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), "").unwrap();
    }
    // Both on the same file system: only the mount boundary keeps them apart.
    let mut guest =
        Guest::mount(&[format!("one={}:ro", one.display()), format!("two={}", two.display())]);
    let one = guest.lookup(ROOT, "one").unwrap().nodeid;
    let two = guest.lookup(ROOT, "two").unwrap().nodeid;
    let file = guest.lookup(one, "file").unwrap().nodeid;
    assert_eq!(outcome(guest.link(file, two, "stolen")), Err(libc::EXDEV));
    assert_eq!(guest.rename(one, "file", two, "stolen", 0), Err(libc::EXDEV));
    assert_eq!(guest.rename(two, "file", ROOT, "out", 0), Err(libc::EXDEV));
    let exchange = guest.rename(one, "file", two, "file", libc::RENAME_EXCHANGE);
    assert_eq!(exchange, Err(libc::EXDEV));
}

#[test]
fn the_kernel_refuses_every_change_through_a_read_only_share() {
    let folder = folder();
    let path = folder.path().join("share");
    fs::write(path.join("file"), SECRET).unwrap();
    fs::set_permissions(path.join("file"), fs::Permissions::from_mode(0o666)).unwrap();
    let mut guest = Guest::mount(&[format!("share={}:ro", path.display())]);
    let share = guest.lookup(ROOT, "share").unwrap().nodeid;
    let file = guest.lookup(share, "file").unwrap().nodeid;
    let refused = Err(libc::EROFS);

    assert_eq!(guest.open(file, libc::O_RDWR).map(drop), refused);
    assert_eq!(guest.open(file, libc::O_WRONLY | libc::O_TRUNC).map(drop), refused);
    assert_eq!(guest.open(file, libc::O_RDONLY | libc::O_TRUNC).map(drop), refused);
    assert_eq!(guest.create(share, "new", libc::O_RDWR, 0o644).map(drop), refused);
    assert_eq!(outcome(guest.mkdir(share, "new", 0o755)), refused);
    assert_eq!(outcome(guest.symlink(share, "new", "x")), refused);
    assert_eq!(outcome(guest.link(file, share, "new")), refused);
    assert_eq!(guest.rename(share, "file", share, "new", 0), refused);
    assert_eq!(guest.unlink(share, "file"), refused);
    assert_eq!(guest.setxattr(file, "user.a", b"b"), refused);
    let everything = SetattrValid::MODE | SetattrValid::UID | SetattrValid::ATIME;
    for valid in [SetattrValid::MODE, SetattrValid::UID, SetattrValid::SIZE, everything] {
        let change = SetattrIn { valid: valid.bits(), ..SetattrIn::default() };
        assert_eq!(guest.setattr(file, change).map(drop), refused, "{valid:?}");
    }
    let open = guest.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(file, open.fh, 0, 100).unwrap(), SECRET.as_bytes());
    assert_eq!(guest.write(file, open.fh, 0, b"x"), Err(libc::EBADF));
}

#[test]
fn the_root_directory_holds_the_shares_and_takes_nothing_else() {
    let folder = folder();
    fs::write(folder.path().join("hosts"), "127.0.0.1").unwrap();
    let mut guest = Guest::mount(&[
        format!("share={}", folder.path().join("share").display()),
        format!("hosts={}", folder.path().join("hosts").display()),
    ]);
    let mut names = guest.names(ROOT).unwrap();
    names.sort();
    assert_eq!(names, [b"hosts".to_vec(), b"share".to_vec()]);
    assert_eq!(outcome(guest.mkdir(ROOT, "new", 0o755)), Err(libc::EROFS));
    assert!(guest.unlink(ROOT, "hosts").is_err());
    assert!(guest.rmdir(ROOT, "share").is_err());

    let file = guest.lookup(ROOT, "hosts").unwrap().nodeid;
    let open = guest.open(file, libc::O_RDWR).unwrap();
    assert_eq!(guest.write(file, open.fh, 0, b"::1 ").unwrap(), 4);
    assert_eq!(fs::read_to_string(folder.path().join("hosts")).unwrap(), "::1 0.0.1");
}

#[test]
fn device_nodes_can_neither_be_made_nor_opened() {
    let folder = folder();
    let path = folder.path().join("share");
    let zero = rustix::fs::makedev(1, 5);
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path.join("zero"), kind, mode, zero).unwrap();
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path.join("fifo"), kind, mode, 0).unwrap();

    let (mut guest, share) = Guest::of(&path);
    for name in ["zero", "fifo"] {
        let special = guest.lookup(share, name).unwrap().nodeid;
        for flags in [libc::O_RDONLY, libc::O_RDWR, libc::O_PATH, libc::O_NONBLOCK] {
            assert_eq!(guest.open(special, flags).map(drop), Err(libc::EBADF), "{name}");
        }
        assert!(guest.create(share, name, libc::O_RDWR, 0o666).is_err(), "{name}");
    }
    for (mode, device) in [(libc::S_IFCHR, 0x0103), (libc::S_IFBLK, 0x0800)] {
        assert_eq!(outcome(guest.mknod(share, "new", mode | 0o666, device)), Err(libc::EPERM));
    }
    // What a guest makes of these kinds means nothing to the host until someone there opens it.
    guest.mknod(share, "pipe", libc::S_IFIFO | 0o666, 0).unwrap();
    guest.mknod(share, "socket", libc::S_IFSOCK | 0o666, 0).unwrap();
    guest.mknod(share, "whiteout", libc::S_IFCHR, 0).unwrap();
}

#[test]
fn labels_and_measurements_of_the_host_are_not_the_guests() {
    let folder = folder();
    let (mut guest, share) = Guest::of(&folder.path().join("share"));
    let (file, _) = guest.create(share, "file", libc::O_RDWR, 0o755).unwrap();
    for name in ["security.selinux", "security.ima", "trusted.overlay.opaque"] {
        assert_eq!(guest.setxattr(file.nodeid, name, b"y"), Err(libc::EPERM), "{name}");
    }
}

#[test]
fn a_guest_without_submounts_cannot_mount() {
    let folder = folder();
    let share = format!("share={}", folder.path().display());
    let mut guest = Guest::connect(&[share]);
    assert_eq!(guest.init(FsOptions::empty()), Err(libc::EPROTO));
}

#[test]
fn the_worker_has_left_everything_behind_that_it_does_not_need() {
    let folder = folder();
    let (guest, _) = Guest::of(&folder.path().join("share"));
    let pid = guest.worker.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, SETFCAP.
    let kept = "00000000800000db";
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(set), kept, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("Threads"), "1");
    assert_eq!(field("Groups"), "");

    for namespace in ["mnt", "ipc", "uts", "net", "cgroup"] {
        let ours = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(ours, theirs, "{namespace}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let points: Vec<_> = mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(points, ["/", "/share"]);
    for line in mounts.lines() {
        let options = line.split(' ').nth(5).unwrap();
        for option in ["nosuid", "nodev", "noexec", "nosymfollow"] {
            assert!(options.split(',').any(|other| other == option), "{option} in {line}");
        }
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_str().unwrap();
        let known = ["/", "/share", "/dev/null", "/memfd:guest (deleted)", "anon_inode:[eventfd]"];
        let own = target.starts_with("socket:")
            || target.starts_with("pipe:")
            || known.contains(&target)
            || target == format!("/{pid}/fd");
        assert!(own, "unexpected descriptor: {target}");
    }
}

#[test]
fn inherited_descriptors_are_closed() {
    let folder = folder();
    let secret = fs::File::open(folder.path().join("secret")).unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let (guest, _) = Guest::of(&folder.path().join("share"));
    let secret = folder.path().join("secret");
    for entry in fs::read_dir(format!("/proc/{}/fd", guest.worker.pid())).unwrap() {
        assert_ne!(fs::read_link(entry.unwrap().path()).unwrap(), secret);
    }
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    // Descriptor 3 of the worker is not open at all.
    let output = std::process::Command::new(program())
        .args(["--fd", "901", "--share", "a=/tmp"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("--fd 901: not a listening Unix stream socket"), "{message}");
}

#[test]
fn the_guest_runs_out_of_files_before_the_worker_does() {
    let folder = folder();
    fs::write(folder.path().join("share/file"), "").unwrap();
    let (mut guest, share) = Guest::of(&folder.path().join("share"));
    let file = guest.lookup(share, "file").unwrap().nodeid;
    let limits = fs::read_to_string(format!("/proc/{}/limits", guest.worker.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let limit: u64 = files.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(limit <= 262_144, "{limit}");
    let mut opened = 0;
    let error = loop {
        match guest.open(file, libc::O_RDONLY) {
            Ok(_) => opened += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, libc::ENFILE);
    assert!(opened > limit - 128, "{opened} of {limit}");
    // Others still work, and one of them makes room again.
    assert_eq!(guest.names(share), Err(libc::ENFILE));
    guest.getattr(file).unwrap();
    guest.release(file, 0).unwrap();
    guest.open(file, libc::O_RDONLY).unwrap();
}

#[test]
fn a_name_from_the_guest_does_not_reach_standard_error() {
    let folder = folder();
    let (mut guest, share) = Guest::of(&folder.path().join("share"));
    let name = OsStr::from_bytes(b"\x1b[2J\xff\n");
    let _ = guest.create(share, name, libc::O_RDWR, 0o644).unwrap();
    guest.rename(share, name, share, "plain", 0).unwrap();
    assert_eq!(guest.hang_up().1, "");
}

#[test]
fn a_frontend_that_breaks_the_protocol_ends_the_worker() {
    use std::io::Write;
    let folder = folder();
    let share = format!("share={}", folder.path().display());
    let (mut worker, mut stream) = Worker::start(&[share]);
    stream.write_all(&[0xff; 64]).unwrap();
    let (status, message) = worker.wait();
    assert_eq!(status.code(), Some(1), "{message}");
    assert!(message.contains("wrong vhost-user message"), "{message}");
}
