//! `sandbox-fs`, the virtio-fs worker. Started by `sandbox`, not by people; see the library.

use std::error::Error;
use std::process::ExitCode;

use sandbox_fs::diagnostics;
use sandbox_fs::worker::{self, Options};

fn main() -> ExitCode {
    let result =
        Options::parse(std::env::args_os().skip(1)).and_then(|options| worker::run(&options));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                message.push_str(&format!(": {error}"));
                cause = error.source();
            }
            diagnostics::write_line(&message);
            ExitCode::FAILURE
        }
    }
}
