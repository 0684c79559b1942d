//! The virtio-fs worker: serves shares of the host to one virtual machine, over vhost-user.
//!
//! A worker serves one device. Each share is an entry of the device's root directory, either a
//! directory or a single file, announced to the guest as a mount of its own.
//!
//! The `virtiofsd` crate is the file server. What is added here is confinement, and its order is
//! the point ([`worker::run`]):
//!
//! 1. nothing inherited stays open but the listening socket and standard error ([`confine`]);
//! 2. the process moves into namespaces whose root directory holds the shares only ([`view`]);
//! 3. privileges are dropped to what a file server needs ([`confine`]);
//! 4. system calls are limited to those it makes ([`filter`]);
//! 5. only then does the worker accept its one frontend and read what a guest wrote ([`device`]),
//!    and every request passes [`guard`] before it reaches the file server.
//!
//! The worker has one thread and ends when its frontend hangs up.
//!
//! # What the guest sees
//!
//! - The root directory is read-only and holds one entry per share. The guest mounts the tag without
//!   `ro`: the mounts below inherit that flag from it, and a read-only share is read-only anyway.
//! - A directory share is a mount point that the guest's kernel mounts when something in it is
//!   looked up, with a `st_dev` of its own. An overlay file system refuses (`EINVAL`) a lower
//!   directory that is not mounted yet, so open the directory first.
//! - Hard links, renames, extended attributes (`user.*` and `security.capability`), holes, `mmap`
//!   and names of any bytes behave as on the host. Locks work among the processes of the guest;
//!   the host and other guests don't see them. `O_TMPFILE` and POSIX access control lists answer
//!   `EOPNOTSUPP`.
//! - Names and attributes are trusted for a second. File contents are read anew at each open on a
//!   writable share; on a read-only share they stay cached until size or time of the file change.
//! - A guest makes no device nodes, and opens none through a share. It does make files of any owner
//!   and mode, set-user-ID programs among them: a directory that is shared writable should not be
//!   reachable for other users of the host.
//!
//! # What the host provides
//!
//! Linux 5.12 or later, root, `/proc`. The worker belongs into the cgroup of its pod: it is charged
//! for the page cache, the inodes and the guest memory it touches first. Guest memory is a memfd,
//! which gets huge pages only if `/sys/kernel/mm/transparent_hugepage/shmem_enabled` allows it
//! (`advise`, with `MADV_HUGEPAGE` in the monitor; the default is `never`).

pub mod confine;
pub mod device;
pub mod diagnostics;
pub mod filter;
pub mod footprint;
pub mod guard;
#[cfg(feature = "hostile")]
pub mod hostile;
pub mod share;
pub mod view;
pub mod worker;
