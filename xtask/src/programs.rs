//! The programs of `tests/`.

use crate::command;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package.
const PACKAGE: &str = "sandbox-tests";

/// A program to install.
#[derive(Clone, Debug)]
pub struct Program {
    /// The name it gets.
    pub name: String,
    /// Where cargo put it.
    pub path: PathBuf,
}

/// Builds the end-to-end tests: one program for each `[[test]]` of the package, and guest-init's
/// own, which find every controller of cgroups there.
pub fn end_to_end_tests() -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo("test");
    cargo.args(["--no-run", "--package", PACKAGE, "--package", "guest-init", "--test", "*"]);
    // They travel to the test host; the debugging information stays at home.
    cargo.args(["--config", "profile.dev.strip='debuginfo'"]);
    let programs = built(&mut cargo, "test")?;
    ensure!(!programs.is_empty(), "the package {PACKAGE} has no tests");
    Ok(programs)
}

/// Builds the monitor whose filters can lack a rule, for those tests that show that each is needed.
pub fn hostile_monitor() -> Result<Program> {
    let name = "sandbox-vmm";
    let mut cargo = workspace::cargo("build");
    cargo.args(["--package", name, "--bin", name, "--features", "hostile"]);
    cargo.args(["--config", "profile.dev.strip='debuginfo'"]);
    let program = built(&mut cargo, "bin")?.into_iter().find(|program| program.name == name);
    program.with_context(|| format!("cargo built no {name}"))
}

/// Builds the benchmark program.
pub fn benchmark() -> Result<Program> {
    let name = "sandbox-bench";
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--package", PACKAGE, "--bin", name]);
    let program = built(&mut cargo, "bin")?.into_iter().find(|program| program.name == name);
    program.with_context(|| format!("cargo built no {name}"))
}

/// Builds the hostile tests: the driver, and the guest's program, which is static.
pub fn hostile_tests() -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo("build");
    cargo.args(["--package", PACKAGE, "--bin", "sandbox-hostile-test"]);
    cargo.args(["--config", "profile.dev.strip='debuginfo'"]);
    let mut programs = built(&mut cargo, "bin")?;
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--target", workspace::PLATFORM, "--package", "sandbox-hostile"]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    programs.extend(built(&mut cargo, "bin")?);
    Ok(programs)
}

/// Builds the fuzz target of this name, or all, instrumented by these flags; they are a workspace of
/// their own. The platform is named so that the flags stay away from build scripts.
pub fn fuzz_targets(target: &Path, name: Option<&str>, flags: &[&str]) -> Result<Vec<Program>> {
    let mut cargo = workspace::cargo("build");
    cargo.args(["--release", "--manifest-path", "tests/fuzz/Cargo.toml"]);
    match name {
        Some(name) => cargo.args(["--bin", name]),
        None => cargo.arg("--bins"),
    };
    cargo.args(["--target", workspace::PLATFORM, "--target-dir"]).arg(target);
    built(cargo.env("RUSTFLAGS", flags.join(" ")), "bin")
}

/// Runs cargo and returns the programs of that kind that it names.
fn built(cargo: &mut Command, kind: &str) -> Result<Vec<Program>> {
    cargo.arg("--message-format=json-render-diagnostics");
    let messages = command::captured(cargo)?;
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo's messages")?;
        let target = &message["target"];
        let kinds = target["kind"].as_array();
        if !kinds.is_some_and(|kinds| kinds.iter().any(|word| word == kind)) {
            continue;
        }
        if let (Some(path), Some(name)) = (message["executable"].as_str(), target["name"].as_str())
        {
            programs.push(Program { name: name.into(), path: path.into() });
        }
    }
    Ok(programs)
}
