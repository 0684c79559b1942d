//! The file system device, between a guest that activates it as it likes and a worker that was
//! taken over and answers what it likes.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    sendmsg, socketpair,
};
use sandbox_vmm::config::Tag;
use sandbox_vmm::devices::virtio::fs::Fs;
use sandbox_vmm::devices::virtio::{
    Activation, Device, DeviceError, Interrupt, InterruptController, Registry,
};
use sandbox_vmm::memory::{self, GuestMemory};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::epoll::{Epoll, EventSet};
use vmm_sys_util::eventfd::EventFd;

const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_VRING_BASE: u32 = 11;
const OFFERED: u64 = 1 << 32 | 1 << 29 | 1 << 28;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input<'a> {
    features: Option<u64>,
    /// What is answered to each question, where it is not what it should be.
    answers: Vec<Answer<'a>>,
    /// Where the queues are, and how large they are.
    queues: [(u8, [u32; 3]); 2],
    accepted: u64,
    reset: bool,
}

#[derive(Debug, arbitrary::Arbitrary)]
enum Answer<'a> {
    /// Done, as `REPLY_ACK` has it.
    Done(u8),
    Base,
    Message {
        code: u8,
        flags: u8,
        length: Option<u32>,
        body: &'a [u8],
        descriptors: u8,
    },
    Raw(&'a [u8]),
}

#[derive(Debug)]
struct Lines;

impl InterruptController for Lines {
    fn route(&self, _line: u8, _event: &EventFd) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }

    fn raise(&self, _line: u8) -> Result<(), kvm_ioctls::Error> {
        Ok(())
    }
}

fn message(code: u32, body: &[u8]) -> Vec<u8> {
    [&[code, 5, body.len() as u32].map(u32::to_le_bytes).concat(), body].concat()
}

fn said(answer: &Answer<'_>) -> (Vec<u8>, usize) {
    match answer {
        Answer::Done(code) => (message((*code % 45).into(), &[0; 8]), 0),
        Answer::Base => (message(GET_VRING_BASE, &[0; 8]), 0),
        Answer::Message { code, flags, length, body, descriptors } => {
            let length = length.unwrap_or(body.len() as u32);
            let header = [(*code).into(), (*flags).into(), length].map(u32::to_le_bytes).concat();
            ([&header, *body].concat(), usize::from(descriptors % 3))
        }
        Answer::Raw(bytes) => (bytes.to_vec(), 0),
    }
}

fuzz_target!(|input: Input<'_>| {
    static MEMORY: OnceLock<GuestMemory> = OnceLock::new();
    let memory = MEMORY
        .get_or_init(|| memory::allocate(1 << 20, memory::Backing::Shared).expect("memory"))
        .clone();
    let epoll = Arc::new(Epoll::new().expect("an epoll set"));
    let lowest = || epoll_duplicate(&epoll);
    let before = lowest();
    let (socket, worker) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("a pair of sockets");
    let features = input.features.unwrap_or(OFFERED | 1 << 30);
    let first = [
        (message(GET_FEATURES, &features.to_le_bytes()), 0),
        (message(GET_PROTOCOL_FEATURES, &9u64.to_le_bytes()), 0),
    ];
    for (bytes, descriptors) in first.into_iter().chain(input.answers.iter().take(32).map(said)) {
        let descriptors = vec![epoll_fd(&epoll); descriptors];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        }
        let _ = sendmsg(&worker, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::DONTWAIT);
    }
    rustix::net::shutdown(&worker, rustix::net::Shutdown::Write).expect("a socket");

    let kicks = [(); 2].map(|()| Arc::new(EventFd::new(0x800).expect("an eventfd")));
    let interrupt = Interrupt::new(Arc::new(Lines), 1);
    let tag = Tag::try_from("pod".to_owned()).expect("a tag");
    let registry = Registry::new(epoll.clone(), 0);
    match Fs::new(registry, &interrupt, kicks, socket, tag) {
        Err(error) => assert!(matches!(error, DeviceError::Host(_)), "{error}"),
        Ok(mut device) => {
            let identity = device.identity();
            assert_eq!(identity.features & !OFFERED, 0, "features that mean nothing here");
            assert_eq!(identity.config.len(), 40);
            let queues = input.queues.iter().zip(identity.queue_sizes).map(|(queue, most)| {
                let (size, [descriptors, available, used]) = queue;
                let mut queue = Queue::new(*most).expect("a power of two");
                queue.set_size((1 << (size % 8)).min(*most));
                queue.set_desc_table_address(Some(descriptors & !15), Some(0));
                queue.set_avail_ring_address(Some(available & !1), Some(0));
                queue.set_used_ring_address(Some(used & !3), Some(0));
                queue.set_ready(true);
                queue
            });
            let queues: Vec<_> = queues.collect();
            // The registers hand on nothing else.
            if queues.iter().all(|queue| queue.is_valid(&memory)) {
                let features = identity.features & (input.accepted | 1 << 32);
                let activation = Activation { memory: memory.clone(), queues, features };
                let result = device.activate(activation);
                assert!(matches!(result, Ok(()) | Err(DeviceError::Host(_))), "{result:?}");
            }
            if input.reset {
                device.reset();
            }
            let gone = device.event(0, EventSet::READ_HANG_UP);
            assert!(matches!(gone, Err(DeviceError::WorkerGone)));
        }
    }
    drop(worker);
    assert_eq!(lowest(), before, "a descriptor stayed open");
});

/// The lowest number that a descriptor could have now.
fn epoll_duplicate(epoll: &Epoll) -> i32 {
    rustix::io::dup(epoll_fd(epoll)).expect("a descriptor").as_raw_fd()
}

fn epoll_fd(epoll: &Epoll) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the descriptor is the set's, which is borrowed for as long.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(epoll.as_raw_fd()) }
}
