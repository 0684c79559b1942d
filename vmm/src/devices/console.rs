//! The guest's console: the transmitter of a 16550 UART, as far as a polling driver needs it, and
//! a bounded, printable log behind it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;

/// First I/O port of the UART (COM1).
pub const PORT: u16 = 0x3f8;
/// Number of its ports.
pub const PORTS: u16 = 8;

const DATA: u16 = 0;
const LINE_CONTROL: u16 = 3;
const LINE_STATUS: u16 = 5;
/// Makes [`DATA`] the divisor of the baud rate.
const DIVISOR_LATCH: u8 = 0x80;
/// Transmitter empty, holding register empty.
const READY: u8 = 0x60;

/// Most bytes that reach the log, so that a guest can't fill the host's disk; then only the last
/// [`TAIL`] bytes are kept, for [`Console::finish`].
const LIMIT: usize = 256 << 10;
const TAIL: usize = 4 << 10;
/// Longest line that is held back until its end.
const LINE: usize = 256;

const PANIC: &[u8] = b"Kernel panic - not syncing";

/// See the module.
#[derive(Debug)]
pub struct Console {
    log: File,
    line_control: u8,
    written: usize,
    line: Vec<u8>,
    tail: VecDeque<u8>,
    panicked: bool,
}

impl Console {
    /// A console whose output is appended to `log`.
    pub fn new(log: File) -> Self {
        Self {
            log,
            line_control: 0,
            written: 0,
            line: Vec::new(),
            tail: VecDeque::new(),
            panicked: false,
        }
    }

    /// A read from one of the ports.
    pub fn read(&self, register: u16) -> u8 {
        match register {
            LINE_CONTROL => self.line_control,
            LINE_STATUS => READY,
            _ => 0,
        }
    }

    /// A write to one of the ports.
    pub fn write(&mut self, register: u16, value: u8) {
        match register {
            DATA if self.line_control & DIVISOR_LATCH == 0 => self.print(value),
            LINE_CONTROL => self.line_control = value,
            _ => {}
        }
    }

    fn print(&mut self, value: u8) {
        match value {
            b'\r' => return,
            b'\n' | b'\t' | 0x20..0x7f => self.line.push(value),
            // Nothing in the log can steer the terminal of who reads it.
            _ => self.line.extend(format!("\\x{value:02x}").bytes()),
        }
        if value == b'\n' || self.line.len() >= LINE {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        self.panicked |= self.line.windows(PANIC.len()).any(|part| part == PANIC);
        let room = LIMIT - self.written;
        let (now, later) = self.line.split_at(self.line.len().min(room));
        // A console that can't be written to is no reason to stop the pod.
        let _ = self.log.write_all(now);
        self.written += now.len();
        self.tail.extend(later);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.line.clear();
    }

    /// Whether the kernel has said that it panics.
    pub fn panicked(&self) -> bool {
        self.panicked
    }

    /// Writes what was held back.
    pub fn finish(&mut self) {
        self.end_line();
        if !self.tail.is_empty() {
            let _ = self.log.write_all(b"\n[console output dropped here]\n");
            let (first, second) = self.tail.as_slices();
            let _ = self.log.write_all(first).and_then(|()| self.log.write_all(second));
            self.tail.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn print(bytes: impl IntoIterator<Item = u8>) -> (String, bool) {
        let mut file = tempfile::tempfile().unwrap();
        let mut console = Console::new(file.try_clone().unwrap());
        for byte in bytes {
            assert_eq!(console.read(LINE_STATUS) & 0x20, 0x20);
            console.write(DATA, byte);
        }
        console.finish();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        (text, console.panicked())
    }

    #[test]
    fn control_characters_are_escaped() {
        let (text, _) = print(*b"\x1b[31mred\r\n\xff\n");
        assert_eq!(text, "\\x1b[31mred\n\\xff\n");
    }

    #[test]
    fn the_baud_rate_is_not_printed() {
        let mut file = tempfile::tempfile().unwrap();
        let mut console = Console::new(file.try_clone().unwrap());
        console.write(LINE_CONTROL, DIVISOR_LATCH | 3);
        console.write(DATA, 1);
        console.write(LINE_CONTROL, console.read(LINE_CONTROL) & !DIVISOR_LATCH);
        console.write(DATA, b'x');
        console.finish();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_panic_is_noticed() {
        assert!(print(*b"[    0.1] Kernel panic - not syncing: no init\n").1);
        assert!(!print(*b"all is well\n").1);
    }

    #[test]
    fn a_guest_that_floods_the_console_fills_no_disk_and_its_last_words_are_kept() {
        let flood = std::iter::repeat_n(*b"0123456\n", 1 << 20).flatten();
        let (text, _) = print(flood.chain(*b"last words\n"));
        assert!(text.len() < LIMIT + TAIL + 100);
        assert!(text.ends_with("last words\n"));
    }
}
