//! Signals to `sandbox run`, at any moment.

use rustix::process::Signal;
use sandbox_tests::{Data, run, tiny};
use std::thread::sleep;
use std::time::Duration;

/// Ctrl-C and its kind, at moments spread over a pod's whole start: before the app runs the pod
/// ends with 128 and the signal's number (as a shell reports a signal, too, before we listen for
/// any), and nothing is left. If the app already runs, the signal ends it with the same status.
#[test]
fn a_signal_at_any_moment_of_the_start_ends_the_pod_and_leaves_nothing() {
    let data = Data::new();
    let pod = || run(tiny()).data(data.path()).exec("/bin/sleep", ["1000"]);
    // From the unpacking of the image, in a data directory that has nothing yet, on.
    for (index, delay) in [50, 300, 900, 50, 300, 600, 1000, 1500, 2100, 2900].iter().enumerate() {
        let (signal, status) = match index % 3 {
            0 => (Signal::INT, 130),
            1 => (Signal::TERM, 143),
            _ => (Signal::HUP, 129),
        };
        let mut running = pod().start();
        sleep(Duration::from_millis(*delay));
        assert!(running.is_alive());
        running.signal(signal);
        running.end().exits(status).prints("").check("should end soon", |it| {
            it.took < Duration::from_millis(*delay) + Duration::from_secs(30)
        });
        data.assert_nothing_is_left();
    }
}

/// "SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to the apps."
#[test]
fn signals_are_passed_on_to_a_running_app() {
    let script = "for s in INT TERM HUP QUIT USR1 USR2; do trap \"echo $s\" $s; done; \
                  trap 'echo USR2; exit 4' USR2; echo ready; while :; do sleep 0.1; done";
    let mut pod = run(tiny()).script(script).start();
    pod.wait_for("ready\n");
    for (signal, name) in [
        (Signal::INT, "INT\n"),
        (Signal::TERM, "TERM\n"),
        (Signal::HUP, "HUP\n"),
        (Signal::QUIT, "QUIT\n"),
        (Signal::USR1, "USR1\n"),
    ] {
        pod.signal(signal);
        pod.wait_for(name);
    }
    pod.signal(Signal::USR2);
    pod.end().exits(4).prints("ready\nINT\nTERM\nHUP\nQUIT\nUSR1\nUSR2\n");
}

/// "The third SIGINT in a row […] kills the pod."
#[test]
fn an_app_that_does_not_listen_is_killed_at_the_third_interrupt() {
    let data = Data::new();
    let script = "trap '' INT TERM; echo ready; while :; do sleep 0.1; done";
    let mut pod = run(tiny()).data(data.path()).script(script).start();
    pod.wait_for("ready\n");
    for _ in 0..3 {
        pod.signal(Signal::INT);
        sleep(Duration::from_millis(300));
    }
    pod.end().exits(130);
    data.assert_nothing_is_left();
}

/// Whoever reads the output goes away: the pod ends, as a command in a pipe does.
#[test]
fn a_reader_that_goes_away_ends_nothing_but_the_output() {
    let data = Data::new();
    let cut = "\"$@\" | head -n 1";
    let pod = run(tiny()).data(data.path()).through(["sh", "-c", cut, "0"]);
    pod.sh("i=0; while [ $i -lt 2000 ]; do echo line; i=$((i+1)); done").exits(0).prints("line\n");
    data.assert_nothing_is_left();
}
