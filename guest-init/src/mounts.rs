//! Mounting by file descriptor, so that no path of an image is ever resolved on the way, and the
//! file systems that guest-init itself lives in.

use crate::error::{Error, Tried, checked};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, move_mount,
    open_tree,
};
use rustix::process::{chroot, fchdir};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Where the shares of the host are, in guest-init's own tree.
pub(crate) const SHARES: &str = "/share";
/// Where images are, a directory for each.
pub(crate) const IMAGES: &str = "/image";
/// Where the scratch disk is, if there is one.
pub(crate) const SCRATCH: &str = "/scratch";
/// Where the cgroup v2 hierarchy is.
pub(crate) const CGROUPS: &str = "/cgroup";
/// Writable layers and device nodes of apps, a directory for each.
pub(crate) const APPS: &str = "/app";
/// Volumes that live in the guest, a directory for each.
pub(crate) const VOLUMES: &str = "/volume";
/// POSIX shared memory, which the apps of a pod share (appc `pods.md`: one IPC namespace).
pub(crate) const SHARED_MEMORY: &str = "/shm";
/// Where the secrets of a pod are, a file for each, on a tmpfs of their own.
pub(crate) const SECRETS: &str = "/secrets";
/// Where the socket is at which apps ask for evidence.
pub(crate) const EVIDENCE: &str = "/evidence";
/// An empty directory, to cover what apps must not see.
pub(crate) const VOID: &str = "/void";
/// What apps see as `/sys/fs`: a place for their cgroups, and nothing else.
pub(crate) const SYS_FS: &str = "/sys-fs";

/// Mounts the device file system, which an initramfs does not have.
///
/// # Errors
/// The kernel refuses.
pub fn mount_devices() -> Result<(), Error> {
    directory("/dev", 0o755)?;
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, None)
        .tried("mounting /dev")
}

/// Leaves the initramfs for a tmpfs.
///
/// The initramfs cannot be pivoted away from (pivot_root(2)), a tmpfs on top of it can. It bounds
/// what the pod's apps can fill with files to half of the guest's memory.
///
/// # Errors
/// The kernel refuses.
pub fn enter_own_root() -> Result<(), Error> {
    let options = [("size", "50%"), ("mode", "0755")];
    let root = new_filesystem("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .and_then(|()| fchdir(&root))
        .and_then(|()| chroot("."))
        .tried("entering the root file system of guest-init")?;

    for path in [SHARES, IMAGES, CGROUPS, APPS, VOLUMES, SYS_FS] {
        directory(path, 0o755)?;
    }
    directory(VOID, 0o555)?;
    directory(&format!("{SYS_FS}/cgroup"), 0o555)?;
    directory(SHARED_MEMORY, 0o1777)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("cgroup2", CGROUPS, "cgroup2", flags, None).tried("mounting cgroup2")
}

/// Makes a directory in guest-init's own tree, unless it is there.
pub(crate) fn directory(path: &str, mode: u32) -> Result<(), Error> {
    match mkdirat(CWD, path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).tried(format_args!("making the directory {path}")),
    }
}

/// Opens a directory of guest-init's own tree.
pub(crate) fn open_directory(path: &str) -> Result<OwnedFd, Error> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .tried(format_args!("opening {path}"))
}

/// Makes a mount of a new file system that is not attached anywhere yet. Options without a value
/// are flags.
pub(crate) fn new_filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Error> {
    // What lists of mounts show.
    new_disk_filesystem(kind, kind, options, attributes)
}

/// The same of a file system that is on a disk, whose node is at the path `source`.
pub(crate) fn new_disk_filesystem(
    kind: &str,
    source: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Error> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", source)?;
        for (key, value) in options {
            match *value {
                "" => fsconfig_set_flag(&context, *key)?,
                value => fsconfig_set_string(&context, *key, value)?,
            }
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().tried(format_args!("making a file system of type {kind}"))
}

/// Makes a second mount of what `source` refers to, not attached anywhere yet.
pub(crate) fn new_bind(source: impl AsFd, attributes: MountAttrFlags) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(source, "", flags).tried("making a bind mount")?;
    set_attributes(
        &tree,
        attributes,
        AtFlags::from_bits_retain(libc::AT_RECURSIVE.cast_unsigned()),
    )?;
    Ok(tree)
}

/// Adds attributes to a mount.
pub(crate) fn set_attributes(
    mount: impl AsFd,
    attributes: MountAttrFlags,
    flags: AtFlags,
) -> Result<(), Error> {
    if attributes.is_empty() {
        return Ok(());
    }
    let request = libc::mount_attr {
        attr_set: attributes.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is an empty C string, and `request` with its size a mount_attr; the kernel
    // only reads both.
    checked(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH.cast_unsigned() | flags.bits(),
            &raw const request,
            size_of_val(&request),
        )
    })
    .tried("restricting a mount")?;
    Ok(())
}

/// Attaches a mount on top of what `target` refers to.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags).tried("attaching a mount")
}
