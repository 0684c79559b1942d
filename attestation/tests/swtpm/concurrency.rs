//! Many at once.

use super::place::{Place, pod, record};
use sandbox_attestation::{
    record::{End, Event},
    session::FailureKind,
};
use std::{collections::BTreeSet, thread, time::Instant};

#[test]
fn a_hundred_launches_at_once_extend_in_the_order_of_the_log() {
    let Some(place) = Place::new() else { return };
    let numbers: Vec<u64> = thread::scope(|scope| {
        let launches: Vec<_> = (0..100)
            .map(|number| {
                let attestor = place.attestor();
                scope.spawn(move || attestor.launch(record(number), None).unwrap().recnum)
            })
            .collect();
        launches.into_iter().map(|launch| launch.join().unwrap()).collect()
    });
    let entries = place.agrees();
    assert_eq!(numbers.iter().copied().collect::<BTreeSet<_>>(), (1..=100).collect());
    for (number, &recnum) in (0..).zip(&numbers) {
        let entry = &entries[usize::try_from(recnum).unwrap()];
        let Some(Event::Launch(launch)) = &entry.content else { panic!("{entry:?}") };
        assert_eq!(launch.record.pod, pod(number), "was told another record's number");
    }
}

#[test]
fn launches_exits_and_quotes_mix() {
    let Some(place) = Place::new() else { return };
    thread::scope(|scope| {
        for number in 0..12 {
            let place = &place;
            scope.spawn(move || {
                let launched = place.launch(number).unwrap();
                if number % 3 == 0 {
                    place.attestor().exit(pod(number), launched.recnum, End::Status(0)).unwrap();
                }
                place.attestor().status().unwrap();
            });
        }
    });
    assert_eq!(place.agrees().len(), 1 + 12 + 4);
}

#[test]
fn who_does_not_get_a_turn_is_told_so_in_time() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let lock = std::fs::File::open(place.settings.directory.join("lock")).unwrap();
    lock.lock().unwrap();
    let begin = Instant::now();
    let error = place.hasty(&place.settings, 200, 10_000).launch(record(2), None).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::Busy), "{error}");
    assert!(begin.elapsed().as_secs() < 10);
    drop(lock);
    assert_eq!(place.agrees().len(), 2);
}

#[test]
fn what_others_wrote_since_the_program_was_started_is_seen() {
    let Some(place) = Place::new() else { return };
    place.launch(1).unwrap();
    let early = place.attestor();
    // It has read the log by then.
    thread::sleep(std::time::Duration::from_millis(300));
    place.launch(2).unwrap();
    assert_eq!(early.launch(record(3), None).unwrap().recnum, 3);
    let early = place.attestor();
    thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(early.launch(record(4), None).unwrap().recnum, 4);
    let early = place.attestor();
    thread::sleep(std::time::Duration::from_millis(300));
    let whole = std::fs::read(place.log_file()).unwrap();
    std::fs::write(place.log_file(), &whole[..whole.len() / 2]).unwrap();
    assert!(early.launch(record(5), None).is_err());
    std::fs::write(place.log_file(), whole).unwrap();
    assert_eq!(place.agrees().len(), 5);
}
