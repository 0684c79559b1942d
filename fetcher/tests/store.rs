//! What the store keeps its promises about: files as they were, one tree for all, nothing left
//! behind.
#![allow(clippy::unwrap_used, reason = "a test that can't go on stops")]

#[path = "../../image/tests/common/mod.rs"]
mod common;
mod place;

use common::{
    Header, Tar, can_unpack, is_root,
    layout::{
        CONFIG, LAYER, MANIFEST, aci_manifest, blob, config, image, index, layout, manifest,
        new_layout,
    },
    own_id, walk,
};
use place::{Files, assert_nothing_left};
use sandbox_image::{Collected, Error, Limits, Progress, Step, Store, StoredImage};
use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

fn load(store: &Store, reference: &str) -> Result<StoredImage, Error> {
    load_with(store, reference, &mut ())
}

fn load_with(
    store: &Store,
    reference: &str,
    progress: &mut dyn Progress,
) -> Result<StoredImage, Error> {
    place::load(store, reference, &Limits::default(), progress)
}

/// Unpacks an ACI with these entries.
fn unpack(directory: &Path, entries: Tar) -> Files {
    let archive = Tar::new().file("manifest", aci_manifest("").as_bytes()).directory("rootfs");
    let archive = Tar([archive.0, entries.0].concat()).finish();
    fs::write(directory.join("x.aci"), archive).unwrap();
    let store = Store::open(&directory.join("data")).unwrap();
    Files::of(&load(&store, directory.join("x.aci").to_str().unwrap()).unwrap())
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
    let found = tree.walk();
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
    let found = tree.walk();
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
    assert_eq!((mode("cas/image"), mode("cas/tmp")), (0o700, 0o700));
    assert_eq!(mode("cas") & 0o022, 0);
    fs::set_permissions(data.join("cas"), fs::Permissions::from_mode(0o2770)).unwrap();
    let error = Store::open(&data).unwrap_err().to_string();
    assert!(error.contains("with mode 750"), "{error}");
    fs::set_permissions(data.join("cas"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(data.join("cas/image"), fs::Permissions::from_mode(0o770)).unwrap();
    let error = Store::open(&data).unwrap_err().to_string();
    assert!(error.contains("cas/image belongs to another user or is open to others"), "{error}");
    fs::remove_dir(data.join("cas/image")).unwrap();
    std::os::unix::fs::symlink("/tmp", data.join("cas/image")).unwrap();
    assert!(Store::open(&data).is_err());
}

/// Breaks at the first step that is like this one.
struct BreakAt(fn(Step) -> bool);

impl Progress for BreakAt {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        if (self.0)(step) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
    let steps: [fn(Step) -> bool; 5] = [
        |step| matches!(step, Step::Download { .. }),
        |step| matches!(step, Step::Check { .. }),
        |step| matches!(step, Step::Layer { .. }),
        |step| matches!(step, Step::Write { .. }),
        |step| step == Step::Sync,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let result = load_with(&store, &reference, &mut BreakAt(step));
        let error = result.map(|_| number).unwrap_err();
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
    let mut record = Record::default();
    load_with(&store, &format!("oci:{}", path.display()), &mut record).unwrap();
    for wanted in 0..2 {
        let is_end = |step: &Step| matches!(step, Step::Layer { index, count: 2, done, total } if *index == wanted && done == total);
        assert!(record.0.iter().any(is_end), "{:?}", record.0);
    }
    let is_written = |step: &Step| matches!(step, Step::Write { done, total } if done == total);
    assert!(record.0.iter().any(is_written), "{:?}", record.0);
    assert_eq!(record.0.last(), Some(&Step::Sync));
}

#[test]
fn many_at_once_render_an_image_once() {
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
    let results: Vec<usize> = std::thread::scope(|scope| {
        let one = || {
            // A store of its own each, as in processes.
            let store = Store::open(&data).unwrap();
            let mut record = Record::default();
            let image = load_with(&store, &reference, &mut record).unwrap();
            image.rootfs(&mut ()).unwrap();
            // On a busy disk it is said more than once.
            usize::from(record.0.contains(&Step::Sync))
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.into_iter().sum::<usize>(), 1);
    let image = load(&Store::open(&data).unwrap(), &reference).unwrap();
    assert_eq!(Files::of(&image).walk().len(), 301);
}

/// Fetches an image in a process of its own; see below.
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
    // Records say when they were written.
    let images = || {
        let found = walk(&data.join("cas/image"));
        let files = found.into_iter().filter(|(path, _)| path.ends_with(b"/rootfs.erofs"));
        files.map(|(path, file)| (path, file.content)).collect::<Vec<_>>()
    };
    let blobs = || walk(&data.join("cas/blob")).into_keys().collect::<Vec<_>>();
    let (expected, expected_blobs) = (images(), blobs());
    assert_eq!(expected.len(), 1);
    fs::remove_dir_all(&data).unwrap();

    let mut killed = 0;
    for number in 0..20 {
        let mut child = start();
        std::thread::sleep(whole * number / 20);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let store = Store::open(&data).unwrap();
        if number % 2 == 0 {
            store.gc(None).unwrap();
            assert_eq!(walk(&data.join("cas/tmp")).len(), 1);
            // An image is there whole or not at all.
            assert!(images().is_empty() || images() == expected);
        }
        load(&store, &format!("oci:{}", path.display())).unwrap();
        assert!(images() == expected);
        store.gc(None).unwrap();
        assert!(blobs() == expected_blobs);
        assert_eq!(walk(&data.join("cas/tmp")).len(), 1);
        assert_eq!(walk(&data.join("cas/part")).len(), 1);
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

    /// Runs gc of another process while an image is fetched.
    struct Collect<'a>(&'a Path, usize);
    impl Progress for Collect<'_> {
        fn report(&mut self, _: Step) -> ControlFlow<()> {
            let collected = Store::open(self.0).unwrap().gc(None).unwrap();
            self.1 += collected.staging + collected.blobs;
            ControlFlow::Continue(())
        }
    }
    let mut collect = Collect(&data, 0);
    let image = load_with(&store, &reference, &mut collect).unwrap();
    assert_eq!(collect.1, 0);
    // Not even what nobody has used for no time at all.
    assert_eq!(store.gc(Some(Duration::ZERO)).unwrap(), Collected::default());
    assert!(matches!(store.remove(image.id()), Err(Error::InUse(_))));
    store.verify(&image, &mut ()).unwrap();

    // What nobody holds goes.
    fs::create_dir(data.join("cas/image/sha256-00")).unwrap();
    fs::create_dir_all(data.join("cas/tmp/0123/usr")).unwrap();
    fs::write(data.join("cas/tmp/4567"), "").unwrap();
    let part = fs::File::create(data.join("cas/part/sha256-00")).unwrap();
    let collected = store.gc(None).unwrap();
    // The next fetch could go on with that.
    assert_eq!((collected.staging, collected.blobs), (3, 0));
    part.set_modified(SystemTime::now() - Duration::from_secs(24 * 60 * 60 + 1)).unwrap();
    assert_eq!(store.gc(None).unwrap().blobs, 1);
    fs::write(data.join("cas/part/sha256-00"), "").unwrap();
    assert_eq!(store.gc(Some(Duration::ZERO)).unwrap().blobs, 1);
    store.verify(&image, &mut ()).unwrap();

    let id = image.id().clone();
    drop(image);
    assert_eq!(store.gc(Some(Duration::ZERO)).unwrap().images, std::slice::from_ref(&id));
    assert!(matches!(store.remove(&id), Err(Error::NotStored(_))));
    assert_nothing_left(&data);
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
    let image = load(&store, &reference).unwrap();
    let id = image.id().clone();
    drop(image);
    store.remove(&id).unwrap();
    let place = data.join("cas/image").join(id.file_name());
    fs::create_dir(&place).unwrap();
    let other = fs::File::open(&place).unwrap();
    rustix::fs::flock(&other, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let before = Instant::now();
    let mut wait = BreakAt(|step| step == Step::Wait);
    let error = load_with(&store, &reference, &mut wait).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(before.elapsed() < Duration::from_secs(5));
    drop(other);
    load(&store, &reference).unwrap();
}

/// The file of such an image would be locked by its fetcher, who then waits for it.
#[test]
fn a_layer_that_is_the_configuration_keeps_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("layout");
    new_layout(&path);
    let document = config(&[Tar::new().finish()]);
    let (config, layer) =
        (blob(&path, CONFIG, document.as_bytes()), blob(&path, LAYER, document.as_bytes()));
    index(&path, &[blob(&path, MANIFEST, manifest(&config, &[layer]).as_bytes())]);
    let store = Store::open(&directory.path().join("data")).unwrap();
    let mut wait = BreakAt(|step| step == Step::Wait);
    let error = load_with(&store, &format!("oci:{}", path.display()), &mut wait).unwrap_err();
    assert!(error.to_string().contains("but the image's configuration says"), "{error}");
    assert_nothing_left(&directory.path().join("data"));
}

/// A small file system, which goes with this value.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path, options: &str) -> Option<Self> {
        if !is_root() {
            eprintln!("skip: mounting a small file system needs root");
            return None;
        }
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status().unwrap();
        if !mounted.success() {
            eprintln!("skip: a file system can't be mounted here");
            return None;
        }
        Some(Self(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Processes that other tests are starting have copies of its open files for a moment.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0).status().unwrap();
        assert!(unmounted.success());
    }
}

#[test]
fn images_can_be_removed_from_a_full_disk() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let Some(_mounted) = Small::mount(&data, "size=16m,nr_inodes=100,mode=700") else { return };
    layout(&directory.path().join("layout"), "file");
    let reference = format!("oci:{}", directory.path().join("layout").display());
    let store = Store::open(&data).unwrap();
    load(&store, &reference).unwrap();
    // Not even an empty folder can be made any more.
    let full = (0..100).find_map(|number| fs::create_dir(data.join(number.to_string())).err());
    let updated = load(&store, &reference).map(drop).unwrap_err().to_string();
    let found = Store::open(&data).unwrap().images().unwrap();
    let collected = store.gc(Some(Duration::ZERO)).map(|collected| collected.images.len());
    let left = store.images().unwrap().images.len();
    assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    assert!(updated.contains("No space left"), "{updated}");
    assert_eq!((found.images.len(), found.broken.len()), (1, 0));
    assert_eq!((collected.unwrap(), left), (1, 0));
}

#[test]
fn a_full_disk_is_one_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let Some(_mounted) = Small::mount(&data, "size=1m,mode=700") else { return };
    let path = directory.path().join("layout");
    // What no compression makes smaller.
    let noise = |size| {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..size).map(|_| next()).collect::<Vec<_>>()
    };
    let mut errors = Vec::new();
    // Too big for the blob, for the layer's temporary file beside it, and for the file system.
    for size in [1200 << 10, 600 << 10, 400 << 10] {
        let _ = fs::remove_dir_all(&path);
        new_layout(&path);
        index(&path, &[image(&path, &[Tar::new().file("big", &noise(size)).finish()])]);
        let store = Store::open(&data).unwrap();
        let error = load(&store, &format!("oci:{}", path.display())).unwrap_err().to_string();
        errors.push(error);
        assert_nothing_left(&data);
    }
    assert!(errors.iter().all(|error| error.contains("No space left")), "{errors:?}");
    assert!(errors[0].contains("cannot write a blob to the image store"), "{errors:?}");
    assert!(errors[1].contains("cannot write a layer to the image store"), "{errors:?}");
}
