//! The monitor's process, seen from its host while the guest runs.

use sandbox_tests::driver::{DATA, Program};
use sandbox_tests::machine::{Machine, Setup};
use sandbox_tests::temporary;
use sandbox_vmm::control::Event;
use std::fs;

/// A microVM whose guest does nothing, until it is dropped.
fn idle() -> (Machine, tempfile::TempDir) {
    let directory = temporary();
    let empty = directory.path().join("initramfs");
    fs::write(&empty, b"").unwrap();
    let mut program = Program::default();
    program.wait(DATA, 1);
    let machine = Machine::of(Setup::new(&program.write(directory.path()), &empty));
    let event = machine.event();
    assert!(matches!(event, Some(Event::FirstEntry { .. })), "{event:?}");
    (machine, directory)
}

/// Guest memory can't be executed by the host, and nothing that can be is writable.
#[test]
fn nothing_that_is_writable_is_executable_and_guest_memory_is_not() {
    let (machine, _directory) = idle();
    let maps = fs::read_to_string(format!("/proc/{}/maps", machine.pid())).unwrap();
    let mut guest = 0;
    for line in maps.lines() {
        // START-END rwxp OFFSET DEVICE INODE PATH
        let words: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = words[0].split_once('-').unwrap();
        let [start, end] = [start, end].map(|it| u64::from_str_radix(it, 16).unwrap());
        let (access, path) = (words[1], words.get(5).copied().unwrap_or_default());
        assert!(!(access.contains('w') && access.contains('x')), "{line}");
        if access.contains('x') {
            let known = ["[vdso]", "[vsyscall]"].contains(&path) || path.ends_with("/sandbox-vmm");
            assert!(known, "{line}");
        }
        if end - start >= 128 << 20 && access.starts_with("rw") {
            assert_eq!(access, "rw-p", "{line}");
            guest += 1;
        }
    }
    assert_eq!(guest, 1, "{maps}");
}

/// Every thread has a filter of its own, and no way to more rights.
#[test]
fn every_thread_has_a_filter() {
    let (machine, _directory) = idle();
    let mut names = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", machine.pid())).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
        };
        // SECCOMP_MODE_FILTER
        assert_eq!(field("Seccomp:"), "2", "{status}");
        assert_eq!(field("NoNewPrivs:"), "1", "{status}");
        names.push(field("Name:"));
    }
    // KVM's own, which never leaves the kernel; newer kernels have it elsewhere.
    names.retain(|name| !name.starts_with("kvm-nx-lpage"));
    names.sort();
    assert_eq!(names, ["sandbox-vmm", "vcpu0"]);
}
