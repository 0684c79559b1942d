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
const RUNS: u32 = 20_000;

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
    for Program { name, path } in targets {
        let what = format!("fuzzing {name}, {RUNS} inputs");
        let found =
            step(what, || fuzz(&path, &directory.join("corpus").join(&name), &target, arguments));
        if let Err(error) = &found {
            eprintln!("{error:#}");
        }
        counts += Counts::of(found.is_ok());
    }
    Ok(counts)
}

/// New inputs of interest go to a directory that is thrown away; one that fails is kept.
fn fuzz(program: &Path, corpus: &Path, target: &Path, arguments: &[String]) -> Result<()> {
    let new = tempfile::tempdir()?;
    let failed = target.join("failed");
    fs::create_dir_all(&failed)?;
    let mut fuzzer = Command::new(program);
    fuzzer.args([format!("-runs={RUNS}"), "-seed=1".into(), "-print_final_stats=1".into()]);
    fuzzer.arg(format!("-artifact_prefix={}/", failed.display())).args(arguments).arg(new.path());
    if corpus.is_dir() {
        fuzzer.arg(corpus);
    }
    command::watched(&mut fuzzer)
}
