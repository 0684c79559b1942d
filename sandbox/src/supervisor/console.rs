//! The last lines of the guest's console.

use rustix::io::pread;
use sandbox_protocol::Text;
use std::fs::File;

/// Most bytes that are looked at.
const BYTES: usize = 4096;
/// Most lines that are shown.
const LINES: usize = 12;

/// The last lines of a console, safe to show.
pub fn last_lines(console: &File) -> Vec<Text> {
    let mut buffer = vec![0; BYTES];
    let end = console.metadata().map_or(0, |metadata| metadata.len());
    let mut length = 0;
    while let Ok(count @ 1..) =
        pread(console, &mut buffer[length..], end.saturating_sub(BYTES as u64) + length as u64)
    {
        length += count;
    }
    buffer.truncate(length);
    lines(&buffer)
}

/// The last lines of some output, safe to show.
pub fn lines(output: &[u8]) -> Vec<Text> {
    let lines: Vec<&[u8]> = output
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(Text::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_bounded_and_escaped() {
        let mut file = tempfile::tempfile().unwrap();
        for line in 0..1000 {
            write!(file, "line {line}\r\n").unwrap();
        }
        file.write_all(b"Kernel panic \x1b[2J \xff\n\n").unwrap();
        let lines = last_lines(&file);
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[LINES - 1].to_string(), "Kernel panic \\u{1b}[2J \u{fffd}");
        assert_eq!(lines[LINES - 2].to_string(), "line 999");
    }

    #[test]
    fn an_empty_console_has_no_lines() {
        assert!(last_lines(&tempfile::tempfile().unwrap()).is_empty());
    }
}
