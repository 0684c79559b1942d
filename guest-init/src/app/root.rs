//! The root file system of an app, in a mount namespace of its own.
//!
//! Everything is mounted by descriptor: nothing that the image says decides where something ends
//! up. The image and the volumes are mounted without device nodes; the few nodes that an app gets
//! are bound into its `/dev` one by one, so that an app that can make more has no use for them.

use super::inside;
use crate::error::{Error, Tried};
use crate::image;
use crate::mounts::{
    APPS, EVIDENCE, SCRATCH, SECRETS, SHARED_MEMORY, SHARES, SYS_FS, VOID, VOLUMES, attach,
    directory, new_bind, new_filesystem, open_directory, set_attributes,
};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmod, chown, fchmod, fstat, ftruncate, makedev, mknodat,
    open, openat, symlink, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{Gid, Uid, chdir, fchdir, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sandbox_protocol::{App, Pod, Root, VolumeSource};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const NO_DEVICES: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);
const PLAIN: MountAttrFlags = NO_DEVICES.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// Device nodes of an app, with their numbers (Documentation/admin-guide/devices.txt of the
/// kernel).
const DEVICES: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("net/tun", 10, 200),
];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What apps may read and not write: settings and triggers of the whole guest.
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// What apps see empty: the kernel's memory, addresses and keys.
const HIDDEN_PROC: [&str; 12] = [
    "acpi",
    "config.gz",
    "kallsyms",
    "kcore",
    "keys",
    "kmem",
    "latency_stats",
    "mem",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// What apps see empty of `/sys`, all of which is read-only.
const HIDDEN_SYS: [&str; 4] = ["firmware", "hypervisor", "module", "power"];

/// Makes the root of an app and enters it, with its working directory. `terminals` is the app's
/// own devpts.
pub(crate) fn enter(pod: &Pod, index: u16, app: &App, terminals: OwnedFd) -> Result<(), Error> {
    // SAFETY: the process has one thread, whose file descriptors stay shared with nobody.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP) }
        .tried("making a mount namespace")?;
    let own = format!("{APPS}/{index}");
    directory(&own, 0o755)?;

    let root = mount_image(&own, &layers(pod, index)?, app)?;
    mount_dev(root.as_fd(), &own, app, terminals)?;
    mount_proc(root.as_fd())?;
    mount_sys(root.as_fd())?;
    write_names(root.as_fd(), &pod.hostname)?;
    for mount in &app.mounts {
        let volume = pod.volumes.get(usize::from(mount.volume)).ok_or_else(|| {
            Error::Refused(format!("the app mounts volume {}, which is not there", mount.volume))
        })?;
        mount_volume(root.as_fd(), mount, &volume.source).map_err(|error| {
            let target = String::from_utf8_lossy(&mount.target);
            Error::Refused(format!("mounting volume {} at {target}: {error}", volume.name))
        })?;
    }
    if let Some(measured) = &pod.measured {
        // On top of whatever volumes there are, so that nobody takes a volume's file for a secret.
        mount_own(root.as_fd(), EVIDENCE, "/run/sandbox")?;
        if !measured.secrets.is_empty() {
            mount_own(root.as_fd(), SECRETS, "/run/secrets")?;
        }
    }
    let working_directory = inside::directory(root.as_fd(), &app.working_directory)
        .map_err(|error| Error::Refused(format!("working directory: {error}")))?;
    if app.root_read_only {
        set_attributes(&root, READ_ONLY, AtFlags::empty())?;
    }

    // The old root ends up on top of the new one, from where it is taken away with all its mounts
    // (pivot_root(2), "pivot_root(".", ".")").
    fchdir(&root)
        .and_then(|()| pivot_root(".", "."))
        .and_then(|()| unmount(".", UnmountFlags::DETACH))
        .and_then(|()| chdir("/"))
        .tried("entering the root of the app")?;
    fchdir(&working_directory).tried("entering the working directory")
}

/// Where the app's writable layer is: in memory, or on the pod's scratch disk.
fn layers(pod: &Pod, index: u16) -> Result<Layers, Error> {
    let on_disk = pod.scratch.is_some();
    let parent = format!("{}/{index}", if on_disk { SCRATCH } else { APPS });
    directory(&parent, 0o755)?;
    let [upper, work] = ["upper", "work"].map(|name| format!("{parent}/{name}"));
    directory(&upper, 0o755)?;
    directory(&work, 0o755)?;
    Ok(Layers { upper, work, on_disk })
}

struct Layers {
    upper: String,
    work: String,
    on_disk: bool,
}

/// Opens the lower layer of an app's root.
pub(crate) fn open_lower(app: &App) -> Result<OwnedFd, Error> {
    match &app.root {
        Root::Share(name) => open_share(name),
        Root::Image(index) => image::open_root(*index),
    }
}

/// The image below, what the app writes above.
fn mount_image(own: &str, layers: &Layers, app: &App) -> Result<OwnedFd, Error> {
    let Layers { upper, work, on_disk } = layers;
    let target = format!("{own}/root");
    directory(&target, 0o755)?;
    let lower = open_lower(app)?;
    // The root directory of the overlay looks like that of its upper layer.
    let stat = fstat(&lower).tried("looking at the root directory of the image")?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chown(upper, Some(uid), Some(gid))
        .and_then(|()| chmod(upper, Mode::from_raw_mode(stat.st_mode & 0o7777)))
        .tried("making the root directory of the app")?;

    // By the working directory the lower layer needs no path, and so no quoting of one.
    fchdir(&lower).tried("entering the image")?;
    let mut options = vec![
        ("lowerdir", "."),
        ("upperdir", upper.as_str()),
        ("workdir", work.as_str()),
        ("redirect_dir", "on"),
        ("metacopy", "off"),
    ];
    if *on_disk {
        // The disk ends with the pod: nothing of it ever has to be there after a crash, so nobody
        // waits for it, neither an app that syncs nor the pod's end.
        options.push(("volatile", ""));
    }
    let root = new_filesystem("overlay", &options, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    attach(&root, open_directory(&target)?)?;
    Ok(root)
}

fn mount_proc(root: BorrowedFd<'_>) -> Result<(), Error> {
    let proc = new_filesystem("proc", &[], PLAIN)?;
    attach(&proc, inside::own_directory(root, "proc")?)?;
    for name in READ_ONLY_PROC {
        if let Some(target) = open_if_there(&proc, name)? {
            attach(new_bind(&target, PLAIN | READ_ONLY)?, &target)?;
        }
    }
    hide(root, &proc, &HIDDEN_PROC)
}

fn mount_sys(root: BorrowedFd<'_>) -> Result<(), Error> {
    let target = inside::own_directory(root, "sys")?;
    let sys = new_filesystem("sysfs", &[], PLAIN | READ_ONLY)?;
    attach(&sys, target)?;
    // Programs read their memory and CPU limits from their cgroup, so that is all of /sys/fs.
    let fs = new_bind(open_directory(SYS_FS)?, PLAIN | READ_ONLY)?;
    if let Some(target) = open_if_there(&sys, "fs")? {
        attach(&fs, target)?;
        if let Some(target) = open_if_there(&fs, "cgroup")? {
            attach(new_filesystem("cgroup2", &[], PLAIN | READ_ONLY)?, target)?;
        }
    }
    hide(root, &sys, &HIDDEN_SYS)
}

/// Covers what is there of `names`: directories by an empty one, files by the app's `/dev/null`.
fn hide(root: BorrowedFd<'_>, directory: &OwnedFd, names: &[&str]) -> Result<(), Error> {
    let void = open_directory(VOID)?;
    for name in names {
        let Some(target) = open_if_there(directory, name)? else { continue };
        let stat = fstat(&target).tried("hiding a file of the kernel")?;
        let cover = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => new_bind(&void, PLAIN | READ_ONLY)?,
            _ => new_bind(null_device(root)?, MountAttrFlags::MOUNT_ATTR_NOEXEC | READ_ONLY)?,
        };
        attach(cover, &target)?;
    }
    Ok(())
}

fn null_device(root: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    openat(root, "dev/null", OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .tried("opening /dev/null")
}

fn mount_dev(root: BorrowedFd<'_>, own: &str, app: &App, terminals: OwnedFd) -> Result<(), Error> {
    let (dev, nodes) = (format!("{own}/dev"), format!("{own}/nodes"));
    directory(&dev, 0o755)?;
    directory(&nodes, 0o755)?;
    for name in ["net", "pts", "shm", "mqueue"] {
        directory(&format!("{dev}/{name}"), 0o755)?;
    }
    directory(&format!("{nodes}/net"), 0o755)?;
    for (name, target) in DEVICE_LINKS {
        symlink(target, format!("{dev}/{name}")).tried("making a link in /dev")?;
    }
    let dev = open_directory(&dev)?;
    let target = inside::own_directory(root, "dev")?;
    let mount = new_bind(&dev, PLAIN)?;
    attach(&mount, target)?;

    for (name, major, minor) in DEVICES {
        let node = format!("{nodes}/{name}");
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(major, minor))
            .tried("making a device node")?;
        let node = open(&node, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .tried("opening a device node")?;
        bind_device(&mount, name, &node)?;
    }
    attach(&terminals, at(&mount, "pts")?)?;
    attach(new_filesystem("mqueue", &[], PLAIN)?, at(&mount, "mqueue")?)?;
    attach(new_bind(open_directory(SHARED_MEMORY)?, PLAIN)?, at(&mount, "shm")?)?;
    if matches!(app.stdio, sandbox_protocol::Stdio::Terminal { .. }) {
        // The first and only terminal of a devpts that is the app's own.
        bind_device(&mount, "console", &at(&terminals, "0")?)?;
    }
    Ok(())
}

fn bind_device(dev: &OwnedFd, name: &str, node: &OwnedFd) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(dev, name, flags, Mode::empty()).tried("making a place for a device node")?;
    attach(new_bind(node, MountAttrFlags::MOUNT_ATTR_NOEXEC)?, at(dev, name)?)
}

/// Tells the image its name. Its own `/etc/hosts` stays if it has one that is not empty.
fn write_names(root: BorrowedFd<'_>, hostname: &str) -> Result<(), Error> {
    let etc = inside::directory(root, b"/etc")?;
    write_file(root, "/etc/hostname", &format!("{hostname}\n"), true)?;
    let hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost {hostname}\n");
    write_file(root, "/etc/hosts", &hosts, false)?;
    match symlinkat("/proc/self/mounts", &etc, "mtab") {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).tried("making /etc/mtab"),
    }
}

