//! Volumes of the host, through virtio-fs.

use sandbox_tests::image::debian;
use sandbox_tests::{run, temporary, tiny};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

/// A read-write volume behaves as a file system of Linux does; the promises are in `posix.py`.
#[test]
fn a_volume_keeps_the_promises_of_posix() {
    let (volume, tools) = (temporary(), temporary());
    fs::write(tools.path().join("posix.py"), include_str!("posix.py")).unwrap();
    run(debian("oci:", "debian"))
        .volume("work", volume.path(), "", "/work")
        .volume("tools", tools.path(), ",readOnly=true", "/tools")
        .with("--cpu=2")
        .exec("python3", ["/tools/posix.py", "/work"])
        .end()
        .exits(0)
        .mentions(" kept, 0 broken");
    let changed = volume.path().join("owners_modes_and_times_are_set_and_kept/a");
    let changed = fs::metadata(changed).unwrap();
    assert_eq!((changed.uid(), changed.gid(), changed.mode() & 0o7777), (1234, 5678, 0o6751));
    let large = fs::metadata(volume.path().join("a_sparse_file_beyond_4_gib/large")).unwrap();
    assert!(large.size() == (6 << 30) + 1 && large.blocks() < 1000, "as sparse on the host");
}

/// "readOnly=BOOL": every way to write is refused, and the host's files are as before.
#[test]
fn a_read_only_volume_refuses_every_write() {
    let volume = temporary();
    fs::write(volume.path().join("file"), "content").unwrap();
    let script = "cat /ro/file; echo; for try in \
        'echo x >/ro/file' 'echo x >/ro/new' 'rm /ro/file' 'mv /ro/file /ro/moved' 'mkdir /ro/d' \
        'ln /ro/file /ro/hard' 'ln -s x /ro/soft' 'chmod 777 /ro/file' 'chown 1 /ro/file' \
        'touch /ro/file' 'mknod /ro/pipe p' 'mv /etc/passwd /ro/'; \
        do sh -c \"$try\" 2>&1 | tail -n 1 | tr ':' '\\n' | tail -n 1; done | sort -u";
    run(tiny())
        .volume("ro", volume.path(), ",readOnly=true", "/ro")
        .sh(script)
        .exits(0)
        .prints("content\n Read-only file system\n");
    assert_eq!(fs::read_to_string(volume.path().join("file")).unwrap(), "content");
    assert_eq!(fs::read_dir(volume.path()).unwrap().count(), 1);
}

/// A directory of any length is listed in full, each name once, whatever bytes it has.
#[test]
fn a_directory_of_100_000_entries_is_listed_in_full() {
    let volume = temporary();
    for number in 0..100_000 {
        File::create(volume.path().join(format!("an-entry-{number:06}"))).unwrap();
    }
    File::create(volume.path().join(OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    run(tiny())
        .volume("many", volume.path(), ",readOnly=true", "/many")
        .with("--memory=256M")
        .sh("ls -U /many | wc -l; ls -U /many | sort -u | wc -l; ls -d /many/[!a]* | wc -c")
        .exits(0)
        .prints("100001\n100001\n9\n");
}

/// A file that is made as a user of the guest has that user's numbers on the host.
#[test]
fn what_an_app_makes_has_the_apps_owner_and_mode_on_the_host() {
    let volume = temporary();
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).unwrap();
    run(tiny())
        .volume("v", volume.path(), "", "/v")
        .with("--user=alice")
        .with("--group=alice")
        .sh("umask 027; echo x >/v/file; mkdir /v/d; ln -s file /v/link")
        .exits(0);
    for (name, mode) in [("file", 0o100_640), ("d", 0o40_750), ("link", 0o120_777)] {
        let found = fs::symlink_metadata(volume.path().join(name)).unwrap();
        assert_eq!((found.mode(), found.uid(), found.gid()), (mode, 1000, 1000), "{name}");
    }
}

/// "NAME,kind=host,source=PATH": the source can be a single file.
#[test]
fn a_volume_can_be_a_single_file() {
    let directory = temporary();
    let file = directory.path().join("hosts");
    fs::write(&file, "before\n").unwrap();
    run(tiny())
        .volume("hosts", &file, "", "/etc/hosts")
        .sh("cat /etc/hosts; echo after >/etc/hosts; ls -A /etc/hosts")
        .exits(0)
        .prints("before\n/etc/hosts\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "after\n");
}

/// What the host changes, the guest sees, and the other way round, while both look.
#[test]
fn host_and_guest_see_each_others_changes() {
    let volume = temporary();
    let script = "echo ready >/v/from-guest; while [ ! -e /v/from-host ]; do sleep 0.1; done; \
                  cat /v/from-host";
    let mut pod = run(tiny()).volume("v", volume.path(), "", "/v").script(script).start();
    sandbox_tests::eventually(std::time::Duration::from_secs(90), || {
        volume.path().join("from-guest").exists()
    });
    assert!(pod.is_alive());
    fs::write(volume.path().join("unfinished"), "hello\n").unwrap();
    fs::rename(volume.path().join("unfinished"), volume.path().join("from-host")).unwrap();
    pod.end().exits(0).prints("hello\n");
}
