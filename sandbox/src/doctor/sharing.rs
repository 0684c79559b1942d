//! What a pod shares with others of the machine, and could tell them without wanting to: the parts
//! of a core, pages of memory, and the swap space.

use super::{Check, State};
use rustix::io::Errno;
use rustix::thread::{CoreSchedulingScope, core_scheduling_cookie};
use std::fs;
use std::path::Path;

const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";

/// What the kernel does about the CPU's bugs.
pub fn cpu_bugs() -> Check {
    let mut bugs = Vec::new();
    for entry in fs::read_dir(VULNERABILITIES).into_iter().flatten().flatten() {
        if let (Ok(name), Ok(state)) =
            (entry.file_name().into_string(), fs::read_to_string(entry.path()))
        {
            bugs.push((name, state));
        }
    }
    bugs.sort();
    vulnerabilities(&bugs)
}

/// The check, from the files of the directory and what is in them.
pub(super) fn vulnerabilities(bugs: &[(String, String)]) -> Check {
    const NAME: &str = "cpu-bugs";
    // "Unknown: No mitigations", "Vulnerable: ...", "KVM: Vulnerable" (Linux
    // Documentation/admin-guide/hw-vuln/index.rst).
    let open: Vec<&str> = bugs
        .iter()
        .filter(|(_, state)| {
            ["Vulnerable", "KVM: Vulnerable", "Unknown"].iter().any(|open| state.starts_with(open))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    if bugs.is_empty() {
        return Check::new(
            NAME,
            State::Warning,
            format!("the kernel tells nothing in {VULNERABILITIES}"),
            "a newer kernel does",
        );
    }
    if open.is_empty() {
        return Check::new(NAME, State::Ok, "the kernel guards against all that it knows", "");
    }
    Check::new(
        NAME,
        State::Warning,
        format!("the kernel does not guard against {}", open.join(", ")),
        "a pod may read what others have in the same core; update microcode and kernel, and boot \
         without mitigations=off",
    )
}

/// Whether hardware threads share cores, and who runs on them.
pub fn smt() -> Check {
    let active = fs::read_to_string("/sys/devices/system/cpu/smt/active").ok();
    // Asks for nothing but whether the kernel knows the question.
    let known = core_scheduling_cookie(rustix::process::getpid(), CoreSchedulingScope::Thread);
    hardware_threads(active.as_deref(), known.map(|_| ()))
}

/// The check, from the content of `smt/active` and the kernel's answer about core scheduling.
pub(super) fn hardware_threads(active: Option<&str>, cores: Result<(), Errno>) -> Check {
    const NAME: &str = "smt";
    match (active.map(str::trim), cores) {
        (Some("1"), Ok(())) => {
            Check::new(NAME, State::Ok, "on; a core runs one pod at a time (core scheduling)", "")
        }
        (Some("1"), Err(error)) => Check::new(
            NAME,
            State::Warning,
            format!("on, and the kernel has no core scheduling: {error}"),
            "pods of different tenants share cores; boot with nosmt, or a kernel with \
             CONFIG_SCHED_CORE",
        ),
        _ => Check::new(NAME, State::Ok, "off: no core is shared", ""),
    }
}

/// Whether the kernel merges pages that hold the same.
pub fn same_pages() -> Check {
    merging(fs::read_to_string("/sys/kernel/mm/ksm/run").ok().as_deref())
}

/// The check, from the content of `ksm/run`, if there is that file.
pub(super) fn merging(run: Option<&str>) -> Check {
    const NAME: &str = "ksm";
    match run.map(str::trim) {
        Some("1") => Check::new(
            NAME,
            State::Warning,
            "the kernel merges equal pages of different processes",
            "who shares a page can tell what others have in theirs; echo 2 >/sys/kernel/mm/ksm/run",
        ),
        _ => Check::new(NAME, State::Ok, "off: no page is merged", ""),
    }
}

/// Where memory goes when there is too little of it.
pub fn swap() -> Check {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swap_spaces(&swaps, |device| {
        let uuid = Path::new("/sys/class/block").join(device).join("dm/uuid");
        fs::read_to_string(uuid).is_ok_and(|uuid| uuid.starts_with("CRYPT-"))
    })
}

/// The check, from the content of `/proc/swaps` and what tells whether a block device is encrypted.
pub(super) fn swap_spaces(swaps: &str, encrypted: impl Fn(&str) -> bool) -> Check {
    const NAME: &str = "swap";
    let spaces = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let open: Vec<&str> = spaces
        .filter(|space| match space.strip_prefix("/dev/") {
            // In memory.
            Some(device) if device.starts_with("zram") => false,
            Some(device) => !encrypted(device),
            None => true,
        })
        .collect();
    if open.is_empty() {
        return Check::new(NAME, State::Ok, "no memory is written to a disk as it is", "");
    }
    Check::new(
        NAME,
        State::Warning,
        format!("memory of pods may be written to {}", open.join(", ")),
        "encrypt it, or switch it off: swapoff -a",
    )
}
