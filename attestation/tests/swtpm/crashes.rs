//! The program is killed, or the TPM stops to answer, between any two steps.

use super::{
    place::{Place, pod, record, tcti},
    proxy::{CAPABILITY, Deed, EXTEND, QUOTE, READ, between},
};
use sandbox_attestation::{
    log::unfinished,
    record::{End, Event, Reason},
    session::{Ask, FailureKind, LogState, SessionError},
    settings::Settings,
};
use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

fn kill(id: u32) {
    assert!(Command::new("kill").args(["-9", &id.to_string()]).status().unwrap().success());
}

/// Kills the program when it sends the `nth` command with `code`, which the TPM gets or doesn't;
/// returns what the client is told.
fn killed_at(place: &Place, code: u32, nth: u32, deed: Deed) -> SessionError {
    let (told, tell) = mpsc::channel();
    let mut count = 0;
    let port = between(place.port, move |command| {
        count += u32::from(command == code);
        if command != code || count != nth {
            return Deed::Pass;
        }
        told.send(()).unwrap();
        deed
    });
    let settings = Settings { tcti: tcti(port), ..place.settings.clone() };
    let attestor = place.attestor_at(&settings);
    let id = attestor.id();
    let ask = Ask { pod: None, qualifying_data: vec![1].into(), selection: BTreeMap::new() };
    let client = thread::spawn(move || attestor.launch(record(77), Some(ask)).unwrap_err());
    tell.recv_timeout(Duration::from_secs(20)).expect("that command was not sent");
    // With `Withhold`, the TPM is at it.
    thread::sleep(Duration::from_millis(100));
    kill(id);
    client.join().unwrap()
}

fn ends(place: &Place) -> Vec<(u64, Option<End>)> {
    let entries = place.agrees();
    let mut launches = Vec::new();
    for entry in &entries {
        if let Some(Event::Launch(_)) = &entry.content {
            let end = entries.iter().find_map(|other| match &other.content {
                Some(Event::Exit(exit)) if exit.launch == entry.recnum => Some(exit.end),
                _ => None,
            });
            launches.push((entry.recnum, end));
        }
    }
    launches
}

const ABORTED: Option<End> = Some(End::Reason(Reason::Aborted));

#[test]
fn killed_before_anything_was_written_there_is_no_trace() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    for (code, nth) in [(CAPABILITY, 1), (READ, 1)] {
        let error = killed_at(&place, code, nth, Deed::Swallow);
        assert!(matches!(error, SessionError::Ended { .. }), "{error}");
    }
    place.launch(2).unwrap();
    assert_eq!(ends(&place), [(1, None), (2, None)]);
}

#[test]
fn killed_between_log_and_register_the_launch_is_aborted() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    killed_at(&place, EXTEND, 1, Deed::Swallow);
    assert_eq!(place.attestor().status().unwrap().log, LogState::Interrupted);
    place.launch(2).unwrap();
    assert_eq!(ends(&place), [(1, None), (2, ABORTED), (4, None)]);
}

#[test]
fn killed_between_register_and_answer_the_launch_stands_until_its_end_is_told() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    killed_at(&place, EXTEND, 1, Deed::Withhold);
    killed_at(&place, QUOTE, 1, Deed::Swallow);
    place.launch(2).unwrap();
    assert_eq!(ends(&place), [(1, None), (2, None), (3, None), (4, None)]);
    // Who started it knows that it had no answer.
    for launch in [2, 3] {
        place.attestor().exit(pod(77), launch, End::Reason(Reason::Aborted)).unwrap();
    }
    let entries = place.agrees();
    let open: Vec<_> = unfinished(&entries).into_iter().map(|(launch, _)| launch).collect();
    assert_eq!(open, [1, 4]);
}

#[test]
fn killed_while_the_log_begins_it_is_begun_again_or_finished() {
    for (nth, deed) in [(1, Deed::Swallow), (1, Deed::Withhold), (2, Deed::Swallow)] {
        let Some(place) = Place::new() else { return };
        killed_at(&place, EXTEND, nth, deed);
        place.launch(2).unwrap();
        let launches = ends(&place);
        match nth {
            1 => assert_eq!(launches, [(1, None)], "{deed:?}"),
            _ => assert_eq!(launches, [(1, ABORTED), (3, None)]),
        }
    }
}

#[test]
fn killed_while_it_recovers_it_recovers_again() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    killed_at(&place, EXTEND, 1, Deed::Swallow);
    // The exit is in the log by now, and the launch about to be extended; then the exit is.
    killed_at(&place, EXTEND, 1, Deed::Swallow);
    killed_at(&place, EXTEND, 1, Deed::Withhold);
    killed_at(&place, EXTEND, 1, Deed::Swallow);
    place.launch(2).unwrap();
    assert_eq!(ends(&place), [(1, None), (2, ABORTED), (4, None)]);
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let whole = std::fs::read(place.log_file()).unwrap();
    let last = whole.iter().rposition(|&byte| byte == 0x1e).unwrap();
    for length in [1, 20, whole.len() - last - 1] {
        let mut torn = std::fs::read(place.log_file()).unwrap();
        torn.extend_from_slice(&whole[last..last + length]);
        std::fs::write(place.log_file(), torn).unwrap();
        assert_eq!(place.attestor().status().unwrap().log, LogState::Interrupted);
        place.launch(2).unwrap();
        place.agrees();
    }
    assert_eq!(ends(&place).len(), 4);
}

