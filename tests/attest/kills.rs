//! kill -9 of everybody who has a part in a launch, at any moment of it.

use crate::tpm::{Measured, NONCE};
use rustix::process::{Pid, Signal, kill_process};
use sandbox_attestation::record::{End, Event, Reason};
use sandbox_tests::eventually;
use serde_json::json;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How often each of the two is killed.
const MOMENTS: u32 = 25;

/// "kill -9 moments: recovered, never a false 'attested'": after `gc` every launch of the log has
/// its end, log and TPM agree, and no evidence of a pod passes that does not run.
#[test]
fn kills_leave_a_log_that_agrees_and_no_pod_that_is_attested() {
    let measured = Measured::new(15);
    measured.sh("true").exits(0);
    let (launch, attestor) = durations(&measured);
    let (policy, _pod) = {
        let (pod, uuid) = measured.pod();
        (measured.policy(&measured.evidence(&uuid), json!({})), pod)
    };
    let mut ran = BTreeSet::new();
    let mut outcomes = [0_u32; 3];
    for moment in 0..2 * MOMENTS {
        let share = f64::from(moment / 2) / f64::from(MOMENTS - 1);
        let saved = measured.directory.path().join(format!("uuid-{moment}"));
        let mut option = OsString::from("--uuid-file-save=");
        option.push(&saved);
        let run = measured.host.run(&measured.image).with("--tpm-attest").with(option);
        let pod = run.script("echo up").start();
        let victim = if moment % 2 == 0 {
            sleep(launch.mul_f64(share));
            Some(pod.pid())
        } else {
            let mut found = None;
            eventually(Duration::from_secs(30), || {
                found = attestor_of(pod.pid());
                found.is_some()
            });
            sleep(attestor.mul_f64(share));
            found
        };
        // One that has ended has ended.
        let _ = kill_process(victim.expect("it is started"), Signal::KILL);
        let ended = pod.end();
        let is_up = ended.stdout == b"up\n";
        outcomes[usize::from(is_up) + usize::from(is_up && ended.status == 0)] += 1;
        if ended.status == 0 || is_up {
            ran.insert(fs::read_to_string(&saved).unwrap().trim().to_owned());
        }
        // What was killed does not write any more, but its helper may.
        eventually(Duration::from_secs(20), || all_attestors().is_empty());
        measured.host.sandbox(["gc"]).exits(0);
        measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
        let launches = measured.launches();
        // But for the one that runs all the time.
        let open: Vec<_> = launches.iter().filter(|(_, _, end)| end.is_none()).collect();
        assert_eq!(open.len(), 1, "after moment {moment}: {open:?}\n{}", ended.shown());
        if let Some((_, uuid, end)) = launches.last()
            && fs::read_to_string(&saved).is_ok_and(|saved| saved.trim() == uuid)
        {
            let has_run = matches!(end, Some(End::Status(_)));
            assert!(!has_run || ran.contains(uuid), "{uuid} never ran: {end:?}");
            let evidence = measured.evidence(uuid);
            measured.verify(&evidence, &policy, NONCE).exits(1).mentions("FAILED    pod-running");
        }
    }
    let [never, cut_off, whole] = outcomes;
    println!("kills: {never} never ran, {cut_off} were cut off, {whole} ran to their end");
    assert!(never >= MOMENTS / 3, "the kills came too late: {outcomes:?}");
}

/// From the exec to the app's first line; and how long `sandbox-attest` lives in that.
fn durations(measured: &Measured) -> (Duration, Duration) {
    let start = Instant::now();
    let run = measured.host.run(&measured.image).with("--tpm-attest");
    let mut pod = run.script("echo up").start();
    eventually(Duration::from_secs(30), || attestor_of(pod.pid()).is_some());
    let began = Instant::now();
    eventually(Duration::from_secs(30), || attestor_of(pod.pid()).is_none());
    let attestor = began.elapsed();
    pod.wait_for("up");
    let launch = start.elapsed();
    pod.end().exits(0);
    (launch, attestor)
}

