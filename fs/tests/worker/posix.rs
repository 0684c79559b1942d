//! Files behave as POSIX and Linux say, and as they do on the host.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

use virtiofsd::filesystem::{FsOptions, SetattrValid};
use virtiofsd::fuse::{FallocateIn, LseekIn, LseekOut, Opcode, ReadIn, SetattrIn, WriteIn};
use vm_memory::ByteValued;

use crate::guest::{Guest, ROOT, join, object};

#[test]
fn shares_are_mounts_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::mount(&[
        format!("one={}", folder.path().display()),
        format!("two={}", folder.path().display()),
    ]);
    for name in ["one", "two"] {
        assert_eq!(guest.lookup(ROOT, name).unwrap().attr.flags & 1, 1, "FUSE_ATTR_SUBMOUNT");
    }
    let (one, two) = (guest.lookup(ROOT, "one").unwrap(), guest.lookup(ROOT, "two").unwrap());
    assert_ne!(one.nodeid, two.nodeid, "the same directory, shared twice");
}

#[test]
fn what_is_written_is_read_back_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (file, open) = guest.create(share, "file", libc::O_RDWR, 0o640).unwrap();
    let data: Vec<u8> = (0..1 << 20).map(|index: u32| (index % 251) as u8).collect();
    assert_eq!(guest.write(file.nodeid, open.fh, 0, &data).unwrap(), 1 << 20);
    assert_eq!(guest.read(file.nodeid, open.fh, 0, 1 << 20).unwrap(), data);
    assert_eq!(guest.read(file.nodeid, open.fh, 1 << 20, 4096).unwrap(), b"");
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), data);
    assert_eq!(fs::metadata(folder.path().join("file")).unwrap().mode() & 0o7777, 0o640);
}

#[test]
fn appending_goes_to_the_end_whatever_the_guest_believes_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (file, open) = guest.create(share, "log", libc::O_WRONLY, 0o644).unwrap();
    fs::write(folder.path().join("log"), "by the host ").unwrap();
    let body = WriteIn {
        fh: open.fh,
        size: 9,
        flags: (libc::O_WRONLY | libc::O_APPEND) as u32,
        ..WriteIn::default()
    };
    guest.call(Opcode::Write, file.nodeid, &join(&body, b"and guest")).unwrap();
    assert_eq!(fs::read(folder.path().join("log")).unwrap(), b"by the host and guest");
}

#[test]
fn files_above_4_gib_and_holes_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (file, open) = guest.create(share, "sparse", libc::O_RDWR, 0o644).unwrap();
    let far = (5 << 30) + 12345;
    guest.write(file.nodeid, open.fh, far, b"end").unwrap();
    assert_eq!(guest.getattr(file.nodeid).unwrap().size, far + 3);
    assert_eq!(guest.read(file.nodeid, open.fh, far, 10).unwrap(), b"end");
    let host = fs::metadata(folder.path().join("sparse")).unwrap();
    assert!(host.blocks() * 512 < 1 << 20, "the hole takes no room");

    let body = LseekIn { fh: open.fh, whence: libc::SEEK_DATA as u32, ..LseekIn::default() };
    let reply = guest.call(Opcode::Lseek, file.nodeid, body.as_slice()).unwrap();
    let data = object::<LseekOut>(&reply).offset;
    assert!(data > 5 << 30 && data <= far, "{data}");

    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let body = FallocateIn {
        fh: open.fh,
        offset: far,
        length: 2,
        mode: punch as u32,
        ..FallocateIn::default()
    };
    guest.call(Opcode::Fallocate, file.nodeid, body.as_slice()).unwrap();
    assert_eq!(guest.read(file.nodeid, open.fh, far, 10).unwrap(), b"\0\0d");
}

