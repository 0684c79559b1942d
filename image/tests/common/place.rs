//! A directory to put images in, and a store to load them into.

use super::walk;
use sandbox_image::{Error, Image, Limits, Reference, Store};
use std::path::Path;
use tempfile::TempDir;

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
    ) -> Result<(Image, Vec<String>), Error> {
        let reference = reference.replace('@', self.path().to_str().unwrap());
        let reference = Reference::parse(reference.as_ref()).unwrap();
        let store = self.store();
        let image = store.image(&reference, limits, &mut ())?;
        let tree = store.tree(&image, limits, &mut ())?;
        let files = walk(tree.rootfs()).into_keys().filter(|path| !path.is_empty());
        Ok((image, files.map(|path| String::from_utf8(path).unwrap()).collect()))
    }

    /// Opens and unpacks; `@` in the reference is this directory.
    #[track_caller]
    pub fn load(&self, reference: &str) -> (Image, Vec<String>) {
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
        for folder in ["data/cas/tmp", "data/cas/tree"] {
            let left = walk(&self.path().join(folder));
            assert_eq!(left.len(), 1, "left in {folder}: {:?}", left.keys());
        }
    }
}
