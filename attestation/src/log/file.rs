//! The file that a log is in.
//!
//! ```text
//! /var/lib/sandbox/attest/            0700
//! └── log/                            0700
//!     ├── <boot ID>.cel               0600, of this boot
//!     └── <boot ID>.cel               of an earlier one, until it is rotated out
//! ```
//!
//! Whoever uses a [`File`] holds the lock of the directory meanwhile.

use super::{
    Entry, Limits, LogError, Parsed, Stamp,
    parse::{Reader, Redacting},
};
use crate::{canonical::CanonicalError, record::Uuid};
use rustix::{
    fs::{
        AtFlags, Dir, FileType, Mode, OFlags, fstat, fsync, mkdir, mkdirat, open, openat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};
use sandbox_image::Text;
use std::{
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// How the name of a log ends.
const ENDING: &str = ".cel";

/// Bytes that are read at once.
const BUFFER: usize = 256 * 1024;

/// The log of one boot, open for appending.
#[derive(Debug)]
pub struct File {
    file: std::fs::File,
    /// The directory that it is in.
    folder: OwnedFd,
    name: String,
    path: PathBuf,
    /// How long it was when it was read or written last.
    length: u64,
}

/// A log can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {action} {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: Text,
        /// Why not.
        error: io::Error,
    },
    /// Others could change it.
    #[error("cannot trust {path}: {problem}; correct that, or move it away")]
    Insecure {
        /// What can't be trusted.
        path: Text,
        /// Why not.
        problem: &'static str,
    },
    /// Somebody wrote to it who doesn't respect the lock.
    #[error("{path} has {found} bytes where it had {expected}: something else writes to it")]
    Changed {
        /// The log.
        path: Text,
        /// Its length.
        found: u64,
        /// Its length before.
        expected: u64,
    },
    /// What is in it is not a log.
    #[error("cannot use {path}: {error}")]
    Log {
        /// The log.
        path: Text,
        /// What is wrong.
        error: LogError,
    },
    /// An entry can't be written.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
}

impl File {
    /// Opens the log of a boot below `directory`, or begins an empty one. Directories that are
    /// missing are made, but for the parent of `directory`. No symbolic link is followed from there
    /// on.
    ///
    /// # Errors
    /// See [`FileError`]: also where anybody but this user could have written.
    pub fn open(directory: &Path, boot: &Uuid) -> Result<Self, FileError> {
        let top = Self::top(directory)?;
        let path = directory.join("log");
        let folder = match openat(&top, "log", FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => {
                made(mkdirat(&top, "log", Mode::RWXU)).map_err(at("make", &path))?;
                fsync(&top).map_err(at("sync", directory))?;
                openat(&top, "log", FOLDER, Mode::empty())
            }
            result => result,
        };
        let folder = folder.map_err(at("open", &path))?;
        check(&folder, &path, FileType::Directory)?;
        let name = format!("{boot}{ENDING}");
        let path = path.join(&name);
        // Opening does not wait, should it be a pipe.
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let file = openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(at("open", &path))?;
        let length = check(&file, &path, FileType::RegularFile)?;
        if length == 0 {
            fsync(&folder).map_err(at("sync", &path))?;
        }
        Ok(Self { file: file.into(), folder, name, path, length })
    }

    fn top(directory: &Path) -> Result<OwnedFd, FileError> {
        let top = match open(directory, FOLDER, Mode::empty()) {
            Err(Errno::NOENT) => {
                made(mkdir(directory, Mode::RWXU)).map_err(at("make", directory))?;
                let parent = directory.parent().unwrap_or(Path::new("."));
                let parent = open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
                parent.and_then(fsync).map_err(at("sync the parent of", directory))?;
                open(directory, FOLDER, Mode::empty())
            }
            result => result,
        };
        let top = top.map_err(at("open", directory))?;
        check(&top, directory, FileType::Directory)?;
        Ok(top)
    }

    /// How it looks now, see [`super::Checkpoint`].
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn stamp(&self) -> Result<Stamp, FileError> {
        Stamp::of(&self.file).map_err(at("look at", &self.path))
    }

    /// The same; nothing if it could change without looking different.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn settled(&self) -> Result<Option<Stamp>, FileError> {
        Stamp::settled(&self.file).map_err(at("look at", &self.path))
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn read(&mut self, limits: &Limits) -> Result<Parsed, FileError> {
        let length = self.file.metadata().map_err(at("read", &self.path))?.len();
        let log = |error| FileError::Log { path: Text::of_os(&self.path), error };
        let mut reader = Reader::new(length, *limits).map_err(log)?;
        self.lines(length, limits, |line, last| reader.read(line, last))?;
        self.length = length;
        Ok(reader.finish())
    }

