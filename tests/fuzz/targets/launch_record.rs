//! What is measured: events, and canonical JSON in general.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_attestation::{
    canonical::{check, from_slice, to_vec},
    log::{Bank, Entry, Limits, parse},
    record::{Event, Record},
};
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    // A value has one canonical form, and lenient readers read the same in it.
    let value = from_slice::<Value>(input);
    assert_eq!(value.is_ok(), check(input).is_ok());
    if let Ok(value) = value {
        assert_eq!(to_vec(&value).expect("a value that was read"), input);
        assert_eq!(serde_json::from_slice::<Value>(input).expect("JSON"), value);
    }
    if let Ok(record) = from_slice::<Record>(input) {
        assert_eq!(to_vec(&record).expect("a record that was read"), input);
        assert_eq!(serde_json::from_slice::<Record>(input).expect("a record"), record);
    }
    let Ok(event) = Event::parse(input) else { return };
    assert_eq!(event.to_canonical().expect("an event that was read"), input);
    let Event::Start(start) = &event else { return };
    let banks: Vec<Bank> = start.pcr_before.keys().copied().collect();
    let entry = Entry::new(0, 15, event, banks.iter().copied()).expect("an event that was read");
    let line = entry.to_json_seq().expect("an event that was read");
    let log = parse(&line, &Limits::default());
    // A TPM without any active bank can't be extended.
    assert_eq!(log.is_ok_and(|log| log.entries == [entry]), !banks.is_empty());
});
