//! Victims, canaries and verdicts: what a monitor and a file server that were taken over reach.
//!
//! `sandbox-hostile-test [SET …]`, on the test host, with the hostile build installed. For each set of
//! layers (all of them; each one left out; each one alone; none) one pod is booted, whose guest has
//! every attempt of `sandbox_hostile::attack` made by its monitor and its file server, as another
//! tenant than the victim's. An attempt has succeeded if the canary shows it.
//!
//! What must be so:
//! - with no layer every attempt succeeds: it is one;
//! - with all layers none does, from whichever thread of the monitor;
//! - with any one layer off none reaches the host or another pod.
//!
//! The table of what each layer stops alone goes to /mnt/out/table, everything else to
//! /mnt/out/attempts; the last line has the counts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness that fails fails the test")]

mod canaries;
mod canary;
mod pod;
mod results;
mod sets;
mod verdict;
mod victim;

use canaries::Canaries;
use pod::Pod;
use results::Results;
use sandbox_hostile::attack::{self, Actor};
use sandbox_hostile::layers::Layer;
use sets::Set;
use std::process::ExitCode;
use std::time::Instant;
use victim::Victim;

/// The kinds of threads of a monitor, each with a filter of its own.
const THREADS: [&str; 3] = ["main", "vcpu", "disk"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == [canary::ARGUMENT] {
        canary::live();
    }
    let sets: Vec<Set> = match arguments.is_empty() {
        true => sets::all(),
        false => arguments.iter().map(|name| sets::named(name)).collect(),
    };
    let mut canaries = Canaries::set_up();
    let victim = Victim::start(&mut canaries);
    let mut results = Results::default();
    for set in sets {
        let since = Instant::now();
        let (reached, made) = run(&set, &canaries, &victim, &mut results);
        results.write_attempts();
        results.show_unexpected(&set);
        println!("{set}: {made} attempts, {reached} succeed, {} s", since.elapsed().as_secs());
    }
    victim.end();
    if arguments.is_empty() { results.conclude() } else { ExitCode::SUCCESS }
}

/// Has every attempt made by a pod with these layers.
fn run(set: &Set, canaries: &Canaries, victim: &Victim, results: &mut Results) -> (usize, usize) {
    let mut pod = Pod::start(set, canaries);
    let (mut reached, mut made) = (0, 0);
    for attack in attack::all() {
        for actor in [Actor::Monitor, Actor::Worker] {
            if !attack.is_made_by(actor) {
                continue;
            }
            let threads: &[&str] = match actor {
                Actor::Monitor if set.has(Layer::Seccomp) => &THREADS,
                _ => &["main"],
            };
            for thread in threads {
                let verdict = verdict::of(attack, actor, thread, &mut pod, canaries, victim);
                made += 1;
                reached += usize::from(verdict.reached);
                results.add(set, attack, actor, thread, verdict);
            }
        }
    }
    pod.end();
    (reached, made)
}
