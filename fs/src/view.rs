//! The worker's view of the host: its shares and nothing else.
//!
//! [`enter`] moves the process into namespaces of its own whose root is a read-only tmpfs. Each
//! share is a private bind mount on an entry of that tmpfs, so a share's edge is a mount boundary:
//! the kernel answers `EXDEV` to a rename or a hard link across it, `..` stops at it, and a
//! read-only share is read-only whatever the worker tries.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;
use thiserror::Error;

use crate::share::Share;

/// File systems that are doors into the host's kernel rather than places for files: a share that
/// holds one would let the guest turn the host's switches with the worker's uid.
const KERNEL_INTERFACES: [&str; 24] = [
    "autofs",
    "binder",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// Why the view could not be built.
#[derive(Debug, Error)]
pub enum ViewError {
    /// The namespaces need CAP_SYS_ADMIN.
    #[error(
        "cannot create namespaces: run as root (CAP_SYS_ADMIN); \
         unprivileged operation is not supported yet"
    )]
    Privilege(#[source] io::Error),
    /// A step of the set-up that concerns no single share.
    #[error("cannot {step}")]
    Setup {
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A step of the set-up of one share.
    #[error("share {name}: cannot {step} {}", path.display())]
    Share {
        /// The share's name.
        name: String,
        /// The share's path on the host.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The path names something that is neither a directory nor a regular file.
    #[error(
        "share {name}: {} is a {kind}; only a directory or a regular file can be shared{}",
        path.display(),
        if *kind == "symbolic link" { ": name its target" } else { "" }
    )]
    Kind {
        /// The share's name.
        name: String,
        /// The share's path on the host.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A kernel interface is mounted at or below the share.
    #[error(
        "{mount_point}: a file system of type {fs_type} is mounted there, which gives access to \
         the host's kernel; share a directory without it, or add the option norecursive"
    )]
    KernelInterface {
        /// Where, as seen by the guest: `/NAME` or below.
        mount_point: String,
        /// The type of the file system.
        fs_type: String,
    },
}

/// What stays open of the host besides the shares.
#[derive(Debug)]
pub struct View {
    /// `/proc/self/fd` as a mount of its own that is attached nowhere: nothing above it can be
    /// reached from it.
    pub proc_self_fd: File,
}

/// Moves the process into its own mount, IPC, UTS, network and cgroup namespaces, with `shares` as
/// the entries of the root directory.
///
/// The process must have one thread. The PID namespace is not made here, which would need a second
/// process: the supervisor starts this one in one of its own.
///
/// # Errors
/// [`ViewError`]; the process is then of no use and must exit.
pub fn enter(shares: &[Share]) -> Result<View, ViewError> {
    // The host's root then, where the attacker has put directories of the shares' names.
    #[cfg(feature = "hostile")]
    if !sandbox_hostile::layers::has("namespaces") {
        let proc_self_fd = File::open("/proc/self/fd")
            .map_err(|error| ViewError::Setup { step: "open /proc/self/fd", source: error })?;
        return Ok(View { proc_self_fd });
    }
    let namespaces = UnshareFlags::NEWNS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWCGROUP;
    // SAFETY: the process has one thread, so no other can observe the changed file descriptor table
    // or working directory (and neither is unshared here).
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
        .map_err(|error| ViewError::Privilege(error.into()))?;
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(setup("make the mounts private"))?;

    let open_tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let proc_self_fd = rustix::mount::open_tree(CWD, c"/proc/self/fd", open_tree)
        .map_err(setup("clone /proc/self/fd (is /proc mounted?)"))?;
    let proc_self = rustix::fs::open(
        c"/proc/self",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(setup("open /proc/self"))?;

    let root = new_root()?;
    for share in shares {
        attach(share, &root)?;
    }
    let locked = MountAttrFlags::MOUNT_ATTR_RDONLY | inert();
    set_mount_attributes(root.as_fd(), locked, AtFlags::empty())
        .map_err(setup("make the root read-only"))?;
    switch_root(&root)?;

    refuse_kernel_interfaces(&proc_self)?;
    Ok(View { proc_self_fd: File::from(proc_self_fd) })
}

/// Attributes of every mount of the view. None of them reaches the guest: it runs programs, opens
/// devices and follows symbolic links by its own kernel's rules.
fn inert() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW
}

/// A tmpfs, mounted over `/`, where it hides nothing: the process's root stays what it was.
fn new_root() -> Result<OwnedFd, ViewError> {
    let step = setup("mount a tmpfs");
    let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(&step)?;
    rustix::mount::fsconfig_set_string(&context, c"mode", c"0755").map_err(&step)?;
    rustix::mount::fsconfig_create(&context).map_err(&step)?;
    let root =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, inert()).map_err(&step)?;
    rustix::mount::move_mount(&root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(&step)?;
    Ok(root)
}