#[test]
fn killed_at_fifty_moments_log_and_register_agree_at_the_next_launch() {
    let Some(place) = Place::new() else { return };
    let begin = Instant::now();
    place.launch(0).unwrap();
    place.launch(0).unwrap();
    let one = begin.elapsed() / 2;
    let mut answered = Vec::new();
    for number in 1..=50 {
        let attestor = place.attestor();
        let id = attestor.id();
        let client = thread::spawn(move || attestor.launch(record(number), None));
        thread::sleep(one * number / 50);
        // It may have ended by itself before.
        let mut kill = Command::new("kill");
        kill.args(["-9", &id.to_string()]).stderr(Stdio::null()).status().unwrap();
        if let Ok(launched) = client.join().unwrap() {
            answered.push((number, launched.recnum));
        }
        // Every fifth time at once, else after more of them.
        if number % 5 == 0 {
            place.launch(1_000 + number).unwrap();
            place.agrees();
        }
    }
    place.launch(2_000).unwrap();
    let entries = place.agrees();
    assert!(answered.len() < 50, "no process was killed in time");
    for (number, recnum) in answered {
        let entry = &entries[usize::try_from(recnum).unwrap()];
        let Some(Event::Launch(launch)) = &entry.content else { panic!("{entry:?}") };
        assert_eq!(launch.record.pod, pod(number));
        let aborted = entries.iter().any(
            |entry| matches!(&entry.content, Some(Event::Exit(exit)) if exit.launch == recnum),
        );
        assert!(!aborted, "launch {recnum} was answered, and is aborted");
    }
}

#[test]
fn a_client_that_is_gone_gets_its_launch_aborted() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    // Its socket is closed with it: so a process whose client was killed.
    let (told, tell) = mpsc::channel();
    let port = between(place.port, move |command| {
        if command == EXTEND {
            told.send(()).unwrap();
            thread::sleep(Duration::from_millis(300));
        }
        Deed::Pass
    });
    let settings = Settings { tcti: tcti(port), ..place.settings.clone() };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let theirs: std::os::fd::OwnedFd = theirs.into();
    let mut child = Command::new(super::place::PROGRAM).stdin(theirs).spawn().unwrap();
    {
        use sandbox_attestation::session::{
            MAX_REQUEST, Opening, Patience, Request, VERSION, write,
        };
        let opening = Opening { version: VERSION, settings, patience: Patience::default() };
        let request = Request::Launch { record: Box::new(record(2)), quote: None, briefly: false };
        write(&mut &ours, &opening, MAX_REQUEST).unwrap();
        write(&mut &ours, &request, MAX_REQUEST).unwrap();
    }
    tell.recv_timeout(Duration::from_secs(20)).unwrap();
    drop(ours);
    child.wait().unwrap();
    assert_eq!(ends(&place), [(1, None), (2, ABORTED)]);
}

#[test]
fn a_tpm_that_stops_to_answer_is_an_error_in_bounded_time() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let port = between(place.port, |command| match command {
        EXTEND => Deed::Swallow,
        _ => Deed::Pass,
    });
    let settings = Settings { tcti: tcti(port), ..place.settings.clone() };
    let begin = Instant::now();
    let error = place.hasty(&settings, 10_000, 500).launch(record(2), None).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let SessionError::Failed(failure) = error else { panic!("{error}") };
    assert_eq!((failure.kind, failure.recorded), (FailureKind::TimedOut, Some(2)));
    assert!(failure.message.contains("extend"), "{failure}");
    place.launch(3).unwrap();
    assert_eq!(ends(&place), [(1, None), (2, ABORTED), (4, None)]);
}

#[test]
fn a_program_that_hangs_is_killed() {
    let Some(place) = Place::new() else { return };
    let attestor = place.hasty(&place.settings, 100, 100);
    let id = attestor.id();
    assert!(Command::new("kill").args(["-STOP", &id.to_string()]).status().unwrap().success());
    let begin = Instant::now();
    let error = attestor.launch(record(1), None).unwrap_err();
    assert!(matches!(error, SessionError::Hung { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists(), "it still runs");
}

#[test]
fn what_the_tpm_wants_again_is_sent_again() {
    let Some(place) = Place::new() else { return };
    let count = Arc::new(AtomicU32::new(0));
    let counter = count.clone();
    // Thrice as often as the library underneath tries by itself.
    let port = between(place.port, move |command| match command {
        EXTEND | QUOTE | READ => match counter.fetch_add(1, Ordering::Relaxed) % 16 {
            15 => Deed::Pass,
            number => Deed::Answer([0x922, 0x908, 0x90a][number as usize % 3]),
        },
        _ => Deed::Pass,
    });
    let settings = Settings { tcti: tcti(port), ..place.settings.clone() };
    assert_eq!(place.attestor_at(&settings).launch(record(1), None).unwrap().recnum, 1);
    assert!(count.load(Ordering::Relaxed) >= 64);
    assert_eq!(place.agrees().len(), 2);
}

#[test]
fn a_tpm_that_is_busy_for_ever_is_given_up() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let port = between(place.port, |command| match command {
        EXTEND => Deed::Answer(0x922),
        _ => Deed::Pass,
    });
    let settings = Settings { tcti: tcti(port), ..place.settings.clone() };
    let error = place.attestor_at(&settings).launch(record(2), None).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Busy), "{error}");
    place.launch(3).unwrap();
    assert_eq!(ends(&place), [(1, None), (2, ABORTED), (4, None)]);
}
