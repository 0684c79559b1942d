use super::{BANKS, after, entries, log};
use crate::{
    log::{Bank, Entry, RecoverError, Recovery, recover, unfinished},
    record::{End, Event, Reason, sample},
};

fn aborted(launch: u64, pod: u64) -> Event {
    sample::exit(launch, sample::pod(pod), End::Reason(Reason::Aborted))
}

fn launched(number: u64, pod: u64) -> Event {
    sample::launch(number, sample::pod(pod))
}

fn events(then: impl IntoIterator<Item = Event>) -> Vec<Entry> {
    let start = sample::start(sample::untouched(&BANKS));
    entries([start].into_iter().chain(then), &BANKS)
}

/// What comes next with a log and a PCR that is behind it by some entries; nothing: refused.
#[test]
fn what_comes_next() {
    let abort = |launch, pod| Some(Recovery::Abort { launch, pod: sample::pod(pod) });
    let extend = |index| Some(Recovery::Extend(index));
    let agrees = || Some(Recovery::Agrees);
    let ended = || sample::exit(1, sample::pod(0), End::Status(0));
    for (name, log, behind, expected) in [
        ("a beginning", events([]), 0, agrees()),
        ("a beginning, not extended", events([]), 1, extend(0)),
        ("a launch", events([launched(1, 0)]), 0, agrees()),
        ("a launch, not extended", events([launched(1, 0)]), 1, abort(1, 0)),
        ("a launch and a beginning, neither extended", events([launched(1, 0)]), 2, None),
        ("an end", events([launched(1, 0), ended()]), 0, agrees()),
        ("an end, not extended", events([launched(1, 0), ended()]), 1, extend(2)),
        ("a launch and its end, neither extended", events([launched(1, 0), ended()]), 2, None),
        ("an aborted launch", events([launched(1, 0), aborted(1, 0)]), 0, agrees()),
        ("its end not extended", events([launched(1, 0), aborted(1, 0)]), 1, extend(2)),
        ("it and its end not extended", events([launched(1, 0), aborted(1, 0)]), 2, extend(1)),
        ("nothing extended", events([launched(1, 0), aborted(1, 0)]), 3, None),
        ("another pod aborted", events([launched(1, 0), aborted(1, 1)]), 2, None),
        ("another launch aborted", events([launched(1, 0), aborted(0, 0)]), 2, None),
        ("two launches", events([launched(1, 0), launched(2, 1)]), 2, None),
        ("two launches, one extended", events([launched(1, 0), launched(2, 1)]), 1, abort(2, 1)),
    ] {
        let now = after(&log, log.len() - behind);
        match expected {
            Some(expected) => assert_eq!(recover(&log, &now), Ok(expected), "{name}"),
            None => {
                let result = recover(&log, &now);
                assert!(matches!(result, Err(RecoverError::Mismatch { .. })), "{name}: {result:?}");
            }
        }
    }
}

#[test]
fn without_a_log_one_begins() {
    assert_eq!(recover(&[], &sample::untouched(&BANKS)), Ok(Recovery::Begin));
}

#[test]
fn somebody_else_who_extends_is_named_with_what_to_do() {
    let log = log(1);
    let mut now = after(&log, log.len());
    let extended = Bank::Sha256.extended(&now[&Bank::Sha256], &[1; 32]);
    now.insert(Bank::Sha256, extended);
    let text = recover(&log, &now).unwrap_err().to_string();
    let expected = crate::record::to_hex(&after(&log, log.len())[&Bank::Sha256]);
    for part in ["PCR 15", "sha256", &expected, "\"pcr\" in /etc/sandbox/attest.json", "13"] {
        assert!(text.contains(part), "{text}");
    }
}

/// A PCR that is ahead of the log: its end was cut off.
#[test]
fn a_log_that_was_cut_off_is_refused() {
    let log = log(2);
    for cut in 1..log.len() {
        let result = recover(&log[..cut], &after(&log, log.len()));
        assert!(matches!(result, Err(RecoverError::Mismatch { .. })), "{cut}: {result:?}");
    }
}

#[test]
fn a_reset_tpm_is_refused() {
    let log = log(2);
    let result = recover(&log, &sample::untouched(&BANKS));
    assert!(matches!(result, Err(RecoverError::Mismatch { .. })), "{result:?}");
}

#[test]
fn other_banks_are_refused() {
    let log = log(1);
    for banks in [&[Bank::Sha256][..], &Bank::ALL] {
        let result = recover(&log, &sample::untouched(banks));
        assert!(matches!(result, Err(RecoverError::Banks { .. })), "{banks:?}: {result:?}");
    }
}

/// Banks that disagree: one was extended and the other was not.
#[test]
fn banks_that_are_not_in_step_are_refused() {
    let log = log(1);
    let mut now = after(&log, log.len());
    now.insert(Bank::Sha1, after(&log, log.len() - 1)[&Bank::Sha1].clone());
    let result = recover(&log, &now);
    assert!(matches!(result, Err(RecoverError::Mismatch { bank: Bank::Sha1, .. })), "{result:?}");
}

#[test]
fn a_log_that_does_not_begin_is_refused() {
    let log = log(1);
    let result = recover(&log[1..], &after(&log, log.len()));
    assert_eq!(result, Err(RecoverError::NoStart));
}

#[test]
fn launches_without_an_end_are_known() {
    let ended = sample::exit(1, sample::pod(0), End::Status(0));
    let log = events([launched(1, 0), launched(2, 1), ended, launched(4, 2)]);
    assert_eq!(unfinished(&log), [(2, &sample::pod(1)), (4, &sample::pod(2))]);
    // An end that names another pod ends nothing.
    let log = events([launched(1, 0), sample::exit(1, sample::pod(1), End::Status(0))]);
    assert_eq!(unfinished(&log), [(1, &sample::pod(0))]);
}
