//! Other people's tools that the tests make their material with.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// A tool that is being called; it has to succeed.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl Tool {
    /// This program.
    pub fn new(program: &str) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { command, stdin: None }
    }

    /// With these words.
    pub fn with<A: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = A>) -> Self {
        self.command.args(words);
        self
    }

    /// With an option and its value, two words.
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.arg(name).arg(value);
        self
    }

    /// With a word of two parts: `name=` and a path.
    pub fn word(mut self, start: &str, rest: impl AsRef<OsStr>) -> Self {
        let mut word = OsString::from(start);
        word.push(rest);
        self.command.arg(word);
        self
    }

    /// With a variable in its environment.
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// In this directory.
    pub fn within(mut self, directory: impl AsRef<std::path::Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// With this on its standard input.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.command.stdin(Stdio::piped());
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs it and returns what it wrote to its standard output.
    #[track_caller]
    pub fn run(mut self) -> Vec<u8> {
        let shown = format!("{:?}", self.command);
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("{shown}\n{error}"));
        let stdin = child.stdin.take();
        let input = self.stdin;
        let output = std::thread::scope(|scope| {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                scope.spawn(move || stdin.write_all(&input));
            }
            child.wait_with_output().unwrap()
        });
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shown}\n{}\n{said}", output.status);
        output.stdout
    }

    /// Runs it and returns what it wrote, as text without the space around it.
    #[track_caller]
    pub fn text(self) -> String {
        String::from_utf8(self.run()).unwrap().trim().to_owned()
    }
}
