//! What the store keeps its promises about: files as they were, one tree for all, nothing left
//! behind.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

mod common;

use common::{
    Header, Tar, can_unpack, is_root,
    layout::{aci_manifest, image, index, layout, new_layout},
    own_id, walk,
};
use sandbox_image::{Error, Image, Limits, Progress, Reference, Step, Store, StoredTree};
use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

fn open(store: &Store, reference: &str) -> Result<Image, Error> {
    store.image(&Reference::parse(reference.as_ref()).unwrap(), &Limits::default(), &mut ())
}

fn load(store: &Store, reference: &str) -> Result<StoredTree, Error> {
    store.tree(&open(store, reference)?, &Limits::default(), &mut ())
}

/// Unpacks an ACI with these entries.
fn unpack(directory: &Path, entries: Tar) -> StoredTree {
    let archive = Tar::new().file("manifest", aci_manifest("").as_bytes()).directory("rootfs");
    let archive = Tar([archive.0, entries.0].concat()).finish();
    fs::write(directory.join("x.aci"), archive).unwrap();
    let store = Store::open(&directory.join("data")).unwrap();
    load(&store, directory.join("x.aci").to_str().unwrap()).unwrap()
}

#[test]
fn files_are_written_as_the_image_says() {
    let directory = tempfile::tempdir().unwrap();
    let (uid, gid) = if is_root() { (12345, 54321) } else { own_id() };
    let owned = |typeflag, name: &[u8], mode| {
        let mut header = Header::new(typeflag, name, 0);
        header.mode(mode).id(108, uid).id(116, gid).mtime(1_000_000_000);
        header
    };
    let mut link = owned(b'2', b"rootfs/d/link", 0o777);
    link.link(b"/etc/../../passwd");
    let entries = Tar::new()
        .entry(&owned(b'5', b"rootfs/d", 0o3755), b"")
        .entry(&owned(b'0', b"rootfs/d/suid", 0o6755), b"")
        .pax(&[("mtime", b"-5.5"), ("SCHILY.xattr.user.a", b"x\0y")])
        .entry(&owned(b'0', b"rootfs/d/\xff\n", 0o400), b"")
        .entry(&link, b"")
        .pax(&[("mtime", i64::MAX.to_string().as_bytes())])
        .entry(&owned(b'0', b"rootfs/d/later", 0o600), b"")
        .entry(&owned(b'6', b"rootfs/d/pipe", 0o622), b"");
    let tree = unpack(directory.path(), entries);
    let found = walk(tree.rootfs());
    for (path, kind, mode, mtime) in [
        (&b"d"[..], "directory", 0o3755, (1_000_000_000, 0)),
        (b"d/suid", "file", 0o6755, (1_000_000_000, 0)),
        (b"d/\xff\n", "file", 0o400, (-6, 500_000_000)),
        (b"d/link", "link", 0, (1_000_000_000, 0)),
        (b"d/pipe", "fifo", 0o622, (1_000_000_000, 0)),
    ] {
        let file = &found[path];
        assert_eq!((&*file.kind, file.mode, file.mtime), (kind, mode, mtime));
        assert_eq!((file.uid, file.gid), (uid, gid));
    }
    assert_eq!(found[&b"d/link"[..]].content, b"/etc/../../passwd");
    assert_eq!(found[&b"d/\xff\n"[..]].xattrs[&b"user.a"[..]], b"x\0y");
}

#[test]
fn capabilities_survive_the_change_of_owner() {
    if !can_unpack() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let entries = Tar::new()
        .pax(&[("SCHILY.xattr.security.capability", &capability), ("uid", b"77")])
        .file("rootfs/ping", b"");
    let tree = unpack(directory.path(), entries);
    let found = walk(tree.rootfs());
    assert_eq!(found[&b"ping"[..]].xattrs[&b"security.capability"[..]], capability);
    assert_eq!(found[&b"ping"[..]].uid, 77);
}

