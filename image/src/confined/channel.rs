use crate::{
    Error, Progress, Step,
    fetch::frame,
    protocol::{Answer, Event},
};
use std::{
    fs::File,
    io::{self, Write as _},
    ops::ControlFlow,
    os::unix::net::UnixStream,
};

/// The way to the trusted process.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    pipe: File,
}

impl Channel {
    /// Hears from the socket and speaks into the pipe.
    pub fn new(socket: UnixStream, pipe: File) -> Self {
        Self { socket, pipe }
    }

    /// Says something.
    pub(super) fn say(&mut self, event: &Event) -> Result<(), Error> {
        let mut line = serde_json::to_vec(event).map_err(io::Error::from).map_err(failed)?;
        line.push(b'\n');
        self.pipe.write_all(&line).map_err(failed)
    }

    /// Says something and waits for the answer, which has one file for each blob.
    pub(super) fn ask(&mut self, event: &Event) -> Result<(Answer, Vec<File>), Error> {
        self.say(event)?;
        let (bytes, files) = frame::receive(&self.socket).map_err(failed)?;
        let answer: Answer =
            serde_json::from_slice(&bytes).map_err(io::Error::from).map_err(failed)?;
        if answer.wanted.len() != files.len() {
            return Err(failed(io::ErrorKind::InvalidData.into()));
        }
        Ok((answer, files.into_iter().map(File::from).collect()))
    }
}

fn failed(error: io::Error) -> Error {
    Error::io("speak to", "sandbox", error)
}

/// Passes progress on. Whoever no longer wants the work kills the process.
impl Progress for Channel {
    fn report(&mut self, step: Step) -> ControlFlow<()> {
        match self.say(&Event::Progress { step }) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
