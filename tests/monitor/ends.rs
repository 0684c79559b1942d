//! The ways in which a microVM ends.

use sandbox_protocol::{Pod, ToHost};
use sandbox_tests::machine::{Machine, installed};
use sandbox_tests::{run, temporary, tiny};
use sandbox_vmm::control::Event;
use sandbox_vmm::exit::Exit;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// An ELF file for x86-64 with one segment, which is entered at its first byte in long mode, with
/// the first GiB mapped to itself (Linux's boot protocol, "64-bit Boot Protocol").
fn kernel(directory: &Path, code: &[u8]) -> std::path::PathBuf {
    const ADDRESS: u64 = 0x100_0000;
    let mut elf = vec![0; 0x1000];
    elf[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2_u16.to_le_bytes()); // executable
    put(18, &62_u16.to_le_bytes()); // x86-64
    put(20, &1_u32.to_le_bytes());
    put(24, &ADDRESS.to_le_bytes()); // entry
    put(32, &64_u64.to_le_bytes()); // program headers
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &1_u32.to_le_bytes()); // load
    put(68, &7_u32.to_le_bytes());
    for (at, value) in [(72, 0x1000), (80, ADDRESS), (88, ADDRESS), (96, 4096), (104, 4096)] {
        put(at, &u64::to_le_bytes(value));
    }
    elf.extend_from_slice(code);
    elf.resize(0x2000, 0);
    let file = directory.join("kernel");
    fs::write(&file, elf).unwrap();
    file
}

/// Exit::Panic: "The guest kernel panicked; the console has its last words."
#[test]
fn a_guest_panic_is_told_as_one_with_its_words_on_the_console() {
    let directory = temporary();
    let empty = directory.path().join("initramfs");
    fs::write(&empty, b"").unwrap();
    let mut machine = Machine::start(&installed().0, &empty);
    assert_eq!(machine.ends(), Some(Exit::Panic), "{}", machine.console());
    assert!(machine.console().contains("Kernel panic - not syncing"), "{}", machine.console());
}

/// Exit::TripleFault: "A virtual CPU shut down, which x86 does on a triple fault."
#[test]
fn a_triple_fault_is_told_as_one() {
    let directory = temporary();
    // lidt of six zero bytes below the stack pointer that it makes first; ud2.
    let code = [
        0xbc, 0x00, 0x00, 0x20, 0x01, // mov esp, 0x1200000
        0x6a, 0x00, 0x6a, 0x00, // push 0; push 0
        0x0f, 0x01, 0x1c, 0x24, // lidt [rsp]
        0x0f, 0x0b, // ud2
    ];
    let mut machine = Machine::start(&kernel(directory.path(), &code), &installed().1);
    assert_eq!(machine.ends(), Some(Exit::TripleFault), "{}", machine.console());
}

/// "The guest kernel, an ELF `vmlinux` or a bzImage": both are entered where they say. This bzImage
/// (Linux's boot protocol, "The Real-Mode Kernel Header") resets the machine with its first
/// instructions.
#[test]
fn a_bzimage_is_entered_at_its_64_bit_entry_point() {
    let directory = temporary();
    let mut image = vec![0; 0x600];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // one sector of real-mode code
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x66]); // over the header
    put(0x202, b"HdrS");
    put(0x206, &0x20c_u16.to_le_bytes());
    put(0x211, &[1]); // loaded high
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x236, &[1]); // has a 64-bit entry point, 0x200 bytes into the code
    image.extend_from_slice(&[
        0xb0, 0xfe, // mov al, 0xfe
        0xe6, 0x64, // out 0x64, al
        0xf4, // hlt
    ]);
    image.resize(0x1000, 0);
    let file = directory.path().join("bzImage");
    fs::write(&file, image).unwrap();
    let mut machine = Machine::start(&file, &installed().1);
    assert_eq!(machine.ends(), Some(Exit::Reset), "{}", machine.console());
}

/// A triple fault under `sandbox run`: status 254, and a line that says it.
#[test]
fn a_pod_whose_kernel_crashes_fails_and_says_how() {
    let directory = temporary();
    let file = kernel(directory.path(), &[0x0f, 0x0b]);
    run(tiny())
        .with(format!("--kernel={}", file.display()))
        .sh("true")
        .fails_saying(&["the guest caused a triple fault"]);
}

/// "Closing control_fd's peer ends the VM at once", before the guest runs and while it does.
#[test]
fn a_supervisor_that_hangs_up_ends_the_microvm_at_once() {
    let (kernel, initramfs) = installed();
    for moment in 0..3 {
        let mut machine = Machine::start(&kernel, &initramfs);
        for event in 0..moment {
            let found = machine.event();
            match event {
                0 => assert!(matches!(found, Some(Event::FirstEntry { .. })), "{found:?}"),
                _ => assert!(matches!(found, Some(Event::Connection { .. })), "{found:?}"),
            }
        }
        machine.control = None;
        let since = Instant::now();
        assert_eq!(machine.ends(), Some(Exit::HangUp), "after {moment} events");
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    }
}

/// A pod without apps and without files comes up, and resets its machine when it is let go.
#[test]
fn a_microvm_without_shares_boots_and_resets() {
    let (kernel, initramfs) = installed();
    let mut machine = Machine::start(&kernel, &initramfs);
    let pod = Pod {
        hostname: "empty".into(),
        share_tag: None,
        images: Vec::new(),
        scratch: None,
        volumes: Vec::new(),
        apps: Vec::new(),
        measured: None,
    };
    let (_, said) = machine.run(&pod);
    assert!(matches!(said.as_slice(), [ToHost::Finished]), "{said:?}");
    assert_eq!(machine.ends(), Some(Exit::Reset), "{}", machine.console());
}

/// What is no kernel is refused before anything runs, with the file's name.
#[test]
fn what_is_no_kernel_is_refused() {
    let directory = temporary();
    for (name, content) in
        [("empty", &b""[..]), ("text", b"#!/bin/sh\n"), ("elf", b"\x7fELF\x02\x01\x01")]
    {
        let file = directory.path().join(name);
        fs::write(&file, content).unwrap();
        run(tiny()).with(format!("--kernel={}", file.display())).sh("true").exits(254).check(
            "should name the file",
            |it| {
                let file = file.display().to_string();
                it.stderr.contains(&file) && it.stderr.contains("is no x86-64 Linux kernel")
            },
        );
    }
}
