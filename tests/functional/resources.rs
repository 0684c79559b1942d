//! CPUs and memory of a pod and its apps.

use sandbox_tests::{run, tiny};

/// "A pod has as many virtual CPUs as its apps' --cpu limits add up to, rounded up"
#[test]
fn four_cpus_are_four_cpus() {
    let script = "nproc; for n in 1 2 3 4; do (seq 1 20000 | tail -n 1) & done; wait";
    run(tiny()).with("--cpu=4").sh(script).exits(0).prints("4\n20000\n20000\n20000\n20000\n");
}

/// "--memory: Limit memory, as in 512M or 1Gi."
#[test]
fn an_app_can_use_the_memory_of_its_limit() {
    let pod = run(tiny()).with("--memory=64M");
    pod.exec("/bin/dd", ["if=/dev/zero", "of=/dev/null", "bs=40M", "count=1", "status=none"])
        .end()
        .exits(0)
        .says("");
}

/// An app that wants more than its limit is killed, and the reason is said. (tail keeps a line up to
/// its end, and this one has none.)
#[test]
fn an_app_beyond_its_memory_limit_is_killed_and_the_flag_named() {
    run(tiny())
        .with("--memory=64M")
        .exec("/bin/tail", ["-n", "1", "/dev/zero"])
        .end()
        .exits(137)
        .explains(&["out of memory", "--memory"]);
}

/// The same for an app without a limit, in a pod that has 256 MiB.
#[test]
fn an_app_without_a_limit_that_fills_the_pod_is_killed_and_the_flag_named() {
    run(tiny())
        .exec("/bin/tail", ["-n", "1", "/dev/zero"])
        .end()
        .exits(137)
        .explains(&["out of memory", "--memory"]);
}
