//! Somebody who may write to a share changes it under the worker's hands: another process of the
//! host, another guest. What a guest then asks for must never reach what lies outside of the share.
//!
//! A round is a handful of requests while a second thread swaps what they name, as fast as it can.
//! Few by default; the full number is run by hand and written down in `tests/fuzz/README.md`:
//!
//! ```text
//! SANDBOX_RACE_ROUNDS=100000 cargo test --release -p sandbox-fs --test worker races
//! ```

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;
use virtiofsd::filesystem::SetattrValid;
use virtiofsd::fuse::SetattrIn;

use crate::guest::{Guest, ROOT};

const ROUNDS: u64 = 1500;
const INSIDE: &[u8] = b"of the share";
const OUTSIDE: &str = "of the host";

fn rounds() -> u64 {
    std::env::var("SANDBOX_RACE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

/// A share and, beside it, what nobody may reach through it.
struct Scene {
    folder: tempfile::TempDir,
    before: Vec<(PathBuf, Stat)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    mode: u32,
    owner: (u32, u32),
    links: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for directory in ["share", "outside", "outside/directory"] {
            fs::create_dir(folder.path().join(directory)).unwrap();
        }
        for file in ["outside/secret", "outside/directory/secret"] {
            fs::write(folder.path().join(file), OUTSIDE).unwrap();
        }
        let mut scene = Self { folder, before: Vec::new() };
        scene.before = scene.canaries();
        scene
    }

    fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// All that there is outside, and all that a change would change.
    fn canaries(&self) -> Vec<(PathBuf, Stat)> {
        let mut paths = vec![self.outside()];
        for directory in ["outside", "outside/directory"] {
            let entries = fs::read_dir(self.folder.path().join(directory)).unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
        }
        paths.sort();
        let stat = |path: PathBuf| {
            let file = fs::symlink_metadata(&path).unwrap();
            let stat = Stat {
                mode: file.mode(),
                owner: (file.uid(), file.gid()),
                links: file.nlink(),
                size: file.size(),
                changed: (file.ctime(), file.ctime_nsec()),
                modified: (file.mtime(), file.mtime_nsec()),
            };
            (path, stat)
        };
        paths.into_iter().map(stat).collect()
    }

    fn check(&self) {
        assert_eq!(self.canaries(), self.before);
        for file in ["secret", "directory/secret"] {
            assert_eq!(fs::read_to_string(self.outside().join(file)).unwrap(), OUTSIDE);
        }
    }
}

/// A thread that does the same thing until it is dropped.
struct Rival {
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Rival {
    fn new(mut turn: impl FnMut() + Send + 'static) -> Self {
        let (stop, turns) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), turns.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                turn();
                counted.fetch_add(1, Ordering::Relaxed);
                // Others need the processor, too: some turns for each request are enough.
                std::thread::sleep(Duration::from_micros(5));
            }
        });
        Self { stop, turns, thread: Some(thread) }
    }

    /// Swaps two names for ever.
    fn swap(one: PathBuf, two: PathBuf) -> Self {
        Self::new(move || {
            let _ = renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE);
        })
    }

    fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

/// What a guest does to a file it has found: reads, writes, and changes all that can be changed.
fn use_file(guest: &mut Guest, node: u64) -> bool {
    let mut opened = false;
    if let Ok(open) = guest.open(node, libc::O_RDONLY) {
        opened = true;
        let content = guest.read(node, open.fh, 0, 100).unwrap();
        assert_eq!(content, INSIDE, "{:?}", String::from_utf8_lossy(&content));
        guest.release(node, open.fh).unwrap();
    }
    if let Ok(open) = guest.open(node, libc::O_RDWR) {
        let _ = guest.write(node, open.fh, 0, INSIDE);
        guest.release(node, open.fh).unwrap();
    }
    let valid = SetattrValid::MODE.bits();
    let _ = guest.setattr(node, SetattrIn { valid, mode: 0o4777, ..SetattrIn::default() });
    let _ = guest.setxattr(node, "user.a", b"b");
    opened
}

