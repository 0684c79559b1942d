//! What the end-to-end tests are written in.
//!
//! The tests run on the test host, as root, where the product is installed: `sandbox` is the one in
//! `PATH`. They are sorted by what they promise: `functional/` (what the manual says happens),
//! `security/` (what an image, a guest or a volume must not reach), `robustness/` (failures,
//! signals and kills, each with nothing left behind) and `monitor/` (sandbox-vmm by itself).
//!
//! A test is a sentence of its own: [`run`] starts a pod, [`Ended`] says what must have come out,
//! and a failure shows the command, its output and the guest's console.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness that fails fails the test")]

pub mod data;
pub mod image;
pub mod machine;
pub mod pty;
pub mod sandbox;
pub mod tar;

pub use data::Data;
pub use image::tiny;
pub use sandbox::{Ended, Running, run, sandbox};

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Where the tests keep images and data directories. On the test host everything goes with it.
pub fn home() -> PathBuf {
    let home = PathBuf::from("/var/lib/sandbox-tests");
    std::fs::create_dir_all(&home).expect("the tests run as root");
    home
}

/// A new directory that is removed with its value.
pub fn temporary() -> tempfile::TempDir {
    tempfile::tempdir_in(home()).expect("a temporary directory")
}

/// Waits until something is so, at most so long.
pub fn eventually(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !is_so() {
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
    true
}
