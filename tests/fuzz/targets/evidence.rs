//! Evidence, from its file to a verdict. What differs from the evidence that the policy believes in
//! anything that a TPM or an enroller has signed must not pass.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_attestation::{
    enrol::{Answer, Candidate, Challenge, Document as _, Expected, Makers, OsRng, challenge},
    evidence::{Enrolment, Evidence, Nonce},
    verify::{Policy, verify},
};
use std::{
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

static GOOD: LazyLock<Evidence> = LazyLock::new(|| {
    Evidence::parse(include_bytes!("../seeds/evidence/good.json")).expect("evidence")
});
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    Policy::parse(include_bytes!("../seeds/verify_policy/good.json")).expect("a policy")
});
static NONCE: LazyLock<Nonce> = LazyLock::new(|| Nonce::new([0x5a; 32]).expect("a nonce"));

fuzz_target!(|input: &[u8]| {
    enrolment(input);
    let Ok(evidence) = Evidence::parse(input) else {
        return;
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let verdict = verify(&evidence, &NONCE, &POLICY, now);
    if verdict.passed() {
        let good = &*GOOD;
        assert_eq!(evidence.quote.attest, good.quote.attest);
        assert_eq!(evidence.quote.pcrs, good.quote.pcrs);
        assert_eq!(evidence.attestation_key, good.attestation_key);
        assert_eq!((&evidence.pod, &evidence.guest_key), (&good.pod, &good.guest_key));
        assert_eq!(evidence.log.records.len(), good.log.records.len());
    }
    let _ = verdict.to_string();
    let file = evidence.to_json().expect("what was read can be written");
    assert_eq!(Evidence::parse(&file).expect("and read again"), evidence);
});

/// What host and enroller send each other.
fn enrolment(input: &[u8]) {
    let _ = (Challenge::parse(input), Answer::parse(input), Enrolment::parse(input));
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    if let Ok(candidate) = Candidate::parse(input) {
        let _ = challenge(&candidate.identity, Makers::default(), now, &mut OsRng);
    }
    if let Ok(expected) = Expected::parse(input) {
        let answer = Answer { version: 1, secret: Vec::new(), quote: None };
        assert!(expected.sign(&answer, "", now).is_err());
    }
}
