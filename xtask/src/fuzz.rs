//! `cargo xtask fuzz`: one fuzz target of `tests/fuzz/`, for as long as one likes. The suite that
//! runs each of them for a fixed number of inputs is `cargo xtask test fuzz`.
//!
//! They are laid out for `cargo fuzz`, which needs a nightly compiler; here the stable one does the
//! same without it.

use crate::command;
use crate::packages;
use crate::programs::{self, Program};
use crate::step::step;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

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

/// Search with one fuzz target, or list them all.
///
/// New inputs of interest are kept in tests/fuzz/corpus/TARGET and are where the next search begins;
/// one that fails is kept in tests/fuzz/artifacts/TARGET, and the exit status says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fuzz                                 lists the targets
  cargo xtask fuzz virtio_vsock --time 600         searches for ten minutes
  cargo xtask fuzz virtio_vsock -- tests/fuzz/artifacts/virtio_vsock/crash-1234
                                                   tries that input again")]
pub struct Arguments {
    /// The target, a file of tests/fuzz/targets; without one all of them are listed.
    target: Option<String>,
    /// How long, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "target")]
    time: u32,
    /// For the fuzzer: its options, or inputs to be tried once.
    #[arg(last = true, requires = "target", value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// `cargo xtask fuzz`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Some(name) = &arguments.target else {
        for target in names()? {
            println!("{target}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let known = names()?;
    ensure!(known.contains(name), "{name} is no fuzz target; there are: {}", known.join(" "));
    let built = build(Some(name))?;
    let target = built.first().with_context(|| format!("{name} was not built"))?;
    let corpus = directory().join("corpus").join(name);
    fs::create_dir_all(&corpus)?;
    // With inputs of its own it tries these and is done.
    let inputs = arguments.arguments.iter().any(|argument| !argument.starts_with('-'));
    let mut fuzzer = fuzzer(target, (!inputs).then_some(corpus.as_path()))?;
    fuzzer.arg(format!("-max_total_time={}", arguments.time)).args(&arguments.arguments);
    eprintln!("==> {}", command::line(&fuzzer));
    Ok(ExitCode::from(u8::from(!fuzzer.status()?.success())))
}

/// Where all that is about fuzzing lies.
fn directory() -> PathBuf {
    workspace::root().join("tests/fuzz")
}

/// The names of all targets, sorted.
fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory().join("targets"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the target of this name, or all.
pub fn build(name: Option<&str>) -> Result<Vec<Program>> {
    packages::ensure(packages::FUZZ)?;
    let target = workspace::target()?.join("fuzz");
    let built = step("building for the fuzzer", || programs::fuzz_targets(&target, name, FLAGS))?;
    ensure!(!built.is_empty(), "no fuzz target in {}", directory().display());
    Ok(built)
}

/// A fuzzer that begins with the target's seeds and with `corpus`, where it puts new inputs of
/// interest; without one it has neither. An input that fails is kept where `cargo fuzz` keeps it.
pub fn fuzzer(target: &Program, corpus: Option<&Path>) -> Result<Command> {
    let failed = directory().join("artifacts").join(&target.name);
    fs::create_dir_all(&failed)?;
    let mut fuzzer = Command::new(&target.path);
    fuzzer.arg(format!("-artifact_prefix={}/", failed.display()));
    let seeds = directory().join("seeds").join(&target.name);
    fuzzer.args(corpus).args(corpus.and(Some(seeds)).filter(|seeds| seeds.is_dir()));
    Ok(fuzzer)
}
