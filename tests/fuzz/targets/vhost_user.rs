//! vhost-user messages to a virtio-fs worker, from a monitor that its guest has taken over.
#![no_main]

mod driver;
mod inside;

use inside::{Inside, inside};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg};
use sandbox_fs::device::{Device, QUEUES};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use vhost::vhost_user::BackendReqHandler;

#[derive(Debug, Arbitrary)]
struct Message {
    code: u8,
    flags: Option<u8>,
    words: Vec<Word>,
    /// What the header says of the length, if that is something else.
    length: Option<u32>,
    descriptors: u8,
}

#[derive(Clone, Copy, Debug, Arbitrary)]
enum Word {
    Low(u8),
    Halves(u16, u16),
    /// An address in the monitor's memory.
    Near(u16),
    Features,
    Any(u64),
}

impl Word {
    fn bytes(self) -> [u8; 8] {
        match self {
            Self::Low(value) => u64::from(value),
            Self::Halves(low, high) => u64::from(low) | u64::from(high) << 32,
            Self::Near(offset) => 0x7000_0000 + u64::from(offset),
            Self::Features => 1 << 32 | 1 << 29 | 1 << 30,
            Self::Any(value) => value,
        }
        .to_le_bytes()
    }
}

fn run(inside: &mut Inside, messages: &[Message]) {
    inside.restart();
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    for message in messages.iter().take(16) {
        let bytes: Vec<u8> = message.words.iter().take(64).flat_map(|word| word.bytes()).collect();
        let length = message.length.unwrap_or(bytes.len() as u32);
        let flags = message.flags.map_or(1, u32::from);
        let header = [u32::from(message.code % 50), flags, length].map(u32::to_le_bytes).concat();
        let memory = inside.memfd();
        let descriptors = vec![memory.as_fd(); usize::from(message.descriptors % 4)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        let _ = sendmsg(&near, &[IoSlice::new(&header)], &mut ancillary, SendFlags::DONTWAIT);
        let _ = rustix::net::send(&near, &bytes, SendFlags::DONTWAIT);
    }
    rustix::net::shutdown(&near, Shutdown::Write).expect("a socket");

    // As the worker does it, and from time to time a guest rings.
    let files = inside.files();
    let device = Arc::new(Mutex::new(Device::new(files).expect("a device")));
    let mut handler = BackendReqHandler::from_stream(far, device.clone());
    for _ in 0..=messages.len() {
        if handler.handle_request().is_err() {
            break;
        }
        let mut device = device.lock().expect("one thread");
        for queue in 0..QUEUES {
            let _ = device.kick(queue);
            let _ = device.process(queue, false);
        }
    }
    drop((handler, device));
    inside.check();
}

fuzz_target!(|input: &[u8]| {
    let Ok(messages) = Vec::<Message>::arbitrary_take_rest(Unstructured::new(input)) else {
        return;
    };
    inside(move |inside| run(inside, &messages));
});
