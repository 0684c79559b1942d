//! kill -9 of each process of a pod, at several moments.

use rustix::process::{Pid, Signal, kill_process};
use sandbox_tests::data::{process, processes};
use sandbox_tests::{Data, eventually, run, tiny};
use std::thread::sleep;
use std::time::Duration;

/// When: milliseconds after the process has appeared, the last well after the app has started.
const MOMENTS: [u64; 3] = [0, 700, 4000];

/// "If we are killed, the kernel kills both processes, and `gc` finds the directory without its
/// lock."
#[test]
fn a_killed_supervisor_takes_its_processes_along_and_gc_removes_the_rest() {
    let data = Data::new();
    run(tiny()).data(data.path()).sh("true").exits(0);
    for moment in [100, 500, 1500, 5000] {
        let mut pod = run(tiny()).data(data.path()).exec("/bin/sleep", ["1000"]).start();
        sleep(Duration::from_millis(moment));
        assert!(pod.is_alive());
        pod.signal(Signal::KILL);
        pod.end().exits(137);
        assert!(
            eventually(Duration::from_secs(10), || processes(data.path()).is_empty()),
            "killed after {moment} ms, these live on: {:?}",
            processes(data.path())
        );
        data.assert_gc_removes_the_rest();
    }
}

/// A pod that is killed while its image is unpacked leaves nothing that gc does not remove, and
/// the next one unpacks it anew.
#[test]
fn a_kill_while_an_image_is_unpacked_leaves_no_half_of_it() {
    let data = Data::new();
    for moment in [200, 500, 900] {
        let pod = run(tiny()).data(data.path()).exec("/bin/sleep", ["1000"]).start();
        sleep(Duration::from_millis(moment));
        pod.signal(Signal::KILL);
        pod.end().exits(137);
    }
    data.assert_gc_removes_the_rest();
    run(tiny())
        .data(data.path())
        .sh("head -n 1 /etc/passwd; wc -l </etc/group")
        .exits(0)
        .prints("root:x:0:0:root:/root:/bin/sh\n4\n");
}

/// The monitor crashes: 254, and a line that names it.
#[test]
fn a_killed_monitor_ends_the_pod() {
    kill_each("sandbox-vmm", &["sandbox-vmm", "SIGKILL"]);
}

/// The file server crashes: 254, and a line that names it.
#[test]
fn a_killed_file_server_ends_the_pod() {
    kill_each("sandbox-fs", &["sandbox-fs", "SIGKILL"]);
}

fn kill_each(program: &str, words: &[&str]) {
    let data = Data::new();
    for moment in MOMENTS {
        // Without a volume of the host there is no file server; it is found by what it shares.
        let pod = run(tiny())
            .data(data.path())
            .with(format!("--volume=data,kind=host,source={},readOnly=true", data.path().display()))
            .with("--mount=volume=data,target=/mnt")
            .exec("/bin/sleep", ["1000"])
            .start();
        let mut found = None;
        eventually(Duration::from_secs(60), || {
            found = process(data.path(), program);
            found.is_some()
        });
        sleep(Duration::from_millis(moment));
        kill_process(Pid::from_raw(found.expect("it is started")).unwrap(), Signal::KILL).unwrap();
        pod.end().exits(254).prints("").check("should say what ended", |it| {
            words.iter().all(|word| it.stderr.lines().next().is_some_and(|l| l.contains(word)))
        });
        data.assert_nothing_is_left();
    }
}
