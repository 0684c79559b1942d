//! The signals that this process gets.

use super::event::SignalSender;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use signal_hook::iterator::Signals as Caught;
use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Signals that end a pod whose apps don't run yet.
const ENDING: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
/// Signals that only mean something to a running app.
const OTHER: [i32; 3] = [SIGUSR1, SIGUSR2, SIGWINCH];

/// Listens for signals from when it is made to the end of the process.
#[derive(Clone, Debug)]
pub struct Signals {
    /// The first ending signal, or 0.
    first: Arc<AtomicI32>,
}

impl Signals {
    /// Begins to listen. Signals that were ignored when this process was started, as `nohup` and
    /// background jobs have it, stay ignored.
    ///
    /// # Errors
    /// Those of `sigaction(2)`.
    pub fn listen(sender: SignalSender) -> io::Result<Self> {
        Self::catch(ENDING.iter().chain(&OTHER), move |signal| sender.send(signal))
    }

    /// Begins to listen where there is no pod: for those signals alone that end the work.
    ///
    /// # Errors
    /// Those of `sigaction(2)`.
    pub fn listen_alone() -> io::Result<Self> {
        Self::catch(ENDING.iter(), |_| ())
    }

    fn catch<'a>(
        wanted: impl Iterator<Item = &'a i32>,
        caught: impl Fn(i32) + Send + 'static,
    ) -> io::Result<Self> {
        let ignored = ignored()?;
        let wanted = wanted.filter(|signal| ignored >> (**signal - 1) & 1 == 0);
        let mut signals = Caught::new(wanted)?;
        let first = Arc::new(AtomicI32::new(0));
        let seen = Arc::clone(&first);
        thread::spawn(move || {
            for signal in signals.forever() {
                if ENDING.contains(&signal) {
                    // Only the first one counts.
                    let _ = seen.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
                }
                caught(signal);
            }
        });
        Ok(Self { first })
    }

    /// As if a signal had come, or 0 if none has.
    #[cfg(test)]
    pub fn interrupted_by(signal: i32) -> Self {
        Self { first: Arc::new(AtomicI32::new(signal)) }
    }

    /// The first signal, if there was any, that ends a pod whose apps don't run yet.
    pub fn interrupted(&self) -> Option<i32> {
        Some(self.first.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}

/// The mask of signals that this process ignores (`proc_pid_status(5)`).
fn ignored() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no line SigIgn"))
}

/// Tells when somebody has asked often enough for the end of a pod whose apps don't react.
#[derive(Debug, Default)]
pub struct Patience {
    interrupts: u32,
    last_interrupt: Option<Instant>,
    first_termination: Option<Instant>,
}

impl Patience {
    /// Interrupts that are further apart than this are not impatience.
    const FORGET: Duration = Duration::from_secs(10);
    /// Some tools send SIGTERM to a process and to its group at once.
    const SAME: Duration = Duration::from_secs(1);

    /// Whether this signal, which arrives `now`, is the third SIGINT in a row or a second SIGTERM.
    pub fn is_at_an_end(&mut self, signal: i32, now: Instant) -> bool {
        match signal {
            SIGINT => {
                let in_a_row = self.last_interrupt.is_some_and(|last| now - last <= Self::FORGET);
                self.interrupts = if in_a_row { self.interrupts + 1 } else { 1 };
                self.last_interrupt = Some(now);
                self.interrupts >= 3
            }
            SIGTERM => now - *self.first_termination.get_or_insert(now) >= Self::SAME,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_interrupt_in_a_row_ends_patience() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::default();
        assert!(!patience.is_at_an_end(SIGINT, at(0)));
        assert!(!patience.is_at_an_end(SIGINT, at(1)));
        assert!(!patience.is_at_an_end(SIGUSR1, at(1)));
        assert!(patience.is_at_an_end(SIGINT, at(2)));
        let mut patience = Patience::default();
        for seconds in [0, 20, 40, 60] {
            assert!(!patience.is_at_an_end(SIGINT, at(seconds)), "{seconds}");
        }
    }

    #[test]
    fn a_second_termination_ends_patience_unless_it_is_the_same_one() {
        let start = Instant::now();
        let mut patience = Patience::default();
        assert!(!patience.is_at_an_end(SIGTERM, start));
        assert!(!patience.is_at_an_end(SIGTERM, start + Duration::from_millis(10)));
        assert!(patience.is_at_an_end(SIGTERM, start + Duration::from_secs(2)));
    }
}
