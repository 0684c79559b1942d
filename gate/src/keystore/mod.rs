//! The keys that App Container Images are trusted by, where rkt keeps them:
//!
//! ```text
//! {/usr/lib/rkt,/etc/rkt}/trustedkeys/root.d/FINGERPRINT             for all images
//! {/usr/lib/rkt,/etc/rkt}/trustedkeys/prefix.d/NAME…/FINGERPRINT     for NAME, and names below it
//! ```
//!
//! The first directory is the system's, which packages write to; the second one is this machine's.
//! An empty file in the second takes back the key of the same scope and name in the first. A file
//! holds one public key, and has its fingerprint for a name. Anything else in these directories is
//! an error: a key that was meant to be there, or to be gone, would not be noticed. In rkt it is
//! one for all images; here it refuses those that the key could have decided about.
//!
//! Other than in rkt, a prefix stands for whole components: a key for `example.com/fo` says nothing
//! about `example.com/foo`.

mod files;

use crate::{
    SourceError, instant,
    openpgp::{self, OpenPgpError},
    policy::{is_ac_identifier, prefixes},
};
use files::{Entry, What};
use sandbox_image::Text;
use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

pub use crate::openpgp::Certificate as Key;

/// What a key is trusted for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// All images.
    Root,
    /// Images of this name, and of names below it.
    Prefix(String),
}

impl Scope {
    /// Whether an image of this name is in it.
    pub fn holds(&self, name: &str) -> bool {
        match self {
            Self::Root => true,
            Self::Prefix(prefix) => prefixes(name).any(|parent| parent == prefix),
        }
    }
}

/// Where a key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// In the system's directory.
    System,
    /// In this machine's directory.
    Local,
}

/// A key as it is kept.
#[derive(Debug, Clone)]
pub struct TrustedKey {
    /// What it is trusted for.
    pub scope: Scope,
    /// Its fingerprint in lower-case hexadecimal digits; of a broken file its name.
    pub fingerprint: String,
    /// Its file.
    pub path: PathBuf,
    /// Which directory that is in.
    pub layer: Layer,
    /// It is the system's, and the machine has taken it back.
    pub masked: bool,
    /// Why nothing that it signs counts now, if so; or what is wrong with the file, so that no image
    /// runs that it could be about.
    pub problem: Option<String>,
    /// Whose key it is, by its own account. Not escaped.
    pub identities: Vec<String>,
}

/// What was done to trust a key no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// What it was trusted for.
    pub scope: Scope,
    /// The file that was removed or written.
    pub path: PathBuf,
    /// The key is the system's: an empty file takes it back.
    pub masked: bool,
}

/// Keys can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// A file or directory can't be read, or others can write to it.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no key where one should be.
    #[error("no OpenPGP key: {0}")]
    Key(#[from] OpenPgpError),
    /// A file is not what it has to be.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: Text,
        /// What is wrong with it.
        problem: String,
    },
    /// A prefix that is no beginning of a name.
    #[error(
        "'{0}' is not the beginning of an image's name: it consists of lower-case letters and \
         digits, with single '-', '.', '_', '~' or '/' between them"
    )]
    Prefix(Text),
    /// A key can't be written or removed.
    #[error("cannot change {path}: {error}")]
    Write {
        /// The file.
        path: Text,
        /// What the system says.
        error: io::Error,
    },
}

/// A key that is trusted, and for what.
#[derive(Debug, Clone)]
pub(crate) struct Trusted {
    pub scope: Scope,
    pub path: PathBuf,
    pub key: Key,
}

/// A file that is no key, and what it may have been meant for.
#[derive(Debug)]
pub(crate) struct Broken {
    pub scope: Scope,
    /// What is wrong with it, with its path.
    pub problem: String,
}

/// All of the directories at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// The keys that count: one for each scope and fingerprint, those that are taken back excepted.
    pub keys: Vec<Trusted>,
    /// What can't be used; but not what the machine has taken back.
    pub broken: Vec<Broken>,
    /// All that was read, in a fixed order; nothing of a file that can't be.
    pub files: Vec<(PathBuf, Option<Vec<u8>>)>,
}

/// Reads all keys of a file, armored or binary; there is at least one.
///
/// # Errors
/// If there is none, or anything else.
pub fn parse(bytes: &[u8]) -> Result<Vec<Key>, KeystoreError> {
    Ok(openpgp::parse(bytes)?)
}

/// A fingerprint as rkt shows it for review: `8B86 DE38 890D DB72 9186  7B02 5210 BD88 8818 2190`.
pub fn spaced(fingerprint: &str) -> String {
    let letters: Vec<char> = fingerprint.to_ascii_uppercase().chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|group| group.iter().collect()).collect();
    let (one, other) = groups.split_at(groups.len() / 2);
    format!("{}  {}", one.join(" "), other.join(" "))
}

/// The directories of trusted keys.
#[derive(Debug)]
pub struct Keystore {
    system: PathBuf,
    local: PathBuf,
}

impl Keystore {
    /// The directories `trustedkeys` of rkt's configuration of the system and of this machine.
    pub fn new(system_config: &Path, local_config: &Path) -> Self {
        let below = |directory: &Path| directory.join("trustedkeys");
        Self { system: below(system_config), local: below(local_config) }
    }

