//! `sandbox` runs containers, every pod in a microVM of its own, on the command line of rkt.
//!
//! The way of one `sandbox run`: [`cli`] reads the command line, [`images`] brings references into
//! the store and asks the gate whether what is there may be launched, [`pod`] puts images, options
//! and defaults together and makes the pod's directory, [`supervisor`] starts the pod's processes
//! and watches them to the end.

mod appc;
mod cli;
mod doctor;
mod images;
mod installation;
mod jail;
mod measure;
mod message;
mod options;
mod output;
mod pod;
mod progress;
mod settings;
mod supervisor;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
