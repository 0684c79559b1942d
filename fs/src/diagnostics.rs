//! The worker's few lines on standard error.
//!
//! What a guest does can make the file server complain, so the number of lines is bounded, and so
//! is their length; bytes that a terminal would act on are escaped.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Lines written before the worker falls silent.
const MAX_LINES: u32 = 64;

/// Longest line, in bytes, less the prefix.
const MAX_LENGTH: usize = 512;

struct Diagnostics {
    lines: AtomicU32,
}

static DIAGNOSTICS: Diagnostics = Diagnostics { lines: AtomicU32::new(0) };

/// Sends warnings and errors of this process, ours and the file server's, to standard error.
pub fn install() {
    if log::set_logger(&DIAGNOSTICS).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl Log for Diagnostics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let earlier = self.lines.fetch_add(1, Ordering::Relaxed);
        if earlier < MAX_LINES {
            write_line(&record.args().to_string());
        } else if earlier == MAX_LINES {
            write_line("further messages are not shown");
        } else {
            // Stay there rather than wrap around.
            self.lines.store(MAX_LINES + 1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

/// Writes `sandbox-fs: MESSAGE`, made safe for a terminal, as one line to standard error.
pub fn write_line(message: &str) {
    let line = format!("sandbox-fs: {}\n", printable(message));
    // In one piece, among the lines of others. Nobody is left to tell when standard error is gone.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn printable(message: &str) -> String {
    let mut line = String::new();
    for character in message.chars() {
        if line.len() >= MAX_LENGTH {
            line.push_str("...");
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_bounded_line_without_control_characters() {
        assert_eq!(printable("a\n\u{1b}[2Jb\u{9b}"), "a\\n\\u{1b}[2Jb\\u{9b}");
        assert!(printable(&"x".repeat(100_000)).len() < MAX_LENGTH + 8);
        assert_eq!(printable("/d\u{e9}j\u{e0} vu"), "/d\u{e9}j\u{e0} vu");
    }
}
