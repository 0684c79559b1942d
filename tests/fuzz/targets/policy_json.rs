//! What the gate reads as JSON: the policy, the rules of gate.d, and what a signature says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_gate::{Payload, PayloadKind, policy::Policy, rules::Rules};

fuzz_target!(|input: &[u8]| {
    let policy = Policy::parse(input);
    let rules = Rules::parse(input);
    let payloads =
        [PayloadKind::Atomic, PayloadKind::Cosign].map(|kind| Payload::parse(input, kind));
    // No document is two things.
    let meanings = [policy.is_ok(), rules.is_ok(), payloads[0].is_ok(), payloads[1].is_ok()];
    assert!(meanings.into_iter().filter(|&meaning| meaning).count() <= 1);
    // What comes after the document, or is there twice, refuses it.
    if meanings.contains(&true) {
        let twice = [input, input].concat();
        assert!(Policy::parse(&twice).is_err() && Rules::parse(&twice).is_err());
    }
});