fn write_file(root: BorrowedFd<'_>, path: &str, content: &str, replace: bool) -> Result<(), Error> {
    // Whatever else than a file an image has there, it is left alone and must not hold us up.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match inside::open(root, path.as_bytes(), flags) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NXIO | Errno::ISDIR | Errno::LOOP | Errno::ACCESS) => {
            return Ok(());
        }
        Err(error) => return Err(error).tried(format_args!("writing {path}")),
    };
    let write = || -> rustix::io::Result<()> {
        let stat = fstat(&file)?;
        let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
        if is_file && (replace || stat.st_size == 0) {
            ftruncate(&file, 0)?;
            fchmod(&file, Mode::from_raw_mode(0o644))?;
            rustix::io::write(&file, content.as_bytes())?;
        }
        Ok(())
    };
    write().tried(format_args!("writing {path}"))
}

fn mount_volume(
    root: BorrowedFd<'_>,
    mount: &sandbox_protocol::Mount,
    source: &VolumeSource,
) -> Result<(), Error> {
    let source = match source {
        VolumeSource::Share(name) => open_share(name)?,
        VolumeSource::Empty { .. } => open_directory(&empty_volume(mount.volume))?,
    };
    let kind = FileType::from_raw_mode(fstat(&source).tried("looking at the volume")?.st_mode);
    let target = match kind {
        FileType::Directory => inside::directory(root, &mount.target)?,
        _ => inside::file(root, &mount.target)?,
    };
    if inside::is_kernels(&target)? {
        return Err(Error::Refused("volumes cannot cover parts of /proc or /sys".into()));
    }
    if is_same(root, &target)? {
        return Err(Error::Refused("volumes cannot cover the root of the app".into()));
    }
    let read_only = if mount.read_only { READ_ONLY } else { MountAttrFlags::empty() };
    attach(new_bind(&source, MountAttrFlags::MOUNT_ATTR_NODEV | read_only)?, &target)
}

