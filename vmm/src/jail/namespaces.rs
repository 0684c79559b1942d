//! The namespaces that the process was started in, made as empty as they can be. What is in them
//! after that: one process, no file, no network interface that is up, no name of the host.

use super::{JailError, failed};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

/// Takes away the host's root directory, its name, and namespaces of more users.
pub fn empty() -> Result<(), JailError> {
    // In the host's own mount namespace the host would lose its root directory.
    if rustix::process::getpid() != rustix::process::Pid::INIT {
        return Err(JailError::NotAlone);
    }
    forbid_user_namespaces()?;
    rustix::system::sethostname(b"sandbox").map_err(failed("forget the host's name"))?;
    leave_root()
}

/// Who makes a user namespace has all capabilities in it again, and the kernel's code that asks for
/// them in reach. The limit is this namespace's own (namespaces(7)).
fn forbid_user_namespaces() -> Result<(), JailError> {
    const STEP: &str = "forbid user namespaces (/proc/sys/user/max_user_namespaces)";
    let path = c"/proc/sys/user/max_user_namespaces";
    let file = match rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        // A kernel without them, of which we are in none.
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(failed(STEP)(error)),
    };
    rustix::io::write(&file, b"0\n").map(drop).map_err(failed(STEP))
}

/// Moves to an empty root directory that can't be written to, and lets go of the old one with all
/// that is mounted in it.
fn leave_root() -> Result<(), JailError> {
    let step = |error: Errno| failed("move to an empty root directory")(error);
    let context = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(step)?;
    for (option, value) in [(c"mode", c"0555"), (c"size", c"4k"), (c"nr_inodes", c"2")] {
        fsconfig_set_string(&context, option, value).map_err(step)?;
    }
    fsconfig_create(&context).map_err(step)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(step)?;
    move_mount(&root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(step)?;
    rustix::process::fchdir(&root).map_err(step)?;
    // With both arguments alike the old root ends up stacked on the new one, where it is unmounted
    // (pivot_root(2)).
    rustix::process::pivot_root(c".", c".").map_err(step)?;
    unmount(c".", UnmountFlags::DETACH).map_err(step)?;
    rustix::process::chdir(c"/").map_err(step)
}
