//! Where the workspace's files and the build's results are.

use crate::command;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The platform that everything is built for. Where it is named to cargo, even though it is this
/// machine's, compiler flags don't reach build scripts and procedural macros.
pub const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The directory of the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Cargo's target directory, wherever the user's configuration puts it.
pub fn target() -> Result<PathBuf> {
    let metadata = command::output(cargo("metadata").args(["--no-deps", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata["target_directory"].as_str();
    Ok(target.context("cargo metadata names no target_directory")?.into())
}

/// `cargo SUBCOMMAND`, in the workspace.
pub fn cargo(subcommand: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg(subcommand).current_dir(root());
    command
}
