//! Standard streams: nothing is lost, nothing blocks, and terminals behave like terminals.

use crate::harness::{Guest, PATIENCE, app, exited, killed, shell, started, stderr, stdout};
use crate::{Test, tests};
use sandbox_protocol::{Pod, Stdio, TerminalSize, ToGuest};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

pub const TESTS: &[Test] = tests![
    input_reaches_the_app_with_its_end,
    an_app_without_input_reads_nothing,
    output_arrives_whole_however_slowly_it_is_read,
    a_stream_that_nobody_reads_does_not_hold_up_the_others,
    an_app_whose_output_is_no_longer_wanted_gets_sigpipe,
    the_end_of_output_is_passed_on_while_the_app_runs,
    output_in_the_hands_of_another_app_does_not_hold_up_the_end,
    the_machine_stays_until_the_host_has_read_everything,
    a_terminal_is_one,
    a_terminal_changes_its_size,
    a_terminal_interrupts_and_ends_programs,
    a_terminal_passes_on_all_output,
    a_terminal_hangs_up_when_the_host_does,
];

const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };
const STDIN: u32 = 2000;

fn start(pod: Pod) -> Guest {
    Guest::start(pod, &[("root", Path::new("/"))])
}

fn with_input(script: &str) -> Pod {
    let mut pod = shell(script);
    let (stdout, stderr) = (stdout(0), stderr(0));
    pod.apps[0].stdio = Stdio::Streams { stdin: Some(STDIN), stdout, stderr };
    pod
}

fn with_terminal(script: &str) -> Pod {
    let mut pod = shell(script);
    pod.apps[0].stdio = Stdio::Terminal { port: STDIN, size: SIZE };
    pod.apps[0].environment.push(b"TERM=xterm".to_vec());
    pod
}

/// Reads until `text` has come.
#[track_caller]
fn expect(terminal: &mut UnixStream, text: &str) -> String {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(text.as_bytes()) {
        match terminal.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&seen)),
        }
    }
    String::from_utf8(seen).unwrap()
}

