//! What is refused, with the reason, and leaves nothing but what the log says of it.

use crate::tpm::Measured;
use sandbox_tests::command::Tool;
use serde_json::json;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn without_a_tpm_nothing_starts() {
    let measured = Measured::new(14);
    for (tcti, words) in [
        ("device:/dev/not-there", ["not-there", "TPM"]),
        ("swtpm:host=127.0.0.1,port=9", ["127.0.0.1", "TPM"]),
    ] {
        measured.settings(json!({"tcti": tcti}));
        measured.sh("echo started").fails_saying(&words);
    }
    measured.settings(json!({"pcr": 23}));
    measured.sh("echo started").fails_saying(&["attest.json", "23"]);
    measured.has_no_pods();
    // That it is not asked for, is no reason to start it if a rule does.
    measured.settings(json!({"tcti": "device:/dev/not-there"}));
    let rules = json!({"version": 2, "rules": [{"require": {"tpm": true}}]});
    measured.host.put("/etc/sandbox/gate.d/all.json", rules.to_string());
    measured.host.run(&measured.image).sh("echo started").fails_saying(&["not-there"]);
    measured.has_no_pods();
}

#[test]
fn a_rule_can_demand_it_for_all_pods() {
    let measured = Measured::new(14);
    let rule = |tpm| json!({"version": 2, "rules": [{"require": {"tpm": tpm}}]}).to_string();
    measured.host.put("/etc/sandbox/gate.d/all.json", rule(json!(true)));
    measured.host.run(&measured.image).sh("echo started").exits(0).prints("started\n");
    let log = fs::read_to_string(measured.log()).unwrap();
    assert!(log.contains("\"launch\"") && log.contains("\"exit\""), "{log}");
    // Verified by this host is less than by a service.
    measured.host.put("/etc/sandbox/gate.d/all.json", rule(json!("service")));
    measured.sh("echo started").fails_saying(&["service"]);
    measured.has_no_pods();
}

#[test]
fn a_log_that_was_changed_is_not_gone_on_with() {
    let measured = Measured::new(13);
    measured.sh("true").exits(0);
    let log = measured.log();
    let text = fs::read(&log).unwrap();
    let ends = [text.len() - 400, text.len() / 2];
    let shorter = ends.map(|end| text[..end].to_vec());
    let mut changed = text.clone();
    let place = text.windows(7).position(|window| window == b"\"cpus\":").expect("a record");
    changed[place + 7] ^= 1;
    for (what, content) in [("cut", &shorter[0]), ("halved", &shorter[1]), ("changed", &changed)] {
        fs::write(&log, content).unwrap();
        let ended = measured.sh("echo started");
        let is_refused = ended.stdout.is_empty() && ended.stderr.contains("log");
        assert!(is_refused, "{what}: {}", ended.shown());
        measured.has_no_pods();
    }
    fs::write(&log, text).unwrap();
    measured.sh("true").exits(0);
}

#[test]
fn a_register_that_somebody_else_extends_is_noticed() {
    let measured = Measured::new(12);
    measured.sh("true").exits(0);
    let digest = "11".repeat(32);
    Tool::new("tpm2_pcrextend").with([format!("12:sha256={digest}")]).run();
    measured.sh("echo started").fails_saying(&["12"]);
    measured.host.sandbox(["attest", "status"]).exits(1).mentions("DIFFERS");
    measured.has_no_pods();
}

/// "a pod changed between measure and launch": the kernel's file is written to all the time.
#[test]
fn what_changes_while_it_is_launched_does_not_run() {
    let measured = Measured::new(11);
    let kernel = measured.directory.path().join("kernel");
    fs::copy("/usr/lib/sandbox/vmlinux", &kernel).unwrap();
    let option = format!("--kernel={}", kernel.display());
    let run = || measured.host.run(&measured.image).with("--tpm-attest").with(&option);
    thread::sleep(Duration::from_millis(100));
    run().sh("echo started").exits(0).prints("started\n");
    let file = File::options().read(true).write(true).open(&kernel).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, 0).unwrap();
            // What is written is what was there; nobody can know that.
            while !is_over.load(Ordering::Relaxed) {
                file.write_all_at(&byte, 0).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let ended = run().sh("echo started");
        is_over.store(true, Ordering::Relaxed);
        ended.fails_saying(&["changed"]);
    });
    measured.has_no_pods();
    measured.host.sandbox(["attest", "status"]).exits(0).mentions("agrees");
}

/// What this host demands of itself: a kernel that it knows.
#[test]
fn the_hosts_own_demands_are_held_before_the_pod_runs() {
    let measured = Measured::new(9);
    let (pod, uuid) = measured.pod();
    let digest = measured.record(&uuid)["kernel"]["digest"].clone();
    let policy = |kernel: &str| {
        let policy = measured.policy(&measured.evidence(&uuid), json!({"kernels": [kernel]}));
        measured.host.put("/etc/sandbox/attest-policy.json", fs::read(policy).unwrap());
    };
    policy(digest.as_str().unwrap());
    measured.sh("echo started").exits(0).prints("started\n");
    policy(&format!("sha256:{}", "0".repeat(64)));
    measured.sh("echo started").fails_saying(&["kernel", "attest-policy.json"]);
    drop(pod);
    // The log says that it never ran.
    let log = fs::read_to_string(measured.log()).unwrap();
    assert!(log.contains("\"aborted\""), "{log}");
}
