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
    pub content: Vec<u8>,
    /// Nothing, if it is empty and takes a key back.
    pub key: Option<Key>,
}

fn wrong(path: &Path, problem: impl Into<String>) -> KeystoreError {
    KeystoreError::File { path: Text::of_os(path), problem: problem.into() }
}

/// All files in a directory `trustedkeys`, in a fixed order.
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
            if is_directory && scope != Some(Scope::Root) {
                let prefix =
                    parent.map_or_else(|| name.to_owned(), |parent| format!("{parent}/{name}"));
                if !is_ac_identifier(&prefix) {
                    return Err(wrong(&path, "the directory is not the beginning of a name"));
                }
                waiting.push((path, Some(Scope::Prefix(prefix))));
                continue;
            }
            match &scope {
                Some(scope) if is_fingerprint(name) => {
                    entries.push(read(layer, scope.clone(), name, path)?);
                }
                _ => {
                    let problem = "only keys belong here: files with a fingerprint for a name, in \
                                   lower case, in root.d or below a name in prefix.d";
                    return Err(wrong(&path, problem));
                }
            }
        }
    }
    Ok(entries)
}

fn is_fingerprint(name: &str) -> bool {
    matches!(name.len(), 40 | 64)
        && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn read(layer: Layer, scope: Scope, name: &str, path: PathBuf) -> Result<Entry, KeystoreError> {
    let content =
        source::read(&path, MAX)?.ok_or_else(|| wrong(&path, "is listed and can't be found"))?;
    let mut key = None;
    if !content.is_empty() {
        let mut keys = parse(&content).map_err(|error| wrong(&path, error.to_string()))?;
        let (Some(one), true) = (keys.pop(), keys.is_empty()) else {
            return Err(wrong(&path, "has to hold exactly one key"));
        };
        if one.fingerprint() != name {
            let problem = format!("holds another key than its name says: {}", one.fingerprint());
            return Err(wrong(&path, problem));
        }
        key = Some(one);
    }
    Ok(Entry { layer, scope, fingerprint: name.to_owned(), path, content, key })
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
