//! Requests that no kernel sends: the worker answers, ignores them or ends, and nothing outside
//! of the share changes.

use std::cell::RefCell;
use std::fs;
use std::os::fd::AsRawFd;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use virtiofsd::fuse::InHeader;
use vm_memory::ByteValued;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::guest::{
    DESC_INDIRECT, DESC_NEXT, DESC_WRITE, Descriptor, Guest, HIGH_PRIORITY, REQUESTS, Worker, join,
};

const AT: u64 = 0x10_0000;

/// A worker that is replaced when the guest has brought it to its end.
struct Target {
    folder: tempfile::TempDir,
    guest: Guest,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("share")).unwrap();
        fs::write(folder.path().join("share/file"), "shared").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let (guest, share) = Guest::of(&folder.path().join("share"));
        let mut target = Self { folder, guest };
        target.guest.lookup(share, "file").unwrap();
        target
    }

    /// Nothing outside changed, and the worker lives.
    fn check(&mut self) {
        let secret = fs::read_to_string(self.folder.path().join("secret")).unwrap();
        assert_eq!(secret, "secret");
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["secret", "share"]);
        assert!(self.guest.worker.is_running(), "{}", self.guest.worker.wait().1);
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { address, length, flags, next }
}

#[test]
fn requests_with_arbitrary_bodies_do_no_harm() {
    let target = RefCell::new(Target::new());
    let mut runner = TestRunner::new(Config { cases: 2000, ..Config::default() });
    let request = (
        0u32..56,
        prop_oneof![0u64..6, any::<u64>()],
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..256),
            // Small numbers in the fields, and names with tails.
            (
                proptest::collection::vec(prop_oneof![0u64..4, any::<u64>()], 0..8),
                "[a-c./]{0,6}",
                proptest::collection::vec(any::<u8>(), 0..32)
            )
                .prop_map(|(fields, name, tail)| {
                    let mut bytes: Vec<u8> =
                        fields.into_iter().flat_map(u64::to_le_bytes).collect();
                    bytes.extend_from_slice(name.as_bytes());
                    bytes.push(0);
                    bytes.extend_from_slice(&tail);
                    bytes
                }),
        ],
        prop_oneof![3 => Just(0i64), 1 => -64i64..64, 1 => any::<i32>().prop_map(i64::from)],
        prop_oneof![3 => Just(8192u32), 1 => 0u32..64],
        prop_oneof![4 => Just(REQUESTS), 1 => Just(HIGH_PRIORITY)],
    );
    let result = runner.run(&request, |(opcode, nodeid, body, lie, room, queue)| {
        // INIT and DESTROY reset the session, after which everything is just EBADF.
        if opcode == 26 || opcode == 38 {
            return Ok(());
        }
        let length = (40 + body.len()) as i64 + lie;
        let header =
            InHeader { len: length as u32, opcode, unique: 1, nodeid, ..InHeader::default() };
        let bytes = join(&header, &body);
        let guest = &mut target.borrow_mut().guest;
        guest.write_memory(AT, &bytes);
        let readable = descriptor(AT, bytes.len() as u32, DESC_NEXT, 1);
        guest.write_descriptor(queue, 0, readable);
        guest.write_descriptor(queue, 1, descriptor(AT + 0x10_0000, room, DESC_WRITE, 0));
        prop_assert!(guest.offer(queue, 0).is_some(), "the worker ended");
        Ok(())
    });
    target.into_inner().check();
    result.unwrap();
}

