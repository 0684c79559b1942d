//! Processes: how apps start, what they are allowed, and how they end.

use crate::harness::{
    Guest, app, exited, has_controller, killed, shell, skip, started, stderr, stdout,
};
use crate::{Test, tests};
use sandbox_protocol::{ExitStatus, ToGuest, ToHost};
use std::path::Path;

pub const TESTS: &[Test] = tests![
    output_and_status_of_an_app_arrive,
    a_signal_ends_an_app_that_does_not_handle_it,
    signals_are_passed_on_to_the_app,
    a_program_that_is_not_there_is_reported_as_such,
    programs_that_cannot_be_executed_say_why,
    an_app_runs_as_root_with_the_default_capabilities,
    an_app_runs_as_the_user_that_the_image_names,
    a_user_that_the_image_does_not_have_is_an_error,
    an_app_finds_an_orderly_process,
    apps_see_each_other_and_nothing_of_the_guest,
    an_app_cannot_end_or_trace_what_it_does_not_own,
    processes_that_an_app_leaves_behind_end_with_it,
    orphans_are_reaped,
    apps_end_when_the_host_hangs_up,
    one_app_that_cannot_start_does_not_keep_the_other_from_running,
    limits_hold_and_an_app_that_ran_out_of_memory_is_reported_as_such,
];

fn run(pod: sandbox_protocol::Pod) -> Guest {
    Guest::start(pod, &[("root", Path::new("/"))])
}

/// Runs a script and returns what it says, after it has exited with status 0.
fn says(script: &str) -> String {
    let mut guest = run(shell(script));
    let (output, errors) = (guest.output(stdout(0)), guest.output(stderr(0)));
    assert_eq!(errors, "");
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
    output
}

fn output_and_status_of_an_app_arrive() {
    let mut guest = run(shell("echo out; echo err >&2; exit 7"));
    assert_eq!(guest.output(stdout(0)), "out\n");
    assert_eq!(guest.output(stderr(0)), "err\n");
    guest.hears(&started(0));
    guest.hears(&exited(0, 7));
    guest.finish();
}

fn a_signal_ends_an_app_that_does_not_handle_it() {
    let mut guest = run(shell("exec sleep 100"));
    guest.hears(&started(0));
    guest.say(&ToGuest::Signal { app: 0, signal: 15 });
    guest.hears(&killed(0, 15));
    guest.finish();
}

fn signals_are_passed_on_to_the_app() {
    let mut guest =
        run(shell("trap 'echo got it; exit 3' USR1; echo ready; while :; do sleep 0.1; done"));
    guest.hears(&started(0));
    let mut output = guest.connection(stdout(0));
    let mut text = [0; 6];
    std::io::Read::read_exact(&mut output, &mut text).unwrap();
    // Numbers that are no signals, and apps that are not there, change nothing.
    guest.say(&ToGuest::Signal { app: 0, signal: 0 });
    guest.say(&ToGuest::Signal { app: 0, signal: 200 });
    guest.say(&ToGuest::Signal { app: 9, signal: 9 });
    guest.say(&ToGuest::Signal { app: 0, signal: 10 });
    assert_eq!(std::io::read_to_string(output).unwrap(), "got it\n");
    guest.hears(&exited(0, 3));
    guest.finish();
}

fn a_program_that_is_not_there_is_reported_as_such() {
    for (program, message) in [
        ("missing", "program \"missing\" not found in the PATH of the image (/usr/bin:/bin)"),
        ("/bin/missing", "program \"/bin/missing\" not found in the image"),
        ("/etc/passwd/x", "program \"/etc/passwd/x\" not found in the image"),
    ] {
        let mut pod = shell("");
        pod.apps[0].argv = vec![program.into()];
        let mut guest = run(pod);
        assert_eq!(guest.failure(), message);
        guest.finish();
    }
}

fn programs_that_cannot_be_executed_say_why() {
    let image = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = image.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write("script", "#!/no/such/shell\n", 0o755);
    write("text", "hello\n", 0o755);
    write("data", "hello\n", 0o644);
    for (program, message) in [
        ("/script", "the interpreter or dynamic loader"),
        ("/text", "neither a program for this machine nor a script"),
        ("/data", "may not be executed"),
        ("/", "may not be executed"),
    ] {
        let mut pod = shell("");
        pod.apps[0].argv = vec![program.into()];
        let mut guest = Guest::start(pod, &[("root", image.path())]);
        let failure = guest.failure();
        assert!(failure.contains(message), "{failure}");
        guest.finish();
    }
}

/// appc `ace.md`: the default set of the retain-set isolator.
fn an_app_runs_as_root_with_the_default_capabilities() {
    let status = says("grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status");
    assert_eq!(
        status.replace('\t', ""),
        "Groups: \nCapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapEff:00000000a80425fb\n\
         CapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\n"
    );
}