fn input_reaches_the_app_with_its_end() {
    let mut guest = start(with_input("cat; echo end"));
    let mut input = guest.connection(STDIN);
    let text = "0123456789abcdef".repeat(100_000);
    let sent = text.clone();
    let writer = std::thread::spawn(move || {
        input.write_all(sent.as_bytes()).unwrap();
        input.shutdown(Shutdown::Write).unwrap();
        // The guest closes it when the app has ended.
        input.read(&mut [0]).unwrap_or(0)
    });
    assert!(guest.output(stdout(0)) == text + "end\n");
    assert_eq!(writer.join().unwrap(), 0);
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn an_app_without_input_reads_nothing() {
    let mut guest = start(shell("cat; readlink /proc/self/fd/0"));
    assert_eq!(guest.output(stdout(0)), "/dev/null\n");
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn output_arrives_whole_however_slowly_it_is_read() {
    let mut guest = start(shell("head -c 3000000 /dev/zero; echo end >&2"));
    let mut output = guest.connection(stdout(0));
    let (mut total, mut chunk) = (0, vec![0; 100_000]);
    loop {
        std::thread::sleep(std::time::Duration::from_millis(10));
        match output.read(&mut chunk).unwrap() {
            0 => break,
            length => total += length,
        }
    }
    assert_eq!(total, 3_000_000);
    assert_eq!(guest.output(stderr(0)), "end\n");
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    drop(output);
    guest.finish();
}

fn a_stream_that_nobody_reads_does_not_hold_up_the_others() {
    let mut pod = shell("cat /dev/zero");
    pod.apps.push(app("other", "cat /dev/zero | head -c 2000000; echo fine >&2", 1));
    let mut guest = start(pod);
    let mut unread = guest.connection(stdout(0));
    unread.read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(guest.output(stdout(1)).len(), 2_000_000);
    assert_eq!(guest.output(stderr(1)), "fine\n");
    let mut reports = [guest.hear(), guest.hear(), guest.hear()];
    reports.sort_by_key(|report| format!("{report:?}"));
    assert_eq!(reports, [exited(1, 0), started(0), started(1)]);
    guest.say(&ToGuest::Signal { app: 0, signal: 9 });
    // What was written before the end still comes.
    let mut output = Vec::new();
    unread.read_to_end(&mut output).unwrap();
    assert!(!output.is_empty() && output.iter().all(|byte| *byte == 0));
    drop(unread);
    guest.hears(&killed(0, 9));
    guest.finish();
}

fn an_app_whose_output_is_no_longer_wanted_gets_sigpipe() {
    let mut guest = start(shell("exec cat /dev/zero"));
    guest.hears(&started(0));
    let mut output = guest.connection(stdout(0));
    output.read_exact(&mut [0; 1000]).unwrap();
    drop(output);
    guest.hears(&killed(0, 13));
    guest.finish();
}

fn the_end_of_output_is_passed_on_while_the_app_runs() {
    let mut guest = start(with_input("echo out; exec >&- ; cat >&2; exit 4"));
    assert_eq!(guest.output(stdout(0)), "out\n");
    guest.hears(&started(0));
    guest.connection(STDIN).write_all(b"in\n").unwrap();
    assert_eq!(guest.output(stderr(0)), "in\n");
    guest.hears(&exited(0, 4));
    guest.finish();
}

fn output_in_the_hands_of_another_app_does_not_hold_up_the_end() {
    // The other app gets hold of the pipe through /proc, being the same user.
    let mut pod = shell("echo here; sleep 1");
    let script = "while ! p=$(pgrep -x sleep); do :; done; exec 5>/proc/$p/fd/1 && sleep 100";
    pod.apps.push(app("other", script, 1));
    let begin = Instant::now();
    let mut guest = start(pod);
    assert_eq!(guest.output(stdout(0)), "here\n");
    let mut reports = [guest.hear(), guest.hear(), guest.hear()];
    reports.sort_by_key(|report| format!("{report:?}"));
    assert_eq!(reports, [exited(0, 0), started(0), started(1)]);
    assert!(begin.elapsed() < PATIENCE);
    guest.say(&ToGuest::Signal { app: 1, signal: 9 });
    guest.hears(&killed(1, 9));
    guest.finish();
}

fn the_machine_stays_until_the_host_has_read_everything() {
    let mut guest = start(shell("head -c 100000 /dev/zero"));
    let mut output = guest.connection(stdout(0));
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.hears(&sandbox_protocol::ToHost::Finished);
    assert!(guest.is_there());
    let mut all = Vec::new();
    output.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 100_000);
    guest.hang_up();
}

fn a_terminal_is_one() {
    let script = "tty; stty size; stat -c %t:%T /dev/console; stat -c '%U %G %a' /dev/pts/0; \
                  [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; echo x >/dev/tty; echo y >/dev/console";
    let mut pod = with_terminal(script);
    pod.apps[0].user = "daemon".into();
    let mut guest = start(pod);
    assert_eq!(
        guest.output(STDIN),
        "/dev/pts/0\r\n24 80\r\n88:0\r\ndaemon tty 620\r\nall\r\nx\r\ny\r\n"
    );
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn a_terminal_changes_its_size() {
    let mut guest = start(with_terminal(
        "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done",
    ));
    let mut terminal = guest.connection(STDIN);
    expect(&mut terminal, "ready\r\n");
    guest.say(&ToGuest::Resize { app: 0, size: TerminalSize { rows: 50, columns: 132 } });
    guest.say(&ToGuest::Resize { app: 7, size: SIZE });
    let mut rest = String::new();
    terminal.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "50 132\r\n");
    drop(terminal);
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn a_terminal_interrupts_and_ends_programs() {
    let mut guest = start(with_terminal("PS1='$ ' exec bash --norc --noprofile -i"));
    let mut terminal = guest.connection(STDIN);
    expect(&mut terminal, "$ ");
    // The line is echoed; what comes after it is the program's own.
    terminal.write_all(b"sh -c 'echo r\"\"uns; exec sleep 1000'\n").unwrap();
    expect(&mut terminal, "runs\r\n");
    terminal.write_all(&[3]).unwrap();
    expect(&mut terminal, "$ ");
    terminal.write_all(b"echo $?; cat\n").unwrap();
    expect(&mut terminal, "130\r\n");
    terminal.write_all(b"line\n").unwrap();
    expect(&mut terminal, "line\r\nline\r\n");
    terminal.write_all(&[4]).unwrap();
    expect(&mut terminal, "$ ");
    terminal.write_all(&[4]).unwrap();
    let mut rest = String::new();
    terminal.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("exit"), "{rest}");
    drop(terminal);
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn a_terminal_passes_on_all_output() {
    let mut guest = start(with_terminal("seq 100000"));
    let mut terminal = guest.connection(STDIN);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut output = String::new();
    terminal.read_to_string(&mut output).unwrap();
    let expected: String = (1..=100_000).map(|number| format!("{number}\r\n")).collect();
    assert_eq!(output.len(), expected.len());
    assert!(output == expected);
    drop(terminal);
    guest.hears(&started(0));
    guest.hears(&exited(0, 0));
    guest.finish();
}

fn a_terminal_hangs_up_when_the_host_does() {
    let mut guest = start(with_terminal("echo ready; exec sleep 1000"));
    let mut terminal = guest.connection(STDIN);
    expect(&mut terminal, "ready\r\n");
    guest.hears(&started(0));
    // The end of input alone is no reason.
    terminal.shutdown(Shutdown::Write).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    drop(terminal);
    guest.say(&ToGuest::Resize { app: 0, size: SIZE });
    guest.hears(&killed(0, 1));
    guest.finish();
}
