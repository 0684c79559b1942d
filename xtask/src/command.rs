//! Running other programs, with errors that show the command line, how it ended and what it said.

use crate::step::LastLine;
use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// So many of a failed command's last lines are shown.
const LINES_SHOWN: usize = 100;

/// Runs the command and shows the last line of its output while it lasts; if it fails, the error
/// holds the last lines. For what takes long and says much: compilers, package managers.
pub fn watched(command: &mut Command) -> Result<()> {
    watch(command, LastLine::new())
}

/// The same as a step of its own, of which nothing is said if there turns out to be little to do.
pub fn announced(what: &str, command: &mut Command) -> Result<()> {
    watch(command, LastLine::announcing(what))
}

fn watch(command: &mut Command, mut shown: LastLine) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| could_not_start(command))?;
    // The command holds the write ends; the reader ends when the child's copies are closed.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = channel();
    let reading = std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let mut last = VecDeque::from([line(command)]);
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok(line) if line.is_empty() => {}
            Ok(line) => {
                if last.len() == LINES_SHOWN {
                    last.pop_front();
                }
                last.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some(line) = last.back() {
            shown.show(line);
        }
    }
    drop(shown);
    let _ = reading.join();
    let status = child.wait()?;
    if !status.success() {
        let said = Vec::from(last).join("\n");
        bail!("{} ended with {status}; its last lines:\n{said}", line(command));
    }
    Ok(())
}

/// Runs the command and returns its standard output; if it fails, the error holds what it wrote
/// to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| could_not_start(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", line(command), output.status, said.trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{}: its output", line(command)))
}

/// Runs the command with our own standard error, and returns its standard output.
pub fn captured(command: &mut Command) -> Result<String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let output = child.with_context(|| could_not_start(command))?.wait_with_output()?;
    if !output.status.success() {
        bail!("{} ended with {}", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{}: its output", line(command)))
}

/// A command that runs as root: by itself if we are root, else through sudo.
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    }
}

/// The command line as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word as the shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn could_not_start(command: &Command) -> String {
    format!("{} could not be started", line(command))
}
