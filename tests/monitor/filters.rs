//! What the threads' filters allow is needed (vmm/seccomp/*.policy): without any one of their rules
//! a microVM is killed that does all that a guest can make the monitor do. The rules for locks, the
//! heap and a panic are shown in vmm/tests/needed.rs.

use crate::virtiofsd::virtiofsd;
use sandbox_seccomp::{Policy, Rule};
use sandbox_tests::driver::{
    self, ACTIVE, DATA, NEEDS_RESET, Program, Queue, WRITE, activate, ring,
};
use sandbox_tests::machine::{DiskFile, Machine, Setup};
use sandbox_tests::temporary;
use sandbox_vmm::control::Event;
use sandbox_vmm::exit::{self, Exit};
use sandbox_vmm::filter::Thread;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

/// The signal that ends a process for a system call that its filter does not allow.
const SIGSYS: i32 = 31;

#[test]
fn each_rule_of_the_filters_is_needed() {
    let directory = temporary();
    let kernels = [Work::Devices, Work::Share, Work::Lost].map(|work| {
        let place = directory.path().join(format!("{work:?}"));
        std::fs::create_dir(&place).unwrap();
        (work, program(work).write(&place))
    });
    for (work, kernel) in &kernels {
        let (status, console) = run(kernel, *work, None);
        let expected = match work {
            Work::Lost => exit::FAILURE,
            _ => Exit::Reset.code(),
        };
        assert_eq!(status.code(), Some(expected.into()), "{work:?}: {status}");
        assert_eq!(console == "done\n", *work == Work::Devices, "{work:?}: {console}");
    }
    let mut needless = Vec::new();
    for thread in Thread::ALL {
        let policy = Policy::parse(thread.policy()).unwrap();
        for (number, rule) in policy.rules().iter().enumerate() {
            let Some(work) = work(thread, rule) else { continue };
            let (_, kernel) = kernels.iter().find(|(other, _)| *other == work).unwrap();
            let (status, _) = run(kernel, work, Some((thread, number)));
            if status.signal() != Some(SIGSYS) {
                needless.push(format!("{thread:?}: {} {:?}: {status}", rule.call, rule.conditions));
            }
        }
    }
    assert!(needless.is_empty(), "nothing needs {needless:#?}");
}

/// What a microVM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Streams, random numbers, a disk, the console, and a reset of the machine.
    Devices,
    /// A share.
    Share,
    /// An instruction where there is no memory.
    Lost,
}

/// The work that needs a rule; `None` if it was shown elsewhere.
fn work(thread: Thread, rule: &Rule) -> Option<Work> {
    let value = |argument: usize| rule.conditions.get(argument).map(|it| it.value);
    let name = sandbox_seccomp::names::value;
    match (thread, rule.call.as_str()) {
        (_, "futex" | "brk") | (Thread::Vcpu | Thread::Disk, "exit_group") => None,
        (_, "recvmsg") => Some(Work::Share),
        (_, "sendmsg") if value(0) == name("MSG_NOSIGNAL") => Some(Work::Share),
        (_, "ioctl") if value(0) == name("KVM_SET_GSI_ROUTING") => Some(Work::Share),
        (_, "ioctl") if value(0) == name("KVM_GET_REGS") => Some(Work::Lost),
        _ => Some(Work::Devices),
    }
}

// Devices, in the order in which the monitor has them.
const VSOCK: u8 = 0;
const RNG: u8 = 1;
/// A disk or a share.
const OTHER: u8 = 2;

/// Console, first port.
const CONSOLE: u16 = 0x3f8;

/// Pages of the data: queues from here on, buffers below.
const QUEUES: u32 = DATA + 0x1_0000;

fn queue(number: u32, size: u16) -> Queue {
    Queue::new(QUEUES + number * Queue::BYTES, size)
}

const PORT: u32 = 5000;
const HELLO: &[u8] = b"from the guest";
const ANSWER: &[u8] = b"from the host";

