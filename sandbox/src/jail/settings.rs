//! `/etc/sandbox/jail.json`: what an administrator says about the jail.
//!
//! ```json
//! {"version": 1, "uids": {"first": 1900000000, "count": 65536}}
//! ```

use sandbox_image::Text;
use sandbox_spawn::User;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is there and can't be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what it should be.
        problem: String,
    },
    /// The range is used up.
    #[error(
        "pod number {number} of this host has no user: {} has only {count} of them in 'uids'; make \
         the range larger, or end other pods",
        Settings::PATH
    )]
    Range {
        /// The pod's number.
        number: u32,
        /// Users in the range.
        count: u32,
    },
}

/// The jail of a host's pods, as its administrator wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The form of the file, 1.
    pub version: u32,
    /// The users, and groups, that monitors are.
    #[serde(default)]
    pub uids: Range,
}

/// Consecutive numbers of users, each also that of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first one.
    pub first: u32,
    /// How many; one for each pod that runs at the same time.
    pub count: u32,
}

impl Default for Range {
    /// Where nobody else takes numbers from: above the users of systemd's containers (up to
    /// 1,879,048,191, systemd's UIDS-GIDS.md) and what `useradd` gives out for subuids (up to
    /// 600,100,000, login.defs(5)), and below 2^31, where some programs take numbers for negative.
    fn default() -> Self {
        Self { first: 1_900_000_000, count: 65_536 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { version: Self::VERSION, uids: Range::default() }
    }
}

impl Settings {
    /// Where the settings of a host are.
    pub const PATH: &str = "/etc/sandbox/jail.json";

    /// The form of the file that this program knows.
    const VERSION: u32 = 1;

    /// The most bytes of the file.
    const MAX: u64 = 64 << 10;

    /// Users below this one are the system's own, or people.
    const MIN_FIRST: u32 = 65_536;

    /// Reads the settings; without a file, they are the default.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let read = |error| SettingsError::Read { path: path.into(), error };
        let content = |problem| SettingsError::Content { path: path.into(), problem };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(read(error)),
        };
        let mut document = Vec::new();
        file.take(Self::MAX + 1).read_to_end(&mut document).map_err(read)?;
        if document.len() as u64 > Self::MAX {
            return Err(content(format!("it has more than {} bytes", Self::MAX)));
        }
        Self::parse(&document).map_err(content)
    }

    /// Parses the file's content and checks what it says.
    fn parse(document: &[u8]) -> Result<Self, String> {
        let settings: Self = serde_json::from_slice(document)
            .map_err(|error| Text::new(error.to_string()).to_string())?;
        let Self { version, uids: Range { first, count } } = settings;
        if version != Self::VERSION {
            return Err(format!("version {version} is not known, only {}", Self::VERSION));
        }
        if first < Self::MIN_FIRST {
            return Err(format!("uids.first: {first} is below {}", Self::MIN_FIRST));
        }
        // -1 is no user (setresuid(2)), and -2 is the one that overflows are.
        match count.checked_sub(1).and_then(|more| first.checked_add(more)) {
            Some(last) if last < u32::MAX - 1 => Ok(settings),
            _ => Err(format!("uids: {count} users from {first} on are none, or too many")),
        }
    }

    /// The user of the pod with this number.
    ///
    /// # Errors
    /// [`SettingsError::Range`]
    pub fn user(&self, number: u32) -> Result<User, SettingsError> {
        let Range { first, count } = self.uids;
        if number >= count {
            return Err(SettingsError::Range { number, count });
        }
        let id = first + number;
        Ok(User { uid: id, gid: id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_file_pods_have_users_that_nobody_else_has() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings::load(&directory.path().join("none")).unwrap();
        assert_eq!(settings.user(0).unwrap(), User { uid: 1_900_000_000, gid: 1_900_000_000 });
        assert_eq!(settings.user(65_535).unwrap().uid, 1_900_065_535);
        let error = settings.user(65_536).unwrap_err().to_string();
        assert!(error.contains("only 65536"), "{error}");
    }

    #[test]
    fn a_file_says_other_ones() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jail.json");
        std::fs::write(&path, r#"{"version":1,"uids":{"first":100000,"count":2}}"#).unwrap();
        let settings = Settings::load(&path).unwrap();
        assert_eq!(settings.user(1).unwrap(), User { uid: 100_001, gid: 100_001 });
        assert!(settings.user(2).is_err());
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (document, complaint) in [
            (r#"{"version":2}"#, "version 2 is not known"),
            (r#"{"version":1,"uids":{"first":0,"count":1}}"#, "below 65536"),
            (r#"{"version":1,"uids":{"first":65536,"count":0}}"#, "0 users"),
            (r#"{"version":1,"uids":{"first":4294967290,"count":6}}"#, "too many"),
            (r#"{"version":1,"uids":{"first":65536}}"#, "missing field"),
            (r#"{"version":1,"gids":{}}"#, "unknown field"),
            (r#"{"version":1,"version":1}"#, "duplicate field"),
            ("", "EOF"),
        ] {
            let error = Settings::parse(document.as_bytes()).unwrap_err();
            assert!(error.contains(complaint), "{document}: {error}");
        }
    }

    proptest! {
        #[test]
        fn two_numbers_are_two_users_and_none_is_of_the_system(
            first: u32, count: u32, one: u32, other: u32,
        ) {
            let document = format!(r#"{{"version":1,"uids":{{"first":{first},"count":{count}}}}}"#);
            if let Ok(settings) = Settings::parse(document.as_bytes()) {
                let users = [one, other].map(|number| settings.user(number % count).unwrap());
                prop_assert!(users.iter().all(|user| user.uid >= 65_536 && user.uid < u32::MAX - 1));
                prop_assert_eq!(users[0] == users[1], one % count == other % count);
            }
        }
    }
}
