//! Lines on standard error, in rkt's style: `run: what was tried: what was found`.

use crate::supervisor::terminal;
use std::error::Error;
use std::fmt::{Display, Write as _};
use std::io::Write as _;

/// Writes lines for one verb.
#[derive(Clone, Copy, Debug)]
pub struct Messages {
    verb: &'static str,
    debug: bool,
}

impl Messages {
    /// Lines start with `verb`; those of [`Messages::debug`] are only written if `debug` is set.
    pub fn new(verb: &'static str, debug: bool) -> Self {
        Self { verb, debug }
    }

    /// Writes a line, with control characters escaped.
    pub fn say(&self, text: impl Display) {
        say(self.verb, text);
    }

    /// Writes a line that only helps to find a fault.
    pub fn debug(&self, text: impl Display) {
        if self.debug {
            self.say(text);
        }
    }

    /// Writes an error; the chain of its causes only in debug mode, since a message of ours says
    /// what it has to say.
    pub fn error(&self, error: &dyn Error) {
        self.say(error);
        let mut cause = error.source();
        while let Some(error) = cause {
            self.debug(format_args!("└─ {error}"));
            cause = error.source();
        }
    }
}

/// Writes a line for `verb`, with control characters escaped.
pub fn say(verb: &str, text: impl Display) {
    let end = if terminal::is_raw() { "\r\n" } else { "\n" };
    let line = format!("{verb}: {}{end}", escaped(text));
    // There is nobody to tell that standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Text with everything escaped that could steer a terminal or forge a line.
fn escaped(text: impl Display) -> String {
    let mut escaped = String::new();
    for character in text.to_string().chars() {
        match character {
            '\'' | '"' | '\\' => escaped.push(character),
            _ => {
                // Writing to a string can't fail.
                let _ = write!(escaped, "{}", character.escape_debug());
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_steers_no_terminal() {
        let line = escaped("a\nb\x1b[2J\u{202e}c 'd' \"e\" \\");
        assert_eq!(line, "a\\nb\\u{1b}[2J\\u{202e}c 'd' \"e\" \\");
    }
}
