//! The fuzz targets of `tests/fuzz/`, each for a fixed number of runs from a fixed seed. They are
//! laid out for `cargo fuzz`, for those who want to search for hours; here the stable compiler does
//! the same without it.

use super::counts::Counts;
use crate::command;
use crate::packages;
use crate::programs::{self, Program};
use crate::step::step;
use crate::workspace;
use anyhow::{Result, ensure};
use std::fs;
use std::path::Path;
use std::process::Command;

/// So many inputs are tried.
const RUNS: u32 = 200_000;

/// Tells the fuzzer which code an input reached, as `cargo fuzz --sanitizer none` does.
const FLAGS: &[&str] = &[
    "--cfg fuzzing",
    "-C debug-assertions",
    "-C codegen-units=1",
    "-C passes=sancov-module",
    "-C llvm-args=-sanitizer-coverage-level=4",
    "-C llvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-C llvm-args=-sanitizer-coverage-pc-table",
    "-C llvm-args=-sanitizer-coverage-trace-compares",
];

/// Builds the targets and runs each; its exit status tells whether it found something.
pub fn run(arguments: &[String]) -> Result<Counts> {
    packages::ensure(packages::FUZZ)?;
    let directory = workspace::root().join("tests/fuzz");
    let target = workspace::target()?.join("fuzz");
    let targets = step("building the fuzz targets", || programs::fuzz_targets(&target, FLAGS))?;
    ensure!(!targets.is_empty(), "no fuzz target in {}", directory.display());
    let mut counts = Counts::default();
    for target in targets {
        let what = format!("fuzzing {}, {RUNS} inputs", target.name);
        let found = step(what, || fuzz(&target, &directory, arguments));
        if let Err(error) = &found {
            eprintln!("{error:#}");
        }
        counts += Counts::of(found.is_ok());
    }
    Ok(counts)
}

/// New inputs of interest go to a directory that is thrown away; one that fails is kept where
/// `cargo fuzz` keeps it.
fn fuzz(target: &Program, directory: &Path, arguments: &[String]) -> Result<()> {
    let new = tempfile::tempdir()?;
    let failed = directory.join("artifacts").join(&target.name);
    fs::create_dir_all(&failed)?;
    let mut fuzzer = Command::new(&target.path);
    fuzzer.args([format!("-runs={RUNS}"), "-seed=1".into()]);
    fuzzer.arg(format!("-artifact_prefix={}/", failed.display())).args(arguments).arg(new.path());
    let seeds = directory.join("seeds").join(&target.name);
    if seeds.is_dir() {
        fuzzer.arg(seeds);
    }
    command::watched(&mut fuzzer)
}