    /// What a pod's tenant may see of it, as [`super::redacted_for`] has it, and as lines. For a log
    /// that is known to agree with the PCR: contents of others are not looked at.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn redacted_for(&mut self, pod: &Uuid, limits: &Limits) -> Result<String, FileError> {
        let length = self.file.metadata().map_err(at("read", &self.path))?.len();
        let mut redacting = Redacting::new(pod);
        self.lines(length, limits, |line, _| redacting.read(line))?;
        Ok(redacting.text)
    }

    fn lines(
        &mut self,
        length: u64,
        limits: &Limits,
        mut each: impl FnMut(&[u8], bool) -> Result<(), LogError>,
    ) -> Result<(), FileError> {
        let io = at::<io::Error>("read", &self.path);
        let log = |error| FileError::Log { path: Text::of_os(&self.path), error };
        self.file.rewind().map_err(&io)?;
        // No more than was there: a length that grows meanwhile is found out when it is written to.
        let mut from = BufReader::with_capacity(BUFFER, (&self.file).take(length));
        let most = u64::try_from(limits.record).unwrap_or(u64::MAX).saturating_add(1);
        let mut line = Vec::new();
        loop {
            line.clear();
            if from.by_ref().take(most).read_until(b'\n', &mut line).map_err(&io)? == 0 {
                break;
            }
            let last = from.fill_buf().map_err(&io)?.is_empty();
            each(&line, last).map_err(log)?;
        }
        Ok(())
    }

    /// Appends an entry and syncs it to the disk. Only then the PCR may be extended.
    ///
    /// # Errors
    /// See [`FileError`]. The log is then as it was, or, where the disk fails altogether, has the
    /// entry or a part of it at its end, which [`super::recover`] finds.
    pub fn append(&mut self, entry: &Entry) -> Result<(), FileError> {
        let line = entry.to_json_seq()?;
        let found = self.file.metadata().map_err(at("read", &self.path))?.len();
        if found != self.length {
            let path = Text::of_os(&self.path);
            return Err(FileError::Changed { path, found, expected: self.length });
        }
        let written = match self.file.write(&line) {
            Ok(count) if count < line.len() => Err(io::ErrorKind::StorageFull.into()),
            result => result.map(drop),
        };
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Why it failed matters more than why it can't be taken back.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.sync_data());
            return Err(at("append to", &self.path)(error));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Cuts a torn record off, from the byte where [`Parsed::torn`] says it begins. By then the PCR
    /// was found to be as the entries before it say.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn cut(&mut self, torn: usize) -> Result<(), FileError> {
        let torn = (torn as u64).min(self.length);
        let cut = self.file.set_len(torn).and_then(|()| self.file.sync_data());
        cut.map_err(at("cut a torn record off", &self.path))?;
        self.length = torn;
        Ok(())
    }

    /// Removes the oldest logs of other boots until `keep` are left, this one included; how many.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn rotate(&self, keep: usize) -> Result<usize, FileError> {
        let io = at::<Errno>("rotate", &self.path);
        let mut others = Vec::new();
        for item in Dir::read_from(&self.folder).map_err(&io)? {
            let item = item.map_err(&io)?;
            let Ok(name) = item.file_name().to_str() else { continue };
            let boot = name.strip_suffix(ENDING).and_then(|boot| boot.parse::<Uuid>().ok());
            if boot.is_none() || name == self.name {
                continue;
            }
            let stat = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(&io)?;
            others.push((stat.st_mtime, stat.st_mtime_nsec, name.to_owned()));
        }
        others.sort_unstable();
        let extra = others.len().saturating_sub(keep.saturating_sub(1));
        for (_, _, name) in &others[..extra] {
            unlinkat(&self.folder, name.as_str(), AtFlags::empty()).map_err(&io)?;
        }
        Ok(extra)
    }
}

/// How a directory is opened: itself, not what it links to.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An error with what was tried.
fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl Fn(E) -> FileError {
    move |error| FileError::Io { action, path: Text::of_os(path), error: error.into() }
}

/// Somebody else may have been faster.
fn made(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Whether nobody but this user can write there; the length.
fn check(it: impl AsFd, path: &Path, expected: FileType) -> Result<u64, FileError> {
    let stat = fstat(it).map_err(at("look at", path))?;
    let problem = if FileType::from_raw_mode(stat.st_mode) != expected {
        Some("it is neither a file nor a directory, or the wrong of these")
    } else if stat.st_uid != geteuid().as_raw() {
        Some("it belongs to somebody else")
    } else if Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        Some("others may read or write it")
    } else if expected == FileType::RegularFile && stat.st_nlink != 1 {
        Some("it has another name, too")
    } else {
        None
    };
    match problem {
        Some(problem) => Err(FileError::Insecure { path: Text::of_os(path), problem }),
        None => Ok(u64::try_from(stat.st_size).unwrap_or_default()),
    }
}
