//! How a panic of the monitor's ends: with one line, and in calls that every filter allows. What
//! the standard library does else would be killed for looking at its environment and its symbols.

use crate::exit;
use std::io::Write;
use std::panic::PanicHookInfo;

/// Longest message, in bytes.
const MAX_LENGTH: usize = 512;

/// Makes the process end at a panic of any thread, with [`exit::FAILURE`].
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        // Nobody is left to tell when standard error is gone.
        let _ = std::io::stderr().write_all(line(panic).as_bytes());
        exit::leave(exit::FAILURE)
    }));
}

fn line(panic: &PanicHookInfo<'_>) -> String {
    let message: String = panic.to_string().escape_default().take(MAX_LENGTH).collect();
    format!("sandbox-vmm: {message}\n")
}