/// Binds `share` on an entry of `root`.
fn attach(share: &Share, root: &OwnedFd) -> Result<(), ViewError> {
    let failed = |step| {
        move |error: rustix::io::Errno| ViewError::Share {
            name: share.name().to_owned(),
            path: share.path().to_owned(),
            step,
            source: error.into(),
        }
    };
    let source = rustix::fs::openat2(
        CWD,
        share.path(),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        // It had none when it was decided about.
        ResolveFlags::NO_SYMLINKS,
    )
    .map_err(failed("open"))?;

    let stat = rustix::fs::fstat(&source).map_err(failed("examine"))?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(root, share.name(), Mode::from_raw_mode(0o755))
                .map_err(failed("make the mount point of"))?;
            None
        }
        FileType::RegularFile => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(root, share.name(), flags, Mode::from_raw_mode(0o644))
                .map_err(failed("make the mount point of"))?;
            None
        }
        FileType::Symlink => Some("symbolic link"),
        FileType::Fifo => Some("FIFO"),
        FileType::Socket => Some("socket"),
        FileType::BlockDevice => Some("block device"),
        FileType::CharacterDevice => Some("character device"),
        FileType::Unknown => Some("file of unknown type"),
    };
    if let Some(kind) = kind {
        let (name, path) = (share.name().to_owned(), share.path().to_owned());
        return Err(ViewError::Kind { name, path, kind });
    }

    let (mut clone, mut depth) = (
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
        AtFlags::empty(),
    );
    if share.recursive() {
        clone |= OpenTreeFlags::AT_RECURSIVE;
        depth |= AtFlags::from_bits_retain(RECURSIVE);
    }
    let tree =
        rustix::mount::open_tree(&source, c"", clone).map_err(failed("clone the mount of"))?;
    let mut attributes = inert();
    if share.read_only() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    set_mount_attributes(tree.as_fd(), attributes, depth)
        .map_err(failed("set the mount attributes of"))?;
    rustix::mount::move_mount(
        &tree,
        c"",
        root,
        share.name(),
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(failed("attach"))
}

/// Makes `root` the root directory and lets go of the old one.
fn switch_root(root: &OwnedFd) -> Result<(), ViewError> {
    let step = setup("switch to the new root");
    rustix::process::fchdir(root).map_err(&step)?;
    // With both arguments alike the old root ends up stacked on the new one, where it is unmounted.
    rustix::process::pivot_root(c".", c".").map_err(&step)?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).map_err(&step)?;
    rustix::process::chdir(c"/").map_err(&step)
}

/// Reads the mount table of the finished view.
fn refuse_kernel_interfaces(proc_self: &OwnedFd) -> Result<(), ViewError> {
    let mut table = String::new();
    rustix::fs::openat(proc_self, c"mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|file| File::from(file).read_to_string(&mut table))
        .map_err(|source| ViewError::Setup { step: "read /proc/self/mountinfo", source })?;
    match table.lines().find_map(kernel_interface) {
        None => Ok(()),
        Some((mount_point, fs_type)) => Err(ViewError::KernelInterface {
            mount_point: mount_point.to_owned(),
            fs_type: fs_type.to_owned(),
        }),
    }
}

/// Mount point and type of a line of mountinfo (proc_pid_mountinfo(5)) if the type is one of
/// [`KERNEL_INTERFACES`].
fn kernel_interface(line: &str) -> Option<(&str, &str)> {
    let (mount, source) = line.split_once(" - ")?;
    let fs_type = source.split(' ').next()?;
    let mount_point = mount.split(' ').nth(4)?;
    KERNEL_INTERFACES.contains(&fs_type).then_some((mount_point, fs_type))
}

fn setup(step: &'static str) -> impl Fn(rustix::io::Errno) -> ViewError {
    move |error| ViewError::Setup { step, source: error.into() }
}

/// `AT_RECURSIVE` of mount_setattr(2).
const RECURSIVE: u32 = 0x8000;

/// mount_setattr(2), which rustix doesn't wrap: sets `attributes` on the mount `mount` refers to,
/// and on those below it with [`RECURSIVE`].
fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    depth: AtFlags,
) -> Result<(), rustix::io::Errno> {
    let path: &CStr = c"";
    let argument = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is NUL-terminated and the size passed is that of the structure, which the
    // kernel only reads; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            (AtFlags::EMPTY_PATH | depth).bits(),
            &raw const argument,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL))
}
