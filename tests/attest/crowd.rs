//! Many at once.

use crate::tpm::Measured;
use sandbox_attestation::record::End;
use sandbox_tests::eventually;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How many.
const PODS: usize = 100;

/// "100 pods launched at once extend in the log's order": all of them wait for the TPM at the same
/// time, and then go.
#[test]
fn a_hundred_pods_at_once_are_in_log_and_tpm_each_with_its_end() {
    let measured = Measured::new(15);
    // Keys, log and image are there.
    measured.sh("true").exits(0);
    let lock = File::open(measured.state().join("lock")).unwrap();
    lock.lock().unwrap();
    let file = |number: usize| measured.directory.path().join(format!("out-{number}"));
    let mut pods: Vec<_> = (0..PODS)
        .map(|number| {
            let run = measured.host.run(&measured.image).with("--tpm-attest");
            let (words, _) = run.script(&format!("echo pod {number}")).command_line();
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::null());
            let out = File::create(file(number)).unwrap();
            command.stderr(out.try_clone().unwrap()).stdout(out).spawn().unwrap()
        })
        .collect();
    let inode = lock.metadata().unwrap().ino();
    let all = eventually(Duration::from_secs(400), || waiting(inode) == PODS);
    assert!(all, "{} of {PODS} launches wait for the TPM", waiting(inode));
    drop(lock);

    for (number, pod) in pods.iter_mut().enumerate() {
        let status = pod.wait().unwrap();
        let said = fs::read_to_string(file(number)).unwrap();
        assert!(status.success() && said == format!("pod {number}\n"), "{status}: {said}");
    }
    let launches = measured.launches();
    assert_eq!(launches.len(), 1 + PODS);
    let names: BTreeSet<_> = launches.iter().map(|(_, pod, _)| pod).collect();
    assert_eq!(names.len(), launches.len());
    for (number, pod, end) in &launches {
        assert_eq!(*end, Some(End::Status(0)), "record {number}, pod {pod}");
    }
    measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
    measured.has_no_pods();
}

/// How many processes wait for a lock on a file. `proc_locks(5)`: a line with `->` is of one that
/// waits.
fn waiting(inode: u64) -> usize {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let its = format!(":{inode} ");
    locks.lines().filter(|line| line.contains("->") && line.contains(&its)).count()
}
