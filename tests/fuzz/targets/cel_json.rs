//! The log of launches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_attestation::log::{
    Limits, Parsed, Recovery, export, parse, recover, redacted_for, replay, start,
};

fuzz_target!(|input: &[u8]| {
    let limits = Limits { log: 1 << 20, record: 1 << 16 };
    let Ok(Parsed { entries, torn }) = parse(input, &limits) else { return };
    // There is one way to write a log.
    let written = |entries: &[_]| -> Vec<u8> {
        let lines = entries.iter().map(sandbox_attestation::log::Entry::to_json_seq);
        lines.flat_map(|line| line.expect("an entry that was read")).collect()
    };
    assert_eq!(written(&entries), input[..torn.unwrap_or(input.len())]);
    export::cel_tlv(&entries).expect("entries that were read");
    export::tcg2(&entries).expect("entries that were read");
    let Some(start) = start(&entries) else { return assert!(entries.is_empty()) };
    let before = start.pcr_before.clone();
    let after = replay(&before, &entries).expect("digests of all banks");
    assert_eq!(recover(&entries, &after), Ok(Recovery::Agrees));
    // What others see leads to the same.
    let redacted = redacted_for(&entries, |_| false);
    assert_eq!(replay(&before, &redacted), Ok(after));
    let read = parse(&written(&redacted), &limits).expect("a redacted log");
    assert_eq!(read, Parsed { entries: redacted, torn: None });
});
