//! The console's ports, as a guest writes to them.
#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use sandbox_vmm::devices::console::{Console, PORTS};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

/// Most bytes of a log: 256 KiB, the tail of what came after, and what announces it.
const MOST: usize = (256 << 10) + (4 << 10) + 64;
const FLOOD: u16 = 0xf10d;
const PANIC: &[u8] = b"Kernel panic - not syncing";

#[derive(Debug, arbitrary::Arbitrary)]
enum Step<'a> {
    Write {
        port: u8,
        value: u8,
    },
    Print(&'a [u8]),
    /// Takes long, so that it is only done if it is really meant.
    Flood {
        meant: u16,
        bytes: &'a [u8],
        times: u16,
    },
    Panic,
    Read(u8),
}

fuzz_target!(|steps: Vec<Step<'_>>| {
    static LOG: OnceLock<OwnedFd> = OnceLock::new();
    let log = LOG.get_or_init(|| memfd_create("log", MemfdFlags::CLOEXEC).expect("a memfd"));
    ftruncate(log, 0).expect("a memfd");
    let mut file = File::from(log.try_clone().expect("a descriptor"));
    file.rewind().expect("a memfd");
    let mut console = Console::new(file.try_clone().expect("a descriptor"));
    let mut printed = Vec::new();
    let mut divisor = false;
    let mut most = 1 << 20;
    for step in steps {
        let (bytes, times) = match step {
            Step::Write { port, value } => {
                let port = u16::from(port) % PORTS;
                console.write(port, value);
                match port {
                    0 if !divisor => printed.push(value),
                    3 => divisor = value & 0x80 != 0,
                    _ => {}
                }
                continue;
            }
            Step::Read(port) => {
                let value = console.read(u16::from(port) % PORTS);
                assert!(port as u16 % PORTS != 5 || value & 0x60 == 0x60, "it is always ready");
                continue;
            }
            Step::Print(bytes) => (bytes, 1),
            Step::Flood { meant: FLOOD, bytes, times } => (bytes, times.into()),
            Step::Flood { .. } => continue,
            Step::Panic => (PANIC, 1),
        };
        for byte in std::iter::repeat_n(bytes, times).flatten().take(most) {
            most -= 1;
            console.write(0, *byte);
            if !divisor {
                printed.push(*byte);
            }
        }
    }
    console.finish();
    let mut text = Vec::new();
    file.rewind().expect("a memfd");
    file.read_to_end(&mut text).expect("a memfd");
    assert!(text.len() <= MOST, "{} bytes", text.len());
    let shown = |byte: &u8| matches!(byte, b'\n' | b'\t' | 0x20..0x7f);
    assert!(text.iter().all(shown), "what steers a terminal is not in the log");
    if console.panicked() {
        let plain: Vec<u8> = printed.iter().copied().filter(|byte| *byte != b'\r').collect();
        assert!(plain.windows(PANIC.len()).any(|part| part == PANIC), "nobody said so");
    }
    if printed.len() < 200 && printed.iter().all(shown) {
        assert_eq!(text, printed, "short and printable text is in the log as it is");
    }
});
