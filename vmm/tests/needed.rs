//! Shows that what every thread of the monitor's may call, whatever its work, is needed: without
//! any one of the rules for locks, the heap and the end, the threads of a process that has them
//! are killed. What the threads' work needs is shown on the test host, in tests/monitor.
//!
//! Each case is a process of its own, this program with arguments; so there is no harness.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use sandbox_seccomp::Policy;
use sandbox_vmm::filter::Thread;
use sandbox_vmm::{exit, heap, panic};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

const THREADS: usize = 4;
const ROUNDS: usize = 20_000;

/// What is done with it, and the rules that it needs: the beginnings of their lines.
const CASES: &[(&str, &[&str])] = &[
    (
        "share",
        &[
            "futex arg1 == FUTEX_WAIT_BITSET|FUTEX_PRIVATE_FLAG",
            "futex arg1 == FUTEX_WAIT|FUTEX_PRIVATE_FLAG",
            "futex arg1 == FUTEX_WAKE|FUTEX_PRIVATE_FLAG",
            "brk",
        ],
    ),
    ("panic", &["exit_group"]),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [case, kind, rule] = arguments.as_slice()
        && let Some((case, _)) = CASES.iter().find(|(name, _)| name == case)
    {
        let kind = Thread::ALL.into_iter().find(|thread| format!("{thread:?}") == *kind).unwrap();
        return child(case, kind, rule.parse().ok());
    }
    for kind in Thread::ALL {
        for (case, needed) in CASES {
            let expected = if *case == "panic" { exit::FAILURE.into() } else { 0 };
            assert_eq!(run(case, kind, None).code(), Some(expected), "{case}, {kind:?}");
            for rule in *needed {
                let status = run(case, kind, Some(number(kind, rule)));
                assert_eq!(
                    status.signal(),
                    Some(SIGSYS),
                    "{case}, {kind:?} without {rule}: {status}"
                );
                println!("test {case}: {kind:?} needs {rule} ... ok");
            }
        }
    }
}

const SIGSYS: i32 = 31;

fn policy(kind: Thread) -> Policy {
    Policy::parse(kind.policy()).unwrap()
}

/// The number of a rule.
fn number(kind: Thread, start: &str) -> usize {
    let wanted = Policy::parse(&format!("{start} # wanted")).unwrap();
    let wanted = &wanted.rules()[0];
    let is_it = |rule: &sandbox_seccomp::Rule| {
        rule.call == wanted.call && rule.conditions == wanted.conditions
    };
    policy(kind).rules().iter().position(is_it).expect("the rule is there")
}

fn run(case: &str, kind: Thread, without: Option<usize>) -> ExitStatus {
    let rule = without.map_or("none".to_owned(), |rule| rule.to_string());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([case, &format!("{kind:?}"), &rule]).stderr(Stdio::null()).status().unwrap()
}

/// What the threads have in common.
#[derive(Default)]
struct Shared {
    lock: Mutex<Vec<Vec<u8>>>,
    finished: AtomicUsize,
    end: (Mutex<bool>, Condvar),
}

fn child(case: &str, kind: Thread, without: Option<usize>) {
    heap::keep_one();
    panic::install();
    let policy = without.map_or(policy(kind), |rule| policy(kind).without(rule));
    let program = Arc::new(policy.compile().unwrap());
    let count = if case == "panic" { 1 } else { THREADS };
    let (start, shared) = (Arc::new(Barrier::new(count)), Arc::new(Shared::default()));
    for _ in 0..count {
        let (program, start, shared) = (program.clone(), start.clone(), shared.clone());
        let panics = case == "panic";
        std::thread::spawn(move || {
            start.wait();
            seccompiler::apply_filter(&program).unwrap();
            assert!(!panics, "as asked");
            work(&shared);
            loop {
                std::thread::park();
            }
        });
    }
    let mut end = shared.end.0.lock().unwrap();
    while !*end {
        end = shared.end.1.wait(end).unwrap();
    }
}

/// Allocates buffers of all sizes that the monitor has, and hands them to other threads, under a
/// lock.
fn work(shared: &Shared) {
    for round in 0..ROUNDS {
        let buffer = vec![1; 2000 + round % 64 * 1024];
        let mut buffers = shared.lock.lock().unwrap();
        buffers.push(buffer);
        let old = if buffers.len() > 64 { Some(buffers.swap_remove(round % 64)) } else { None };
        drop(buffers);
        drop(old);
    }
    if shared.finished.fetch_add(1, Ordering::SeqCst) + 1 == THREADS {
        *shared.end.0.lock().unwrap() = true;
        shared.end.1.notify_all();
    }
}
