//! A directory to put images in, and a store to load them into with the real confined process.
#![allow(dead_code, reason = "each test uses a part")]

use super::common::walk;
use sandbox_image::{Error, FetchOptions, Limits, Progress, Reference, Store, StoredImage};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The program that is tested.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_sandbox-fetch").into()
}

/// Brings an image into a store, without asking anybody.
pub fn load(
    store: &Store,
    reference: &str,
    limits: &Limits,
    progress: &mut dyn Progress,
) -> Result<StoredImage, Error> {
    let reference = Reference::parse(reference.as_ref()).unwrap();
    let options = FetchOptions { limits: limits.clone(), ..FetchOptions::new(program()) };
    store.fetch(&reference, &options, progress)?.commit(progress)
}

/// An image's files, in a directory that goes with this value.
pub struct Files(TempDir);

impl Files {
    pub fn of(image: &StoredImage) -> Self {
        let directory = tempfile::tempdir().unwrap();
        image.unpack(&program(), directory.path(), false, &mut ()).unwrap();
        Self(directory)
    }

    pub fn rootfs(&self) -> PathBuf {
        self.0.path().join("rootfs")
    }

    pub fn walk(&self) -> BTreeMap<Vec<u8>, super::common::Found> {
        walk(&self.rootfs())
    }
}

/// A directory with a store in `data`.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn store(&self) -> Store {
        Store::open(&self.path().join("data")).unwrap()
    }

    pub fn load_with(
        &self,
        reference: &str,
        limits: &Limits,
    ) -> Result<(StoredImage, Vec<String>), Error> {
        let reference = reference.replace('@', self.path().to_str().unwrap());
        let image = load(&self.store(), &reference, limits, &mut ())?;
        let files = Files::of(&image).walk().into_keys().filter(|path| !path.is_empty());
        let files = files.map(|path| String::from_utf8(path).unwrap()).collect();
        Ok((image, files))
    }

    /// Fetches and unpacks; `@` in the reference is this directory.
    #[track_caller]
    pub fn load(&self, reference: &str) -> (StoredImage, Vec<String>) {
        self.load_with(reference, &Limits::default()).unwrap()
    }

    /// It is refused for this reason, and nothing is left behind.
    #[track_caller]
    pub fn check_refused(&self, reference: &str, problem: &str) {
        self.check_refused_with(reference, &Limits::default(), problem);
    }

    #[track_caller]
    pub fn check_refused_with(&self, reference: &str, limits: &Limits, problem: &str) {
        let error = self.load_with(reference, limits).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(!error.chars().any(char::is_control), "{error:?}");
        assert!(error.len() < 1500, "{error}");
        assert_nothing_left(&self.path().join("data"));
    }
}

/// Nothing of any image is in the store.
#[track_caller]
pub fn assert_nothing_left(data: &Path) {
    for folder in ["tmp", "image", "part", "blob", "imageManifest", "ref"] {
        let left = walk(&data.join("cas").join(folder));
        assert_eq!(left.len(), 1, "left in {folder}: {:?}", left.keys());
    }
}
