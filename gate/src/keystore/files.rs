//! The files of keys.

use super::{Key, KeystoreError, Layer, Scope, parse};
use crate::{policy::is_ac_identifier, source};
use sandbox_image::Text;
use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

/// Keys for all images.
pub(super) const ROOT: &str = "root.d";
/// Keys for those below a name.
pub(super) const PREFIX: &str = "prefix.d";

/// What the name of a file begins with that is not whole yet.
const NEW: &[u8] = b".new-";

/// The most bytes that the file of a key may have.
const MAX: usize = 1024 * 1024;
/// The most files and directories, in each of the two places.
const MAX_ENTRIES: usize = 10_000;

/// A file.
#[derive(Debug)]
pub(super) struct Entry {
    pub layer: Layer,
    pub scope: Scope,
    /// The file's name.
    pub fingerprint: String,
    pub path: PathBuf,
    /// Nothing, if it can't be read.
    pub content: Option<Vec<u8>>,
    pub what: What,
}

/// What a file is.
#[derive(Debug)]
pub(super) enum What {
    Key(Box<Key>),
    /// It is empty, and takes a key back.
    Mask,
    /// Neither; what is wrong, with the path. It may have been meant for any key of its scope.
    Broken(String),
}

fn wrong(path: &Path, problem: impl Into<String>) -> KeystoreError {
    KeystoreError::File { path: Text::of_os(path), problem: problem.into() }
}

/// All files in a directory `trustedkeys`, in a fixed order. What should not be there is broken, in
/// the scope of the directory that it is in.
///
/// # Errors
/// If a directory can't be read, or others can write to it: what is in it is not known then.
pub(super) fn entries(directory: &Path, layer: Layer) -> Result<Vec<Entry>, KeystoreError> {
    let mut entries = Vec::new();
    let mut count = 0;
    // Names come with their directories, so that this is no recursion.
    let mut waiting =
        vec![(directory.join(PREFIX), None), (directory.join(ROOT), Some(Scope::Root))];
    while let Some((directory, scope)) = waiting.pop() {
        for name in source::list(&directory)? {
            // Somebody writes a key just now, or fell while doing so.
            if name.as_bytes().starts_with(NEW) {
                continue;
            }
            count += 1;
            if count > MAX_ENTRIES {
                return Err(wrong(&directory, format!("there are more than {MAX_ENTRIES} files")));
            }
            let path = directory.join(&name);
            let name = name.to_str().unwrap_or_default();
            let is_directory = fs::metadata(&path).is_ok_and(|found| found.is_dir());
            let parent = match &scope {
                Some(Scope::Prefix(parent)) => Some(parent),
                _ => None,
            };
            // What is right in prefix.d is for no name, and may have been meant for any.
            let here = || scope.clone().unwrap_or(Scope::Root);
            if is_directory && scope != Some(Scope::Root) {
                let prefix =
                    parent.map_or_else(|| name.to_owned(), |parent| format!("{parent}/{name}"));
                if is_ac_identifier(&prefix) {
                    waiting.push((path, Some(Scope::Prefix(prefix))));
                } else {
                    let problem = "the directory is not the beginning of a name";
                    entries.push(misplaced(layer, here(), path, problem));
                }
                continue;
            }
            entries.push(match &scope {
                Some(scope) if is_fingerprint(name) => read(layer, scope.clone(), name, path),
                _ => {
                    let problem = "only keys belong here: files with a fingerprint for a name, in \
                                   lower case, in root.d or below a name in prefix.d";
                    misplaced(layer, here(), path, problem)
                }
            });
        }
    }
    Ok(entries)
}

fn misplaced(layer: Layer, scope: Scope, path: PathBuf, problem: &str) -> Entry {
    let name = path.file_name().map(Text::of_os).map(|name| name.to_string());
    let what = What::Broken(wrong(&path, problem).to_string());
    Entry { layer, scope, fingerprint: name.unwrap_or_default(), path, content: None, what }
}

fn is_fingerprint(name: &str) -> bool {
    matches!(name.len(), 40 | 64)
        && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read(layer: Layer, scope: Scope, name: &str, path: PathBuf) -> Entry {
    let (content, what) = match source::read(&path, MAX) {
        Err(error) => (None, What::Broken(error.to_string())),
        Ok(None) => (None, What::Broken(wrong(&path, "is listed and can't be found").to_string())),
        Ok(Some(content)) if content.is_empty() => (Some(content), What::Mask),
        Ok(Some(content)) => {
            let what = match key(&content, name) {
                Ok(key) => What::Key(Box::new(key)),
                Err(problem) => What::Broken(wrong(&path, problem).to_string()),
            };
            (Some(content), what)
        }
    };
    Entry { layer, scope, fingerprint: name.to_owned(), path, content, what }
}

/// The one key of a file with that name.
fn key(content: &[u8], name: &str) -> Result<Key, String> {
    let mut keys = parse(content).map_err(|error| error.to_string())?;
    let (Some(key), true) = (keys.pop(), keys.is_empty()) else {
        return Err("has to hold exactly one key".to_owned());
    };
    if key.fingerprint() != name {
        return Err(format!("holds another key than its name says: {}", key.fingerprint()));
    }
    Ok(key)
}

/// Writes a file so that it is there whole or not at all.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), KeystoreError> {
    let failed = |error| KeystoreError::Write { path: Text::of_os(path), error };
    let directory = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
    let write = || -> io::Result<()> {
        let prefix = OsStr::from_bytes(NEW);
        let mut file = tempfile::Builder::new().prefix(prefix).tempfile_in(directory)?;
        file.write_all(content)?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(failed)
}

/// Removes a file, and lasts.
pub(super) fn remove(path: &Path) -> Result<(), KeystoreError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::remove_file(path)
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|error| KeystoreError::Write { path: Text::of_os(path), error })
}
