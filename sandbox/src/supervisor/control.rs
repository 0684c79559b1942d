//! The threads of the two control sockets: the monitor's and the guest's.

use super::event::Event;
use sandbox_protocol::{ToGuest, read_to_host, write_to_guest};
use sandbox_vmm::control;
use std::io::BufReader;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

/// Our end of the monitor's control socket. Its end is the microVM's.
#[derive(Debug)]
pub struct Monitor {
    socket: OwnedFd,
}

impl Monitor {
    /// Turns what the monitor says into events.
    ///
    /// # Errors
    /// Those of `dup(2)`.
    pub fn listen(socket: OwnedFd, events: SyncSender<Event>) -> std::io::Result<Self> {
        let reader = socket.try_clone()?;
        thread::spawn(move || {
            loop {
                let event = match control::receive(&reader) {
                    Ok(Some(control::Event::Connection { port, stream })) => {
                        Event::Connection { port, stream: UnixStream::from(stream) }
                    }
                    Ok(Some(control::Event::FirstEntry { time })) => Event::FirstEntry(time),
                    // After an error the monitor can't be trusted with anything more.
                    Ok(None) | Err(_) => Event::MonitorSilent,
                };
                let last = matches!(event, Event::MonitorSilent);
                if events.send(event).is_err() || last {
                    return;
                }
            }
        });
        Ok(Self { socket })
    }

    /// Ends the microVM at once.
    pub fn hang_up(&self) {
        // It fails if the monitor has gone.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// The control connection of the guest.
#[derive(Debug)]
pub struct Guest {
    stream: UnixStream,
    messages: SyncSender<ToGuest>,
}

/// Most messages that wait for a guest that doesn't read.
const QUEUE: usize = 16;

impl Guest {
    /// Turns what the guest says into events, and sends what it is told, so that a guest that
    /// neither reads nor writes holds up nobody.
    ///
    /// # Errors
    /// Those of `dup(2)`.
    pub fn listen(stream: UnixStream, events: SyncSender<Event>) -> std::io::Result<Self> {
        let reader = stream.try_clone()?;
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            loop {
                let message = read_to_host(&mut reader);
                let last = !matches!(message, Ok(Some(_)));
                if events.send(Event::Message(message)).is_err() || last {
                    return;
                }
            }
        });
        let mut writer = stream.try_clone()?;
        let (messages, queue) = sync_channel(QUEUE);
        thread::spawn(move || {
            for message in queue {
                // The reader sees the end of the connection, too.
                if write_to_guest(&mut writer, &message).is_err() {
                    return;
                }
            }
        });
        Ok(Self { stream, messages })
    }

    /// Sends a message. One for a guest that has not read the last ones is dropped.
    pub fn send(&self, message: ToGuest) {
        let _ = self.messages.try_send(message);
    }

    /// Closes the connection: the guest may reset its machine.
    pub fn close(&self) {
        // It fails if the guest has gone.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