#[test]
fn hard_links_are_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (first, _) = guest.create(share, "first", libc::O_RDWR, 0o644).unwrap();
    let second = guest.link(first.nodeid, share, "second").unwrap();
    assert_eq!(second.nodeid, first.nodeid);
    assert_eq!(second.attr.nlink, 2);
    guest.unlink(share, "first").unwrap();
    assert_eq!(guest.getattr(first.nodeid).unwrap().nlink, 1);
    assert_eq!(guest.lookup(share, "first").map(drop), Err(libc::ENOENT));
}

#[test]
fn an_unlinked_file_lives_as_long_as_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (file, open) = guest.create(share, "file", libc::O_RDWR, 0o644).unwrap();
    guest.unlink(share, "file").unwrap();
    guest.write(file.nodeid, open.fh, 0, b"still here").unwrap();
    assert_eq!(guest.read(file.nodeid, open.fh, 0, 64).unwrap(), b"still here");
    guest.release(file.nodeid, open.fh).unwrap();
    guest.forget(file.nodeid, 1);
    assert_eq!(guest.getattr(file.nodeid).map(drop), Err(libc::EBADF));
}

#[test]
fn renames_replace_refuse_and_exchange_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        fs::write(folder.path().join(name), name).unwrap();
    }
    let (mut guest, share) = Guest::of(folder.path());
    let refused = guest.rename(share, "a", share, "b", libc::RENAME_NOREPLACE);
    assert_eq!(refused, Err(libc::EEXIST));
    guest.rename(share, "a", share, "b", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "b");
    guest.rename(share, "a", share, "b", 0).unwrap();
    assert_eq!(guest.names(share).unwrap(), [b"b"]);
    assert_eq!(fs::read_to_string(folder.path().join("b")).unwrap(), "b");
    let inner = guest.mkdir(share, "inner", 0o755).unwrap().nodeid;
    assert_eq!(guest.rename(share, "inner", inner, "inside-out", 0), Err(libc::EINVAL));
}

#[test]
fn names_are_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let name = OsStr::from_bytes(b"\xff\xc3\x28 \n\\");
    guest.create(share, name, libc::O_RDWR, 0o644).unwrap();
    assert_eq!(guest.names(share).unwrap(), [name.as_bytes()]);
    assert!(folder.path().join(name).exists());
    let long = "n".repeat(255);
    guest.mkdir(share, &long, 0o755).unwrap();
    assert_eq!(guest.mkdir(share, format!("{long}n"), 0o755).map(drop), Err(libc::ENAMETOOLONG));
}

#[test]
fn a_directory_of_100_000_entries_is_listed_whole() {
    let folder = tempfile::tempdir().unwrap();
    for index in 0..100_000 {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join(format!("entry-{index}")),
            rustix::fs::FileType::RegularFile,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    }
    let (mut guest, share) = Guest::of(folder.path());
    let names: HashSet<_> = guest.names(share).unwrap().into_iter().collect();
    assert_eq!(names.len(), 100_000);

    // With attributes, each entry is looked up and held.
    let handle = guest.opendir(share).unwrap().fh;
    let body = ReadIn { fh: handle, size: 1 << 20, ..ReadIn::default() };
    let reply = guest.call(Opcode::Readdirplus, share, body.as_slice()).unwrap();
    assert!(reply.len() > 1 << 19);
}

#[test]
fn files_belong_to_the_user_who_made_them() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    (guest.uid, guest.gid) = (1234, 5678);
    let (file, _) = guest.create(share, "file", libc::O_RDWR, 0o644).unwrap();
    guest.mkdir(share, "folder", 0o755).unwrap();
    guest.symlink(share, "link", "file").unwrap();
    for name in ["file", "folder", "link"] {
        let host = fs::symlink_metadata(folder.path().join(name)).unwrap();
        assert_eq!((host.uid(), host.gid()), (1234, 5678), "{name}");
    }
    (guest.uid, guest.gid) = (0, 0);
    guest.create(share, "roots", libc::O_RDWR, 0o644).unwrap();
    assert_eq!(fs::metadata(folder.path().join("roots")).unwrap().uid(), 0);
    let owner = SetattrIn {
        valid: (SetattrValid::UID | SetattrValid::GID).bits(),
        uid: 42.into(),
        gid: 43.into(),
        ..SetattrIn::default()
    };
    guest.setattr(file.nodeid, owner).unwrap();
    let host = fs::metadata(folder.path().join("file")).unwrap();
    assert_eq!((host.uid(), host.gid()), (42, 43));
}

