//! How many tests passed, failed and were skipped.

use std::fmt;
use std::io::{self, Write};
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};

/// What tests came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Counts {
    /// One test.
    pub fn of(passed: bool) -> Self {
        Counts { passed: u32::from(passed), failed: u32::from(!passed), skipped: 0 }
    }

    /// What a line of libtest's output says, if it is a summary:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`
    fn of_line(line: &str) -> Option<Self> {
        let (_, summary) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut counts = Counts::default();
        for part in summary.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let count = match what {
                "passed" => &mut counts.passed,
                "failed" => &mut counts.failed,
                "ignored" => &mut counts.skipped,
                _ => continue,
            };
            *count = number.parse().ok()?;
        }
        Some(counts)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(out, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Passes output on and adds up the summaries of test programs in it. Clones add to the same sum.
#[derive(Clone)]
pub struct Counter(Arc<Mutex<State>>);

struct State {
    to: Box<dyn Write + Send>,
    line: Vec<u8>,
    counts: Counts,
    summaries: u32,
}

impl Counter {
    /// Output goes to `to`.
    pub fn new(to: Box<dyn Write + Send>) -> Self {
        let counts = Counts::default();
        Counter(Arc::new(Mutex::new(State { to, line: Vec::new(), counts, summaries: 0 })))
    }

    /// The sum so far.
    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// So many test programs have come to their summary.
    pub fn summaries(&self) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).summaries
    }
}

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        state.to.write_all(bytes)?;
        for byte in bytes {
            if *byte != b'\n' {
                state.line.push(*byte);
                continue;
            }
            if let Some(counts) = Counts::of_line(&String::from_utf8_lossy(&state.line)) {
                state.counts += counts;
                state.summaries += 1;
            }
            state.line.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::{Counter, Counts};
    use std::io::Write;

    const OUTPUT: &str = "running 2 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s
test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out
a test that prints: test result: ok. 9 passed; 0 failed
";

    #[test]
    fn summaries_are_added_however_the_output_is_cut() {
        for size in [1, 7, OUTPUT.len()] {
            let mut counter = Counter::new(Box::new(std::io::sink()));
            for piece in OUTPUT.as_bytes().chunks(size) {
                counter.write_all(piece).unwrap();
            }
            assert_eq!(counter.counts(), Counts { passed: 12, failed: 3, skipped: 1 });
            assert_eq!(counter.summaries(), 2);
        }
    }

    #[test]
    fn the_last_line_names_skipped_tests_only_if_there_are_any() {
        let counts = Counts { passed: 4, failed: 0, skipped: 0 };
        assert_eq!(counts.to_string(), "4 passed, 0 failed");
        assert_eq!(Counts { skipped: 2, ..counts }.to_string(), "4 passed, 0 failed, 2 skipped");
    }
}
