//! The confined process, from the side of the trusted one.

use super::{
    frame,
    protocol::{Answer, Confinement, Event, MAX_LINE, Request, Task},
};
use crate::{Error, Limit, LimitExceeded, Limits, Text, progress::Reporter};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd as _, BorrowedFd, OwnedFd},
    io::Errno,
    process::geteuid,
    rand::{GetRandomFlags, getrandom},
};
use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::{fs::FileExt as _, fs::MetadataExt as _, net::UnixStream, process::CommandExt as _},
    path::Path,
    process::{self, Command, Stdio},
    time::Duration,
};

/// How often it is asked whether the work is still wanted.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Users that no other program uses: systemd's list of user IDs (UIDS-GIDS) has nobody between the
/// ranges of containers and the end of what is a positive number everywhere.
const USERS: std::ops::Range<u32> = 0x7000_0000..0x7fff_ffff;
/// How long writing to the process may take. It reads what is sent to it at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the confined process may use of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    /// The most bytes that a file may have.
    pub(crate) file_size: u64,
    /// The most bytes on disk that all files may have.
    pub(crate) disk: u64,
    /// The most bytes of address space.
    memory: u64,
}

impl Quota {
    /// What an image within its limits can need.
    pub(crate) fn of(limits: &Limits) -> Self {
        let size = limits.get(Limit::Size);
        let held = limits.get(Limit::Names)
            + limits.get(Limit::Xattrs)
            + limits.get(Limit::Document) * 16
            + limits.get(Limit::Files) * 1024;
        Self {
            // The root file system has a hash tree, and blocks that are not full.
            file_size: size.saturating_add(size / 16).saturating_add(1 << 30),
            disk: size.saturating_mul(3).saturating_add(1 << 30),
            memory: held.saturating_add(2 << 30),
        }
    }
}

/// A confined process that is doing its task. It ends with this value.
#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    socket: UnixStream,
    lines: Lines,
    diagnosis: File,
    /// Files that it writes to.
    written: Vec<File>,
    quota: Quota,
}