#[test]
fn a_user_makes_files_only_where_the_host_lets_that_user() {
    let folder = tempfile::tempdir().unwrap();
    for (name, group, mode) in [("roots", 0, 0o700), ("teams", 500, 0o770)] {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, None, Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let (mut guest, share) = Guest::of(folder.path());
    let roots = guest.lookup(share, "roots").unwrap().nodeid;
    let teams = guest.lookup(share, "teams").unwrap().nodeid;
    let denied = Err(libc::EACCES);
    (guest.uid, guest.gid) = (1234, 1234);
    assert_eq!(guest.mkdir(roots, "new", 0o755).map(drop), denied);
    assert_eq!(guest.mkdir(teams, "new", 0o755).map(drop), denied);
    guest.mkdir_in_group(teams, "of-a-member", 500).unwrap();

    // Groups last for one request (CVE-2022-0358), also when root brings them along.
    (guest.uid, guest.gid) = (0, 0);
    guest.mkdir_in_group(teams, "of-root", 500).unwrap();
    (guest.uid, guest.gid) = (1234, 1234);
    assert_eq!(guest.mkdir(teams, "again", 0o755).map(drop), denied);
}

#[test]
fn a_guest_before_linux_6_3_keeps_the_owner_of_what_its_users_make() {
    let folder = tempfile::tempdir().unwrap();
    let mut guest = Guest::connect(&[format!("share={}", folder.path().display())]);
    guest.init(FsOptions::SUBMOUNTS).unwrap();
    let share = guest.lookup(ROOT, "share").unwrap().nodeid;
    (guest.uid, guest.gid) = (1234, 5678);
    guest.create(share, "file", libc::O_RDWR, 0o644).unwrap();
    let host = fs::metadata(folder.path().join("file")).unwrap();
    assert_eq!((host.uid(), host.gid()), (1234, 5678));
}

#[test]
fn mode_size_and_times_can_be_set_on_files_directories_and_links() {
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (file, open) = guest.create(share, "file", libc::O_RDWR, 0o644).unwrap();
    guest.write(file.nodeid, open.fh, 0, b"0123456789").unwrap();
    let all = SetattrIn {
        valid: (SetattrValid::MODE | SetattrValid::SIZE | SetattrValid::MTIME).bits(),
        mode: 0o4711,
        size: 4,
        mtime: 1_000_000_000,
        mtimensec: 7,
        ..SetattrIn::default()
    };
    let attr = guest.setattr(file.nodeid, all).unwrap();
    assert_eq!(
        (attr.mode & 0o7777, attr.size, attr.mtime, attr.mtimensec),
        (0o4711, 4, 1_000_000_000, 7)
    );
    let link = guest.symlink(share, "link", "file").unwrap().nodeid;
    let time = SetattrIn { valid: SetattrValid::MTIME.bits(), mtime: 77, ..SetattrIn::default() };
    guest.setattr(link, time).unwrap();
    assert_eq!(fs::symlink_metadata(folder.path().join("link")).unwrap().mtime(), 77);
    assert_eq!(fs::metadata(folder.path().join("file")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn a_write_takes_away_the_set_user_id_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tool");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let file = guest.lookup(share, "tool").unwrap().nodeid;
    let open = guest.open(file, libc::O_WRONLY).unwrap();
    // FUSE_WRITE_KILL_SUIDGID: what the guest's kernel sends for a user without CAP_FSETID.
    let body = WriteIn { fh: open.fh, size: 3, write_flags: 1 << 2, ..WriteIn::default() };
    guest.call(Opcode::Write, file, &join(&body, b"new")).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    guest.write(file, open.fh, 0, b"and on").unwrap();
}

#[test]
fn extended_attributes_of_files_directories_and_links() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let (file, _) = guest.create(share, "file", libc::O_RDWR, 0o755).unwrap();
    guest.setxattr(file.nodeid, "user.colour", b"blue\0green").unwrap();
    assert_eq!(guest.getxattr(file.nodeid, "user.colour").unwrap(), b"blue\0green");
    assert_eq!(guest.getxattr(file.nodeid, "user.none"), Err(libc::ENODATA));
    let directory = guest.mkdir(share, "directory", 0o755).unwrap().nodeid;
    guest.setxattr(directory, "user.colour", b"red").unwrap();
    // CAP_NET_RAW, permitted and effective (VFS_CAP_REVISION_2): a file with capabilities can be
    // unpacked into a volume.
    let mut capability = [0u8; 20];
    capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
    guest.setxattr(file.nodeid, "security.capability", &capability).unwrap();
    assert_eq!(guest.getxattr(file.nodeid, "security.capability").unwrap(), capability);
    let link = guest.symlink(share, "link", "file").unwrap().nodeid;
    assert_eq!(guest.setxattr(link, "user.colour", b"x"), Err(libc::EPERM));
    guest.call(Opcode::Removexattr, file.nodeid, b"user.colour\0").unwrap();
    assert_eq!(guest.getxattr(file.nodeid, "user.colour"), Err(libc::ENODATA));
}

#[test]
fn locks_and_temporary_files_are_left_to_the_guests_kernel() {
    // ENOSYS for locks: the guest's kernel then keeps them itself, for all its processes.
    let folder = tempfile::tempdir().unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    for opcode in [Opcode::Getlk, Opcode::Setlk, Opcode::Setlkw, Opcode::Ioctl, Opcode::TmpFile] {
        let reply = guest.call(opcode, share, &[0; 64]).map(drop);
        assert_eq!(reply, Err(libc::ENOSYS), "{opcode:?}");
    }
}

#[test]
fn a_file_of_a_read_only_share_may_stay_in_the_guests_page_cache() {
    const FOPEN_KEEP_CACHE: u32 = 1 << 1;
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let mut guest = Guest::mount(&[
        format!("ro={}:ro", folder.path().display()),
        format!("rw={}", folder.path().display()),
    ]);
    for (name, keep) in [("ro", FOPEN_KEEP_CACHE), ("rw", 0)] {
        let share = guest.lookup(ROOT, name).unwrap().nodeid;
        let file = guest.lookup(share, "file").unwrap().nodeid;
        assert_eq!(guest.open(file, libc::O_RDONLY).unwrap().open_flags, keep, "{name}");
    }
}

#[test]
fn a_sparse_copy_within_the_worker() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("from"), "0123456789").unwrap();
    let (mut guest, share) = Guest::of(folder.path());
    let from = guest.lookup(share, "from").unwrap().nodeid;
    let source = guest.open(from, libc::O_RDONLY).unwrap();
    let (to, target) = guest.create(share, "to", libc::O_RDWR, 0o644).unwrap();
    let body = virtiofsd::fuse::CopyfilerangeIn {
        fh_in: source.fh,
        off_in: 2,
        nodeid_out: to.nodeid,
        fh_out: target.fh,
        off_out: 4096,
        len: 5,
        flags: 0,
    };
    guest.call(Opcode::CopyFileRange, from, body.as_slice()).unwrap();
    let copy = fs::File::open(folder.path().join("to")).unwrap();
    let mut bytes = [0; 5];
    copy.read_exact_at(&mut bytes, 4096).unwrap();
    assert_eq!(&bytes, b"23456");
}
