//! What a process costs the host beyond the guest's own pages.

use serde::Serialize;
use std::error::Error;
use std::fs;

/// Resident memory in KiB, without guest memory.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Pages of this process alone.
    pub private_kib: u64,
    /// Pages of files, which processes of the same program share.
    pub file_backed_kib: u64,
}

impl Memory {
    /// Of a running process.
    pub fn of(pid: u32) -> Result<Self, Box<dyn Error>> {
        let mut memory = Self::default();
        let mut guest = false;
        for line in fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(first), second) = (words.next(), words.next()) else { continue };
            if !first.ends_with(':') {
                guest = is_guest_memory(first, line)?;
                continue;
            }
            let kib: u64 = second.and_then(|number| number.parse().ok()).unwrap_or(0);
            match first {
                _ if guest => {}
                "Anonymous:" => memory.private_kib += kib,
                "Rss:" => memory.file_backed_kib += kib,
                _ => {}
            }
        }
        memory.file_backed_kib -= memory.private_kib;
        Ok(memory)
    }
}

/// Whether a mapping is the guest's: the memfd of that name, or private memory as large as a guest.
fn is_guest_memory(range: &str, line: &str) -> Result<bool, Box<dyn Error>> {
    let (start, end) = range.split_once('-').ok_or("smaps: no range")?;
    let size = u64::from_str_radix(end, 16)? - u64::from_str_radix(start, 16)?;
    Ok(line.contains("memfd:guest-memory") || size >= 48 << 20)
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            private_kib: self.private_kib + other.private_kib,
            file_backed_kib: self.file_backed_kib + other.file_backed_kib,
        }
    }
}
