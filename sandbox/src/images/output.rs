//! A directory that a user wants written, whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Why a directory can't be written. The words are rkt's.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It is there, and should not be replaced.
    #[error("output directory exists (try --overwrite)")]
    Exists,
    /// It is `/`.
    #[error("this would delete your root filesystem. Refusing.")]
    Root,
    /// The system refuses.
    #[error("error {action} output directory {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A directory beside the one that is wanted. It takes its place when it is finished, and is
/// removed when it is given up.
#[derive(Debug)]
pub struct OutputDirectory {
    wanted: PathBuf,
    overwrite: bool,
    /// `None` when all of it has been moved to its place.
    staging: Option<PathBuf>,
}

impl OutputDirectory {
    /// Looks whether the directory may be written, and makes one beside it.
    ///
    /// # Errors
    /// See [`OutputError`].
    pub fn prepare(wanted: &Path, overwrite: bool) -> Result<Self, OutputError> {
        let failed = |action| {
            let path = wanted.to_owned();
            move |error| OutputError::Io { action, path, error }
        };
        let there = match wanted.symlink_metadata() {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed("looking at")(error)),
        };
        if there && !overwrite {
            return Err(OutputError::Exists);
        }
        if there && wanted.canonicalize().is_ok_and(|path| path.parent().is_none()) {
            return Err(OutputError::Root);
        }
        let wanted = std::path::absolute(wanted).map_err(failed("resolving"))?;
        let (Some(parent), Some(name)) = (wanted.parent(), wanted.file_name()) else {
            return Err(OutputError::Root);
        };
        fs::create_dir_all(parent).map_err(failed("making"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", uuid::Uuid::new_v4()));
        let staging = parent.join(hidden);
        // What is in it is nobody's business until it has its own mode.
        fs::DirBuilder::new().mode(0o700).create(&staging).map_err(failed("making"))?;
        Ok(Self { wanted, overwrite, staging: Some(staging) })
    }

    /// Where to write until all of it is there.
    pub fn path(&self) -> &Path {
        self.staging.as_deref().unwrap_or(&self.wanted)
    }

    /// Moves it, or with `part` only that of it, to its place, in the place of what is there.
    ///
    /// # Errors
    /// See [`OutputError`].
    pub fn finish(mut self, part: Option<&str>) -> Result<(), OutputError> {
        let failed = |action| {
            let path = self.wanted.clone();
            move |error| OutputError::Io { action, path, error }
        };
        if self.overwrite {
            remove(&self.wanted).map_err(failed("removing existing"))?;
        }
        let finished = match part {
            Some(part) => self.path().join(part),
            None => self.path().to_owned(),
        };
        fs::rename(&finished, &self.wanted).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory => OutputError::Exists,
            _ => failed("making")(error),
        })?;
        if part.is_none() {
            self.staging = None;
        }
        Ok(())
    }
}

impl Drop for OutputDirectory {
    fn drop(&mut self) {
        if let Some(staging) = &self.staging {
            // What can't be removed is in a directory whose name says where it came from.
            let _ = fs::remove_dir_all(staging);
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("out");
        let output = OutputDirectory::prepare(&wanted, false).unwrap();
        fs::write(output.path().join("manifest"), "x").unwrap();
        assert!(!wanted.exists());
        drop(output);
        assert!(names(parent.path()).is_empty());
        let output = OutputDirectory::prepare(&wanted, false).unwrap();
        fs::write(output.path().join("manifest"), "x").unwrap();
        output.finish(None).unwrap();
        assert_eq!(names(parent.path()), ["out"]);
        assert_eq!(names(&wanted), ["manifest"]);
    }

    #[test]
    fn what_is_there_is_replaced_only_if_that_was_asked_for() {
        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("out");
        fs::create_dir(&wanted).unwrap();
        fs::write(wanted.join("old"), "x").unwrap();
        let error = OutputDirectory::prepare(&wanted, false).unwrap_err();
        assert_eq!(error.to_string(), "output directory exists (try --overwrite)");
        OutputDirectory::prepare(&wanted, true).unwrap().finish(None).unwrap();
        assert!(names(&wanted).is_empty());
        assert_eq!(names(parent.path()), ["out"]);
    }

    #[test]
    fn a_part_of_it_can_be_all_that_is_wanted() {
        let parent = tempfile::tempdir().unwrap();
        let wanted = parent.path().join("out");
        let output = OutputDirectory::prepare(&wanted, false).unwrap();
        fs::create_dir_all(output.path().join("rootfs/etc")).unwrap();
        fs::write(output.path().join("manifest"), "x").unwrap();
        output.finish(Some("rootfs")).unwrap();
        assert_eq!(names(parent.path()), ["out"]);
        assert_eq!(names(&wanted), ["etc"]);
    }

    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let precious = parent.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        let wanted = parent.path().join("out");
        std::os::unix::fs::symlink("precious", &wanted).unwrap();
        OutputDirectory::prepare(&wanted, true).unwrap().finish(None).unwrap();
        assert_eq!(names(&precious), ["file"]);
        assert!(wanted.is_dir() && !wanted.is_symlink());
    }

    #[test]
    fn the_root_is_refused_under_all_its_names() {
        for root in ["/", "//", "/tmp/..", "/.", "/proc/self/root"] {
            let error = OutputDirectory::prepare(Path::new(root), true).unwrap_err();
            assert!(matches!(error, OutputError::Root), "{root}: {error}");
            assert_eq!(
                error.to_string(),
                "this would delete your root filesystem. Refusing.",
                "{root}"
            );
        }
    }
}
