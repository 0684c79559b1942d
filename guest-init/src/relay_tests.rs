use super::{BUFFER, Relay, Side};
use rustix::event::PollFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// A relay from a pipe to a connection, with the ends that others hold.
fn relay() -> (std::fs::File, Relay, UnixStream) {
    let (from, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    let (to, reader) = UnixStream::pair().unwrap();
    to.set_nonblocking(true).unwrap();
    reader.set_nonblocking(true).unwrap();
    (writer.into(), Relay::new(Rc::new(from), Rc::new(OwnedFd::from(to))), reader)
}

fn interests(relay: &Relay) -> Vec<(Side, PollFlags)> {
    relay.interests().map(|(side, _, flags)| (side, flags)).collect()
}

const IDLE: [(Side, PollFlags); 2] = [(Side::From, PollFlags::IN), (Side::To, PollFlags::empty())];

#[test]
fn the_end_is_passed_on_after_the_last_byte() {
    let (mut writer, mut relay, mut reader) = relay();
    assert_eq!(interests(&relay), IDLE);
    writer.write_all(b"last words").unwrap();
    drop(writer);
    relay.react(Side::From, PollFlags::IN | PollFlags::HUP);
    assert!(relay.is_over());
    assert_eq!(interests(&relay), []);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
    // The connection is only closed from this side; the other side may still be reading.
    assert!(relay.ended_connection().is_some());
    relay.close();
    assert!(relay.ended_connection().is_none());
}

#[test]
fn nothing_is_read_while_something_waits_to_be_written() {
    let (mut writer, mut relay, mut reader) = relay();
    let chunk = vec![7; BUFFER];
    let mut sent = 0;
    while interests(&relay) == IDLE {
        sent += writer.write(&chunk).unwrap();
        relay.react(Side::From, PollFlags::IN);
    }
    assert_eq!(interests(&relay), [(Side::To, PollFlags::OUT)]);
    drop(writer);
    let mut received = Vec::new();
    while !relay.is_over() {
        let mut part = vec![0; BUFFER];
        let length = reader.read(&mut part).unwrap();
        received.extend_from_slice(&part[..length]);
        relay.react(Side::To, PollFlags::OUT);
    }
    reader.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
    assert!(received.iter().all(|byte| *byte == 7));
}

#[test]
fn a_reader_that_goes_away_ends_the_relay_and_tells_the_writer() {
    let (mut writer, mut relay, reader) = relay();
    drop(reader);
    relay.react(Side::To, PollFlags::HUP);
    assert!(relay.is_over());
    assert!(relay.ended_connection().is_none());
    assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn after_the_last_call_what_is_there_is_all() {
    let (mut writer, mut relay, mut reader) = relay();
    writer.write_all(b"all").unwrap();
    relay.call_last();
    assert!(relay.is_over());
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "all");
    drop(writer);
}
