//! How long a microVM takes from the exec of its monitor to the first instruction of the guest and
//! to guest-init's first line, what that costs in exits and system calls, and what a booted pod
//! costs in memory. The pod: 1 virtual CPU, 256 MiB.

use crate::memory::Memory;
use crate::pod::{Pod, Shape};
use crate::trace;
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

const RUNS: usize = 5;

/// Promised figures, for a pod with a virtio-fs worker.
const MAX_FIRST_ENTRY: f64 = 16.0;
const MAX_FIRST_LINE: f64 = 60.0;
const MAX_EXITS: f64 = 900.0;
const MAX_PRIVATE_KIB: f64 = 512.0;
const MAX_FILE_BACKED_KIB: f64 = 3072.0;
/// Between the fastest and the slowest run, of their median.
const MAX_SPREAD: f64 = 0.01;

pub fn run(out: &Path) -> Result<bool, Box<dyn Error>> {
    let mut kept = true;
    let mut report = Vec::new();
    for share in [true, false] {
        let shape = Shape { vcpus: 1, memory_mib: 256, share };
        let figures = measure(shape)?;
        println!("{figures}");
        kept &= figures.kept();
        report.push(figures.json());
    }
    let report = json!({"name": "boot", "unit": "1 ms = 1000000 instructions", "pods": report});
    fs::write(out, serde_json::to_string_pretty(&report)? + "\n")?;
    Ok(kept)
}

struct Figures {
    shape: Shape,
    first_entry: Vec<f64>,
    first_line: Vec<f64>,
    counts: trace::Counts,
    monitor: Memory,
    worker: Memory,
}

fn measure(shape: Shape) -> Result<Figures, Box<dyn Error>> {
    // What only the first pod after a boot of the host pays for: files read, modules loaded.
    Pod::boot(shape)?.stop()?;
    let mut first_entry = Vec::new();
    let mut first_line = Vec::new();
    for _ in 0..RUNS {
        let pod = Pod::boot(shape)?;
        first_entry.push(milliseconds(pod.first_entry));
        first_line.push(milliseconds(pod.first_line));
        pod.stop()?;
    }
    let pod = Pod::boot(shape)?;
    // Let guest and monitor come to rest.
    std::thread::sleep(Duration::from_millis(200));
    let monitor = Memory::of(pod.monitor.id())?;
    let worker = match &pod.worker {
        Some(worker) => Memory::of(worker.id())?,
        None => Memory::default(),
    };
    pod.stop()?;
    let (counts, pod) = trace::count(|| Pod::boot(shape))?;
    pod.stop()?;
    Ok(Figures { shape, first_entry, first_line, counts, monitor, worker })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Smallest, median and largest of an odd number of values.
fn three(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

fn spread(values: &[f64]) -> f64 {
    let (least, median, most) = three(values);
    (most - least) / median
}

/// A count as a figure; all are far below 2^53.
fn figure(count: u64) -> f64 {
    count as f64
}

impl Figures {
    /// Each promise: what, how much, at most.
    fn promises(&self) -> [(&'static str, f64, f64); 7] {
        let memory = self.monitor + self.worker;
        [
            ("first entry (ms)", three(&self.first_entry).1, MAX_FIRST_ENTRY),
            ("guest-init's first line (ms)", three(&self.first_line).1, MAX_FIRST_LINE),
            ("VM exits", figure(self.counts.total()), MAX_EXITS),
            ("private memory (KiB)", figure(memory.private_kib), MAX_PRIVATE_KIB),
            ("file-backed memory (KiB)", figure(memory.file_backed_kib), MAX_FILE_BACKED_KIB),
            ("spread of the first entry", spread(&self.first_entry), MAX_SPREAD),
            ("spread of the first line", spread(&self.first_line), MAX_SPREAD),
        ]
    }

    fn kept(&self) -> bool {
        self.promises().iter().all(|(_, is, at_most)| is <= at_most)
    }

    fn json(&self) -> Value {
        let promises: Vec<_> = self
            .promises()
            .iter()
            .map(|(name, is, at_most)| json!({"figure": name, "is": is, "at_most": at_most}))
            .collect();
        json!({
            "vcpus": self.shape.vcpus,
            "memory_mib": self.shape.memory_mib,
            "virtio_fs": self.shape.share,
            "first_entry_ms": self.first_entry,
            "first_line_ms": self.first_line,
            "exits": self.counts.exits,
            "system_calls_before_entry": self.counts.system_calls,
            "monitor_memory": self.monitor,
            "worker_memory": self.worker,
            "promises": promises,
        })
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.shape.share { "with virtio-fs" } else { "without shares" };
        writeln!(
            out,
            "Boot of a pod of {} CPU and {} MiB, {kind} (1 ms = 10^6 instructions, {RUNS} runs)",
            self.shape.vcpus, self.shape.memory_mib,
        )?;
        for (name, is, at_most) in self.promises() {
            let verdict = if is <= at_most { "" } else { "  MISSED" };
            if name.starts_with("spread") {
                let (is, at_most) = (is * 100.0, at_most * 100.0);
                writeln!(out, "  {name:<30} {is:>9.2} %  at most {at_most:.0} %{verdict}")?;
            } else {
                writeln!(out, "  {name:<30} {is:>9.1}    at most {at_most:.0}{verdict}")?;
            }
        }
        for (name, runs) in [("first entry", &self.first_entry), ("first line", &self.first_line)] {
            let (least, median, most) = three(runs);
            writeln!(out, "  {name:<30} {least:.2} / {median:.2} / {most:.2} ms")?;
        }
        for (name, memory) in [("monitor", self.monitor), ("worker", self.worker)] {
            let (private, file) = (memory.private_kib, memory.file_backed_kib);
            writeln!(out, "  {name:<30} {private} KiB private, {file} KiB file-backed")?;
        }
        write!(out, "  system calls before entry      {}\n  exits ", self.counts.system_calls)?;
        let mut exits: Vec<_> = self.counts.exits.iter().collect();
        exits.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in exits {
            write!(out, " {reason} {count}")?;
        }
        writeln!(out)
    }
}
