//! The other tenant's pod.

use crate::canaries::Canaries;
use sandbox_tests::image::Image;
use sandbox_tests::tar::Tar;
use sandbox_tests::{Running, eventually, run};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// The guest's program, as the test host has it.
const GUEST: &str = "/usr/libexec/sandbox-tests/hostile-guest";

/// A pod that does nothing but keep a secret: in its memory, on its scratch disk, in its volume.
#[derive(Debug)]
pub struct Victim {
    running: Running,
    /// Its processes.
    pub processes: Vec<u32>,
}

/// The image of victim and attacker, with the guest's program.
pub fn image(canaries: &Canaries) -> OsString {
    let directory = canaries.base().join("image");
    let layer = Tar::new().file("bin/hostile-guest", 0o755, fs::read(GUEST).unwrap()).finish();
    let image = Image::tiny_and([layer]);
    image.layout(&directory);
    let mut reference = OsString::from("oci:");
    reference.push(&directory);
    reference
}

/// The data directory of both pods.
pub fn data(canaries: &Canaries) -> PathBuf {
    canaries.base().join("data")
}

impl Victim {
    /// Starts it and tells the attacker all about it.
    pub fn start(canaries: &mut Canaries) -> Self {
        let image = image(canaries);
        let volume = canaries.base().join("victim-volume");
        fs::create_dir_all(&volume).unwrap();
        let file = volume.join("secret");
        fs::write(&file, &canaries.secret).unwrap();
        canaries.set("victim_volume_file", file.display());
        let script = format!(
            "KEPT='{0}'; echo '{0}' >/kept; sync; echo ready; while :; do sleep 1000; done",
            canaries.secret
        );
        let mut running = run(image)
            .data(&data(canaries))
            .with("--tenant=victim")
            .with("--scratch=64M")
            .with("--memory=96M")
            .volume("v", &volume, "", "/v")
            .script(&script)
            .start();
        running.wait_for("ready");

        let supervisor = running.pid().as_raw_pid().cast_unsigned();
        let child = |program: &str| {
            children(supervisor)
                .into_iter()
                .find(|pid| command(*pid).contains(program))
                .unwrap_or_else(|| panic!("the victim has no {program}"))
        };
        let (monitor, worker) = (child("sandbox-vmm"), child("sandbox-fs"));
        canaries.set("victim_supervisor", supervisor);
        canaries.set("victim_monitor", monitor);
        canaries.set("victim_worker", worker);
        let pods = data(canaries).join("pods/run");
        let directory = fs::read_dir(&pods).unwrap().next().unwrap().unwrap().path();
        canaries.set("victim_directory", directory.display());
        let console = directory.join("console");
        let mut file = fs::OpenOptions::new().append(true).open(&console).unwrap();
        file.write_all(canaries.secret.as_bytes()).unwrap();
        // Only the beginning of a file is read, so that the secret is all there is.
        fs::write(&console, &canaries.secret).unwrap();
        canaries.set("victim_console", console.display());
        let images = data(canaries).join("cas/image");
        let folder = fs::read_dir(images).unwrap().next().unwrap().unwrap().path();
        canaries.set("image", folder.join("rootfs.erofs").display());
        let (disk, offset) = disk(monitor, &canaries.secret).expect("the scratch disk has it");
        canaries.set("victim_disk", disk);
        canaries.set("victim_disk_offset", offset);
        let address = in_memory(monitor, &canaries.secret).expect("the guest's memory has it");
        canaries.set("victim_address", address);
        Self { running, processes: vec![monitor, worker, supervisor] }
    }

    /// It still runs.
    pub fn assert_alive(&self, after: &str) {
        for pid in &self.processes {
            assert!(!command(*pid).is_empty(), "the victim's process {pid} is gone after {after}");
        }
    }

    /// Ends it.
    pub fn end(self) {
        self.running.signal(rustix::process::Signal::TERM);
        let _ = self.running.end();
    }
}

/// The processes that a process has started.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

fn command(pid: u32) -> String {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).replace('\0', " ")
}

/// Where on one of its writable files the monitor's guest has put the secret.
fn disk(monitor: u32, secret: &str) -> Option<(String, u64)> {
    for entry in fs::read_dir(format!("/proc/{monitor}/fd")).ok()?.flatten() {
        let path = entry.path();
        let flags = path.to_str()?.replace("/fd/", "/fdinfo/");
        let flags = fs::read_to_string(flags).unwrap_or_default();
        let is_file = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file());
        let writable = flags.lines().any(|line| line.starts_with("flags:") && line.ends_with('2'));
        if !is_file || !writable {
            continue;
        }
        let file = File::open(&path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut found = None;
        eventually(Duration::from_secs(10), || {
            found = search(&file, 0, length, secret.as_bytes());
            found.is_some()
        });
        if let Some(offset) = found {
            return Some((path.display().to_string(), offset));
        }
    }
    None
}

/// Where in a process's memory the secret is: the last place, in what is the guest's.
fn in_memory(pid: u32, secret: &str) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut largest = maps
        .lines()
        .filter(|line| line.contains(" rw-"))
        .filter_map(|line| {
            let (start, end) = line.split_once(' ')?.0.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            Some((start, u64::from_str_radix(end, 16).ok()?))
        })
        .collect::<Vec<_>>();
    largest.sort_by_key(|(start, end)| start.wrapping_sub(*end));
    largest.into_iter().find_map(|(start, end)| search(&memory, start, end, secret.as_bytes()))
}

/// The first place of a text in a range of a file.
fn search(file: &File, start: u64, end: u64, text: &[u8]) -> Option<u64> {
    const STEP: u64 = 1 << 20;
    let mut buffer = vec![0; usize::try_from(STEP).ok()? + text.len()];
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).ok()?.min(buffer.len());
        let length = file.read_at(&mut buffer[..wanted], at).unwrap_or(0);
        let piece = &buffer[..length];
        // What is no memory is zero, mostly: look at the first byte before the whole.
        let found = (0..length.saturating_sub(text.len()))
            .find(|index| piece[*index] == text[0] && piece[*index..].starts_with(text));
        if let Some(index) = found {
            return Some(at + index as u64);
        }
        at += STEP;
    }
    None
}
