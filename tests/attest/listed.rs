//! What `sandbox list` and `sandbox status` say about pods that are measured, and about others.

use crate::tpm::Measured;
use serde_json::Value;
use std::io::Write as _;

/// The members of rkt, and whether the launch was measured and verified.
#[test]
fn a_pod_is_listed_with_what_was_done_about_it() {
    let measured = Measured::new(15);
    let list = |words: &[&str]| measured.host.sandbox([&["list"], words].concat()).exits(0).text();
    let json = || serde_json::from_str::<Value>(&list(&["--format=json"])).unwrap();
    assert_eq!(json(), Value::Null);
    let (mut pod, uuid) = measured.pod();
    let listed = json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["name"], uuid.as_str());
    assert_eq!(listed[0]["state"], "running");
    assert_eq!(listed[0]["apps"][0]["state"], "running");
    // The first record is of no pod: where the log begins.
    assert_eq!(listed[0]["attestation"], serde_json::json!({"state": "local", "launch": 1}));
    let full = list(&["--full", "--no-legend"]);
    assert!(full.starts_with(&uuid) && full.contains("running"), "{full}");

    let file = measured.directory.path().join("uuid");
    let status = measured.host.sandbox(["status", "--uuid-file", file.to_str().unwrap()]);
    let status = status.exits(0).text();
    let started = listed[0]["started_at"].as_u64().unwrap();
    assert!(listed[0]["created_at"].as_u64().unwrap() <= started);
    for line in ["state=running", "exited=false", "attested=local", "launch=1"] {
        assert!(status.lines().any(|found| found == line), "{line} in\n{status}");
    }
    assert!(status.lines().any(|line| line.starts_with("pid=")), "{status}");

    writeln!(pod.stdin.as_mut().unwrap()).unwrap();
    pod.end().exits(3);
    assert_eq!(json(), Value::Null);
    measured.host.sandbox(["status", &uuid[..8]]).fails_saying(&["no matches"]);
    measured.host.sandbox(["status", "--uuid-file=/nowhere"]).exits(1).explains(&["/nowhere"]);
}

/// Whoever was killed is shown as rkt shows it, until `gc` has removed what is left.
#[test]
fn a_pod_whose_supervisor_was_killed_has_exited() {
    let measured = Measured::new(15);
    let (pod, uuid) = measured.pod();
    pod.signal(rustix::process::Signal::KILL);
    drop(pod.end());
    let status = measured.host.sandbox(["status", &uuid[..8]]).exits(0).text();
    for line in ["state=exited", "exited=true", "attested=local", "launch=1"] {
        assert!(status.lines().any(|found| found == line), "{line} in\n{status}");
    }
    measured.host.sandbox(["gc"]).exits(0).mentions(&uuid);
    measured.host.sandbox(["status", &uuid]).exits(254);
}

/// A pod that was not measured says so.
#[test]
fn a_pod_that_is_not_measured_is_not_attested() {
    let measured = Measured::new(15);
    let run = measured.host.run(&measured.image).with("--interactive");
    let mut pod = run.script("echo up; read line").start_open();
    pod.wait_for("up");
    let list = measured.host.sandbox(["list", "--no-legend"]).exits(0).text();
    assert!(list.trim_end().ends_with("none"), "{list}");
    writeln!(pod.stdin.as_mut().unwrap()).unwrap();
    pod.end().exits(0);
}
