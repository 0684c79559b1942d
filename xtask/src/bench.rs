//! `cargo xtask bench`: the benchmarks of `tests/`, on the test host that counts instructions, so
//! that figures hold across machines.

use crate::host::{Host, Streams};
use crate::images;
use crate::programs;
use crate::step::note;
use crate::workspace;
use anyhow::{Result, bail};
use std::ffi::OsString;
use std::process::{Command, ExitCode};

/// Where the test host has the program.
const PROGRAM: &str = "/usr/libexec/sandbox-tests/sandbox-bench";

/// Measure, print a table, and write the figures to target/bench/NAME.json.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The benchmark; without a name all of them.
    name: Option<OsString>,
}

/// Runs the benchmark program. It prints a table and leaves `NAME.json` in /mnt/out.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let out = workspace::target()?.join("bench");
    let programs = vec![programs::benchmark()?];
    let share = Some(images::images()?);
    let host = Host { share, out: Some(out.clone()), icount: true, programs, ..Host::default() };
    let mut command: Vec<OsString> =
        ["env", "SANDBOX_TEST_IMAGES=/mnt/share", PROGRAM, "--out", "/mnt/out"]
            .map(OsString::from)
            .into();
    command.extend(arguments.name.clone());
    let mut status = host.run(&command, Streams::own())?;
    // What evidence costs its verifier, which runs anywhere: here, on a real processor, whose
    // instructions for SHA-256 the test host has not.
    if status == 0 && arguments.name.as_ref().is_none_or(|name| name == "attest") {
        let [program] = &host.programs[..] else { bail!("one benchmark program") };
        let mut verify = Command::new(&program.path);
        let verified = verify.arg("--out").arg(&out).arg("verify").status()?;
        status = u8::from(!verified.success());
    }
    note(format!("figures: {}", out.display()));
    Ok(ExitCode::from(status))
}