#[test]
fn holes_stay_holes() {
    let directory = tempfile::tempdir().unwrap();
    let entries = Tar::new()
        .pax(&[
            ("GNU.sparse.size", b"10000000000"),
            ("GNU.sparse.map", b"0,5,9000000000,5,10000000000,0"),
        ])
        .file("rootfs/sparse", b"startthere");
    let tree = unpack(directory.path(), entries);
    let path = tree.rootfs().join("sparse");
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), 10_000_000_000);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    let mut bytes = [0; 7];
    let file = fs::File::open(path).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 9_000_000_000 - 1).unwrap();
    assert_eq!(&bytes, b"\0there\0");
}

#[test]
fn links_to_the_host_are_not_followed() {
    if !can_unpack() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("passwd"), "untouched").unwrap();
    let target = outside.to_str().unwrap();
    let name = |rest: &str| format!("rootfs/{rest}");
    let entries = Tar::new()
        .symlink("rootfs/abs", target)
        .file("rootfs/abs/passwd", b"overwritten")
        .symlink("rootfs/up", "../../../../../../../../../../../../etc")
        .file("rootfs/up/sandbox-escaped", b"x")
        .symlink("rootfs/file", &format!("{target}/passwd"))
        .directory("rootfs/d")
        .hard_link("rootfs/d/hard", &name("file"));
    let tree = unpack(directory.path(), entries);
    assert_eq!(fs::read_to_string(outside.join("passwd")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(!Path::new("/etc/sandbox-escaped").exists());
    let inside = format!("{}{target}/passwd", tree.rootfs().display());
    assert_eq!(fs::read_to_string(inside).unwrap(), "overwritten");
    assert_eq!(fs::read_to_string(tree.rootfs().join("etc/sandbox-escaped")).unwrap(), "x");
    assert!(fs::symlink_metadata(tree.rootfs().join("d/hard")).unwrap().is_symlink());
}

#[test]
fn folders_of_the_store_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("new/data");
    Store::open(&data).unwrap();
    let mode = |name: &str| fs::metadata(data.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("cas/tree"), mode("cas/tmp")), (0o700, 0o700));
    assert_eq!(mode("cas") & 0o022, 0);
    fs::set_permissions(data.join("cas"), fs::Permissions::from_mode(0o2770)).unwrap();
    let error = Store::open(&data).unwrap_err().to_string();
    assert!(error.contains("with mode 750"), "{error}");
    fs::set_permissions(data.join("cas"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(data.join("cas/tree"), fs::Permissions::from_mode(0o770)).unwrap();
    let error = Store::open(&data).unwrap_err().to_string();
    assert!(error.contains("cas/tree belongs to another user or is open to others"), "{error}");
    fs::remove_dir(data.join("cas/tree")).unwrap();
    std::os::unix::fs::symlink("/tmp", data.join("cas/tree")).unwrap();
    assert!(Store::open(&data).is_err());
}

/// Breaks at the first step that is like this one.
struct BreakAt(fn(Step) -> bool);

impl Progress for BreakAt {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        if (self.0)(step) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn assert_nothing_left(data: &Path) {
    for folder in ["cas/tmp", "cas/tree"] {
        let left = walk(&data.join(folder));
        assert_eq!(left.len(), 1, "left in {folder}: {:?}", left.keys());
    }
}

#[test]
fn cancelled_work_leaves_nothing_behind() {
    if !can_unpack() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let reference = format!("oci:{}", directory.path().join("layout").display());
    layout(&directory.path().join("layout"), "file");
    let store = Store::open(&data).unwrap();
    let image = open(&store, &reference).unwrap();
    let steps: [fn(Step) -> bool; 3] = [
        |step| matches!(step, Step::Layer { .. }),
        |step| matches!(step, Step::Unpack { .. }),
        |step| step == Step::Sync,
    ];
    for step in steps {
        let error = store.tree(&image, &Limits::default(), &mut BreakAt(step)).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert_nothing_left(&data);
    }
    load(&store, &reference).unwrap();
}

/// Records all steps.
#[derive(Default)]
struct Record(Vec<Step>);

impl Progress for Record {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        self.0.push(step);
        ControlFlow::Continue(())
    }
}

#[test]
fn progress_ends_where_it_said_it_would() {
    if !can_unpack() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layout");
    new_layout(&path);
    let layers = [Tar::new().directory("d").finish(), Tar::new().file("d/f", b"x").finish()];
    index(&path, &[image(&path, &layers)]);
    let store = Store::open(&directory.path().join("data")).unwrap();
    let image = open(&store, &format!("oci:{}", path.display())).unwrap();
    let mut record = Record::default();
    store.tree(&image, &Limits::default(), &mut record).unwrap();
    for wanted in 0..2 {
        let is_end = |step: &Step| matches!(step, Step::Layer { index, count: 2, done, total } if *index == wanted && done == total);
        assert!(record.0.iter().any(is_end), "{:?}", record.0);
    }
    assert!(record.0.contains(&Step::Unpack { done: 2, total: 2 }), "{:?}", record.0);
    assert_eq!(record.0.last(), Some(&Step::Sync));
}

#[test]
fn many_at_once_unpack_an_image_once() {
    if !can_unpack() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let path = directory.path().join("layout");
    new_layout(&path);
    let tar = (0..300).fold(Tar::new(), |tar, number| tar.file(&number.to_string(), b"x"));
    index(&path, &[image(&path, &[tar.finish()])]);
    let reference = format!("oci:{}", path.display());
    let results: Vec<(u64, usize)> = std::thread::scope(|scope| {
        let one = || {
            // A store of its own each, as in processes.
            let store = Store::open(&data).unwrap();
            let image = open(&store, &reference).unwrap();
            let mut record = Record::default();
            let tree = store.tree(&image, &Limits::default(), &mut record).unwrap();
            // On a busy disk it is said more than once.
            let unpacked = usize::from(record.0.contains(&Step::Sync));
            assert_eq!(fs::read_dir(tree.rootfs()).unwrap().count(), 300);
            (fs::metadata(tree.rootfs()).unwrap().ino(), unpacked)
        };
        let threads: Vec<_> = (0..12).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.iter().all(|(inode, _)| *inode == results[0].0));
    assert_eq!(results.iter().map(|(_, unpacked)| unpacked).sum::<usize>(), 1);
}

/// Unpacks an image in a process of its own; see below.
const CHILD: &str = "SANDBOX_IMAGE_TEST_CHILD";

#[test]
fn kill_at_any_moment_leaves_only_what_the_next_run_removes() {
    if !can_unpack() {
        return;
    }
    if let Some(directory) = std::env::var_os(CHILD) {
        // The child of this very test.
        let directory = Path::new(&directory);
        let store = Store::open(&directory.join("data")).unwrap();
        load(&store, &format!("oci:{}", directory.join("layout").display())).unwrap();
        return;
    }
    // In memory: on a busy disk the time that syncing takes would be all that is hit.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let data = directory.path().join("data");
    let path = directory.path().join("layout");
    new_layout(&path);
    let tar = (0..3000).fold(Tar::new(), |tar, number| {
        tar.file(&format!("{}/{number}", number % 50), number.to_string().as_bytes())
    });
    index(&path, &[image(&path, &[tar.finish()])]);
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill_at_any_moment_leaves_only_what_the_next_run_removes"])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    // How long it takes if nobody kills it.
    let before = Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = before.elapsed();
    // The store's own folders are as old as the run that made them.
    let trees = || {
        let mut found = walk(&data.join("cas/tree"));
        found.values_mut().for_each(|file| file.mtime = (0, 0));
        found
    };
    let expected = trees();
    fs::remove_dir_all(&data).unwrap();

    let mut killed = 0;
    for number in 0..20 {
        let mut child = start();
        std::thread::sleep(whole * number / 20);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let store = Store::open(&data).unwrap();
        if number % 2 == 0 {
            store.gc().unwrap();
            assert_eq!(walk(&data.join("cas/tmp")).len(), 1);
            // A tree is there whole or not at all.
            assert!(trees().len() == 1 || trees() == expected);
        }
        load(&store, &format!("oci:{}", path.display())).unwrap();
        assert!(trees() == expected);
        assert_eq!(walk(&data.join("cas/tmp")).len(), 1);
        fs::remove_dir_all(&data).unwrap();
    }
    assert!(killed > 5, "only {killed} of 20 were killed in time");
}

#[test]
fn gc_leaves_alone_what_is_used() {
    if !can_unpack() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    layout(&directory.path().join("layout"), "file");
    let reference = format!("oci:{}", directory.path().join("layout").display());
    let store = Store::open(&data).unwrap();

    /// Runs gc of another process while an image is unpacked.
    struct Collect<'a>(&'a Path, usize);
    impl Progress for Collect<'_> {
        fn report(&mut self, _: Step) -> ControlFlow<()> {
            self.1 += Store::open(self.0).unwrap().gc().unwrap().staging;
            ControlFlow::Continue(())
        }
    }
    let image = open(&store, &reference).unwrap();
    let mut collect = Collect(&data, 0);
    let tree = store.tree(&image, &Limits::default(), &mut collect).unwrap();
    assert_eq!(collect.1, 0);
    assert_eq!(store.gc().unwrap().staging, 0);
    assert!(tree.rootfs().join("file").exists());

    // What nobody holds goes.
    fs::create_dir(data.join("cas/tree/sha256-00")).unwrap();
    fs::create_dir_all(data.join("cas/tmp/0123/rootfs/usr")).unwrap();
    fs::write(data.join("cas/tmp/4567"), "").unwrap();
    assert_eq!(store.gc().unwrap().staging, 3);
    assert!(tree.rootfs().join("file").exists());
}