    /// Trusts a key for images, and says where it was written. One that was taken back is trusted
    /// again.
    ///
    /// # Errors
    /// [`KeystoreError::Prefix`] and [`KeystoreError::Write`]
    pub fn add(&self, scope: &Scope, key: &Key) -> Result<PathBuf, KeystoreError> {
        let path = self.place(scope, key.fingerprint())?;
        files::write(&path, key.armored().as_bytes())?;
        Ok(path)
    }

    /// Whether any key is trusted for images of this name. It may be one that counts no more.
    ///
    /// # Errors
    /// See [`KeystoreError`].
    pub fn has_keys_for(&self, name: &str) -> Result<bool, KeystoreError> {
        Ok(self.load()?.keys.iter().any(|trusted| trusted.scope.holds(name)))
    }

    /// All keys, also those that are taken back, and broken files.
    ///
    /// # Errors
    /// See [`KeystoreError`].
    pub fn list(&self) -> Result<Vec<TrustedKey>, KeystoreError> {
        let entries = self.entries()?;
        let now = instant::seconds(SystemTime::now());
        let mut keys = Vec::new();
        for entry in &entries {
            let (problem, identities) = match &entry.what {
                What::Mask => continue,
                What::Key(key) => (key.problem(now), key.identities()),
                What::Broken(problem) => (Some(format!("is broken: {problem}")), Vec::new()),
            };
            keys.push(TrustedKey {
                scope: entry.scope.clone(),
                fingerprint: entry.fingerprint.clone(),
                path: entry.path.clone(),
                layer: entry.layer,
                masked: is_masked(&entries, entry),
                problem,
                identities,
            });
        }
        Ok(keys)
    }

    /// Trusts a key no longer: for one scope, or for all; a broken file of that name is removed, too.
    /// The whole fingerprint has to be given, in lower case. Says what was done; nothing if the key was not trusted.
    ///
    /// # Errors
    /// See [`KeystoreError`].
    pub fn remove(
        &self,
        fingerprint: &str,
        scope: Option<&Scope>,
    ) -> Result<Vec<Removed>, KeystoreError> {
        let entries = self.entries()?;
        let is_meant = |entry: &&Entry| {
            entry.fingerprint == fingerprint && scope.is_none_or(|scope| *scope == entry.scope)
        };
        let counts =
            |entry: &&Entry| !matches!(entry.what, What::Mask) && !is_masked(&entries, entry);
        let mut removed: Vec<Removed> = Vec::new();
        // The machine's own come last, and need nothing if they cover one of the system's.
        for entry in entries.iter().filter(is_meant).filter(counts) {
            let masked = entry.layer == Layer::System;
            let path = match masked {
                true => self.place(&entry.scope, fingerprint)?,
                false => entry.path.clone(),
            };
            if removed.iter().any(|done| done.path == path) {
                continue;
            }
            if masked {
                files::write(&path, b"")?;
            } else {
                files::remove(&path)?;
            }
            removed.push(Removed { scope: entry.scope.clone(), path, masked });
        }
        Ok(removed)
    }

    pub(crate) fn load(&self) -> Result<Snapshot, KeystoreError> {
        let entries = self.entries()?;
        let (mut keys, mut broken): (Vec<Trusted>, _) = (Vec::new(), Vec::new());
        for entry in entries.iter().rev().filter(|entry| !is_masked(&entries, entry)) {
            let scope = entry.scope.clone();
            match &entry.what {
                What::Mask => {}
                What::Broken(problem) => broken.push(Broken { scope, problem: problem.clone() }),
                What::Key(key) => {
                    let is_there = |trusted: &Trusted| {
                        trusted.scope == scope && trusted.key.fingerprint() == entry.fingerprint
                    };
                    if !keys.iter().any(is_there) {
                        let path = entry.path.clone();
                        keys.push(Trusted { scope, path, key: Key::clone(key) });
                    }
                }
            }
        }
        let files = entries.into_iter().map(|entry| (entry.path, entry.content)).collect();
        Ok(Snapshot { keys, broken, files })
    }

    fn entries(&self) -> Result<Vec<Entry>, KeystoreError> {
        let mut entries = files::entries(&self.system, Layer::System)?;
        entries.extend(files::entries(&self.local, Layer::Local)?);
        Ok(entries)
    }

    /// Where this machine keeps a key.
    fn place(&self, scope: &Scope, fingerprint: &str) -> Result<PathBuf, KeystoreError> {
        let directory = match scope {
            Scope::Root => self.local.join(files::ROOT),
            Scope::Prefix(prefix) if is_ac_identifier(prefix) => {
                self.local.join(files::PREFIX).join(prefix)
            }
            Scope::Prefix(prefix) => return Err(KeystoreError::Prefix(Text::new(prefix))),
        };
        Ok(directory.join(fingerprint))
    }
}

/// Whether a key of the system's is taken back.
fn is_masked(entries: &[Entry], entry: &Entry) -> bool {
    entry.layer == Layer::System
        && entries.iter().any(|other| {
            other.layer == Layer::Local
                && matches!(other.what, What::Mask)
                && (&other.scope, &other.fingerprint) == (&entry.scope, &entry.fingerprint)
        })
}

#[cfg(test)]
mod tests;
