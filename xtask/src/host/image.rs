//! The test host's kernel and root file system, made once from `tests/host/`.

use crate::cache::{self, Key};
use crate::debian;
use crate::step::step;
use crate::workspace;
use anyhow::Result;
use std::path::PathBuf;

/// What the root file system is made from; the other files of `tests/host/` come in with each run.
const RECIPE: &[&str] = &["build", "first", "login.cil", "packages"];

/// The directory with `vmlinuz` and `root.ext4`.
pub fn image() -> Result<PathBuf> {
    let recipe = workspace::root().join("tests/host");
    let mut key = Key::default();
    for name in RECIPE {
        key = key.text(name).path(&recipe.join(name))?;
    }
    cache::entry("host", &key, |directory| {
        step("building the test host's root file system (download; 2 minutes, once)", || {
            debian::build(&recipe, directory)
        })
    })
}
