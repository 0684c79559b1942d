//! What takes long to make and depends only on known input is kept in a cache outside `target`:
//! `$XDG_CACHE_HOME/sandbox`, else `~/.cache/sandbox`. An entry is a directory whose name ends in
//! the hash of everything that it was made from; it is made once and never changed.

use crate::command;
use crate::step::note;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// So many hexadecimal digits of the hash are in an entry's name.
const KEY_LENGTH: usize = 16;

/// An entry that was last used so long ago is removed when one of the same name is made.
const UNUSED: Duration = Duration::from_secs(14 * 24 * 3600);

/// The hash of what an entry is made from.
#[derive(Clone, Debug, Default)]
pub struct Key(Sha256);

impl Key {
    /// With this text, for example a version or a command line.
    pub fn text(mut self, text: &str) -> Self {
        self.add(text.as_bytes());
        self
    }

    /// With this file's content, or with each file's name and content if it is a directory.
    pub fn path(mut self, path: &Path) -> Result<Self> {
        self.add_path(path).with_context(|| path.display().to_string())?;
        Ok(self)
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn add_path(&mut self, path: &Path) -> Result<()> {
        if !path.is_dir() {
            self.add(&fs::read(path)?);
            return Ok(());
        }
        let mut names = fs::read_dir(path)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<Vec<_>, std::io::Error>>()?;
        names.sort();
        for name in names {
            self.add(name.as_encoded_bytes());
            self.add_path(&path.join(name))?;
        }
        Ok(())
    }

    fn name(&self) -> String {
        let mut name: String =
            self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        name.truncate(KEY_LENGTH);
        name
    }
}

/// The directory `NAME-KEY` of the cache. If it isn't there, `make` fills a new directory, which
/// becomes the entry only when `make` succeeded: a run that is cut off leaves none. If another
/// process is making an entry of that name, this one waits for it.
pub fn entry(name: &str, key: &Key, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = root()?;
    let entry = root.join(format!("{name}-{}", key.name()));
    if !entry.is_dir() {
        let _lock = lock(&root.join(format!("{name}.lock")))?;
        if !entry.is_dir() {
            let unfinished = root.join(format!("{name}.unfinished"));
            remove(&unfinished)?;
            fs::create_dir(&unfinished)?;
            make(&unfinished)?;
            fs::rename(&unfinished, &entry)?;
            remove_unused(&root, name)?;
        }
    }
    // The time of the last use.
    File::open(&entry)?.set_modified(SystemTime::now())?;
    Ok(entry)
}

/// Removes entries of that name, made from other input, that nobody has used for a while.
fn remove_unused(root: &Path, name: &str) -> Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let key = file_name.to_str().and_then(|entry| entry.strip_prefix(name)?.strip_prefix('-'));
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if key.is_some_and(|key| key.len() == KEY_LENGTH) && age > UNUSED {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a directory, if it is there. Recipes run as root, so its files may be root's.
fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        command::output(command::as_root("rm").args(["-rf", "--"]).arg(directory))?;
    }
    Ok(())
}

/// The cache's directory.
pub fn root() -> Result<PathBuf> {
    let parent = match std::env::var_os("XDG_CACHE_HOME") {
        Some(path) if Path::new(&path).is_absolute() => PathBuf::from(path),
        _ => std::env::home_dir()
            .context("no home directory for the cache: set HOME")?
            .join(".cache"),
    };
    let root = parent.join("sandbox");
    fs::create_dir_all(&root).with_context(|| format!("creating the cache {root:?}"))?;
    Ok(root)
}

/// Waits for the lock and holds it until the file is dropped.
pub fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            note(format!("waiting for another cargo xtask that holds {}", path.display()));
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(file)
}
