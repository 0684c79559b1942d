//! cargo-deny: licences, sources and versions of everything that is linked in, as `deny.toml` says.

use super::counts::Counts;
use crate::cache::{self, Key};
use crate::command;
use crate::step::step;
use crate::workspace;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// A version that the workspace's compiler builds.
const VERSION: &str = "0.20.2";

/// Checks the workspace and the fuzz targets, which are a workspace of their own; each counts as
/// one test.
pub fn check() -> Result<Counts> {
    let program = program()?;
    let mut counts = Counts::default();
    for manifest in ["Cargo.toml", "tests/fuzz/Cargo.toml"] {
        let mut deny = Command::new(&program);
        deny.current_dir(workspace::root()).args([
            "--config",
            "deny.toml",
            "--manifest-path",
            manifest,
        ]);
        deny.args(["check", "licenses", "bans", "sources"]);
        eprintln!("==> {}", command::line(&deny));
        counts += Counts::of(deny.status()?.success());
    }
    Ok(counts)
}

/// cargo-deny from the cache; it is built if it isn't there.
fn program() -> Result<PathBuf> {
    let directory = cache::entry("cargo-deny", &Key::default().text(VERSION), |directory| {
        step(format!("building cargo-deny {VERSION} (compiler, minutes)"), || {
            let mut cargo = Command::new("cargo");
            cargo.args(["install", "--quiet", "--locked", "--no-track", "--version", VERSION]);
            cargo.args(["cargo-deny", "--root"]).arg(directory);
            // The workspace's settings are not cargo-deny's.
            command::watched(cargo.current_dir(directory))
        })
    })?;
    Ok(directory.join("bin/cargo-deny"))
}
