//! `sandbox-bench [--out DIR] [NAME]`: the benchmarks. `cargo xtask bench` runs them on the test
//! host that counts instructions: there the clock advances by 1 ms when 10^6 instructions have been
//! executed, by host, monitor and guest together, so that figures hold across machines.
//!
//! Each prints a table and leaves `NAME.json` in DIR.

mod attest;
mod boot;
mod image;
mod memory;
mod pod;
mod trace;
mod verify;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the product is installed.
const LIBEXEC: &str = "/usr/libexec/sandbox";
/// See [`LIBEXEC`].
const LIBRARY: &str = "/usr/lib/sandbox";

/// A benchmark; true if every promised figure is kept.
type Benchmark = fn(&Path) -> Result<bool, Box<dyn Error>>;

const BENCHMARKS: [(&str, Benchmark); 3] =
    [("attest", attest::run), ("boot", boot::run), ("image", image::run)];

/// Only by its name: it measures the processor, and not the test host that counts instructions.
const VERIFY: (&str, Benchmark) = ("verify", verify::run);

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sandbox-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut out = PathBuf::from(".");
    let mut name = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--out" => out = arguments.next().ok_or("--out needs a directory")?.into(),
            _ => name = Some(argument),
        }
    }
    let mut ran = false;
    let mut kept = true;
    for (known, benchmark) in BENCHMARKS.into_iter().chain([VERIFY]) {
        if name.as_deref().map_or(known != VERIFY.0, |name| name == known) {
            kept &= benchmark(&out.join(known).with_extension("json"))?;
            ran = true;
        }
    }
    if ran { Ok(kept) } else { Err(format!("there is no benchmark {name:?}").into()) }
}
