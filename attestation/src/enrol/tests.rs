use super::*;
use crate::{
    session::{Algorithm, Bytes, Endorsement},
    wire::sized,
};
use p256::{
    ecdsa::{Signature as Ecdsa, signature::Signer as _},
    pkcs8::{EncodePrivateKey as _, LineEnding},
};
use proptest::prelude::*;
use std::time::{Duration, UNIX_EPOCH};

const AK: u32 = 0x0005_0472;
const EK: u32 = 0x0003_00b2;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32].into()).unwrap()
}

fn public(key: &SigningKey, attributes: u32, parameters: &[u8]) -> Vec<u8> {
    let point = key.verifying_key().to_encoded_point(false);
    let mut out = vec![0, 0x23, 0, 0x0b];
    out.extend(attributes.to_be_bytes());
    out.extend([0, 0]);
    out.extend(parameters);
    out.extend([0, 3, 0, 0x10]);
    out.extend(sized(point.x().unwrap()));
    out.extend(sized(point.y().unwrap()));
    out
}

fn identity() -> Identity {
    let ak = public(&key(1), AK, &[0, 0x10, 0, 0x18, 0, 0x0b]);
    let name = Public::parse(&ak).unwrap().name().as_bytes().to_vec();
    Identity {
        algorithm: Algorithm::default(),
        endorsement: Endorsement::EccP256,
        ak_public: Bytes(ak),
        ak_name: Bytes(name),
        ek_public: Bytes(public(&key(2), EK, &[0, 6, 0, 128, 0, 0x43, 0, 0x10])),
        ek_certificate: None,
    }
}

fn enroller() -> String {
    key(3).to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

fn begin() -> (Challenge, Expected) {
    challenge(&identity(), Makers::default(), now(), &mut rand::thread_rng()).unwrap()
}

/// A quote of nothing by `key`, with counters 5 and 6.
fn quote(key: &SigningKey, asked: &[u8]) -> AnswerQuote {
    let mut attest = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18, 0, 0];
    attest.extend(sized(asked));
    attest.extend([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 6, 1]);
    attest.extend([0; 8]);
    attest.extend([0, 0, 0, 0, 0, 0]);
    let made: Ecdsa = key.sign(&attest);
    let mut signature = vec![0, 0x18, 0, 0x0b];
    signature.extend(sized(&made.r().to_bytes()));
    signature.extend(sized(&made.s().to_bytes()));
    AnswerQuote { attest, signature }
}

#[test]
fn a_host_that_knows_the_secret_is_enrolled() {
    let (_, expected) = begin();
    let (attestation, endorsement) = expected.names().unwrap();
    let answer = Answer { version: 1, secret: expected.secret.clone(), quote: None };
    let enrolment = expected.sign(&answer, &enroller(), now()).unwrap();
    enrolment.verify([key(3).verifying_key()]).unwrap();
    assert_eq!(enrolment.attestation_key, attestation);
    assert_eq!(enrolment.endorsement_key, endorsement);
    assert_eq!((enrolment.time.as_str(), enrolment.counts), ("2026-01-01T00:00:00Z", None));
}

#[test]
fn counters_are_enrolled_if_the_key_has_signed_them() {
    let (_, expected) = begin();
    let asked = qualifying_data(&expected.secret);
    let sign = |quote| {
        let answer = Answer { version: 1, secret: expected.secret.clone(), quote: Some(quote) };
        expected.clone().sign(&answer, &enroller(), now())
    };
    let enrolment = sign(quote(&key(1), &asked)).unwrap();
    assert_eq!(enrolment.counts, Some(Counts { reset_count: 5, restart_count: 6 }));
    let other_key = sign(quote(&key(9), &asked)).unwrap_err().to_string();
    assert!(other_key.contains("not the key's signature"), "{other_key}");
    let other_secret = sign(quote(&key(1), &qualifying_data(b"other"))).unwrap_err().to_string();
    assert!(other_secret.contains("made for something else"), "{other_secret}");
}

