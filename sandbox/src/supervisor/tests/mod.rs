//! The supervisor's loop against scripted guests.

mod inside;
mod script;

use super::event::Role;
use super::limits::TimeLimits;
use super::watch::{Ending, HostStreams};
use sandbox_protocol::{
    CONTROL_PORT, ExitStatus, ImageDisk, Level, MAX_TO_HOST, Pod, Stdio, TerminalSize, Text,
    ToGuest, ToHost, VERSION, Verity,
};
use sandbox_vmm::exit::Exit;
use script::{Script, limits, pod, watch, watch_streams};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn an_apps_streams_and_status_come_through() {
    let outcome = watch(&pod(&["a"]), "input", limits(), |mut guest| {
        let pod = guest.boot();
        assert_eq!(pod.apps[0].name, "a");
        let mut stdin = guest.connect(1025);
        let mut stdout = guest.connect(1026);
        let mut stderr = guest.connect(1027);
        guest.send(ToHost::Started { app: 0 });
        let mut input = String::new();
        stdin.read_to_string(&mut input).unwrap();
        write!(stdout, "got {input}").unwrap();
        write!(stderr, "err").unwrap();
        drop((stdin, stdout, stderr));
        guest.exited(0, 7);
        guest.finish();
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
    assert_eq!(outcome.status, 7);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("got input", "err"));
}

#[test]
fn output_that_is_on_its_way_when_the_pod_ends_is_not_lost() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        let [mut stdout, _] = guest.start(0);
        guest.exited(0, 0);
        guest.send(ToHost::Finished);
        thread::sleep(Duration::from_millis(100));
        stdout.write_all(&[b'x'; 300_000]).unwrap();
        drop(stdout);
        assert_eq!(guest.receive(), None);
        guest.end(Exit::Reset);
    });
    assert_eq!(outcome.stdout.len(), 300_000);
}

#[test]
fn a_stream_that_is_never_closed_does_not_hold_up_the_end() {
    let mut limits = limits();
    limits.drain = Duration::from_millis(100);
    let outcome = watch(&pod(&["a"]), "", limits, |mut guest| {
        guest.boot();
        let streams = guest.start(0);
        guest.exited(0, 3);
        guest.finish();
        thread::sleep(Duration::from_secs(3));
        drop(streams);
    });
    assert_eq!(outcome.status, 3);
}

#[test]
fn the_status_of_several_apps_is_that_of_the_first_that_fails_and_it_ends_the_others() {
    let outcome = watch(&pod(&["a", "b", "c"]), "", limits(), |mut guest| {
        guest.boot();
        for app in 0..3 {
            drop(guest.start(app));
        }
        guest.exited(1, 0);
        guest.exited(2, 9);
        assert_eq!(guest.receive(), Some(ToGuest::Signal { app: 0, signal: 15 }));
        // It does not react.
        assert_eq!(guest.receive(), Some(ToGuest::Signal { app: 0, signal: 9 }));
        let status = ExitStatus::Signal(9);
        guest.send(ToHost::Exited { app: 0, status, out_of_memory: false });
        guest.finish();
    });
    assert_eq!(outcome.status, 9);
}

#[test]
fn an_app_that_cannot_be_started_is_a_failure_of_ours() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        guest.send(ToHost::Failed { app: Some(0), error: Text::new("/bin/x: no such file") });
        guest.finish();
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
    assert_eq!(outcome.status, 254);
}

#[test]
fn an_app_killed_for_memory_has_status_137() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        drop(guest.start(0));
        let status = ExitStatus::Signal(9);
        guest.send(ToHost::Exited { app: 0, status, out_of_memory: true });
        guest.finish();
    });
    assert_eq!(outcome.status, 137);
}

#[test]
fn signals_go_to_every_app_that_runs() {
    let outcome = watch(&pod(&["a", "b", "c"]), "", limits(), |mut guest| {
        guest.boot();
        for app in 0..3 {
            drop(guest.start(app));
        }
        guest.exited(1, 0);
        // What was sent before has been handled when this has been.
        thread::sleep(Duration::from_millis(200));
        guest.signal(SIGUSR1);
        for app in [0, 2] {
            assert_eq!(guest.receive(), Some(ToGuest::Signal { app, signal: 10 }));
        }
        guest.exited(0, 0);
        guest.exited(2, 0);
        guest.finish();
    });
    assert_eq!(outcome.status, 0);
}

#[test]
fn an_interrupt_before_an_app_runs_ends_the_pod() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        guest.signal(SIGINT);
        guest.hung_up();
    });
    assert!(matches!(outcome.ending, Ending::Signal(SIGINT)), "{:?}", outcome.ending);
}

#[test]
fn the_third_interrupt_kills_a_pod_that_does_not_react() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        drop(guest.start(0));
        thread::sleep(Duration::from_millis(200));
        for _ in 0..2 {
            guest.signal(SIGINT);
            assert_eq!(guest.receive(), Some(ToGuest::Signal { app: 0, signal: 2 }));
        }
        guest.signal(SIGINT);
        guest.hung_up();
    });
    assert!(matches!(outcome.ending, Ending::Signal(SIGINT)), "{:?}", outcome.ending);
}