impl Child {
    /// Starts the program. `diagnosis` is an empty file for what it says when it dies.
    pub(crate) fn start(
        program: &Path,
        task: Task,
        limits: &Limits,
        files: &[BorrowedFd<'_>],
        diagnosis: File,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::io("start", program, error);
        let quota = Quota::of(limits);
        let user = if geteuid().is_root() { Some(unused_user().map_err(failed)?) } else { None };
        let confinement = Confinement {
            parent: process::id(),
            user,
            file_size: quota.file_size,
            memory: quota.memory,
        };
        let request = Request { confinement, task, limits: limits.clone() };
        let request = serde_json::to_vec(&request).map_err(|error| failed(error.into()))?;
        let (socket, its_end) = UnixStream::pair().map_err(failed)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let mut process = Command::new(program)
            .env_clear()
            .current_dir("/")
            // Ctrl-C is for this process, which decides what becomes of the other one.
            .process_group(0)
            .stdin(OwnedFd::from(its_end))
            .stdout(Stdio::piped())
            .stderr(diagnosis.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let Some(pipe) = process.stdout.take() else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let lines = Lines::new(OwnedFd::from(pipe).into());
        let mut child = Self { process, socket, lines, diagnosis, written: Vec::new(), quota };
        match frame::send(&child.socket, &request, files) {
            Ok(()) => Ok(child),
            Err(error) => Err(child.died().unwrap_or_else(|| failed(error))),
        }
    }

    /// Holds these files against the quota as long as the process runs.
    pub(crate) fn watch<'a>(
        &mut self,
        files: impl IntoIterator<Item = &'a File>,
    ) -> Result<(), Error> {
        for file in files {
            let copy = file.try_clone();
            self.written.push(copy.map_err(|error| Error::io("watch", "a file", error))?);
        }
        Ok(())
    }

    /// What it says next, apart from progress, which is passed on.
    pub(crate) fn next(&mut self, reporter: &mut Reporter<'_>) -> Result<Event, Error> {
        loop {
            while let Some(line) = self.lines.take()? {
                match Event::parse(&line).map_err(|problem| malformed(&problem))? {
                    Event::Progress { step } => reporter.report(step)?,
                    Event::Failed { failure } => return Err(failure.into_error()),
                    event => return Ok(event),
                }
            }
            let mut ready = [PollFd::new(&self.lines.pipe, PollFlags::IN)];
            match poll(&mut ready, Some(&PAUSE)) {
                Ok(0) => {
                    reporter.ask()?;
                    self.check_quota()?;
                }
                Ok(_) => {
                    if !self.lines.fill().map_err(|error| Error::io("read from", NAME, error))? {
                        return Err(self.died().unwrap_or_else(|| malformed("it says nothing")));
                    }
                }
                Err(Errno::INTR) => reporter.ask()?,
                Err(error) => return Err(Error::io("wait for", NAME, error)),
            }
        }
    }

    /// Answers it.
    pub(crate) fn answer(
        &mut self,
        answer: &Answer,
        files: &[BorrowedFd<'_>],
    ) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io("write to", NAME, error);
        let answer = serde_json::to_vec(answer).map_err(|error| failed(error.into()))?;
        match frame::send(&self.socket, &answer, files) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.died().unwrap_or_else(|| failed(error))),
        }
    }

    /// Waits for its end, after which nobody writes to its files any more.
    pub(crate) fn finish(mut self, reporter: &mut Reporter<'_>) -> Result<(), Error> {
        match self.next(reporter)? {
            Event::Done => {}
            _ => return Err(malformed("it goes on where it should be done")),
        }
        self.end();
        Ok(())
    }

    fn check_quota(&self) -> Result<(), Error> {
        let blocks = self.written.iter().filter_map(|file| file.metadata().ok());
        let bytes = blocks.fold(0_u64, |sum, file| sum.saturating_add(file.blocks() * 512));
        if bytes > self.quota.disk {
            return Err(LimitExceeded { limit: Limit::Size, value: self.quota.disk }.into());
        }
        Ok(())
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Why it has ended, if it has before it said so.
    fn died(&mut self) -> Option<Error> {
        let status = self.process.wait().ok()?;
        let mut said = vec![0; 1024];
        let length = self.diagnosis.read_at(&mut said, 0).unwrap_or_default();
        let said = said[..length].trim_ascii();
        let mut message = format!("the process that reads images ended too early: {status}");
        if !said.is_empty() {
            message = format!("{message}: {}", String::from_utf8_lossy(said));
        }
        Some(Error::Fetch(Text::message(message)))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

const NAME: &str = "the process that reads images";

/// It said something that means nothing.
pub(crate) fn malformed(problem: &str) -> Error {
    Error::Fetch(Text::message(format!("{NAME} does not keep to the protocol: {problem}")))
}

/// A user that nobody else is. Two processes that run at the same time could have the same one
/// with a chance of one in some hundred million; they would still share no file.
fn unused_user() -> io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(USERS.start + u32::from_ne_bytes(bytes) % (USERS.end - USERS.start))
}

/// Lines of a pipe, of bounded length.
#[derive(Debug)]
struct Lines {
    pipe: File,
    buffer: Vec<u8>,
    /// Bytes at the beginning that hold no end of a line.
    searched: usize,
}

impl Lines {
    fn new(pipe: File) -> Self {
        Self { pipe, buffer: Vec::new(), searched: 0 }
    }

    /// Reads what is there; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 16 << 10];
        let count = loop {
            match self.pipe.read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count > 0)
    }

    /// The next whole line.
    fn take(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') {
            Some(at) => {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                self.searched = 0;
                Ok(Some(line))
            }
            None if self.buffer.len() > MAX_LINE => Err(malformed("a line is too long")),
            None => {
                self.searched = self.buffer.len();
                Ok(None)
            }
        }
    }
}

/// Open files as they go with a message.
pub(crate) fn borrow<'a>(files: impl IntoIterator<Item = &'a File>) -> Vec<BorrowedFd<'a>> {
    files.into_iter().map(|file| file.as_fd()).collect()
}
