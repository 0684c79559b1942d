//! Progress: what is being done, what it waits for, how long it took. All of it goes to standard
//! error, standard output belongs to the result.

use anyhow::{Context, Result};
use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Says what is being done, does it, and says how long it took. `what` starts in lower case and
/// names what the step waits for if that can take long: "building the guest kernel (compiler,
/// about 5 minutes)". An error comes back with `what` in front of it.
pub fn step<T>(what: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    eprintln!("==> {what}");
    let result = work().with_context(|| what.to_string())?;
    eprintln!("    done in {}", duration(start.elapsed()));
    Ok(result)
}

/// One line about a decision that was taken or something that was found.
pub fn note(what: impl Display) {
    eprintln!("    {what}");
}

/// Shows the last line of a running command's output: on a terminal each line as it comes, in
/// place; elsewhere one line in every thirty seconds, so that a log stays readable.
#[derive(Debug)]
pub struct LastLine {
    terminal: bool,
    started: Instant,
    shown: Instant,
    /// To be said first; then it is gone.
    heading: Option<String>,
    /// Whether the heading was said, so that its end has to be said too.
    announced: bool,
}

impl LastLine {
    /// How often a log gets a line.
    const PERIOD: Duration = Duration::from_secs(30);
    /// What ends sooner isn't announced.
    const SHORT: Duration = Duration::from_secs(2);
    /// As many characters of a line are shown.
    const WIDTH: usize = 90;

    /// Of a step that has been announced.
    pub fn new() -> Self {
        let (terminal, now) = (std::io::stderr().is_terminal(), Instant::now());
        LastLine { terminal, started: now, shown: now, heading: None, announced: false }
    }

    /// Of something that is announced if it takes a while.
    pub fn announcing(what: &str) -> Self {
        LastLine { heading: Some(what.to_owned()), ..LastLine::new() }
    }

    /// `line` is the newest one.
    pub fn show(&mut self, line: &str) {
        if self.heading.is_some() && self.started.elapsed() < Self::SHORT {
            return;
        }
        if let Some(what) = self.heading.take() {
            eprintln!("==> {what}");
            self.announced = true;
        }
        let line: String =
            line.chars().filter(|c| !c.is_control()).take(Self::WIDTH).collect::<String>();
        if self.terminal {
            eprint!("\r\x1b[2K    {line}");
        } else if self.shown.elapsed() >= Self::PERIOD {
            self.shown = Instant::now();
            eprintln!("    … {line}");
        }
    }
}

impl Drop for LastLine {
    fn drop(&mut self) {
        if self.terminal && self.heading.is_none() {
            eprint!("\r\x1b[2K");
        }
        if self.announced {
            eprintln!("    done in {}", duration(self.started.elapsed()));
        }
    }
}

/// `0.3 s`, `42 s`, `3 min 5 s`.
fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