#[test]
fn a_directory_that_becomes_a_symbolic_link_leads_nowhere() {
    let scene = Scene::new();
    let share = scene.share();
    fs::create_dir(share.join("swap")).unwrap();
    fs::write(share.join("swap/secret"), INSIDE).unwrap();
    symlink("../outside", share.join("bait")).unwrap();
    let (mut guest, root) = Guest::of(&share);
    let rival = Rival::swap(share.join("swap"), share.join("bait"));
    let (mut found, mut refused) = (0u64, 0u64);
    for _ in 0..rounds() {
        let Ok(entry) = guest.lookup(root, "swap") else { continue };
        let node = entry.nodeid;
        match guest.lookup(node, "secret") {
            Ok(file) => {
                found += u64::from(use_file(&mut guest, file.nodeid));
                guest.forget(file.nodeid, 1);
            }
            Err(_) => refused += 1,
        }
        // What would show outside if the link were followed.
        if guest.mkdir(node, "new", 0o755).is_ok() {
            guest.rmdir(node, "new").unwrap();
        }
        let _ = guest.rename(node, "secret", node, "moved", libc::RENAME_NOREPLACE);
        let _ = guest.rename(node, "moved", node, "secret", libc::RENAME_NOREPLACE);
        let _ = guest.unlink(node, "directory");
        guest.forget(node, 1);
    }
    assert!(found > 0 && refused > 0, "found {found}, refused {refused}");
    assert!(rival.turns() > 100);
    drop(rival);
    scene.check();
}

#[test]
fn a_file_that_becomes_a_symbolic_link_is_not_followed() {
    let scene = Scene::new();
    let share = scene.share();
    fs::write(share.join("swap"), INSIDE).unwrap();
    symlink(scene.outside().join("secret"), share.join("bait")).unwrap();
    let (mut guest, root) = Guest::of(&share);
    let rival = Rival::swap(share.join("swap"), share.join("bait"));
    let (mut found, mut links) = (0u64, 0u64);
    for _ in 0..rounds() {
        // CREATE opens what is there, by its name.
        if let Ok((entry, open)) = guest.create(root, "swap", libc::O_RDWR, 0o644) {
            let content = guest.read(entry.nodeid, open.fh, 0, 100).unwrap();
            assert_eq!(content, INSIDE);
            guest.release(entry.nodeid, open.fh).unwrap();
            guest.forget(entry.nodeid, 1);
        }
        let Ok(entry) = guest.lookup(root, "swap") else { continue };
        links += u64::from(entry.attr.mode & libc::S_IFMT == libc::S_IFLNK);
        found += u64::from(use_file(&mut guest, entry.nodeid));
        // A hard link is to what was found, file or symbolic link, never to what that names.
        if let Ok(copy) = guest.link(entry.nodeid, root, "copy") {
            assert_eq!(copy.nodeid, entry.nodeid);
            guest.unlink(root, "copy").unwrap();
            guest.forget(entry.nodeid, 1);
        }
        guest.forget(entry.nodeid, 1);
    }
    assert!(found > 0 && links > 0, "found {found}, links {links}");
    assert!(rival.turns() > 100);
    drop(rival);
    scene.check();
}