/// A packet's header (virtio 1.3 §5.10.6).
fn packet(operation: u16, flags: u32, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(3_u64.to_le_bytes());
    bytes.extend(2_u64.to_le_bytes());
    bytes.extend(1024_u32.to_le_bytes());
    bytes.extend(PORT.to_le_bytes());
    bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(operation.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(0x1_0000_u32.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes
}

fn random_numbers(program: &mut Program) {
    let mut numbers = queue(0, 8);
    numbers.add(program, &[(DATA, 64, WRITE)]);
    numbers.offer(program);
    activate(program, RNG, 0, &[&numbers]);
    numbers.wait(program, 1);
    // Only now its line is unmasked: the interrupt has waited.
    program.unmask(RNG, 0x32);
    // The main thread reads the kick.
    numbers.add(program, &[(DATA, 64, WRITE)]);
    numbers.offer(program);
    ring(program, RNG, 0);
    numbers.wait(program, 1);
}

fn stream(program: &mut Program) {
    const PACKETS: u32 = DATA + 0x1000;
    program.unmask(VSOCK, 0x31);
    let (mut receive, mut transmit, events) = (queue(1, 16), queue(2, 16), queue(3, 8));
    for buffer in 0..8 {
        receive.add(program, &[(DATA + 0x4000 + buffer * 0x400, 0x400, WRITE)]);
    }
    receive.offer(program);
    activate(program, VSOCK, 0, &[&receive, &transmit, &events]);
    let mut at = PACKETS;
    // Connect, send, receive no more, send no more; and what comes back.
    for (operation, flags, payload, answers) in
        [(1, 0, &b""[..], 1), (5, 0, HELLO, 1), (4, 1, b"", 0), (4, 2, b"", 1)]
    {
        let mut bytes = packet(operation, flags, payload.len());
        bytes.extend(payload);
        program.put(at, &bytes);
        transmit.add(program, &[(at, u32::try_from(bytes.len()).unwrap(), 0)]);
        at += 0x100;
        transmit.offer(program);
        ring(program, VSOCK, 1);
        transmit.wait(program, 1);
        receive.wait(program, answers);
    }
}

fn disk(program: &mut Program) {
    const FLUSH: u32 = 1 << 9;
    const HEADERS: u32 = DATA + 0x8000;
    let (content, status) = (DATA + 0x9000, DATA + 0xa000);
    program.unmask(OTHER, 0x33);
    for (number, kind) in [0_u32, 1, 4].into_iter().enumerate() {
        let at = HEADERS + 16 * u32::try_from(number).unwrap();
        program.put(at, &kind.to_le_bytes());
    }
    let (read, write, flush) = (HEADERS, HEADERS + 16, HEADERS + 32);
    program.put(content, &[b'x'; 512]);
    // A driver that does not flush, a reset, and one that does.
    for (number, features) in [(4, 0), (5, FLUSH)] {
        let mut requests = queue(number, 16);
        activate(program, OTHER, features, &[&requests]);
        let chain = [(write, 16, 0), (content, 512, 0), (status, 1, WRITE)];
        requests.add(program, &chain);
        requests.add(program, &[(read, 16, 0), (DATA + 0xb000, 512, WRITE), (status, 1, WRITE)]);
        requests.add(program, &[(flush, 16, 0), (status, 1, WRITE)]);
        requests.offer(program);
        ring(program, OTHER, 0);
        requests.wait(program, 3);
    }
    // And one that breaks the protocol.
    let mut broken = queue(6, 16);
    activate(program, OTHER, FLUSH, &[&broken]);
    broken.add(program, &[(status, 1, WRITE)]);
    broken.offer(program);
    ring(program, OTHER, 0);
    program.wait(driver::registers(OTHER) + 0x70, ACTIVE | NEEDS_RESET);
}

fn share(program: &mut Program) {
    let (urgent, requests) = (queue(0, 16), queue(1, 16));
    activate(program, OTHER, 0, &[&urgent, &requests]);
    program.unmask(OTHER, 0x33);
    program.store(driver::registers(OTHER) + 0x70, 0);
}

fn program(work: Work) -> Program {
    let mut program = Program::default();
    match work {
        Work::Devices => {
            random_numbers(&mut program);
            stream(&mut program);
            disk(&mut program);
            b"done\n".iter().for_each(|byte| program.out(CONSOLE, *byte));
            program.reset();
        }
        Work::Share => {
            share(&mut program);
            program.reset();
        }
        Work::Lost => program.jump(0xd800_0000),
    }
    program
}

/// The test build of the monitor.
fn monitor() -> std::path::PathBuf {
    std::env::current_exe().unwrap().with_file_name("sandbox-vmm")
}

/// Runs a microVM whose threads lack a rule, if there is one to lack.
fn run(kernel: &Path, work: Work, without: Option<(Thread, usize)>) -> (ExitStatus, String) {
    let directory = temporary();
    let empty = directory.path().join("initramfs");
    std::fs::write(&empty, b"").unwrap();
    let mut setup = Setup::new(kernel, &empty);
    setup.program = monitor();
    if let Some((thread, rule)) = without {
        let value = format!("{thread:?}:{rule}").to_lowercase();
        setup.environment.push(format!("SANDBOX_HOSTILE_WITHOUT_RULE={value}"));
    }
    let mut other = None;
    match work {
        Work::Devices => {
            let path = directory.path().join("disk");
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(true).open(path);
            let file = file.unwrap();
            file.write_all_at(&[0; 4096], 0).unwrap();
            setup.disks.push(DiskFile { serial: "disk", file, read_only: false });
        }
        Work::Share => {
            let shared = directory.path().join("shared");
            std::fs::create_dir(&shared).unwrap();
            let (daemon, connection) = virtiofsd(directory.path(), &shared);
            setup.share = Some(connection.into());
            other = Some(daemon);
        }
        Work::Lost => {}
    }
    let mut machine = Machine::of(setup);
    while let Some(event) = machine.event() {
        let Event::Connection { port, stream } = event else { continue };
        assert_eq!(port, PORT);
        let mut stream = UnixStream::from(stream);
        let mut hello = [0; HELLO.len()];
        // A monitor that is killed ends the stream.
        if stream.read_exact(&mut hello).is_ok() {
            assert_eq!(hello, HELLO);
            let _ = stream.write_all(ANSWER);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    let ended = machine.wait();
    if let Some(mut other) = other {
        other.wait().unwrap();
    }
    (ended, machine.console())
}