#[test]
fn a_second_termination_kills_a_pod_that_does_not_react() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        drop(guest.start(0));
        thread::sleep(Duration::from_millis(200));
        guest.signal(SIGTERM);
        assert_eq!(guest.receive(), Some(ToGuest::Signal { app: 0, signal: 15 }));
        thread::sleep(Duration::from_millis(1100));
        guest.signal(SIGTERM);
        guest.hung_up();
    });
    assert!(matches!(outcome.ending, Ending::Signal(SIGTERM)), "{:?}", outcome.ending);
}

#[test]
fn how_the_microvm_ended_is_told() {
    for (exit, expected) in [
        (Exit::Panic, "the guest kernel panicked"),
        (Exit::TripleFault, "the guest caused a triple fault"),
        (Exit::Reset, "the guest reset the machine before the pod had ended"),
    ] {
        for boots in [false, true] {
            let outcome = watch(&pod(&["a"]), "", limits(), move |mut guest| {
                if boots {
                    guest.boot();
                    drop(guest.start(0));
                }
                guest.end(exit);
            });
            assert_eq!(outcome.trouble().to_string(), expected, "{boots}");
        }
    }
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        guest.end_with(11);
    });
    let trouble = outcome.trouble().to_string();
    assert!(trouble.starts_with("the monitor sandbox-vmm crashed: signal: 11"), "{trouble}");
}

#[test]
fn the_failure_of_the_worker_is_the_cause_whichever_end_is_seen_first() {
    let pod = Pod { share_tag: Some("pod".into()), ..pod(&["a"]) };
    for worker_first in [false, true] {
        let outcome = watch(&pod, "", limits(), move |mut guest| {
            guest.boot();
            drop(guest.start(0));
            let [monitor, worker] = [i32::from(Exit::WorkerGone.code()) << 8, 9];
            if worker_first {
                guest.ended(Role::Worker, worker);
                guest.ended(Role::Monitor, monitor);
            } else {
                guest.ended(Role::Monitor, monitor);
                guest.ended(Role::Worker, worker);
            }
        });
        let trouble = outcome.trouble().to_string();
        assert!(trouble.contains("sandbox-fs failed: signal: 9"), "{worker_first}: {trouble}");
    }
}

#[test]
fn a_silent_guest_is_given_up() {
    let short = Duration::from_millis(100);
    let base = limits();
    type Scripted = fn(&mut Script);
    let cases: [(TimeLimits, Scripted, &str); 4] = [
        (TimeLimits { boot: short, ..base }, |_| (), "did not start within"),
        (
            TimeLimits { boot: short, ..base },
            |guest| {
                guest.control();
            },
            "did not start within",
        ),
        (
            TimeLimits { setup: short, ..base },
            |guest| {
                guest.boot();
            },
            "did not start the apps",
        ),
        (
            TimeLimits { finish: short, ..base },
            |guest| {
                guest.boot();
                drop(guest.start(0));
                guest.exited(0, 0);
            },
            "did not finish",
        ),
    ];
    for (limits, script, expected) in cases {
        let outcome = watch(&pod(&["a"]), "", limits, move |mut guest| {
            script(&mut guest);
            guest.hung_up();
        });
        let trouble = outcome.trouble().to_string();
        assert!(trouble.contains(expected), "{trouble}");
    }
}

/// The pod goes on: it is for the app to deal with a read that fails.
#[test]
fn a_changed_image_is_told_and_ends_no_pod() {
    let mut pod = pod(&["a"]);
    pod.images.push(ImageDisk {
        serial: "image-0".into(),
        verity: Verity { data_blocks: 1, hash_start: 1, root_hash: [0; 32] },
    });
    let outcome = watch(&pod, "", limits(), |mut guest| {
        guest.boot();
        drop(guest.start(0));
        for block in 0..3 {
            guest.send(ToHost::Corrupted { image: 0, block });
        }
        guest.exited(0, 5);
        guest.finish();
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
    assert_eq!(outcome.status, 5);
}

#[test]
fn a_guest_that_breaks_the_protocol_is_ended() {
    type Scripted = fn(&mut Script);
    let cases: [(Scripted, &str); 5] = [
        (
            |guest| guest.send(ToHost::Hello { version: 99, kernel: Text::new("") }),
            "version 99 of the protocol",
        ),
        (|guest| guest.send(ToHost::Started { app: 0 }), "did not begin with"),
        (
            |guest| {
                guest.boot();
                guest.send(ToHost::Started { app: 9 });
            },
            "about app 9",
        ),
        (
            |guest| {
                let length = (MAX_TO_HOST + 1).to_le_bytes();
                guest.control().write_all(&length).unwrap();
            },
            "at most 4096 are accepted",
        ),
        (
            |guest| guest.control().write_all(&[4, 0, 0, 0, 255, 255, 255, 255]).unwrap(),
            "malformed",
        ),
    ];
    for (script, expected) in cases {
        let outcome = watch(&pod(&["a"]), "", limits(), move |mut guest| {
            script(&mut guest);
            guest.hung_up();
        });
        let trouble = outcome.trouble().to_string();
        assert!(trouble.contains(expected), "{trouble}");
    }
}

#[test]
fn a_monitor_that_sends_what_is_no_event_is_ended() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        drop(guest.start(0));
        guest.send_garbage();
        guest.hung_up();
    });
    let trouble = outcome.trouble().to_string();
    assert!(trouble.contains("broke off"), "{trouble}");
}