#[test]
fn a_directory_that_is_moved_out_of_the_share_leads_to_nothing_above_it() {
    let scene = Scene::new();
    let share = scene.share();
    // Where it goes to and comes from: beside the share, in a place of its own.
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("secret"), OUTSIDE).unwrap();
    fs::create_dir_all(share.join("a/b/c")).unwrap();
    let (inner, outer) = (share.join("a/b"), elsewhere.join("b"));
    let (mut guest, root) = Guest::of(&share);
    let a = guest.lookup(root, "a").unwrap().nodeid;
    let rival = Rival::new({
        let (inner, outer) = (inner.clone(), outer.clone());
        move || {
            fs::rename(&inner, &outer).unwrap();
            fs::rename(&outer, &inner).unwrap();
        }
    });
    let (mut found, mut missed) = (0u64, 0u64);
    for _ in 0..rounds() {
        let Ok(b) = guest.lookup(a, "b") else {
            missed += 1;
            continue;
        };
        found += 1;
        for name in ["..", "../secret", "c/../../secret"] {
            assert_eq!(guest.lookup(b.nodeid, name).map(drop), Err(libc::EINVAL), "{name}");
        }
        assert_eq!(guest.lookup(b.nodeid, "secret").map(drop), Err(libc::ENOENT));
        if let Ok(c) = guest.lookup(b.nodeid, "c") {
            assert_eq!(guest.lookup(c.nodeid, "..").map(drop), Err(libc::EINVAL));
            guest.forget(c.nodeid, 1);
        }
        // Listing it gives its own entries, wherever it is now.
        assert_eq!(guest.names(b.nodeid).unwrap(), [b"c".to_vec()]);
        // From it into the share and back: by name, one step, never to what is above.
        let _ = guest.rename(b.nodeid, "..", root, "stolen", 0);
        assert_eq!(guest.lookup(root, "stolen").map(drop), Err(libc::ENOENT));
        guest.forget(b.nodeid, 1);
    }
    assert!(found > 0, "found {found}, missed {missed}");
    assert!(rival.turns() > 100);
    drop(rival);
    assert_eq!(fs::read_to_string(elsewhere.join("secret")).unwrap(), OUTSIDE);
    scene.check();
}

#[test]
fn a_hard_link_that_comes_and_goes_is_one_file_or_another_of_the_share() {
    let scene = Scene::new();
    let share = scene.share();
    for name in ["one", "two"] {
        fs::write(share.join(name), INSIDE).unwrap();
    }
    let inodes = ["one", "two"].map(|name| fs::metadata(share.join(name)).unwrap().ino());
    let (mut guest, root) = Guest::of(&share);
    let rival = Rival::new({
        let share = share.clone();
        let mut turn = 0u64;
        move || {
            turn += 1;
            let from = if turn.is_multiple_of(2) { "one" } else { "two" };
            let _ = fs::remove_file(share.join("link"));
            let _ = fs::hard_link(share.join(from), share.join("link"));
        }
    });
    let mut found = [0u64; 2];
    for _ in 0..rounds() {
        let Ok(entry) = guest.lookup(root, "link") else { continue };
        let which = inodes.iter().position(|inode| *inode == entry.attr.ino).unwrap();
        found[which] += 1;
        if let Ok(copy) = guest.link(entry.nodeid, root, "copy") {
            assert_eq!(copy.attr.ino, inodes[which], "another file than the one that was named");
            guest.unlink(root, "copy").unwrap();
            guest.forget(entry.nodeid, 1);
        }
        use_file(&mut guest, entry.nodeid);
        let _ = guest.unlink(root, "link");
        guest.forget(entry.nodeid, 1);
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
    drop(rival);
    scene.check();
}

#[test]
fn a_device_node_or_pipe_that_takes_a_files_place_is_not_opened() {
    let scene = Scene::new();
    let share = scene.share();
    fs::write(share.join("swap"), INSIDE).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, share.join("zero"), FileType::CharacterDevice, mode, makedev(1, 5)).unwrap();
    mknodat(CWD, share.join("pipe"), FileType::Fifo, mode, 0).unwrap();
    let (mut guest, root) = Guest::of(&share);
    let rival = Rival::new({
        let share = share.clone();
        let mut turn = 0u64;
        move || {
            turn += 1;
            let other = if turn % 4 < 2 { "zero" } else { "pipe" };
            let (one, two) = (share.join("swap"), share.join(other));
            let _ = renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE);
        }
    });
    let (mut found, mut special) = (0u64, 0u64);
    for _ in 0..rounds() {
        if let Ok((entry, open)) = guest.create(root, "swap", libc::O_RDWR, 0o644) {
            assert_eq!(guest.read(entry.nodeid, open.fh, 0, 100).unwrap(), INSIDE);
            guest.release(entry.nodeid, open.fh).unwrap();
            guest.forget(entry.nodeid, 1);
        }
        let Ok(entry) = guest.lookup(root, "swap") else { continue };
        let regular = entry.attr.mode & libc::S_IFMT == libc::S_IFREG;
        let opened = use_file(&mut guest, entry.nodeid);
        assert_eq!(opened, regular, "mode {:o}", entry.attr.mode);
        (found, special) = (found + u64::from(opened), special + u64::from(!regular));
        guest.forget(entry.nodeid, 1);
    }
    assert!(found > 0 && special > 0, "found {found}, special {special}");
    drop(rival);
    scene.check();
}

