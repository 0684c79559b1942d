//! Files that decide about launches: read only if nobody else can have written them.

use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fstat, open, stat},
    io::Errno,
    process::geteuid,
};
use sandbox_image::Text;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

/// A file that decides about launches can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct SourceError {
    path: Text,
    problem: String,
}

impl SourceError {
    pub(crate) fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: Text::of_os(path), problem: problem.into() }
    }
}

/// The content of a file of at most `limit` bytes; nothing if there is no file. A symbolic link is
/// followed; the directory in which the file is named has to be as safe as the file.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, SourceError> {
    let system = |error: Errno| SourceError::new(path, io::Error::from(error).to_string());
    // Never waits for the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(system(error)),
    };
    let found = fstat(&file).map_err(system)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(SourceError::new(path, "is not a regular file"));
    }
    check_owner(path, &found, false)?;
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        check_owner(directory, &stat(directory).map_err(system)?, true)?;
    }
    let mut content = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most)
        .read_to_end(&mut content)
        .map_err(|error| SourceError::new(path, error.to_string()))?;
    if content.len() > limit {
        return Err(SourceError::new(path, format!("has more than {limit} bytes")));
    }
    Ok(Some(content))
}

/// The names in a directory, sorted; none if there is no directory.
pub(crate) fn list(path: &Path) -> Result<Vec<OsString>, SourceError> {
    let failed = |error: io::Error| SourceError::new(path, error.to_string());
    let found = match stat(path) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error.into())),
    };
    check_owner(path, &found, true)?;
    let mut names = fs::read_dir(path)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    names.sort();
    Ok(names)
}

/// Refuses what somebody else can change. In a directory like /tmp, where all may write but only
/// owners may rename, a file is as safe as it is by itself.
fn check_owner(path: &Path, found: &Stat, directory: bool) -> Result<(), SourceError> {
    if found.st_uid != 0 && found.st_uid != geteuid().as_raw() {
        let problem = format!(
            "belongs to user {}, and what decides about launches has to belong to root; use chown",
            found.st_uid
        );
        return Err(SourceError::new(path, problem));
    }
    let mode = Mode::from_raw_mode(found.st_mode);
    let sticky = directory && mode.contains(Mode::SVTX);
    if mode.intersects(Mode::WGRP | Mode::WOTH) && !sticky {
        let problem = "others than its owner may write to it, and so decide about launches; use \
                       chmod go-w";
        return Err(SourceError::new(path, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert_eq!(read(&path, 4).unwrap(), None);
        fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap().unwrap(), b"1234");
        assert!(read(&path, 3).unwrap_err().to_string().contains("more than 3 bytes"));
    }

    #[test]
    fn what_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "1234").unwrap();
        for mode in [0o664, 0o646, 0o620] {
            chmod(&path, mode);
            assert!(read(&path, 4).unwrap_err().to_string().contains("chmod go-w"), "{mode:o}");
        }
        chmod(&path, 0o644);
        for (mode, fine) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true)] {
            chmod(folder.path(), mode);
            assert_eq!(read(&path, 4).is_ok(), fine, "directory {mode:o}");
        }
        chmod(folder.path(), 0o777);
        assert!(list(folder.path()).is_err());
    }

    #[test]
    fn a_symbolic_link_leads_to_a_file_that_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "1234").unwrap();
        symlink(&path, &link).unwrap();
        assert!(read(&link, 4).is_ok());
        chmod(&path, 0o666);
        assert!(read(&link, 4).is_err());
    }

    #[test]
    fn only_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path(), 4).unwrap_err().to_string().contains("regular"));
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(read(&pipe, 4).unwrap_err().to_string().contains("regular"));
    }

    #[test]
    fn names_are_sorted_and_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(list(&folder.path().join("none")).unwrap().is_empty());
        for name in ["b", "a", "c"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(list(folder.path()).unwrap(), ["a", "b", "c"]);
    }
}
