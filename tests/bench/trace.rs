//! What the host's kernel saw of a boot: VM exits by reason, and the monitor's system calls before
//! the first entry. Tracing costs instructions, so a traced boot is not a timed one.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;

const TRACING: &str = "/sys/kernel/tracing";
const EVENTS: [&str; 4] =
    ["kvm/kvm_exit", "kvm/kvm_entry", "kvm/kvm_pio", "raw_syscalls/sys_enter"];
/// The names of the monitor's threads.
const MONITOR: [&str; 3] = ["sandbox-vmm-", "create-vm-", "vcpu0-"];

/// Counts of one boot, up to the end of guest-init's first line.
#[derive(Debug)]
pub struct Counts {
    pub exits: BTreeMap<String, u64>,
    pub system_calls: u64,
}

/// Counts what happens in `boot`.
pub fn count<T>(
    boot: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<(Counts, T), Box<dyn Error>> {
    fs::write(format!("{TRACING}/buffer_size_kb"), "16384")?;
    fs::write(format!("{TRACING}/trace"), "")?;
    switch("1")?;
    let result = boot();
    switch("0")?;
    let trace = fs::read_to_string(format!("{TRACING}/trace"))?;
    Ok((Counts::of(&trace), result?))
}

fn switch(state: &str) -> Result<(), Box<dyn Error>> {
    for event in EVENTS {
        fs::write(format!("{TRACING}/events/{event}/enable"), state)?;
    }
    Ok(())
}

impl Counts {
    /// Reads lines such as
    /// `vcpu0-212 [000] ..... 8.102: kvm_exit: vcpu 0 reason npf rip 0x…`.
    fn of(trace: &str) -> Self {
        let mut counts = Self { exits: BTreeMap::new(), system_calls: 0 };
        let mut entered = false;
        for line in trace.lines().map(str::trim_start) {
            if line.contains(" kvm_entry:") {
                entered = true;
            } else if let Some((_, exit)) = line.split_once(" kvm_exit:") {
                let mut words = exit.split_ascii_whitespace();
                let reason = words.by_ref().skip_while(|word| *word != "reason").nth(1);
                *counts.exits.entry(reason.unwrap_or("?").to_owned()).or_default() += 1;
            } else if let Some((_, pio)) = line.split_once(" kvm_pio:") {
                // The newline that ends the first line on the console.
                if pio.contains("pio_write at 0x3f8") && pio.contains("val 0xa") {
                    break;
                }
            } else if !entered && MONITOR.iter().any(|name| line.starts_with(name)) {
                counts.system_calls += 1;
            }
        }
        counts
    }

    /// All exits.
    pub fn total(&self) -> u64 {
        self.exits.values().sum()
    }
}
