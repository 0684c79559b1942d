//! What the administrator has configured, in rkt's directories (rkt's `configuration.md`):
//!
//! ```text
//! /usr/lib/rkt/    --system-config   what packages bring
//! /etc/rkt/        --local-config    what the administrator says; over the former
//! DIR/             --user-config     what a user says; over both
//!     paths.d/*.json  stage1.d/*.json  auth.d/*.json  trustedkeys/
//! ```

mod credentials;
mod files;

#[cfg(test)]
mod tests;

pub use credentials::Credentials;
use files::{Entry, entries};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The directories that are looked through, from the weakest to the strongest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// `--system-config`
    pub system: PathBuf,
    /// `--local-config`
    pub local: PathBuf,
    /// `--user-config`
    pub user: Option<PathBuf>,
}

impl Directories {
    /// All of them, from the weakest to the strongest.
    pub fn in_order(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.system), Some(&self.local), self.user.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// A configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("configuration file {}: {problem}", path.display())]
pub struct SettingsError {
    /// The file or folder.
    path: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What the parser says is not shown: it may quote a secret.
    #[error(
        "not JSON of the form that rkt's configuration.md describes, at line {line}, column {column}"
    )]
    Json { line: usize, column: usize },
    #[error("{0}")]
    Value(String),
}

/// Where things are (`paths.d`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// The data directory.
    #[serde(default)]
    pub data: String,
    /// Where rkt looks for images of its stage1; kept for [`Paths`] to be shown in full.
    #[serde(default, rename = "stage1-images")]
    pub stage1_images: String,
}

/// rkt's default stage1 (`stage1.d`), of use to rkt alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage1 {
    /// Name of its image.
    #[serde(default)]
    pub name: String,
    /// Version of its image.
    #[serde(default)]
    pub version: String,
    /// Where it can be fetched from.
    #[serde(default)]
    pub location: String,
}

/// What is configured, without [`Credentials`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `paths.d`
    pub paths: Paths,
    /// `stage1.d`
    pub stage1: Stage1,
}

impl Settings {
    /// Reads the configuration files. What a stronger directory says wins.
    ///
    /// # Errors
    /// The first file that can't be used, and the same thing said twice within one directory.
    pub fn load(directories: &Directories) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        for directory in directories.in_order() {
            let mut paths = Paths::default();
            for entry in entries(&directory.join("paths.d"), "paths")? {
                add_paths(&mut paths, &entry)?;
            }
            let mut stage1 = None;
            for entry in entries(&directory.join("stage1.d"), "stage1")? {
                let found: Stage1 = entry.parse()?;
                if stage1.replace(found).is_some() {
                    return Err(entry.wrong("name and version of a stage1 are already specified"));
                }
            }
            settings.merge(paths, stage1);
        }
        Ok(settings)
    }

    fn merge(&mut self, paths: Paths, stage1: Option<Stage1>) {
        let own = &mut self.paths;
        for (own, stronger) in
            [(&mut own.data, paths.data), (&mut own.stage1_images, paths.stage1_images)]
        {
            if !stronger.is_empty() {
                *own = stronger;
            }
        }
        if let Some(stage1) = stage1 {
            if !stage1.name.is_empty() {
                self.stage1.name = stage1.name;
                self.stage1.version = stage1.version;
            }
            if !stage1.location.is_empty() {
                self.stage1.location = stage1.location;
            }
        }
    }
}

fn add_paths(paths: &mut Paths, entry: &Entry) -> Result<(), SettingsError> {
    let found: Paths = entry.parse()?;
    for (own, found, what) in [
        (&mut paths.data, found.data, "data directory"),
        (&mut paths.stage1_images, found.stage1_images, "stage1 images directory"),
    ] {
        if found.is_empty() {
            continue;
        }
        if !own.is_empty() {
            return Err(entry.wrong(format!("{what} is already specified")));
        }
        if !found.starts_with('/') {
            return Err(entry.wrong(format!("{what} must be an absolute path")));
        }
        *own = found;
    }
    Ok(())
}
