//! The end-to-end tests, on the test host. There everything that they need is known to be there, so
//! a test that is skipped is a failure.

use super::counts::{Counter, Counts};
use crate::command::quoted;
use crate::host::{Host, Streams};
use crate::images;
use crate::programs::{self, Program};
use crate::step::step;
use anyhow::{Result, bail};
use std::ffi::OsString;

/// Builds the tests and runs them.
pub fn run(arguments: &[String]) -> Result<Counts> {
    let images = images::images()?;
    let programs = step("building the end-to-end tests", programs::end_to_end_tests)?;
    let command = ["sh", "-c", &script(&programs, arguments)].map(OsString::from);
    let expected = programs.len();
    let host = Host { share: Some(images), programs, ..Host::default() };

    let counter = Counter::new(Box::new(std::io::stdout()));
    let streams = Streams {
        stdin: Box::new(std::io::empty()),
        stdout: Box::new(counter.clone()),
        stderr: Box::new(std::io::stderr()),
    };
    let status = host.run(&command, streams)?;
    let mut counts = counter.counts();
    if status > 1 {
        bail!("the end-to-end tests were cut off (exit status {status})");
    }
    if usize::try_from(counter.summaries())? < expected && counts.failed == 0 {
        eprintln!("a test program ended without its summary");
        counts.failed += 1;
    }
    if counts.skipped > 0 {
        eprintln!("{} end-to-end tests were skipped, on the host made for them", counts.skipped);
        counts.failed += counts.skipped;
    }
    if counts.passed + counts.failed == 0 {
        bail!("no end-to-end test ran");
    }
    Ok(counts)
}

/// Runs one program after the other, and says whether any failed.
fn script(programs: &[Program], arguments: &[String]) -> String {
    let arguments: String = arguments.iter().map(|word| format!(" {}", quoted(word))).collect();
    let mut script = "export SANDBOX_TEST_IMAGES=/mnt/share; failed=0\n".to_owned();
    for program in programs {
        let name = quoted(&program.name);
        script += &format!("echo; echo 'On the test host: '{name}; start=$(date +%s)\n");
        script += &format!("/usr/libexec/sandbox-tests/{name}{arguments} || failed=1\n");
        script += &format!("echo {name}: $(($(date +%s) - start)) s\n");
    }
    script + "exit $failed"
}
