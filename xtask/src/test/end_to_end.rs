//! The end-to-end tests, on test hosts. There everything that they need is known to be there, so a
//! test that is skipped is a failure.
//!
//! A test host has one processor as a rule (see [`crate::host`]), so there is one for each of this
//! machine's, and each test program runs on one of its own: what one leaves behind, no other
//! finds.

use super::counts::{Counter, Counts};
use crate::build;
use crate::command::{self, quoted};
use crate::host::{Host, Streams};
use crate::images;
use crate::programs::{self, Program};
use crate::step::{note, step};
use anyhow::{Result, bail};
use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// Those that take longest, to begin with, so that no host is left alone with one at the end.
const FIRST: &[&str] = &["attest", "images", "functional"];

/// The one that has a monitor beside it whose filters can lack a rule.
const WITH_MONITOR: &str = "monitor";

/// Most hosts at once; each has 4 GiB of memory.
const MAX_HOSTS: usize = 4;

/// Builds the tests and runs them.
pub fn run(arguments: &[String]) -> Result<Counts> {
    let images = images::images()?;
    let mut programs = step("building the end-to-end tests", programs::end_to_end_tests)?;
    programs.sort_by_key(|program| {
        let place = FIRST.iter().position(|name| *name == program.name);
        (place.unwrap_or(FIRST.len()), program.name.clone())
    });
    let mut chosen = Vec::new();
    for program in programs {
        if arguments.is_empty() || has_tests(&program, arguments)? {
            chosen.push(program);
        }
    }
    let monitor = chosen.iter().any(|program| program.name == WITH_MONITOR);
    let monitor = monitor.then(programs::hostile_monitor).transpose()?;
    build::dist()?;
    let hosts = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_HOSTS);
    let queue = Mutex::new(chosen.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let on_one_host = || -> Counts {
        let mut counts = Counts::default();
        while let Some(program) = next() {
            counts +=
                on_host(program, arguments, &images, monitor.as_ref()).unwrap_or_else(|error| {
                    eprintln!("{}: {error:#}", program.name);
                    Counts::of(false)
                });
        }
        counts
    };
    let mut counts = Counts::default();
    thread::scope(|scope| {
        let hosts: Vec<_> = (0..hosts).map(|_| scope.spawn(on_one_host)).collect();
        for host in hosts {
            counts += host.join().unwrap_or_else(|_| Counts::of(false));
        }
    });
    if counts.passed + counts.failed == 0 {
        bail!("no end-to-end test ran");
    }
    Ok(counts)
}

/// Whether any of its tests is asked for.
fn has_tests(program: &Program, arguments: &[String]) -> Result<bool> {
    let list = command::output(Command::new(&program.path).args(arguments).arg("--list"))?;
    Ok(list.lines().any(|line| line.ends_with(": test")))
}

/// Runs one program on a host of its own.
fn on_host(
    program: &Program,
    arguments: &[String],
    images: &Path,
    monitor: Option<&Program>,
) -> Result<Counts> {
    let name = &program.name;
    note(format!("on a test host: {name}"));
    let started = Instant::now();
    let command = ["sh", "-c", &script(program, arguments)].map(OsString::from);
    let mut programs = vec![program.clone()];
    programs.extend(monitor.filter(|_| *name == WITH_MONITOR).cloned());
    let share = Some(images.to_owned());
    let host = Host { share, programs, no_build: true, ..Host::default() };
    let counter = Counter::new(Box::new(Lines::new(name, io::stdout())));
    let streams = Streams {
        stdin: Box::new(io::empty()),
        stdout: Box::new(counter.clone()),
        stderr: Box::new(Lines::new(name, io::stderr())),
    };
    let status = host.run(&command, streams)?;
    let mut counts = counter.counts();
    note(format!("{name}: {counts} in {} s", started.elapsed().as_secs()));
    if status > 128 {
        bail!("cut off (exit status {status})");
    }
    if (status != 0 || counter.summaries() == 0) && counts.failed == 0 {
        eprintln!("{name} ended without its summary, with exit status {status}");
        counts.failed += 1;
    }
    if counts.skipped > 0 {
        eprintln!("{} tests were skipped, on the host made for them", counts.skipped);
        counts.failed += counts.skipped;
    }
    Ok(counts)
}

fn script(program: &Program, arguments: &[String]) -> String {
    let arguments: String = arguments.iter().map(|word| format!(" {}", quoted(word))).collect();
    let name = quoted(&program.name);
    format!(
        "export SANDBOX_TEST_IMAGES=/mnt/share; exec /usr/libexec/sandbox-tests/{name}{arguments}"
    )
}

/// Writes whole lines, each with the name of whom it is from: several write at once.
struct Lines<W> {
    name: String,
    line: Vec<u8>,
    to: W,
}

impl<W: Write> Lines<W> {
    fn new(name: &str, to: W) -> Self {
        Lines { name: format!("{name}: "), line: Vec::new(), to }
    }
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = [self.name.as_bytes(), &self.line].concat();
                self.line.clear();
                self.to.write_all(&line)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W> Drop for Lines<W> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            eprintln!("{}{}", self.name, String::from_utf8_lossy(&self.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;
    use std::io::Write;

    #[test]
    fn a_line_is_written_when_it_is_whole() {
        let mut written = Vec::new();
        let mut lines = Lines::new("suite", &mut written);
        for piece in ["on", "e\n\ntwo\nthr", "ee\n"] {
            lines.write_all(piece.as_bytes()).unwrap();
        }
        drop(lines);
        assert_eq!(written, b"suite: one\nsuite: \nsuite: two\nsuite: three\n");
    }
}
