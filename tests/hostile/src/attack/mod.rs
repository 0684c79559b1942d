//! The attempts.

mod code;
mod devices;
mod files;
mod kernel;
mod mounts;
mod processes;
mod resources;
mod sockets;
mod uring;

use crate::call;
use crate::call::{Result, open_at};
use crate::targets::Targets;
use std::ffi::CStr;

/// What an attempt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Files of the host's and of other pods.
    Files,
    /// Processes of the host's and of other pods.
    Processes,
    /// Sockets, networks and memory that processes share.
    Sockets,
    /// Mounts, roots and namespaces.
    Mounts,
    /// The host's kernel and its settings.
    Kernel,
    /// Devices.
    Devices,
    /// Code of the attacker's own.
    Code,
    /// More of the host than the pod was given.
    Resources,
}

/// What an attempt changes if it succeeds; the driver looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It comes back with the canary's secret.
    Secret,
    /// It comes back with the beginning of this file of the host's.
    Content(&'static str),
    /// It comes back with the identity of the host's disk.
    Disk,
    /// Its name is in this target, a file.
    Written(&'static str),
    /// Its name is a file's in this target, a directory.
    Left(&'static str),
    /// This target, a file, is gone.
    Gone(&'static str),
    /// Its name has arrived at one of the canary's sockets.
    Heard,
    /// This target, a process, is stopped.
    Halted(&'static str),
    /// This file of the host's has this text in it; `{NAME}` is a target.
    Shows(&'static str, &'static str),
    /// This file of the host's hasn't this text in it any more.
    Lacks(&'static str, &'static str),
    /// This file of the host's has another time.
    Touched(&'static str),
    /// This file of the host's has become so many bytes long.
    Grown(&'static str, u64),
    /// Its name is in the canary's memory.
    Memory,
    /// It has seen or used something that is the host's: what it comes back with is the proof.
    Observed,
    /// It can do more than before, but only within its own process.
    Power,
    /// It has got more of a resource than a pod should.
    Exhausted,
}

impl Effect {
    /// Whether it is one on the host or another pod.
    pub fn reaches_others(self) -> bool {
        !matches!(self, Self::Power | Self::Exhausted)
    }
}

/// Who makes an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// `sandbox-vmm`.
    Monitor,
    /// `sandbox-fs`.
    Worker,
}

/// An attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub class: Class,
    /// What it changes.
    pub effect: Effect,
    /// What it does, in words.
    pub what: &'static str,
    /// Whether both make it, or only one.
    pub only: Option<Actor>,
    /// The attempt itself. It runs in a process of its own, with the filter installed: it must not
    /// allocate.
    pub run: fn(&mut Attempt<'_>) -> Result,
}

/// Defines one that both make.
const fn attack(
    name: &'static str,
    class: Class,
    effect: Effect,
    what: &'static str,
    run: fn(&mut Attempt<'_>) -> Result,
) -> Attack {
    Attack { name, class, effect, what, only: None, run }
}

impl Attack {
    /// The same, but only this one makes it.
    const fn only(mut self, actor: Actor) -> Self {
        self.only = Some(actor);
        self
    }

    /// Whether this one makes it.
    pub fn is_made_by(&self, actor: Actor) -> bool {
        self.only.is_none_or(|only| only == actor)
    }
}

/// Every attempt, in the order in which they are made: what may end the process comes last.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    let lists = [
        files::LIST,
        processes::LIST,
        sockets::LIST,
        mounts::LIST,
        kernel::LIST,
        devices::LIST,
        code::LIST,
        resources::LIST,
    ];
    lists.into_iter().flatten()
}

/// The one of this name.
pub fn find(name: &str) -> Option<&'static Attack> {
    all().find(|attack| attack.name == name)
}

/// Most bytes that an attempt comes back with.
pub const PROOF: usize = 1024;

/// One attempt while it is made.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The name, which is what it leaves where it can write.
    pub name: &'static str,
    /// Where the canaries are.
    pub targets: &'a Targets,
    /// What it has come back with.
    pub proof: [u8; PROOF],
    /// How much that is.
    pub length: usize,
}

impl<'a> Attempt<'a> {
    /// One that begins.
    pub fn new(name: &'static str, targets: &'a Targets) -> Self {
        Self { name, targets, proof: [0; PROOF], length: 0 }
    }

    fn text(&self, target: &str) -> &'a CStr {
        self.targets.text(target)
    }

    fn str(&self, target: &str) -> &'a str {
        self.targets.str(target)
    }

    fn number(&self, target: &str) -> i64 {
        self.targets.number(target)
    }

    fn process(&self, target: &str) -> Result<i32> {
        self.targets.process(target)
    }

    /// Takes what a descriptor has to read.
    fn take(&mut self, descriptor: i32) -> Result {
        self.length = call!(SYS_read, descriptor, &mut self.proof[..], PROOF)?;
        Ok(())
    }

    /// Takes some bytes of a file.
    fn take_at(&mut self, descriptor: i32, length: usize, offset: i64) -> Result {
        let length = length.min(PROOF);
        self.length = call!(SYS_pread64, descriptor, &mut self.proof[..], length, offset)?;
        Ok(())
    }

    /// Takes a file's beginning.
    fn take_file(&mut self, path: &CStr) -> Result {
        self.take_file_at(libc::AT_FDCWD, path)
    }

    fn take_file_at(&mut self, directory: i32, path: &CStr) -> Result {
        let file = open_at(directory, path, libc::O_RDONLY)?;
        self.take(file)
    }

    /// Proves something by a number.
    fn prove(&mut self, number: u64) {
        self.proof[..8].copy_from_slice(&number.to_le_bytes());
        self.length = 8;
    }
}

/// Descriptors that a taken over process tries: all that it may have been given.
const DESCRIPTORS: std::ops::Range<i32> = 0..64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn there_are_at_least_sixty_and_each_has_a_name_of_its_own() {
        let names: BTreeSet<_> = all().map(|attack| attack.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.len() >= 60, "{}", names.len());
        for attack in all() {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(attack.name.chars().all(plain) && attack.name.len() < 48, "{}", attack.name);
            assert!(!attack.what.contains('|'), "{}: its words are part of a table", attack.name);
        }
    }
}
