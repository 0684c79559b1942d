//! `sandbox run` of one app: its status, streams, arguments, environment and identity.

use sandbox_tests::{run, tiny};

/// "Exit status: that of the first app that fails"
#[test]
fn the_exit_status_is_the_apps() {
    run(tiny()).sh("exit 7").exits(7).prints("").says("");
}

/// "128 and the signal's number if a signal ended it"
#[test]
fn an_app_that_a_signal_ends_gives_128_and_its_number() {
    // 15 would be ignored by a PID 1 without a handler; the app is none.
    run(tiny()).sh("kill -TERM $$").exits(128 + 15);
}

/// The streams of the app are those of the command.
#[test]
fn standard_output_and_standard_error_stay_apart() {
    run(tiny())
        .sh("echo out; echo err >&2; echo more")
        .exits(0)
        .prints("out\nmore\n")
        .says("err\n");
}

/// What an app writes arrives in full and in order, however much and whatever it is.
#[test]
fn a_long_binary_output_arrives_as_it_was_written() {
    let script =
        "i=0; while [ $i -lt 40 ]; do seq 1 20000; printf '\\000\\377\\r\\n'; i=$((i+1)); done";
    let mut piece: Vec<u8> = (1..=20_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    piece.extend(b"\0\xff\r\n");
    let expected = piece.repeat(40);
    run(tiny()).sh(script).exits(0).check("should be the same bytes", |it| it.stdout == expected);
}

/// "--interactive: Connect the app with this terminal, or with standard input if that is none."
#[test]
fn interactive_passes_standard_input_on_to_its_end() {
    let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    let pod = run(tiny()).with("--interactive").stdin(text.clone());
    pod.exec("/bin/cat", [""; 0]).end().exits(0).prints(&text);
}

/// Without --interactive an app has nothing on its standard input.
#[test]
fn without_interactive_standard_input_is_empty() {
    run(tiny()).stdin("secret\n").sh("cat; echo end").exits(0).prints("end\n");
}

/// "What follows -- are arguments of the image before it […] added to the image's command line, or
/// to the one of --exec."
#[test]
fn arguments_are_added_to_the_images_command_or_to_exec() {
    // The image's command is /bin/sh.
    run(tiny())
        .with("--")
        .with("-c")
        .with("echo \"$0\" \"$1\"")
        .with("a b")
        .with("--x=*")
        .end()
        .exits(0)
        .prints("a b --x=*\n");
    let script = "for word in \"$@\"; do echo \"[$word]\"; done";
    run(tiny())
        .exec("sh", ["-c", script, "0", "", "ä\nb", "--"])
        .end()
        .exits(0)
        .prints("[]\n[ä\nb]\n[--]\n");
}

/// "The environment of an app comes from, each over the one before: --inherit-env, the image,
/// --environment, --set-env-file, --set-env."
#[test]
fn the_environment_has_its_layers_in_order() {
    let file = sandbox_tests::temporary();
    let file = file.path().join("env");
    std::fs::write(&file, "# a comment\nC=file\nD=file\n").unwrap();
    run(tiny())
        .variable("KEPT", "not this")
        .variable("A", "inherited")
        .with("--inherit-env")
        .with(format!("--set-env-file={}", file.display()))
        .with("--set-env=D=set")
        .with("--environment=FROM=app")
        .with("--environment=B=app")
        .with("--environment=C=app")
        .sh("echo $KEPT $FROM $A $B $C $D $HOME")
        .exits(0)
        .prints("yes app inherited app file set /root\n");
}

/// Nothing of the host's environment gets into an app by itself.
#[test]
fn the_environment_of_the_host_stays_outside() {
    run(tiny())
        .variable("SECRET", "x")
        .exec("/bin/env", [""; 0])
        .end()
        .exits(0)
        .check("should not have SECRET", |it| !it.text().contains("SECRET"));
}

/// "--working-dir: Start in this directory."
#[test]
fn the_working_directory_is_the_one_asked_for() {
    run(tiny()).with("--working-dir=/home").sh("pwd").exits(0).prints("/home\n");
}

/// "--user: Run as this user: a name or number of the image, or a path whose owner it is." What
/// isn't given is the image's, as in rkt: this one says nothing, which is root and its group.
#[test]
fn an_app_runs_as_the_user_and_group_asked_for() {
    let show = "echo $(id -u) $(id -g) $(id -G)";
    run(tiny()).sh(show).exits(0).prints("0 0 0\n");
    run(tiny()).with("--user=alice").sh(show).exits(0).prints("1000 0 0 29\n");
    let pod = run(tiny()).with("--user=/home/alice").with("--group=staff");
    pod.sh(show).exits(0).prints("1000 50 50\n");
    let pod = run(tiny()).with("--user=12").with("--group=34").with("--supplementary-gids=56,78");
    pod.sh(show).exits(0).prints("12 34 34 56 78\n");
}

/// A user who is not root has the host's and the image's rules against him.
#[test]
fn another_user_than_root_has_no_rights_of_root() {
    let script = "echo x >/etc/x; cat /proc/self/status";
    run(tiny())
        .with("--user=alice")
        .sh(script)
        .exits(0)
        .mentions("CapEff:\t0000000000000000")
        .check("should be denied", |it| it.stderr.contains("Permission denied"));
}

/// "--hostname: Host name of the pod [default: rkt-UUID]."
#[test]
fn the_host_name_is_the_one_asked_for_or_the_pods() {
    run(tiny()).with("--hostname=box.example").sh("uname -n").exits(0).prints("box.example\n");
    run(tiny()).sh("uname -n").exits(0).check("should be rkt-UUID", |it| {
        it.text().starts_with("rkt-") && it.text().trim().len() == 40
    });
}

/// A pod has a kernel of its own, the installed one.
#[test]
fn the_kernel_is_the_pods_own() {
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    run(tiny()).sh("uname -r").exits(0).check("should be 6.12, not the host's", |it| {
        it.text().starts_with("6.12.") && it.text() != host
    });
}

/// "--readonly-rootfs: Make the root file system read-only."
#[test]
fn a_read_only_root_refuses_to_be_written_to() {
    let pod = run(tiny()).with("--readonly-rootfs=true");
    pod.sh("echo x >/etc/x || echo refused; echo y >/dev/shm/y && cat /dev/shm/y")
        .exits(0)
        .prints("refused\ny\n");
}

/// "What an app writes outside of volumes is kept in that memory", and goes with the pod.
#[test]
fn what_an_app_writes_to_its_root_does_not_reach_the_store() {
    let write = "echo changed >/etc/passwd; rm /bin/df; mkdir /new; cat /etc/passwd";
    run(tiny()).sh(write).exits(0).prints("changed\n");
    run(tiny())
        .sh("head -n 1 /etc/passwd; ls -d /bin/df /new")
        .prints("root:x:0:0:root:/root:/bin/sh\n/bin/df\n")
        .exits(2);
}
