//! A command on a real terminal.

use crate::eventually;
use crate::sandbox::Run;
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A pod whose standard streams are a terminal.
#[derive(Debug)]
pub struct OnTerminal {
    keyboard: File,
    terminal: OwnedFd,
    screen: Arc<Mutex<Vec<u8>>>,
    child: Child,
    /// How much of the screen was looked at.
    seen: usize,
}

impl OnTerminal {
    /// Starts it, with a terminal of 24 lines of 80 characters.
    pub fn start(run: &Run) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo terminal");
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open(name.as_c_str(), flags, Mode::empty()).unwrap();
        set_size(&terminal, 24, 80);

        let (words, _) = run.command_line();
        // A session of its own, with the terminal as the controlling one.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).args(words).env("TERM", "vt100");
        let stream = || terminal.try_clone().unwrap();
        command.stdin(stream()).stdout(stream()).stderr(stream());
        let child = command.spawn().unwrap();

        let mut reader = File::from(keyboard.try_clone().unwrap());
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = screen.clone();
        spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shown.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { keyboard: keyboard.into(), terminal, screen, child, seen: 0 }
    }

    /// Types something.
    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is on the screen, after what was waited for before.
    pub fn shows(&mut self, text: &str) {
        let found = eventually(LIMIT, || self.new_text().contains(text));
        assert!(found, "should show {text:?}; the screen:\n{}", self.text());
        self.seen += self.new_text().find(text).unwrap() + text.len();
    }

    /// Gives the terminal another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        // The kernel sends SIGWINCH.
        set_size(&self.terminal, rows, columns);
    }

    /// The terminal's modes.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    /// Waits for the end, and returns the exit status.
    pub fn ends(&mut self) -> i32 {
        let mut status = None;
        eventually(LIMIT, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap_or_else(|| panic!("does not end; the screen:\n{}", self.text()));
        status.code().expect("setsid passes the status on")
    }

    /// All that was shown so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn new_text(&self) -> String {
        self.text()[self.seen..].to_owned()
    }
}

fn set_size(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}
