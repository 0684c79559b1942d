//! `cargo xtask test`: the suites, and the counts at the end.

mod counts;
mod deny;
mod end_to_end;
mod fuzz;
mod hostile;

use crate::command;
use crate::packages;
use crate::step::step;
use crate::workspace;
use anyhow::{Result, bail};
use clap::ValueEnum;
use counts::{Counter, Counts};
use std::process::{ExitCode, Stdio};

/// With it, the program that opens the TPM is among what is checked.
const ATTESTOR: &str = "sandbox-attestation/tpm";

/// Run the tests. The last line has the counts.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The suite; without one all of them but the hostile tests, in this order.
    suite: Option<Suite>,
    /// For the test programs: a part of tests' names, libtest's options.
    #[arg(last = true, requires = "suite", value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// rustfmt, clippy and cargo-deny.
    Style,
    /// Unit and property tests, and what else needs no test host.
    Unit,
    /// Every fuzz target, for a fixed number of runs.
    Fuzz,
    /// End-to-end tests, on the test host.
    E2e,
    /// A monitor and a file server that were taken over, on the test host; by itself alone. With `-- update` the
    /// table in SECURITY.md is replaced; other words are names of sets of layers, see
    /// tests/hostile/driver.
    Hostile,
}

/// `cargo xtask test`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let suites = match &arguments.suite {
        Some(suite) => std::slice::from_ref(suite),
        None => &Suite::USUAL,
    };
    let mut counts = Counts::default();
    for suite in suites {
        counts += suite.run(&arguments.arguments)?;
    }
    println!("{counts}");
    Ok(ExitCode::from(u8::from(counts.failed > 0)))
}

impl Suite {
    /// Those that a change has to pass.
    const USUAL: [Self; 4] = [Self::Style, Self::Unit, Self::Fuzz, Self::E2e];

    fn run(self, arguments: &[String]) -> Result<Counts> {
        match self {
            Suite::Style => style(),
            Suite::Unit => unit(arguments),
            Suite::Fuzz => fuzz::run(arguments),
            Suite::E2e => end_to_end::run(arguments),
            Suite::Hostile => hostile::run(arguments),
        }
    }
}

/// Each tool counts as one test.
fn style() -> Result<Counts> {
    packages::ensure(packages::PRODUCT)?;
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if command::output(workspace::cargo(tool).arg("--version")).is_err() {
            step(format!("installing {component}"), || {
                let mut rustup = std::process::Command::new("rustup");
                command::watched(rustup.args(["component", "add", component]))
            })?;
        }
    }
    let mut format = workspace::cargo("fmt");
    format.args(["--all", "--", "--check"]);
    let mut clippy = workspace::cargo("clippy");
    clippy.args(["--workspace", "--all-targets", "--features", ATTESTOR]);
    clippy.args(["--", "--deny", "warnings"]);
    let mut counts = Counts::default();
    for command in [&mut format, &mut clippy] {
        eprintln!("==> {}", command::line(command));
        counts += Counts::of(command.status()?.success());
    }
    counts += deny::check()?;
    Ok(counts)
}

/// `cargo test` of the workspace's default members.
fn unit(arguments: &[String]) -> Result<Counts> {
    packages::ensure(packages::PRODUCT)?;
    packages::ensure(packages::ORACLES)?;
    let mut cargo = workspace::cargo("test");
    cargo
        .args(["--no-fail-fast", "--features", ATTESTOR, "--"])
        .args(arguments)
        .stdout(Stdio::piped());
    eprintln!("==> {}", command::line(&cargo));
    let mut child = cargo.spawn()?;
    let mut counter = Counter::new(Box::new(std::io::stdout()));
    if let Some(mut output) = child.stdout.take() {
        std::io::copy(&mut output, &mut counter)?;
    }
    let mut counts = counter.counts();
    if !child.wait()?.success() && counts.failed == 0 {
        // It didn't compile, or a test program died without a word.
        counts.failed = 1;
    }
    if counts == Counts::default() {
        bail!("no unit test ran");
    }
    Ok(counts)
}
