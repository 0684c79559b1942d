//! The images that tests and demo run, made from `tests/debian/`.

use crate::cache::{self, Key};
use crate::debian;
use crate::packages;
use crate::step::step;
use crate::workspace;
use anyhow::Result;
use std::path::PathBuf;
use std::process::ExitCode;

/// `cargo xtask images`.
pub fn run() -> Result<ExitCode> {
    println!("{}", images()?.display());
    Ok(ExitCode::SUCCESS)
}

/// The directory with one image, tagged `debian`, in three formats: `debian` (OCI layout),
/// `debian.oci.tar` (OCI archive) and `debian.docker.tar` (Docker archive).
pub fn images() -> Result<PathBuf> {
    let recipe = workspace::root().join("tests/debian");
    packages::ensure(packages::IMAGES)?;
    cache::entry("images", &Key::default().path(&recipe)?, |directory| {
        step("making the test image, Debian 13 (download; 2 minutes, once)", || {
            debian::build(&recipe, directory)
        })
    })
}
