//! The directory of the host's log and keys, and the lock that makes one process at a time use it.

use super::watch::Watch;
use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, open, openat, renameat,
        unlinkat,
    },
    process::geteuid,
};
use sandbox_attestation::session::{Failure, FailureKind};
use sandbox_image::Text;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

/// The most bytes of a file with keys, or with what is known of the log.
const MAX: u64 = 1 << 20;

/// The directory, and the turn: while it is held, no other process uses log or TPM.
#[derive(Debug)]
pub(super) struct Turn {
    path: PathBuf,
    directory: OwnedFd,
    _lock: OwnedFd,
}

impl Turn {
    /// Opens the directory, which is made if it is not there, and waits for the turn.
    pub(super) fn wait(path: &Path, watch: &Watch) -> Result<Self, Failure> {
        watch.step("wait for other launches");
        let failed = |action: &str, error: io::Error| failed(path, action, &error);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("create", error))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let directory =
            open(path, flags, Mode::empty()).map_err(|error| failed("open", error.into()))?;
        let stat = fstat(&directory).map_err(|error| failed("look at", error.into()))?;
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(Failure::new(
                FailureKind::Storage,
                format!(
                    "{} is not this user's alone, so that others could change the log: its mode \
                     should be 0700, and is {:04o}, and its owner {}",
                    Text::of_os(path),
                    stat.st_mode & 0o7777,
                    stat.st_uid
                ),
            ));
        }
        let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDWR;
        let lock = openat(&directory, "lock", flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed("lock", error.into()))?;
        loop {
            match flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed("lock", error.into())),
            }
        }
        watch.turn_came();
        Ok(Self { path: path.into(), directory, _lock: lock })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a document; `None` where it is not there.
    pub(super) fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let failed = |error: io::Error| failed(&self.path.join(name), "read", &error);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::RDONLY;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        let stat = fstat(&file).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        let mut document = Vec::new();
        File::from(file).take(MAX).read_to_end(&mut document).map_err(failed)?;
        let value = serde_json::from_slice(&document).map_err(|error| failed(error.into()))?;
        Ok(Some(value))
    }

    /// Puts a document in the place of the one that is there, if any, for good.
    pub(super) fn save(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        let failed = |error: io::Error| failed(&self.path.join(name), "write", &error);
        let new = format!("{name}.new");
        let flags =
            OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        let file = openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|error| failed(error.into()))?;
        let mut document = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
        document.push(b'\n');
        let mut file = File::from(file);
        file.write_all(&document).and_then(|()| file.sync_all()).map_err(failed)?;
        renameat(&self.directory, &new, &self.directory, name)
            .and_then(|()| rustix::fs::fsync(&self.directory))
            .map_err(|error| failed(error.into()))
    }

    /// The same for one that costs only time if it is lost: it is replaced in one step, and the disk
    /// is not waited for.
    pub(super) fn keep(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let new = format!("{name}.new");
        let flags =
            OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        let file = openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(file).write_all(&serde_json::to_vec(value)?)?;
        Ok(renameat(&self.directory, &new, &self.directory, name)?)
    }

    /// Removes a document, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), Failure> {
        match unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(failed(&self.path.join(name), "remove", &error.into())),
        }
    }
}

fn failed(path: &Path, action: &str, error: &io::Error) -> Failure {
    let message = format!("cannot {action} {}: {error}", Text::of_os(path));
    Failure::new(FailureKind::Storage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_attestation::session::Patience;
    use std::os::unix::{fs::PermissionsExt as _, net::UnixStream};

    fn watch() -> (Watch, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Watch::start(ours, Patience::default()).unwrap(), theirs)
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let (watch, _socket) = watch();
        let path = place.path().join("attest");
        drop(Turn::wait(&path, &watch).unwrap());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let failure = Turn::wait(&path, &watch).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Storage);
        assert!(failure.message.contains("0755"), "{failure}");
    }

    #[test]
    fn documents_are_replaced_and_removed() {
        let place = tempfile::tempdir().unwrap();
        let (watch, _socket) = watch();
        let turn = Turn::wait(&place.path().join("attest"), &watch).unwrap();
        assert_eq!(turn.load::<u32>("it").unwrap(), None);
        turn.save("it", &1).unwrap();
        turn.save("it", &2).unwrap();
        assert_eq!(turn.load::<u32>("it").unwrap(), Some(2));
        turn.remove("it").unwrap();
        turn.remove("it").unwrap();
        assert_eq!(turn.load::<u32>("it").unwrap(), None);
        std::os::unix::fs::symlink("/etc/hostname", turn.path().join("link")).unwrap();
        assert_eq!(turn.load::<u32>("link").unwrap_err().kind, FailureKind::Storage);
    }
}