#[test]
fn descriptor_chains_that_lie_loop_or_leave_memory_do_no_harm() {
    let mut target = Target::new();
    let chains: &[&[Descriptor]] = &[
        &[descriptor(AT, 40, DESC_NEXT, 0)],
        &[descriptor(AT, 40, DESC_NEXT, 1), descriptor(AT, 40, DESC_NEXT | DESC_WRITE, 0)],
        &[descriptor(AT, 40, DESC_NEXT, 500)],
        &[descriptor(u64::MAX - 8, 40, 0, 0)],
        &[descriptor(AT, u32::MAX, DESC_NEXT, 1), descriptor(AT, u32::MAX, DESC_WRITE, 0)],
        &[descriptor(16 << 20, 40, DESC_NEXT, 1), descriptor(AT, 40, DESC_WRITE, 0)],
        &[descriptor((16 << 20) - 8, 40, 0, 0)],
        &[descriptor(AT, 0, 0, 0)],
        &[descriptor(AT, 16, DESC_INDIRECT, 0)],
        &[descriptor(AT, 17, DESC_INDIRECT, 0)],
        &[descriptor(0, 16 * 128, DESC_INDIRECT, 0)],
        &[descriptor(AT, 40, DESC_INDIRECT | DESC_NEXT, 0)],
        &[descriptor(AT, 40, DESC_WRITE, 0)],
        &[descriptor(AT, 4096, DESC_WRITE | DESC_NEXT, 1), descriptor(AT, 40, 0, 0)],
    ];
    for chain in chains {
        for queue in [REQUESTS, HIGH_PRIORITY] {
            for (index, entry) in (0u16..).zip(*chain) {
                target.guest.write_descriptor(queue, index, *entry);
            }
            target.guest.write_memory(AT, &[0x41; 64]);
            assert!(target.guest.offer(queue, 0).is_some(), "{chain:?}");
        }
        target.check();
    }
    // The session goes on.
    target.guest.getattr(1).unwrap();
}

#[test]
fn a_flood_of_malformed_requests_leaves_a_bounded_log() {
    let mut target = Target::new();
    for _ in 0..500 {
        let header = InHeader { len: 3, opcode: 1, nodeid: 1, ..InHeader::default() };
        target.guest.write_memory(AT, header.as_slice());
        target.guest.write_descriptor(REQUESTS, 0, descriptor(AT, 40, DESC_NEXT, 1));
        target.guest.write_descriptor(REQUESTS, 1, descriptor(AT + 4096, 4096, DESC_WRITE, 0));
        assert_eq!(target.guest.offer(REQUESTS, 0), Some(0));
    }
    let (status, log) = target.guest.hang_up();
    assert_eq!(status.code(), Some(0));
    assert!(log.lines().count() <= 65, "{} lines", log.lines().count());
    assert!(log.ends_with("further messages are not shown\n"));
}

/// A monitor that the guest has broken into says anything it likes.
#[test]
fn no_vhost_user_message_makes_the_worker_crash_or_stay_behind() {
    let folder = tempfile::tempdir().unwrap();
    let share = format!("share={}", folder.path().display());
    let memfd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memfd, 1 << 20).unwrap();
    let memfd = std::fs::File::from(memfd);

    let number = prop_oneof![
        0u64..4,
        Just(0x1000),
        Just(1 << 20),
        Just(u64::MAX),
        Just(u64::MAX - 0xfff),
        any::<u64>()
    ];
    let message = (
        0u32..50,
        prop_oneof![4 => Just(1u32), 1 => Just(9), 1 => any::<u32>()],
        proptest::collection::vec(number, 0..8),
        // The length in the header need not be that of what follows.
        prop_oneof![6 => Just(0i32), 1 => -8i32..8, 1 => any::<i32>()],
        0usize..3,
    );
    let mut runner = TestRunner::new(Config { cases: 100, ..Config::default() });
    runner
        .run(&proptest::collection::vec(message, 1..12), |messages| {
            let (mut worker, stream) = Worker::start(std::slice::from_ref(&share));
            for (code, flags, words, lie, files) in &messages {
                let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                // SET_MEM_TABLE and the like begin with a count of their own.
                if let Some(count) = bytes.first_mut().filter(|_| *files > 0) {
                    *count = u8::try_from(*files).unwrap();
                }
                let length = (bytes.len() as i32).wrapping_add(*lie) as u32;
                let header = [*code, *flags, length].map(u32::to_le_bytes).concat();
                let fds = vec![memfd.as_raw_fd(); *files];
                // Fails once the worker has had enough.
                let _ = stream.send_with_fds(&[&header[..]], &fds);
                let _ = stream.send_with_fds(&[&bytes[..]], &[]);
            }
            drop(stream);
            let (status, message) = worker.wait();
            prop_assert!(matches!(status.code(), Some(0 | 1)), "{status}: {message}");
            prop_assert!(message.lines().count() <= 1, "{message}");
            Ok(())
        })
        .unwrap();
}
