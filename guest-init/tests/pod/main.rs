//! guest-init runs pods: everything that does not need a virtual machine, on this machine's kernel.
//!
//! Each test starts guest-init as PID 1 of new namespaces, with this machine's own files as the
//! image. That takes root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails panics")]

mod apps;
mod disks;
mod files;
mod harness;
mod measured;
mod streams;

/// A test: the promise that it keeps, and the function that checks it.
type Test = (&'static str, fn());

/// Lists tests by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}
pub(crate) use tests;

use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [harness::GUEST, cgroup, ..] =
        arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        harness::be_the_guest(cgroup, &arguments[2..]);
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let tests: Vec<_> =
        [apps::TESTS, disks::TESTS, files::TESTS, measured::TESTS, streams::TESTS].concat();
    let chosen = tests.iter().filter(|(name, _)| filter.is_none_or(|part| name.contains(part)));
    if arguments.iter().any(|argument| argument == "--list") {
        // As the standard harness says it.
        chosen.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: namespaces, mounts and device nodes take root");
        println!("\ntest result: ok. 0 passed; 0 failed; {} ignored", chosen.count());
        return ExitCode::SUCCESS;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in chosen {
        let verdict = match catch_unwind(test) {
            Ok(()) => {
                passed += 1;
                "ok"
            }
            Err(_) => {
                failed += 1;
                "FAILED"
            }
        };
        println!("test {name} ... {verdict}");
    }
    harness::clean_up();
    let (verdict, status) =
        if failed == 0 { ("ok", ExitCode::SUCCESS) } else { ("FAILED", ExitCode::FAILURE) };
    let skipped = harness::skipped();
    passed -= skipped;
    println!("\ntest result: {verdict}. {passed} passed; {failed} failed; {skipped} ignored");
    status
}
