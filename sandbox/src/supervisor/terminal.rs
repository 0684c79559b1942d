//! The terminal that this process was started on.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox_protocol::TerminalSize;
use std::io;
use std::sync::{Mutex, Once, PoisonError};

/// How the terminal was before it was made raw. It is global since a panic has to restore it, too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether standard input and output are terminals.
pub fn is_terminal() -> bool {
    isatty(io::stdin()) && isatty(io::stdout())
}

/// The terminal's size, if there is one that knows it.
pub fn size() -> Option<TerminalSize> {
    let size = tcgetwinsize(io::stdin()).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Whether the terminal is raw now, so that a line has to end with a carriage return, too.
pub fn is_raw() -> bool {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Keeps the terminal in raw mode: what is typed goes to the guest as it is, Ctrl-C included.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Makes the terminal of standard input raw until the value is dropped.
    ///
    /// # Errors
    /// Those of `tcgetattr(3)` and `tcsetattr(3)`.
    pub fn enter() -> io::Result<Self> {
        static RESTORE_ON_PANIC: Once = Once::new();
        RESTORE_ON_PANIC.call_once(|| {
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                print(panic);
            }));
        });
        let mut mode = tcgetattr(io::stdin())?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(mode.clone());
        mode.make_raw();
        let raw = Self(());
        tcsetattr(io::stdin(), OptionalActions::Now, &mode)?;
        Ok(raw)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // It fails if the terminal is gone; there is nothing to restore then.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}