/// Mounts a directory of guest-init's, for the app to read.
fn mount_own(root: BorrowedFd<'_>, source: &str, target: &str) -> Result<(), Error> {
    let place = || -> Result<(), Error> {
        let place = inside::directory(root, target.as_bytes())?;
        if inside::is_kernels(&place)? || is_same(root, &place)? {
            return Err(Error::Refused("the image has a link there that leads elsewhere".into()));
        }
        attach(new_bind(open_directory(source)?, PLAIN | READ_ONLY)?, &place)
    };
    place().map_err(|error| Error::Refused(format!("mounting {target}: {error}")))
}

fn is_same(one: impl AsFd, other: impl AsFd) -> Result<bool, Error> {
    let what = "comparing directories";
    let (one, other) = (fstat(one).tried(what)?, fstat(other).tried(what)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Where the volume of this index is if it lives in the guest.
pub(crate) fn empty_volume(index: u16) -> String {
    format!("{VOLUMES}/{index}")
}

/// Opens a share of the host, which mounts it if it was not mounted yet.
pub(crate) fn open_share(name: &str) -> Result<OwnedFd, Error> {
    if name.is_empty() || name.contains('/') || [".", ".."].contains(&name) {
        return Err(Error::Refused(format!("\"{name}\" cannot be the name of a share")));
    }
    let path = format!("{SHARES}/{name}");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Only opening it as a directory mounts it (path_resolution(7) calls that an automount).
    match open(&path, flags | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOTDIR) => open(&path, flags, Mode::empty()),
        result => result,
    }
    .tried(format_args!("opening the share \"{name}\" of the host"))
}

fn at(directory: &OwnedFd, name: &str) -> Result<OwnedFd, Error> {
    openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .tried(format_args!("opening {name}"))
}

fn open_if_there(directory: &OwnedFd, name: &str) -> Result<Option<OwnedFd>, Error> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        result => result.map(Some).tried(format_args!("opening {name}")),
    }
}