/// Runs where mounts are its own and, unlike the worker's, shared with whoever is in the same
/// place: what is mounted then would reach a worker that had not left.
fn with_mounts(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: what is unshared is this thread's own: mounts, root and working directory.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
        for kind in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
            rustix::mount::mount_change("/", kind | MountPropagationFlags::REC).unwrap();
        }
        test();
    });
    thread.join().unwrap();
}

fn bind(source: &Path, target: &Path) {
    rustix::mount::mount_bind(source, target).unwrap();
}

#[test]
fn what_is_mounted_on_a_share_later_does_not_appear_in_it() {
    with_mounts(|| {
        let scene = Scene::new();
        let share = scene.share();
        fs::create_dir(share.join("mount")).unwrap();
        fs::write(share.join("mount/secret"), INSIDE).unwrap();
        fs::write(share.join("file"), INSIDE).unwrap();
        let (mut guest, root) = Guest::of(&share);
        // The rival's thread is in the namespace of this one.
        let rival = Rival::new({
            let (share, outside) = (share.clone(), scene.outside());
            move || {
                bind(&outside, &share.join("mount"));
                bind(&outside.join("secret"), &share.join("file"));
                for name in ["file", "mount"] {
                    let target = share.join(name);
                    rustix::mount::unmount(&target, UnmountFlags::DETACH).unwrap();
                }
            }
        });
        for _ in 0..rounds() {
            let directory = guest.lookup(root, "mount").unwrap();
            let file = guest.lookup(directory.nodeid, "secret").unwrap();
            assert!(use_file(&mut guest, file.nodeid));
            assert_eq!(guest.names(directory.nodeid).unwrap(), [b"secret".to_vec()]);
            guest.forget(file.nodeid, 1);
            guest.forget(directory.nodeid, 1);
            let file = guest.lookup(root, "file").unwrap();
            assert!(use_file(&mut guest, file.nodeid));
            guest.forget(file.nodeid, 1);
        }
        assert!(rival.turns() > 20);
        drop(rival);
        scene.check();
    });
}

#[test]
fn what_is_mounted_over_a_share_on_the_host_stays_there() {
    with_mounts(|| {
        let scene = Scene::new();
        fs::write(scene.share().join("file"), INSIDE).unwrap();
        let mut guest = Guest::mount(&[format!("share={}", scene.share().display())]);
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount("tmpfs", scene.share(), "tmpfs", flags, None).unwrap();
        fs::write(scene.share().join("file"), OUTSIDE).unwrap();
        fs::set_permissions(scene.share(), fs::Permissions::from_mode(0o700)).unwrap();
        let share = guest.lookup(ROOT, "share").unwrap().nodeid;
        let file = guest.lookup(share, "file").unwrap().nodeid;
        assert!(use_file(&mut guest, file));
        rustix::mount::unmount(scene.share(), UnmountFlags::DETACH).unwrap();
        scene.check();
    });
}
