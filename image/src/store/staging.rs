//! Folders and locks of the store.

use crate::{Error, Text};
use rustix::{
    fd::OwnedFd,
    fs::{
        AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, open, openat,
        statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
    rand::{GetRandomFlags, getrandom},
};
use std::{
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
};

/// A folder in `tmp` that is removed with all that is in it when this value goes, unless it was
/// moved to another place. It is locked, so that nobody takes it for garbage meanwhile.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    name: String,
    folder: OwnedFd,
}

impl Staging {
    /// Makes a folder in `tmp`, which has this path.
    pub(super) fn new(tmp: &OwnedFd, path: &Path) -> Result<Self, Error> {
        let failed = |error: Errno| Error::io("make a folder in", path, error);
        loop {
            let name = random_name().map_err(failed)?;
            mkdirat(tmp, &name, Mode::RWXU).map_err(failed)?;
            match openat(tmp, &name, FOLDER, Mode::empty()) {
                Ok(folder) => {
                    lock(&folder).map_err(failed)?;
                    // Until it was locked it looked like garbage.
                    if is_linked(tmp, &name, &folder).map_err(failed)? {
                        return Ok(Self { path: path.join(&name), name, folder });
                    }
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes a file in the folder.
    pub(super) fn file(&self, name: &str) -> Result<File, Error> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(|error| Error::io("make a file in", &self.path, error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder with its shared lock, which stays as long as what is returned.
    pub(super) fn share(&self) -> rustix::io::Result<OwnedFd> {
        rustix::io::fcntl_dupfd_cloexec(&self.folder, 0)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing is there any more if the folder was moved. What can't be removed, gc will try.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// How folders are opened.
pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder, which is made if it is missing. It belongs to who runs this program and gives
/// nobody more than `mode`.
pub(super) fn open_owned(path: &Path, mode: Mode) -> Result<OwnedFd, Error> {
    let failed = |error: Errno| Error::io("open", path, error);
    match mkdirat(CWD, path, mode) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(Error::io("make directory", path, error)),
    }
    let folder = open(path, FOLDER, Mode::empty()).map_err(failed)?;
    let stat = fstat(&folder).map_err(failed)?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o777 & !mode.as_raw_mode() != 0 {
        return Err(Error::NotPrivate { path: Text::of_os(path), mode: mode.as_raw_mode() });
    }
    Ok(folder)
}

/// A new file without a name.
pub(super) fn temporary(tmp: &OwnedFd) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(tmp, ".", flags | OFlags::TMPFILE, mode) {
        // Some file systems don't have them.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let name = random_name()?;
            let file = openat(tmp, &name, flags | OFlags::CREATE | OFlags::NOFOLLOW, mode)?;
            match unlinkat(tmp, &name, AtFlags::empty()) {
                // Whoever removes what nobody has locked was faster.
                Ok(()) | Err(Errno::NOENT) => Ok(file.into()),
                Err(error) => Err(error),
            }
        }
        file => Ok(file?.into()),
    }
}

/// Takes a shared lock, and waits for it. It goes with the last copy of the file descriptor.
pub(super) fn lock(folder: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| flock(folder, FlockOperation::LockShared))
}

/// Takes an exclusive lock if nobody else has one.
pub(super) fn try_lock(folder: &OwnedFd) -> rustix::io::Result<bool> {
    match flock(folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes a shared lock if nobody has an exclusive one.
pub(super) fn try_lock_shared(folder: &OwnedFd) -> rustix::io::Result<bool> {
    match flock(folder, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the folder still has this name: it may have been moved or removed before its lock was
/// taken.
pub(super) fn is_linked(
    parent: &OwnedFd,
    name: &str,
    folder: &OwnedFd,
) -> rustix::io::Result<bool> {
    let own = fstat(folder)?;
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (own.st_dev, own.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what is in `tmp` and nobody has locked.
pub(super) fn collect(tmp: &OwnedFd, path: &Path) -> Result<usize, Error> {
    let mut removed = 0;
    for name in names(tmp, path)? {
        let path = path.join(&name);
        let failed = |error: Errno| Error::io("remove", &path, error);
        let folder = match openat(tmp, &name, FOLDER, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => continue,
            // A temporary file between being made and losing its name.
            Err(Errno::NOTDIR) => match unlinkat(tmp, &name, AtFlags::empty()) {
                Ok(()) => {
                    removed += 1;
                    continue;
                }
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            },
            Err(error) => return Err(failed(error)),
        };
        if try_lock(&folder).map_err(failed)? && is_linked(tmp, &name, &folder).map_err(failed)? {
            std::fs::remove_dir_all(&path).map_err(|error| Error::io("remove", &path, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The names in a folder of the store. Others than its own are left alone.
pub(super) fn names(folder: &OwnedFd, path: &Path) -> Result<Vec<String>, Error> {
    let failed = |error: Errno| Error::io("read directory", path, error);
    let mut names = Vec::new();
    for entry in Dir::read_from(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

pub(super) fn random_name() -> rustix::io::Result<String> {
    let mut bytes = [0; 16];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    }))
}
