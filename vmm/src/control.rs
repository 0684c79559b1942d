//! The socket between monitor and supervisor.
//!
//! An `AF_UNIX` pair of type `SOCK_SEQPACKET`; each packet is one [`Event`] of 16 bytes, with a
//! file descriptor attached where the event has one. The monitor opens nothing by name while the
//! guest runs: a stream of the guest's reaches the supervisor as one end of a fresh socket pair.
//! When the supervisor closes its end, the monitor ends the microVM.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What the monitor tells the supervisor.
#[derive(Debug)]
pub enum Event {
    /// The guest connected to a port of the host.
    Connection {
        /// The port.
        port: u32,
        /// The supervisor's end of the stream. Closing it closes the guest's connection.
        stream: OwnedFd,
    },
    /// The first virtual CPU is about to run its first instruction.
    FirstEntry {
        /// The time, of the host's monotonic clock.
        time: Duration,
    },
}

/// Why an event could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket failed.
    #[error("control socket: {0}")]
    Socket(#[from] Errno),
    /// The packet is not an event.
    #[error("control socket: malformed packet")]
    Malformed,
}

const CONNECTION: u32 = 1;
const FIRST_ENTRY: u32 = 2;

/// The tag, a 32-bit argument and a 64-bit one, each little-endian.
const PACKET: usize = 16;

/// Makes the two ends of a control socket, the monitor's and the supervisor's, both to be closed
/// on exec.
///
/// # Errors
/// Those of `socketpair(2)`.
pub fn pair() -> Result<(OwnedFd, OwnedFd), ControlError> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends an event to the supervisor.
///
/// # Errors
/// Those of `sendmsg(2)`; with `flags` of [`SendFlags::DONTWAIT`] also [`Errno::AGAIN`].
pub fn send(socket: impl AsFd, event: &Event, flags: SendFlags) -> Result<(), ControlError> {
    let mut packet = [0; PACKET];
    let (tag, argument, long, descriptor): (u32, u32, u64, Option<BorrowedFd<'_>>) = match event {
        Event::Connection { port, stream } => (CONNECTION, *port, 0, Some(stream.as_fd())),
        Event::FirstEntry { time } => {
            (FIRST_ENTRY, 0, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), None)
        }
    };
    packet[..4].copy_from_slice(&tag.to_le_bytes());
    packet[4..8].copy_from_slice(&argument.to_le_bytes());
    packet[8..].copy_from_slice(&long.to_le_bytes());

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        // The space was made for exactly one descriptor.
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits);
    }
    sendmsg(socket, &[IoSlice::new(&packet)], &mut ancillary, flags | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives an event from the monitor. `None` means that the monitor has closed its end.
///
/// # Errors
/// Those of `recvmsg(2)`, and [`ControlError::Malformed`] for what is no event: the monitor may
/// have been taken over by its guest.
pub fn receive(socket: impl AsFd) -> Result<Option<Event>, ControlError> {
    let mut packet = [0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if message.bytes == 0 {
        return Ok(None);
    }
    let cut = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    if message.bytes != PACKET || cut || descriptors.len() > 1 {
        return Err(ControlError::Malformed);
    }
    let [t0, t1, t2, t3, a0, a1, a2, a3, long @ ..] = packet;
    let argument = u32::from_le_bytes([a0, a1, a2, a3]);
    match (u32::from_le_bytes([t0, t1, t2, t3]), descriptors.pop()) {
        (CONNECTION, Some(stream)) => Ok(Some(Event::Connection { port: argument, stream })),
        (FIRST_ENTRY, None) => {
            Ok(Some(Event::FirstEntry { time: Duration::from_nanos(u64::from_le_bytes(long)) }))
        }
        _ => Err(ControlError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{read, write};

    #[test]
    fn a_stream_of_the_guest_arrives_with_its_port() {
        let (monitor, supervisor) = pair().unwrap();
        let (stream, far) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .unwrap();
        send(&monitor, &Event::Connection { port: 1024, stream }, SendFlags::empty()).unwrap();
        let Some(Event::Connection { port: 1024, stream }) = receive(&supervisor).unwrap() else {
            panic!("not the event that was sent");
        };
        write(&far, b"x").unwrap();
        assert_eq!(read(&stream, &mut [0; 4]), Ok(1));
    }

    #[test]
    fn a_time_arrives_and_then_the_end() {
        let (monitor, supervisor) = pair().unwrap();
        let time = Duration::from_nanos(1_234_567_890_123);
        send(&monitor, &Event::FirstEntry { time }, SendFlags::empty()).unwrap();
        drop(monitor);
        assert!(
            matches!(receive(&supervisor), Ok(Some(Event::FirstEntry { time: t })) if t == time)
        );
        assert!(receive(&supervisor).unwrap().is_none());
    }

    #[test]
    fn packets_that_are_no_events_are_refused() {
        for packet in [&[0; 16][..], &[1; 3], &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let (monitor, supervisor) = pair().unwrap();
            write(&monitor, packet).unwrap();
            assert!(matches!(receive(&supervisor), Err(ControlError::Malformed)), "{packet:?}");
        }
    }
}
