//! Copies between the guest's streams and ours: one thread for each direction, blocking.

use super::event::Event;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;

const BUFFER: usize = 64 << 10;

/// A stream of the guest's that is written to one of ours.
#[derive(Debug)]
pub struct Output {
    writing: Arc<AtomicBool>,
}

impl Output {
    /// Copies `from`, a stream of the guest, to `to`. An [`Event::OutputEnded`] tells the end.
    pub fn start(mut from: UnixStream, mut to: File, events: SyncSender<Event>) -> Self {
        let writing = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&writing);
        thread::spawn(move || {
            let result = copy(&mut from, &mut to, &shared);
            // The app learns by a broken pipe that nobody reads any more. It fails if the guest
            // has gone.
            let _ = from.shutdown(Shutdown::Both);
            let _ = events.send(Event::OutputEnded(match result {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                result => result,
            }));
        });
        Self { writing }
    }

    /// Whether it waits for whoever reads our stream.
    pub fn is_writing(&self) -> bool {
        self.writing.load(Ordering::Relaxed)
    }
}

/// Copies until the guest ends the stream; only a failure to write is an error.
fn copy(from: &mut UnixStream, to: &mut File, writing: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                writing.store(true, Ordering::Relaxed);
                write_all(to, &buffer[..count])?;
                writing.store(false, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Writes all, also where whoever gave us the descriptor made it non-blocking.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait_for(to, PollFlags::OUT)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Copies `from`, a stream of ours, to `to`, a stream of the guest, and its end, too. The thread
/// may wait for input until the process ends.
pub fn start_input(mut from: File, mut to: UnixStream) {
    thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    if to.write_all(&buffer[..count]).is_err() {
                        // The app has closed its standard input.
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if wait_for(&from, PollFlags::IN).is_err() {
                        break;
                    }
                }
                // A terminal that was hung up, for one.
                Err(_) => break,
            }
        }
        // It fails if the guest has gone.
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn wait_for(file: &impl AsFd, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