#[test]
fn a_host_that_guesses_is_not() {
    let (_, expected) = begin();
    for secret in [vec![], vec![0; 32], [&expected.secret[..], &[0]].concat()] {
        let answer = Answer { version: 1, secret, quote: None };
        assert_eq!(expected.clone().sign(&answer, &enroller(), now()), Err(EnrolError::Secret));
    }
    let answer = Answer { version: 1, secret: expected.secret.clone(), quote: None };
    assert_eq!(expected.sign(&answer, "key", now()), Err(EnrolError::Key));
}

#[test]
fn an_emptied_expectation_enrols_nobody() {
    let (_, mut expected) = begin();
    expected.secret.clear();
    let answer = Answer { version: 1, secret: Vec::new(), quote: None };
    assert_eq!(expected.sign(&answer, &enroller(), now()), Err(EnrolError::Secret));
}

#[test]
fn keys_that_are_not_a_tpms_are_not_challenged() {
    type Change = fn(&mut Identity);
    let cases: [(Change, &str); 5] = [
        (|it| it.ak_public.0[5] ^= 1, "lacks restricted"),
        (|it| it.ak_name.0[5] ^= 1, "another name"),
        (|it| it.ek_public.0[7] &= !2, "not an endorsement key"),
        (|it| it.ek_public = it.ak_public.clone(), "not an endorsement key"),
        (|it| it.ek_public.0.clear(), "it ends in"),
    ];
    for (change, problem) in cases {
        let mut identity = identity();
        change(&mut identity);
        let error = challenge(&identity, Makers::default(), now(), &mut rand::thread_rng());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
}

#[test]
fn makers_are_checked_if_they_are_named() {
    let root = include_str!("../verify/tests/fixtures/rsa-root.pem").to_owned();
    let certificate = include_bytes!("../verify/tests/fixtures/rsa-ek.der").to_vec();
    let key = include_bytes!("../wire/fixtures/rsa-ek.public").to_vec();
    let roots = [root];
    let makers = Makers { roots: &roots, issuers: &[] };
    let later = now() + Duration::from_secs(365 * 86_400);
    let mut identity = identity();
    let error = challenge(&identity, makers, later, &mut rand::thread_rng()).unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
    identity.ek_certificate = Some(Bytes(certificate));
    let error = challenge(&identity, makers, later, &mut rand::thread_rng()).unwrap_err();
    assert!(error.to_string().contains("another endorsement key"), "{error}");
    identity.ek_public = Bytes(key);
    challenge(&identity, makers, later, &mut rand::thread_rng()).unwrap();
}

#[test]
fn documents_are_read_as_they_were_written() {
    let (challenge, expected) = begin();
    let candidate = Candidate { version: 1, identity: identity() };
    assert_eq!(Candidate::parse(&candidate.to_json().unwrap()), Ok(candidate));
    assert_eq!(Challenge::parse(&challenge.to_json().unwrap()), Ok(challenge));
    let answer = Answer { version: 1, secret: vec![1, 2], quote: Some(quote(&key(1), b"")) };
    assert_eq!(Answer::parse(&answer.to_json().unwrap()), Ok(answer));
    assert_eq!(Expected::parse(&expected.to_json().unwrap()), Ok(expected.clone()));
    assert!(!format!("{expected:?}").contains("secret"));
    for (document, problem) in [
        (r#"{"version":2,"secret":"AQ==","quote":null}"#, "version 2"),
        (r#"{"version":1,"secret":"AQ=="}"#, "missing field"),
        (r#"{"version":1,"secret":"AQ==","quote":null,"more":1}"#, "unknown field"),
        (r#"{"version":1,"secret":"AQ","quote":null}"#, "padding"),
    ] {
        let error = Answer::parse(document.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("answer: ") && error.contains(problem), "{problem}: {error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_document_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Candidate::parse(&bytes);
        let _ = Challenge::parse(&bytes);
        let _ = Expected::parse(&bytes);
        let _ = Answer::parse(&bytes);
        let _ = Enrolment::parse(&bytes);
    }

    #[test]
    fn times_are_read_as_they_were_written(seconds in 0..253_402_300_800_i64) {
        prop_assert_eq!(instant::parse(&instant::format(seconds)), Some(seconds));
    }
}
