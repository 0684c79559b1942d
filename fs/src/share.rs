//! What the worker is asked to serve: the `--share NAME=PATH[:OPTIONS]` arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Longest name of a directory entry, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// One directory or regular file of the host, served as one entry of the device's root directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    name: String,
    path: PathBuf,
    read_only: bool,
    recursive: bool,
}

/// Why a `--share` argument was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ShareError {
    /// There is no `=` in the argument.
    #[error("--share {0:?}: expected NAME=PATH[:ro]")]
    Syntax(OsString),
    /// The name isn't 1 to 255 letters, digits, `-`, `_` or `.`, or begins with `.`.
    #[error(
        "--share {0:?}: the name must be 1 to 255 letters, digits, '-', '_' or '.', \
         and may not begin with '.'"
    )]
    Name(OsString),
    /// The path isn't absolute, or holds a NUL byte.
    #[error("--share {0:?}: the path must be absolute")]
    Path(OsString),
}

impl Share {
    /// Reads `NAME=PATH[:OPTIONS]`, where OPTIONS is a comma-separated list of `ro` (read-only),
    /// `rw` (the default) and `norecursive` (leave out what is mounted below PATH).
    ///
    /// A colon that is followed by anything else belongs to the path, so a path that ends in `:ro`
    /// is written with an explicit `:rw`.
    ///
    /// # Errors
    /// [`ShareError`] names the argument and the form that was expected.
    pub fn parse(argument: &OsStr) -> Result<Self, ShareError> {
        let bytes = argument.as_bytes();
        let equals = bytes
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(|| ShareError::Syntax(argument.to_owned()))?;
        let name = std::str::from_utf8(&bytes[..equals])
            .ok()
            .filter(|name| is_share_name(name))
            .ok_or_else(|| ShareError::Name(argument.to_owned()))?;

        let mut share = Share {
            name: name.to_owned(),
            path: PathBuf::new(),
            read_only: false,
            recursive: true,
        };
        let rest = &bytes[equals + 1..];
        let path = match rest.iter().rposition(|byte| *byte == b':') {
            Some(colon) if share.take_options(&rest[colon + 1..]) => &rest[..colon],
            _ => rest,
        };
        if path.first() != Some(&b'/') || path.contains(&0) {
            return Err(ShareError::Path(argument.to_owned()));
        }
        share.path = PathBuf::from(OsStr::from_bytes(path));
        Ok(share)
    }

    /// Applies `options` if every one of them is known, else changes nothing.
    fn take_options(&mut self, options: &[u8]) -> bool {
        let (mut read_only, mut recursive) = (self.read_only, self.recursive);
        for option in options.split(|byte| *byte == b',') {
            match option {
                b"ro" => read_only = true,
                b"rw" => read_only = false,
                b"norecursive" => recursive = false,
                _ => return false,
            }
        }
        (self.read_only, self.recursive) = (read_only, recursive);
        true
    }

    /// Name of the entry in the device's root directory.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Absolute path on the host.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the kernel refuses every change through this share.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether file systems mounted below the path at start are served too.
    #[must_use]
    pub fn recursive(&self) -> bool {
        self.recursive
    }
}

fn is_share_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(argument: &str) -> Result<Share, ShareError> {
        Share::parse(OsStr::new(argument))
    }

    #[test]
    fn options_are_read_from_the_end_and_a_colon_in_the_path_stays() {
        let share = parse("root-app=/a:b/c:ro").unwrap();
        assert_eq!((share.name(), share.path()), ("root-app", Path::new("/a:b/c")));
        assert!(share.read_only() && share.recursive());

        let share = parse("volume-data=/strange:ro:rw").unwrap();
        assert_eq!((share.path(), share.read_only()), (Path::new("/strange:ro"), false));

        let share = parse("v=/data:ro,norecursive").unwrap();
        assert!(share.read_only() && !share.recursive());

        assert_eq!(parse("v=/data:rox").unwrap().path(), Path::new("/data:rox"));
    }

    #[test]
    fn a_name_that_could_leave_or_hide_in_the_root_is_refused() {
        for argument in ["=/a", ".=/a", "..=/a", ".hidden=/a", "a/b=/a", "a b=/a", "\u{e9}=/a"] {
            assert!(matches!(parse(argument), Err(ShareError::Name(_))), "{argument}");
        }
        assert!(parse(&format!("{}=/a", "n".repeat(255))).is_ok());
        assert!(parse(&format!("{}=/a", "n".repeat(256))).is_err());
    }

    #[test]
    fn a_relative_or_missing_path_is_refused() {
        for argument in ["v=", "v=data", "v=:ro", "v=./a"] {
            assert!(matches!(parse(argument), Err(ShareError::Path(_))), "{argument}");
        }
        assert!(matches!(parse("v"), Err(ShareError::Syntax(_))));
    }

    proptest! {
        #[test]
        fn no_argument_makes_the_parser_fail_in_another_way(bytes in any::<Vec<u8>>()) {
            if let Ok(share) = Share::parse(OsStr::from_bytes(&bytes)) {
                prop_assert!(share.path().is_absolute());
                prop_assert!(is_share_name(share.name()));
            }
        }
    }
}
