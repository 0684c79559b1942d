//! Files that decide about launches: read only if nobody else can have written them, or can have
//! put them where they are, or out of the way.

use rustix::{
    fs::{FileType, Mode, OFlags, Stat, fstat, lstat, open},
    io::Errno,
    process::geteuid,
};
use sandbox_image::Text;
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
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

/// The most symbolic links on the way to a file, as the kernel has it.
const MAX_LINKS: usize = 40;

/// The content of a file of at most `limit` bytes; nothing if there is no file. The file and all
/// that leads to it have to be safe, see [`locate`].
pub(crate) fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, SourceError> {
    let system = |error: Errno| SourceError::new(path, io::Error::from(error).to_string());
    let Some(real) = locate(path)? else { return Ok(None) };
    // Never waits for the other end of a pipe. The way has been looked at, so there is no link.
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let file = match open(&real, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(system(error)),
    };
    let found = fstat(&file).map_err(system)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(SourceError::new(path, "is not a regular file"));
    }
    check_owner(&real, &found)?;
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

/// The names in a directory, sorted; none if there is no directory. All that leads to it has to be
/// safe, see [`locate`], and nobody else may add to it.
pub(crate) fn list(path: &Path) -> Result<Vec<OsString>, SourceError> {
    let failed = |error: io::Error| SourceError::new(path, error.to_string());
    let Some(real) = locate(path)? else { return Ok(Vec::new()) };
    let found = lstat(&real).map_err(|error| failed(error.into()))?;
    // What is in such a directory as /tmp may be safe, but not that it is all.
    if is_writable(&found) {
        return Err(writable(&real));
    }
    let mut names = fs::read_dir(&real)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    names.sort();
    Ok(names)
}

/// Where a path leads, if there is anything: the way that the kernel takes, step by step from the
/// root, symbolic links included. Nothing on it may be another's to change: whoever can rename a
/// directory on the way decides what is read, and that nothing is.
///
/// A link is as safe as the directory that it is in. In a directory like /tmp, where all may write
/// but only owners may rename, what lies there is as safe as it is by itself, so that each step is
/// looked at for itself.
fn locate(path: &Path) -> Result<Option<PathBuf>, SourceError> {
    let failed = |path: &Path, error: io::Error| SourceError::new(path, error.to_string());
    let path = std::path::absolute(path).map_err(|error| failed(path, error))?;
    let mut real = PathBuf::from("/");
    let mut is_directory = true;
    let mut links = 0;
    let mut steps: Vec<OsString> = Vec::new();
    let ahead = |path: &Path, steps: &mut Vec<OsString>| {
        // The next one is the last of the list.
        steps.extend(path.components().rev().map(|step| step.as_os_str().to_owned()));
    };
    ahead(&path, &mut steps);
    while let Some(step) = steps.pop() {
        if !is_directory {
            return Err(failed(&real, Errno::NOTDIR.into()));
        }
        let next = match step.to_str() {
            Some("/") => PathBuf::from("/"),
            Some(".") => continue,
            // What is above has been looked at on the way here.
            Some("..") => {
                real.pop();
                continue;
            }
            _ => real.join(step),
        };
        let found = match lstat(&next) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(&next, error.into())),
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        check_owner(&next, &found)?;
        if kind == FileType::Symlink {
            links += 1;
            if links > MAX_LINKS {
                return Err(failed(&path, Errno::LOOP.into()));
            }
            let target = fs::read_link(&next).map_err(|error| failed(&next, error))?;
            ahead(&target, &mut steps);
            continue;
        }
        is_directory = kind == FileType::Directory;
        real = next;
    }
    Ok(Some(real))
}

/// Refuses what somebody else can change.
fn check_owner(path: &Path, found: &Stat) -> Result<(), SourceError> {
    if found.st_uid != 0 && found.st_uid != geteuid().as_raw() {
        let problem = format!(
            "belongs to user {}, and what decides about launches has to belong to root, and so all \
             that leads to it; use chown",
            found.st_uid
        );
        return Err(SourceError::new(path, problem));
    }
    let is_sticky = FileType::from_raw_mode(found.st_mode) == FileType::Directory
        && Mode::from_raw_mode(found.st_mode).contains(Mode::SVTX);
    if is_writable(found) && !is_sticky {
        return Err(writable(path));
    }
    Ok(())
}

/// Whether others than the owner may write. A link says that all may, and means nothing.
fn is_writable(found: &Stat) -> bool {
    FileType::from_raw_mode(found.st_mode) != FileType::Symlink
        && Mode::from_raw_mode(found.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}

fn writable(path: &Path) -> SourceError {
    let problem = "others than its owner may write to it, and so decide about launches; use chmod \
                   go-w";
    SourceError::new(path, problem)
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
        for mode in [0o777, 0o770, 0o1777] {
            chmod(folder.path(), mode);
            assert!(list(folder.path()).is_err(), "directory {mode:o}");
        }
    }

    #[test]
    fn all_that_leads_to_a_file_is_safe() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        let below = top.join("middle/below");
        let (path, missing) = (below.join("a"), below.join("none/b"));
        fs::create_dir_all(&below).unwrap();
        fs::write(&path, "1234").unwrap();
        let outcomes =
            || [read(&path, 4).is_ok(), read(&missing, 4).is_ok(), list(&missing).is_ok()];
        for directory in [folder.path(), &top, &top.join("middle"), &below] {
            for (mode, fine) in [(0o777, false), (0o775, false), (0o1777, true), (0o755, true)] {
                chmod(directory, mode);
                // That there is nothing says something, too: somebody may have moved it.
                assert_eq!(outcomes(), [fine; 3], "{} {mode:o}", directory.display());
            }
        }
        chmod(&top, 0o777);
        let error = read(&path, 4).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: others", top.display())), "{error}");
        if geteuid().is_root() {
            chmod(&top, 0o755);
            std::os::unix::fs::chown(&top, Some(4711), None).unwrap();
            let error = read(&path, 4).unwrap_err().to_string();
            assert!(error.contains("belongs to user 4711"), "{error}");
        }
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
    fn links_are_followed_where_nobody_else_can_change_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["real/deep", "links"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fs::write(at("real/deep/a"), "1234").unwrap();
        symlink("../real/../real/deep", at("links/relative")).unwrap();
        symlink(at("links/relative"), at("links/absolute")).unwrap();
        symlink("loop", at("links/loop")).unwrap();
        symlink("nothing", at("links/dangling")).unwrap();
        for name in ["relative", "absolute", "absolute/../deep", "./relative"] {
            let path = at("links").join(name);
            assert_eq!(list(&path).unwrap(), ["a"], "{name}");
            assert_eq!(read(&path.join("a"), 4).unwrap().unwrap(), b"1234", "{name}");
        }
        assert!(list(&at("links/loop")).is_err());
        assert_eq!(read(&at("links/dangling"), 4).unwrap(), None);
        assert!(read(&at("real/deep/a/b"), 4).is_err());
        // Where the link is counts as much as where it leads to.
        for directory in ["links", "real"] {
            chmod(&at(directory), 0o777);
            assert!(read(&at("links/absolute/a"), 4).is_err(), "{directory}");
            chmod(&at(directory), 0o755);
        }
        // Another's link in a directory like /tmp.
        chmod(&at("links"), 0o1777);
        read(&at("links/absolute/a"), 4).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::lchown(at("links/relative"), Some(4711), None).unwrap();
            assert!(read(&at("links/absolute/a"), 4).is_err());
        }
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
