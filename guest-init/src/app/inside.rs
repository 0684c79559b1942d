//! Paths inside the root of an app. The image is hostile: a symbolic link in it may say anything,
//! and none may lead out. All resolution is the kernel's own (openat2(2), `RESOLVE_IN_ROOT`).

use crate::error::{Error, Tried};
use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The kernel answers `EAGAIN` when something is renamed meanwhile, which another app may do on a
/// volume that both have.
const ATTEMPTS: usize = 16;

/// Opens a path, with `root` as `/` for every component of it.
pub(crate) fn open(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mode = if flags.contains(OFlags::CREATE) { 0o644 } else { 0 };
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        result = openat2(root, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), resolve);
        if !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    result
}

/// Opens a directory of `root` itself that the kernel's file systems are to be mounted on. It is
/// made if it is missing; an image that has something else there is refused.
pub(crate) fn own_directory(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Error> {
    match mkdirat(root, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).tried(format_args!("making /{name}")),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(root, name, flags, Mode::empty())
        .tried(format_args!("the image's /{name} has to be a directory or missing"))
}

/// Opens a directory, and makes what is missing of its path.
pub(crate) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Error> {
    let path = checked(path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    match open(root, path, flags) {
        Err(Errno::NOENT) => {}
        result => return result.tried(Directory(path)),
    }
    let mut deepest = open(root, b"/", flags).tried(Directory(b"/"))?;
    for (end, component) in components(path) {
        deepest = match open(root, &path[..end], flags) {
            Err(Errno::NOENT) => {
                let mode = Mode::from_raw_mode(0o755);
                match mkdirat(&deepest, component, mode) {
                    // Somebody else made it, or it is a link to nowhere; opening it tells.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error).tried(Directory(path)),
                }
                open(root, &path[..end], flags).tried(Directory(path))?
            }
            result => result.tried(Directory(path))?,
        };
    }
    Ok(deepest)
}

/// Opens a file as a place to mount on, and makes it, empty, with what is missing of its path.
pub(crate) fn file(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Error> {
    let path = checked(path)?;
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        result => return result.tried(Directory(path)),
    }
    if let Some((_, name)) = components(path).last() {
        directory(root, &path[..path.len() - name.len()])?;
    }
    open(root, path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL).tried(Directory(path))?;
    open(root, path, OFlags::PATH).tried(Directory(path))
}

/// A path that is absolute, has no `..`, and no slashes at its end.
fn checked(path: &[u8]) -> Result<&[u8], Error> {
    if !path.starts_with(b"/") || components(path).any(|(_, component)| component == b"..") {
        return Err(Error::Refused(format!(
            "the path {} has to start with / and to be without ..",
            String::from_utf8_lossy(path)
        )));
    }
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
    Ok(&path[..end])
}

/// The components of a path, each with the offset of its end.
fn components(path: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut end = 0;
    path.split(|byte| *byte == b'/').filter_map(move |component| {
        let at = end + component.len();
        end = at + 1;
        (!component.is_empty()).then_some((at, component))
    })
}

/// Says which path was tried.
struct Directory<'a>(&'a [u8]);

impl std::fmt::Display for Directory<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} in the image", String::from_utf8_lossy(self.0))
    }
}

/// Whether a file belongs to the kernel's own trees.
pub(crate) fn is_kernels(file: impl AsFd) -> Result<bool, Error> {
    let kind = rustix::fs::fstatfs(file).tried("asking for the type of a file system")?.f_type;
    Ok([libc::PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&kind))
}

/// `SYSFS_MAGIC` of linux/magic.h.
const SYSFS_MAGIC: libc::c_long = 0x6265_6572;

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
