//! Control groups, version 2 (Documentation/admin-guide/cgroup-v2.rst of the kernel).

use crate::error::{Error, Tried};
use crate::mounts::CGROUPS;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat};
use rustix::thread::sched_getaffinity;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Controllers that apps' cgroups get, as far as the kernel has them.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// Longest file of a cgroup that is read, in bytes.
const MAX_FILE: usize = 4096;

/// An app's cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: OwnedFd,
}

/// Hands the controllers on to the cgroups that are made later.
pub(crate) fn delegate_controllers() -> Result<(), Error> {
    let root = open(CGROUPS, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .tried("opening the cgroup hierarchy")?;
    let available = read(root.as_fd(), "cgroup.controllers")?;
    let wanted: String = CONTROLLERS
        .iter()
        .filter(|controller| available.split_whitespace().any(|name| name == **controller))
        .map(|controller| format!("+{controller} "))
        .collect();
    write(root.as_fd(), "cgroup.subtree_control", &wanted)
}

impl Cgroup {
    /// Makes the cgroup of an app.
    pub(crate) fn new(app: u16) -> Result<Self, Error> {
        let path = format!("{CGROUPS}/app-{app}");
        mkdirat(CWD, &path, Mode::from_raw_mode(0o755))
            .and_then(|()| {
                open(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            })
            .map(|directory| Self { directory })
            .tried("making the cgroup of the app")
    }

    /// Bounds the memory of the app, in bytes. When it is used up the kernel kills all processes
    /// of the app, not just one: half an app helps nobody.
    pub(crate) fn limit_memory(&self, bytes: u64) -> Result<(), Error> {
        write(self.as_fd(), "memory.max", &bytes.to_string())?;
        write(self.as_fd(), "memory.oom.group", "1")
    }

    /// Bounds the CPU time of the app, in thousandths of a CPU. All of the guest's CPUs are no
    /// bound; the kernel would only keep a needless account, and patch its scheduler for the first
    /// one.
    pub(crate) fn limit_cpu(&self, millis: u32) -> Result<(), Error> {
        let cpus = sched_getaffinity(None).tried("counting CPUs")?.count();
        if u64::from(millis) >= u64::from(cpus) * 1000 {
            return Ok(());
        }
        write(self.as_fd(), "cpu.max", &cpu_max(millis))
    }

    /// Kills every process in the cgroup.
    pub(crate) fn kill(&self) -> Result<(), Error> {
        write(self.as_fd(), "cgroup.kill", "1")
    }

    /// Whether the kernel killed processes of this cgroup because memory was exhausted, here or
    /// in the whole guest.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        // Without a memory controller nobody counts, and the file is missing.
        read(self.as_fd(), "memory.events").is_ok_and(|events| value(&events, "oom_kill") > 0)
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// `cpu.max`: microseconds of CPU time in each period. The kernel takes no share below 1 ms and no
/// period above 1 s.
fn cpu_max(millis: u32) -> String {
    let period: u64 = if millis < 10 { 1_000_000 } else { 100_000 };
    format!("{} {period}", u64::from(millis.max(1)) * period / 1000)
}

/// A value of a flat keyed file; 0 if it is missing.
fn value(file: &str, key: &str) -> u64 {
    file.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn read(cgroup: BorrowedFd<'_>, file: &str) -> Result<String, Error> {
    let what = format_args!("reading {file} of a cgroup");
    let file = openat(cgroup, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).tried(what)?;
    let mut content = vec![0; MAX_FILE];
    let length = rustix::io::read(&file, &mut content).tried(what)?;
    Ok(String::from_utf8_lossy(&content[..length]).into_owned())
}

fn write(cgroup: BorrowedFd<'_>, file: &str, content: &str) -> Result<(), Error> {
    openat(cgroup, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::write(&file, content.as_bytes()))
        .tried(format_args!("writing \"{content}\" to {file} of a cgroup"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{cpu_max, value};

    #[test]
    fn cpu_shares_are_within_what_the_kernel_accepts() {
        assert_eq!(cpu_max(0), "1000 1000000");
        assert_eq!(cpu_max(1), "1000 1000000");
        assert_eq!(cpu_max(9), "9000 1000000");
        assert_eq!(cpu_max(10), "1000 100000");
        assert_eq!(cpu_max(1500), "150000 100000");
        assert_eq!(cpu_max(u32::MAX), "429496729500 100000");
    }

    #[test]
    fn only_the_named_value_of_a_flat_keyed_file_counts() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(value(events, "oom_kill"), 2);
        assert_eq!(value(events, "oom_group_kill"), 1);
        assert_eq!(value(events, "missing"), 0);
        assert_eq!(value("oom_kill x\n", "oom_kill"), 0);
        assert_eq!(value("", "oom_kill"), 0);
    }
}
