//! Our terminal, given to the machine's shell.

use anyhow::Result;
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::Write;
use std::os::unix::net::UnixStream;

/// As long as it exists, our terminal passes every key on.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Changes the terminal.
    pub fn enter() -> Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

/// Tells the machine our terminal's size.
pub fn send_size(mut control: &UnixStream) {
    if let Ok(size) = tcgetwinsize(stdin()) {
        let _ = writeln!(control, "size {} {}", size.ws_row, size.ws_col);
    }
}