#[test]
fn waiting_for_another_process_can_be_cancelled() {
    if !can_unpack() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    layout(&directory.path().join("layout"), "file");
    let reference = format!("oci:{}", directory.path().join("layout").display());
    let store = Store::open(&data).unwrap();
    let image = open(&store, &reference).unwrap();
    let place = data.join("cas/tree").join(image.id().file_name());
    fs::create_dir(&place).unwrap();
    let other = fs::File::open(&place).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let before = Instant::now();
    let mut wait = BreakAt(|step| step == Step::Wait);
    let error = store.tree(&image, &Limits::default(), &mut wait).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(before.elapsed() < Duration::from_secs(5));
    drop(other);
    store.tree(&image, &Limits::default(), &mut ()).unwrap();
}

#[test]
fn a_full_disk_is_one_clear_error() {
    if !is_root() {
        eprintln!("skip: mounting a small file system needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    fs::create_dir(&data).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k,mode=700", "none"])
        .arg(&data)
        .status()
        .unwrap();
    if !mounted.success() {
        eprintln!("skip: a file system can't be mounted here");
        return;
    }
    let path = directory.path().join("layout");
    let mut errors = Vec::new();
    // Too big for the layer's temporary file, and for the tree beside it.
    for size in [400 << 10, 160 << 10] {
        let _ = fs::remove_dir_all(&path);
        new_layout(&path);
        index(&path, &[image(&path, &[Tar::new().file("big", &vec![b'x'; size]).finish()])]);
        let store = Store::open(&data).unwrap();
        let error = load(&store, &format!("oci:{}", path.display())).unwrap_err().to_string();
        errors.push(error);
        assert_nothing_left(&data);
    }
    assert!(Command::new("umount").arg(&data).status().unwrap().success());
    assert!(
        errors[0].contains("cannot write a layer to the image store: No space left"),
        "{errors:?}"
    );
    assert!(
        errors[1].contains("cannot write '/big' of the image to the store: No space"),
        "{errors:?}"
    );
}
