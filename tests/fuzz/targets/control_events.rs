//! What a monitor that its guest has taken over sends to the supervisor over the control socket.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sandbox_vmm::control::{self, ControlError, Event};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::OnceLock;

#[derive(Debug, arbitrary::Arbitrary)]
struct Packet<'a> {
    tag: Option<u8>,
    bytes: &'a [u8],
    descriptors: u8,
}

fuzz_target!(|packets: Vec<Packet<'_>>| {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    let file = FILE.get_or_init(|| memfd_create("file", MemfdFlags::CLOEXEC).expect("a memfd"));
    let lowest = || file.try_clone().expect("a descriptor").as_raw_fd();
    let before = lowest();
    let (monitor, supervisor) = control::pair().expect("a pair of sockets");
    for packet in packets.iter().take(16) {
        let mut bytes = packet.bytes.to_vec();
        if let Some(tag) = packet.tag {
            bytes.resize(16, 0);
            bytes[..4].copy_from_slice(&u32::from(tag).to_le_bytes());
        }
        let descriptors = vec![file.as_fd(); usize::from(packet.descriptors % 5)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        sendmsg(&monitor, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::DONTWAIT)
            .expect("the socket has room for one packet");
        let word = bytes.get(4..8).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        match control::receive(&supervisor) {
            Ok(Some(Event::Connection { port, stream })) => {
                assert_eq!((bytes.len(), bytes[0], descriptors.len()), (16, 1, 1));
                assert_eq!(Some(port), word);
                let flags = rustix::io::fcntl_getfd(&stream).expect("it is open");
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
            Ok(Some(Event::FirstEntry { .. })) => {
                assert_eq!((bytes.len(), bytes[0], descriptors.len()), (16, 2, 0));
            }
            // A packet without bytes is what the end of the connection looks like.
            Ok(None) => assert!(bytes.is_empty()),
            Err(ControlError::Malformed) => {}
            Err(error) => panic!("{error}"),
        }
    }
    drop((monitor, supervisor));
    assert_eq!(lowest(), before, "a descriptor stayed open");
});