/// The processes of `sandbox-attest`, and whose child each is.
fn all_attestors() -> Vec<(Pid, Pid)> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().to_str()?.parse::<i32>().ok()?;
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // proc_pid_stat(5): the name is in parentheses, then come state and parent.
        let (before, after) = stat.rsplit_once(") ")?;
        let mut words = after.split(' ');
        let is_there = words.next()? != "Z" && before.ends_with("(sandbox-attest");
        let parent = words.next()?.parse::<i32>().ok()?;
        is_there.then_some((Pid::from_raw(name)?, Pid::from_raw(parent)?))
    });
    processes.collect()
}

fn attestor_of(parent: Pid) -> Option<Pid> {
    all_attestors().into_iter().find(|(_, of)| *of == parent).map(|(pid, _)| pid)
}

/// The TPM goes away when the launch is in it, and then the pod can't be started: nobody can write
/// that it never ran. Its directory stays, until `gc` can.
#[test]
fn a_launch_whose_end_cannot_be_written_is_ended_by_gc() {
    let measured = Measured::new(15);
    let tpm = measured.directory.path().join("tpm");
    symlink("/dev/tpmrm0", &tpm).unwrap();
    measured.settings(json!({"tcti": format!("device:{}", tpm.display())}));
    measured.sh("true").exits(0);
    let kernel = measured.directory.path().join("kernel");
    fs::copy("/usr/lib/sandbox/vmlinux", &kernel).unwrap();
    sleep(Duration::from_millis(100));
    let log = measured.log();
    let before = fs::read(&log).unwrap().len();
    let is_over = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            // The record is in the log, so whoever extends it has the TPM open.
            while fs::read(&log).unwrap().len() == before && !is_over.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(1));
            }
            fs::remove_file(&tpm).unwrap();
            // What was measured is not what is there any more, so that the pod is not started.
            fs::File::options().append(true).open(&kernel).unwrap().set_len(1 << 20).unwrap();
        });
        let option = format!("--kernel={}", kernel.display());
        let run = measured.host.run(&measured.image).with("--tpm-attest").with(option);
        let ended = run.sh("echo started");
        is_over.store(true, Ordering::Relaxed);
        ended
    });
    let ended = ended.check("should not have run", |it| it.status == 254 && it.stdout.is_empty());
    assert!(ended.stderr.contains("cannot be written into the TPM"), "{}", ended.shown());
    let open = |measured: &Measured| {
        measured.launches().into_iter().filter(|(_, _, end)| end.is_none()).count()
    };
    assert_eq!(open(&measured), 1);
    // Without a TPM `gc` can't do it either, and says so, and forgets nothing.
    measured.host.sandbox(["gc"]).exits(254);
    assert_eq!(open(&measured), 1);
    symlink("/dev/tpmrm0", &tpm).unwrap();
    measured.host.sandbox(["gc"]).exits(0);
    let launches = measured.launches();
    let last = launches.last().unwrap();
    assert!(matches!(last.2, Some(End::Reason(_))), "{last:?}");
    assert_eq!(open(&measured), 0);
    measured.has_no_pods();
    measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
}

/// Whatever can fail without the TPM fails before it.
#[test]
fn a_pod_that_is_refused_early_is_in_no_log() {
    let measured = Measured::new(15);
    measured.sh("true").exits(0);
    let before = measured.events();
    let run = measured.host.run(&measured.image).with("--tpm-attest");
    run.with("--uuid-file-save=/no/such/place")
        .sh("echo started")
        .fails_saying(&["/no/such/place"]);
    assert_eq!(measured.events(), before);
    let ends: Vec<_> = before.iter().filter(|event| matches!(event, Event::Exit(_))).collect();
    assert_eq!(ends.len(), 1);
    assert!(!ends.iter().any(
        |event| matches!(event, Event::Exit(exit) if exit.end == End::Reason(Reason::Aborted))
    ));
    measured.has_no_pods();
}