fn an_app_runs_as_the_user_that_the_image_names() {
    let mut pod = shell("id; echo $HOME; grep CapEff /proc/self/status; echo again >/dev/stdout");
    pod.apps[0].user = "daemon".into();
    pod.apps[0].group = String::new();
    pod.apps[0].supplementary_groups = vec![5000];
    let mut guest = run(pod);
    assert_eq!(
        guest.output(stdout(0)),
        "uid=1(daemon) gid=1(daemon) groups=1(daemon),5000\n/usr/sbin\n\
         CapEff:\t0000000000000000\nagain\n"
    );
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn a_user_that_the_image_does_not_have_is_an_error() {
    let mut pod = shell("");
    pod.apps[0].user = "nobody-knows".into();
    let mut guest = run(pod);
    assert_eq!(
        guest.failure(),
        "user \"nobody-knows\" is neither a name in the image's /etc/passwd, nor a number, nor an \
         absolute path"
    );
    guest.finish();
}

fn an_app_finds_an_orderly_process() {
    let script = "umask; grep -E '^Sig(Blk|Ign)' /proc/self/status; \
                  pwd; ls /proc/self/fd; ps -o sid=,pgid=,pid= -p $$; cat /proc/self/cgroup; \
                  hostname; tail -n 1 /proc/net/dev | cut -d: -f1; env | sort | grep -v _=";
    let mut pod = shell(script);
    pod.apps[0].working_directory = b"/usr/lib/".to_vec();
    pod.apps[0].environment.push(b"A=b c".to_vec());
    let mut guest = run(pod);
    let output = guest.output(stdout(0));
    let lines: Vec<_> = output.lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["0022", "SigBlk:\t0000000000000000"]);
    // Test runners are known to ignore the two signals that glibc keeps for itself.
    let ignored = lines[2].strip_prefix("SigIgn:\t").unwrap();
    assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & 0x7fff_ffff, 0);
    // The fourth descriptor is that of ls, of the directory itself.
    assert_eq!(lines[3..8], ["/usr/lib", "0", "1", "2", "3"]);
    let numbers: Vec<_> = lines[8].split_whitespace().collect();
    assert!(numbers.iter().all(|number| *number == numbers[0] && *number != "1"), "{numbers:?}");
    assert!(lines[9..].contains(&"0::/"));
    assert!(lines[9..].contains(&"the-pod"));
    assert!(lines[9..].contains(&"lo"));
    assert!(output.ends_with("A=b c\nHOME=/root\nPATH=/usr/bin:/bin\nPWD=/usr/lib\n"), "{output}");
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

/// appc `pods.md`: apps share the PID, network, IPC and UTS namespaces.
fn apps_see_each_other_and_nothing_of_the_guest() {
    let mut pod = shell("sleep 12345; exit 1");
    let script = "while ! ps -eo args= | grep -q '^sleep 12345'; do sleep 0.1; done; \
                  ps -eo pid=,comm= | sed 's/^ *//' | grep -v -w -E 'ps|sed|grep|sh'; \
                  pkill -f '^sleep 12345'; sleep 0.2";
    pod.apps.push(app("other", script, 1));
    let mut guest = run(pod);
    let output = guest.output(stdout(1));
    let names: Vec<_> = output.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(names, ["pod", "sleep"]);
    assert!(output.starts_with("1 pod\n"));
    let mut reports = vec![guest.hear(), guest.hear(), guest.hear(), guest.hear()];
    reports.sort_by_key(|report| format!("{report:?}"));
    assert_eq!(reports, [exited(0, 1), exited(1, 0), started(0), started(1)]);
    guest.finish();
}

fn an_app_cannot_end_or_trace_what_it_does_not_own() {
    let script = "kill -9 1; kill -15 1; ls /proc/1/root/ 2>&1; readlink /proc/1/exe; \
                  ls /proc/1/fd; cat /proc/1/environ 2>&1; echo $?";
    let output = says(script);
    assert_eq!(
        output,
        "ls: cannot access '/proc/1/root/': Permission denied\n\
         cat: /proc/1/environ: Permission denied\n1\n"
    );
}

fn processes_that_an_app_leaves_behind_end_with_it() {
    let mut guest =
        run(shell("(trap '' TERM HUP INT; sleep 1000) & setsid sleep 1000 & echo here"));
    assert_eq!(guest.output(stdout(0)), "here\n");
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn orphans_are_reaped() {
    let script = "for i in 1 2 3 4 5; do (sleep 0 &) ; done; \
                  for try in $(seq 50); do ps -eo stat= | grep -q Z || exit 0; sleep 0.1; done; exit 1";
    assert_eq!(says(script), "");
}

fn apps_end_when_the_host_hangs_up() {
    let mut guest = run(shell("trap '' TERM HUP; echo here; while :; do sleep 1; done"));
    guest.hears(&started(0));
    let mut output = guest.connection(stdout(0));
    let mut text = [0; 5];
    std::io::Read::read_exact(&mut output, &mut text).unwrap();
    guest.hang_up();
    assert_eq!(std::io::read_to_string(output).unwrap(), "");
}

fn one_app_that_cannot_start_does_not_keep_the_other_from_running() {
    let mut pod = shell("echo fine");
    pod.apps.push(app("broken", "", 1));
    pod.apps[1].argv = vec![b"missing".to_vec()];
    let mut guest = run(pod);
    assert_eq!(guest.output(stdout(0)), "fine\n");
    assert_eq!(guest.output(stdout(1)), "");
    let mut reports = [guest.hear(), guest.hear(), guest.hear()];
    reports.sort_by_key(|report| format!("{report:?}"));
    assert_eq!(reports[0], exited(0, 0));
    assert!(matches!(reports[1], ToHost::Failed { app: Some(1), .. }));
    assert_eq!(reports[2], started(0));
    guest.finish();
}

fn limits_hold_and_an_app_that_ran_out_of_memory_is_reported_as_such() {
    if !(has_controller("memory") && has_controller("cpu")) {
        return skip("this machine does not have the controllers in cgroup v2");
    }
    let script = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.max; sleep 1000 & \
                  exec python3 -c 'x = bytearray(200 << 20)'";
    let mut pod = shell(script);
    pod.apps[0].memory = Some(64 << 20);
    // Less than one CPU: all that there are would be no limit.
    pod.apps[0].cpu_millis = Some(500);
    let mut guest = run(pod);
    assert_eq!(guest.output(stdout(0)), "50000 100000\n67108864\n");
    guest.hears(&started(0));
    let status = ExitStatus::Signal(9);
    guest.hears(&ToHost::Exited { app: 0, status, out_of_memory: true });
    guest.finish();
}
