//! What strangers send to a verifier service: heads of requests and their bodies, and what a service
//! that lies answers. Evidence that differs from the good one in anything that a TPM has signed must
//! not pass, and must not use a nonce up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_attestation::{
    evidence::Evidence,
    service::{
        ChallengeAnswer, ChallengeRequest, Directory, Document, ErrorAnswer, EvidenceAnswer,
        EvidenceRequest, Head, MAX_HEAD, MAX_REQUEST, Service, ServiceSettings,
    },
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::LazyLock,
    time::{Duration, Instant, UNIX_EPOCH},
};

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A service that the host of the good evidence is enrolled with.
static SERVICE: LazyLock<Service> = LazyLock::new(|| {
    let place = PathBuf::from(format!("/tmp/sandbox-fuzz-service-{}", std::process::id()));
    let directory = Directory::open(&place).expect("a directory");
    let evidence = include_bytes!("../seeds/evidence/good.json");
    let evidence = Evidence::parse(evidence).expect("evidence");
    let enrolment = serde_json::to_vec(&evidence.enrolment).expect("an enrolment");
    fs::write(place.join("hosts/web.json"), enrolment).expect("a host");
    let policy = include_bytes!("../seeds/verify_policy/good.json");
    fs::write(place.join("policies/team.json"), policy).expect("a policy");
    let rules = br#"{"version":1,"rules":[{"policy":"team"}]}"#;
    fs::write(place.join("service.json"), rules).expect("rules");
    let (service, odd) = Service::open(directory).expect("a service");
    assert!(odd.is_empty(), "{odd:?}");
    // Nothing that is decided here is kept.
    fs::remove_dir_all(&place).expect("what was made can be removed");
    service
});

fuzz_target!(|input: &[u8]| {
    if let Ok(Some((head, size))) = Head::parse(input) {
        assert!(size <= input.len() && size <= MAX_HEAD && head.length <= MAX_REQUEST);
        body(&input[size..]);
    }
    body(input);
    round::<ChallengeAnswer>(input);
    round::<ErrorAnswer>(input);
    let _ = (EvidenceAnswer::parse(input), ServiceSettings::parse(input));
});

fn body(input: &[u8]) {
    round::<ChallengeRequest>(input);
    round::<EvidenceRequest>(input);
    if let Ok(answer) = SERVICE.challenge(input, Instant::now()) {
        ChallengeAnswer::parse(&answer).expect("a challenge");
    }
    // The nonce in the seeds was not made by this service, and nobody can make one.
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    assert!(SERVICE.evidence(input, FROM, (Instant::now(), now)).is_err());
}

/// What is read is written and read again as the same.
fn round<D: Document + PartialEq + std::fmt::Debug>(input: &[u8]) {
    if let Ok(document) = D::parse(input) {
        let json = document.to_json().expect("what was read can be written");
        assert_eq!(D::parse(&json).expect("and read again"), document);
    }
}
