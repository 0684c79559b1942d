//! What the supervisor waits for: every thread but the main one only turns something that blocks
//! into events.

use super::process::End;
use sandbox_protocol::{FrameError, ToHost};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// This process got a signal.
    Signal(i32),
    /// The guest connected to a port.
    Connection {
        /// The port.
        port: u32,
        /// The stream.
        stream: UnixStream,
    },
    /// The guest is about to run its first instruction, at this time of the monotonic clock.
    FirstEntry(Duration),
    /// The monitor's socket gives nothing more.
    MonitorSilent,
    /// What came over the control connection; `None` is its end.
    Message(Result<Option<ToHost>, FrameError>),
    /// The app closed one of its output streams, or writing it on failed here.
    OutputEnded(io::Result<()>),
    /// The pod's secrets, sealed for its guest, or why there are none.
    Secrets(Result<Vec<Vec<u8>>, String>),
    /// A process of the pod ended.
    Ended(Role, End),
    /// Nothing, but a signal is there.
    Wake,
}

/// A process of the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `sandbox-vmm`
    Monitor,
    /// `sandbox-fs`
    Worker,
}

/// Most events that wait. Who has more to tell is held up, so that a hostile guest can't fill our
/// memory.
const QUEUE: usize = 64;

/// Where events arrive. Signals come first, so that a guest that never stops talking can't keep
/// them out.
#[derive(Debug)]
pub struct Inbox {
    events: Receiver<Event>,
    signals: Receiver<i32>,
}

/// Puts signals into an [`Inbox`].
#[derive(Clone, Debug)]
pub struct SignalSender {
    events: SyncSender<Event>,
    signals: SyncSender<i32>,
}

/// Makes an inbox, and what fills it.
pub fn inbox() -> (SyncSender<Event>, SignalSender, Inbox) {
    let (event_sender, events) = sync_channel(QUEUE);
    let (signal_sender, signals) = sync_channel(QUEUE);
    let signal_sender = SignalSender { events: event_sender.clone(), signals: signal_sender };
    (event_sender, signal_sender, Inbox { events, signals })
}

impl SignalSender {
    /// Puts a signal in. One of very many that nobody took is dropped.
    pub fn send(&self, signal: i32) {
        if self.signals.try_send(signal).is_ok() {
            // If there is no room, there is something to wake up for.
            let _ = self.events.try_send(Event::Wake);
        }
    }
}

impl Inbox {
    /// The next event; none if it does not come until `deadline`.
    pub fn next(&self, deadline: Option<Instant>) -> Option<Event> {
        loop {
            if let Ok(signal) = self.signals.try_recv() {
                return Some(Event::Signal(signal));
            }
            let event = match deadline {
                Some(at) => self.events.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Wake) => {}
                Ok(event) => return Some(event),
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_come_through_a_flood() {
        let (events, signals, inbox) = inbox();
        while events.try_send(Event::MonitorSilent).is_ok() {}
        signals.send(15);
        assert!(matches!(inbox.next(None), Some(Event::Signal(15))));
        assert!(matches!(inbox.next(None), Some(Event::MonitorSilent)));
    }

    #[test]
    fn a_signal_wakes_and_nothing_else_is_seen_of_it() {
        let (_events, signals, inbox) = inbox();
        signals.send(1);
        signals.send(2);
        let soon = || Some(Instant::now() + Duration::from_millis(10));
        assert!(matches!(inbox.next(soon()), Some(Event::Signal(1))));
        assert!(matches!(inbox.next(soon()), Some(Event::Signal(2))));
        assert!(inbox.next(soon()).is_none());
    }
}
