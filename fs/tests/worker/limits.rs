//! Sizes, names and flags beyond what an honest guest sends.

use std::fs;

use virtiofsd::fuse::{GetxattrIn, Opcode, SetxattrInCompat};
use vm_memory::ByteValued;

use crate::guest::{Guest, join, text};

const CONTENT: &[u8] = b"content";

/// Peak of what the worker had in memory, in KiB.
fn peak(guest: &Guest) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", guest.worker.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// setxattr whose header says another size than follows.
fn set(guest: &mut Guest, node: u64, name: &str, size: u32, value: &[u8]) -> Result<(), i32> {
    let body = SetxattrInCompat { size, flags: 0 };
    guest.call(Opcode::Setxattr, node, &join(&body, &[&text(name), value].concat())).map(drop)
}

#[test]
fn extended_attributes_have_the_hosts_limits() {
    // A file system with `user.*` attributes on every kernel.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(folder.path().join("file"), CONTENT).unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let file = guest.lookup(share, "file").unwrap().nodeid;
    let longest = format!("user.{}", "n".repeat(250));
    set(&mut guest, file, &longest, 1, b"v").unwrap();
    // xattr(7): XATTR_NAME_MAX and XATTR_SIZE_MAX.
    assert_eq!(set(&mut guest, file, &format!("{longest}n"), 1, b"v"), Err(libc::ERANGE));
    assert_eq!(set(&mut guest, file, "user.", 1, b"v"), Err(libc::EINVAL));
    let value = vec![7; (64 << 10) + 1];
    let size = u32::try_from(value.len()).unwrap();
    assert_eq!(set(&mut guest, file, "user.large", size, &value), Err(libc::E2BIG));

    // As many as fit, and then no more.
    let mut error = 0;
    for number in 0..2000 {
        if let Err(code) = set(&mut guest, file, &format!("user.{number}"), 200, &[1; 200]) {
            error = code;
            break;
        }
    }
    assert!([libc::ENOSPC, libc::E2BIG, libc::EDQUOT].contains(&error), "{error}");
    guest.call(Opcode::Removexattr, file, &text("user.0")).unwrap();
    set(&mut guest, file, "user.0", 1, b"v").unwrap();
}

#[test]
fn no_size_that_a_guest_names_is_memory_of_the_worker() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(folder.path().join("file"), CONTENT).unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let file = guest.lookup(share, "file").unwrap().nodeid;
    set(&mut guest, file, "user.a", 5, b"value").unwrap();
    let before = peak(&guest);
    for size in [1 << 20, (1 << 20) + 1, 1 << 30, u32::MAX - 1, u32::MAX] {
        let body = GetxattrIn { size, padding: 0 };
        let request = join(&body, &text("user.a"));
        let answer = guest.call(Opcode::Getxattr, file, &request);
        assert!(matches!(answer, Err(libc::ENOMEM)) || answer == Ok(b"value".to_vec()), "{size}");
        let answer = guest.call(Opcode::Listxattr, file, body.as_slice());
        assert!(matches!(answer, Err(libc::ENOMEM)) || answer.is_ok(), "{size}");
    }
    let after = peak(&guest);
    assert!(after < before + (8 << 10), "{before} KiB before, {after} KiB after");
    // Too little room is the guest's matter.
    let answer = guest.call(Opcode::Listxattr, file, GetxattrIn { size: 1, padding: 0 }.as_slice());
    assert_eq!(answer, Err(libc::ERANGE));
    assert_eq!(guest.getxattr(file, "user.a").unwrap(), b"value");
}

#[test]
fn no_flag_of_open_makes_it_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, CONTENT).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let (at, kind) = (folder.path().join("pipe"), rustix::fs::FileType::Fifo);
    rustix::fs::mknodat(rustix::fs::CWD, at, kind, mode, 0).unwrap();
    std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let [file, pipe, link] =
        ["file", "pipe", "link"].map(|name| guest.lookup(share, name).unwrap().nodeid);

    // O_PATH, O_CREAT, O_TMPFILE, O_ASYNC and whatever else there is, each alone and in pairs.
    for one in 0..31 {
        for two in one..31 {
            let flags = (1 << one) | (1 << two);
            for special in [pipe, link] {
                assert_eq!(guest.open(special, flags).map(drop), Err(libc::EBADF), "{flags:#o}");
            }
            let Ok(open) = guest.open(file, flags) else { continue };
            // It is opened for what its lowest bits say, and to be used: O_PATH would not read.
            if flags & libc::O_ACCMODE == libc::O_RDONLY && flags & libc::O_DIRECT == 0 {
                let expected = if flags & libc::O_TRUNC == 0 { CONTENT } else { b"" };
                let content = guest.read(file, open.fh, 0, 100);
                assert_eq!(content.as_deref(), Ok(expected), "{flags:#o}");
            }
            guest.release(file, open.fh).unwrap();
            if flags & libc::O_TRUNC != 0 {
                fs::write(&path, CONTENT).unwrap();
            }
        }
    }
    let mut names = guest.names(share).unwrap();
    names.sort();
    assert_eq!(names, [b"file".to_vec(), b"link".to_vec(), b"pipe".to_vec()]);
}

#[test]
fn a_device_node_of_the_host_stays_shut_under_every_name() {
    let folder = tempfile::tempdir().unwrap();
    let (at, device) = (folder.path().join("zero"), rustix::fs::makedev(1, 5));
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, at, kind, mode, device).unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let zero = guest.lookup(share, "zero").unwrap().nodeid;
    guest.link(zero, share, "linked").unwrap();
    guest.rename(share, "zero", share, "renamed", 0).unwrap();
    for name in ["linked", "renamed"] {
        let node = guest.lookup(share, name).unwrap().nodeid;
        assert_eq!(guest.open(node, libc::O_RDWR).map(drop), Err(libc::EBADF), "{name}");
        assert!(guest.create(share, name, libc::O_RDWR, 0o666).is_err(), "{name}");
    }
    // Nor is one made by way of a name that is there, or in two steps.
    for mode in [libc::S_IFCHR, libc::S_IFBLK] {
        let made = guest.mknod(share, "new", mode | 0o666, 0x0105).map(drop);
        assert_eq!(made, Err(libc::EPERM));
    }
    guest.mknod(share, "whiteout", libc::S_IFCHR, 0).unwrap();
    let whiteout = guest.lookup(share, "whiteout").unwrap().nodeid;
    assert_eq!(guest.open(whiteout, libc::O_RDONLY).map(drop), Err(libc::EBADF));
}

#[test]
fn an_offset_that_no_file_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), CONTENT).unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let file = guest.lookup(share, "file").unwrap().nodeid;
    let open = guest.open(file, libc::O_RDWR).unwrap();
    let most = i64::MAX.unsigned_abs();
    for offset in [most, most + 1, u64::MAX - 4095, u64::MAX] {
        assert_eq!(guest.read(file, open.fh, offset, 100), Err(libc::EINVAL), "{offset}");
        assert_eq!(guest.write(file, open.fh, offset, b"x"), Err(libc::EINVAL), "{offset}");
        for opcode in [Opcode::Lseek, Opcode::Fallocate] {
            let body = [open.fh, offset, offset, 0].map(u64::to_le_bytes).concat();
            let _ = guest.call(opcode, file, &body);
        }
    }
    assert_eq!(guest.read(file, open.fh, 0, 100).unwrap(), CONTENT);
}