#[test]
fn a_flood_of_log_lines_and_connections_is_survived() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        for port in 0..2000 {
            let mut refused = guest.connect(port % 1020);
            if port % 500 == 0 {
                assert_eq!(refused.read(&mut [0]).unwrap(), 0);
            }
        }
        for _ in 0..2000 {
            let text = Text::new("\x1b[2J");
            guest.send(ToHost::Log { level: Level::Info, text });
        }
        drop(guest.start(0));
        guest.exited(0, 0);
        guest.finish();
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
}

#[test]
fn a_second_connection_to_a_port_is_closed() {
    let outcome = watch(&pod(&["a"]), "", limits(), |mut guest| {
        guest.boot();
        let [mut stdout, _] = guest.start(0);
        for port in [1026, CONTROL_PORT] {
            assert_eq!(guest.connect(port).read(&mut [0]).unwrap(), 0);
        }
        write!(stdout, "still here").unwrap();
        drop(stdout);
        guest.exited(0, 0);
        guest.finish();
    });
    assert_eq!(outcome.stdout, "still here");
}

#[test]
fn a_guest_that_does_not_read_holds_up_nobody() {
    let start = Instant::now();
    let mut pod = pod(&["a"]);
    // More than fits the socket.
    pod.apps[0].environment = vec![vec![b'x'; 2 << 20]];
    let outcome = watch(&pod, "", limits(), |mut guest| {
        guest.send(ToHost::Hello { version: VERSION, kernel: Text::new("6.12") });
        drop(guest.start(0));
        thread::sleep(Duration::from_millis(200));
        for _ in 0..100 {
            guest.signal(SIGUSR1);
        }
        guest.send(ToHost::Exited { app: 0, status: ExitStatus::Code(4), out_of_memory: false });
        guest.send(ToHost::Finished);
        thread::sleep(Duration::from_millis(200));
        guest.end(Exit::Reset);
    });
    assert_eq!(outcome.status, 4);
    assert!(start.elapsed() < Duration::from_secs(10));
}

fn writing_to(stdout: File) -> HostStreams {
    HostStreams {
        stdin: tempfile::tempfile().unwrap(),
        stderr: stdout.try_clone().unwrap(),
        stdout,
    }
}

#[test]
fn output_that_nobody_reads_any_more_breaks_the_apps_pipe() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let streams = writing_to(OwnedFd::from(writer).into());
    let outcome = watch_streams(&pod(&["a"]), streams, limits(), |mut guest| {
        guest.boot();
        let [mut stdout, _] = guest.start(0);
        while stdout.write_all(b"y\n").is_ok() {}
        let status = ExitStatus::Signal(13);
        guest.send(ToHost::Exited { app: 0, status, out_of_memory: false });
        guest.finish();
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
    assert_eq!(outcome.status, 128 + 13);
}

#[test]
fn output_that_cannot_be_written_is_a_failure_of_ours() {
    let streams = writing_to(File::options().write(true).open("/dev/full").unwrap());
    let outcome = watch_streams(&pod(&["a"]), streams, limits(), |mut guest| {
        guest.boot();
        let [mut stdout, _] = guest.start(0);
        write!(stdout, "lost").unwrap();
        drop(stdout);
        guest.exited(0, 0);
        guest.finish();
    });
    assert!(matches!(outcome.ending, Ending::Finished), "{:?}", outcome.ending);
    assert_eq!(outcome.status, 254);
}

#[test]
fn a_terminal_is_one_stream_both_ways() {
    let mut pod = pod(&["a"]);
    let size = TerminalSize { rows: 24, columns: 80 };
    pod.apps[0].stdio = Stdio::Terminal { port: 1025, size };
    let outcome = watch(&pod, "typed", limits(), |mut guest| {
        guest.boot();
        let mut terminal = guest.connect(1025);
        guest.send(ToHost::Started { app: 0 });
        let mut typed = [0; 5];
        terminal.read_exact(&mut typed).unwrap();
        terminal.write_all(&typed).unwrap();
        drop(terminal);
        guest.exited(0, 0);
        guest.finish();
    });
    assert_eq!(outcome.stdout, "typed");
}
