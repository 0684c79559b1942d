//! What is known of a log without reading it, and reading it without what others did.

use super::{BANKS, after, entries, log, text};
use crate::{
    log::{Checkpoint, File, Limits, Stamp, Summary, redacted_for, unfinished},
    record::{End, Reason, sample},
};
use std::{fs, io::Write as _, thread::sleep, time::Duration};

#[test]
fn a_summary_grows_as_the_log_does() {
    let mut log = log(4);
    // One still runs.
    log.remove(8);
    let mut grown = Summary::of(&log[..1]).unwrap().unwrap();
    for (count, entry) in (1..).zip(&log[1..]) {
        assert_eq!(Summary::of(&log[..count]).unwrap().unwrap(), grown);
        assert_eq!(grown.values, after(&log, count));
        let open: Vec<_> = grown.open.iter().map(|(launch, pod)| (*launch, pod)).collect();
        assert_eq!(open, unfinished(&log[..count]));
        grown.push(entry).unwrap();
    }
    assert_eq!(grown.records, 8);
    assert_eq!(grown.open.len(), 1);
    assert_eq!(Summary::of(&[]).unwrap(), None);
    assert_eq!(Summary::of(&log[1..]).unwrap(), None, "that is no beginning");
}

#[test]
fn a_checkpoint_is_believed_of_this_boot_this_file_this_register_and_this_value_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, "log").unwrap();
        fs::File::options().append(true).open(path).unwrap()
    };
    let (mut one, other) = (file("one"), file("other"));
    let log = log(2);
    let summary = Summary::of(&log).unwrap().unwrap();
    let stamp = Stamp::of(&one).unwrap();
    let written = serde_json::to_vec(&Checkpoint::new(summary.clone(), stamp)).unwrap();
    let checkpoint: Checkpoint = serde_json::from_slice(&written).unwrap();
    assert!(checkpoint.fits(&sample::boot(), &stamp));
    assert!(!checkpoint.fits(&sample::pod(0), &stamp));
    assert!(!checkpoint.fits(&sample::boot(), &Stamp::of(&other).unwrap()));
    let now = summary.values.clone();
    assert_eq!(checkpoint.clone().believed(15, &now), Some(summary));
    assert_eq!(checkpoint.clone().believed(14, &now), None);
    assert_eq!(checkpoint.clone().believed(15, &after(&log, 4)), None);
    let mut fewer = now;
    fewer.pop_last();
    assert_eq!(checkpoint.clone().believed(15, &fewer), None);
    sleep(Duration::from_millis(20));
    one.write_all(b"more").unwrap();
    assert!(!checkpoint.fits(&sample::boot(), &Stamp::of(&one).unwrap()));
}

/// An edit that keeps the length, and puts the time back as far as a program can.
#[test]
fn every_edit_after_a_settled_stamp_shows() {
    use std::os::unix::fs::FileExt as _;
    let file = tempfile::tempfile().unwrap();
    for round in 0..50_u8 {
        file.write_all_at(&[round], 0).unwrap();
        let times = file.metadata().unwrap().modified().unwrap();
        let stamp = loop {
            match Stamp::settled(&file).unwrap() {
                Some(stamp) => break stamp,
                None => sleep(Duration::from_micros(200)),
            }
        };
        file.write_all_at(b"!", 0).unwrap();
        file.set_modified(times).unwrap();
        assert_ne!(Stamp::of(&file).unwrap(), stamp, "round {round}");
    }
}

#[test]
fn what_a_tenant_may_see_is_the_same_without_reading_what_others_did() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(3);
    // One whose record only speaks of another pod.
    let (pod, named) = (sample::pod(9), sample::pod(1));
    let mut launch = sample::launch(7, pod.clone());
    if let crate::record::Event::Launch(launch) = &mut launch {
        launch.record.tenant = named.to_string();
    }
    let exit = sample::exit(7, pod, End::Reason(Reason::Crash));
    let more = entries([launch, exit], &BANKS);
    for (number, mut entry) in (7..).zip(more) {
        entry.recnum = number;
        log.push(entry);
    }
    let mut file = File::open(&folder.path().join("attest"), &sample::boot()).unwrap();
    for entry in &log {
        file.append(entry).unwrap();
    }
    for pod in (0..4).chain([9]).map(sample::pod) {
        let expected = text(&redacted_for(&log, |other| *other == pod));
        let seen = file.redacted_for(&pod, &Limits::default()).unwrap();
        assert_eq!(seen, String::from_utf8(expected).unwrap(), "{pod}");
    }
}
