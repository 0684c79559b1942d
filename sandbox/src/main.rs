//! `sandbox` runs containers, every pod in a microVM of its own, on the command line of rkt.
//!
//! The way of one `sandbox run`: [`cli`] reads the command line, the image crate turns references
//! into files, [`pod`] decides whether they may be launched, puts images, options and defaults
//! together and makes the pod's directory, [`supervisor`] starts the pod's processes and watches
//! them to the end.

mod cli;
mod doctor;
mod installation;
mod message;
mod options;
mod pod;
mod progress;
mod supervisor;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
