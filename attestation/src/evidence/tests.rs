use super::*;
use crate::wire::Name;
use p256::ecdsa::SigningKey;
use proptest::prelude::*;
use serde_json::{Value, json};

fn example() -> Value {
    json!({
        "version": 1, "pod": "11111111-2222-4333-8444-555555555555",
        "nonce": "5a".repeat(16), "guestKey": null, "time": "2026-01-01T00:00:00Z",
        "quote": {"attest": "AAEC", "signature": "AwQ=", "pcrs": {"sha256": {"15": "00".repeat(32)}}},
        "attestationKey": "BQY=",
        "endorsement": {"public": "Bwg=", "certificates": ["CQ=="]},
        "enrolment": {
            "version": 1, "attestationKey": format!("000b{}", "11".repeat(32)),
            "endorsementKey": format!("000b{}", "22".repeat(32)),
            "counts": {"resetCount": 1, "restartCount": 2},
            "time": "2025-01-01T00:00:00Z", "signature": "Cg==",
        },
        "firmwareLog": "Cw==",
        "log": {"pcr": 15, "records": [
            {"recnum": 0, "pcr": 15, "digests": [{"hashAlg": "sha256", "digest": "33".repeat(32)}],
             "content_type": "sandbox", "content": {"event": "start"}},
            {"recnum": 1, "pcr": 15, "digests": [{"hashAlg": "sha256", "digest": "44".repeat(32)}],
             "content_type": "sandbox-digest"},
        ]},
    })
}

fn parse(value: &Value) -> Result<Evidence, EvidenceError> {
    Evidence::parse(value.to_string().as_bytes())
}

#[test]
fn what_is_written_can_be_read() {
    let evidence = parse(&example()).unwrap();
    assert_eq!(evidence.quote.attest, [0, 1, 2]);
    assert_eq!(evidence.log.records.len(), 2);
    let file = evidence.to_json().unwrap();
    assert_eq!(Evidence::parse(&file).unwrap(), evidence);
    assert_eq!(serde_json::from_slice::<Value>(&file).unwrap(), example());
}

#[test]
fn absent_things_are_null_and_never_missing() {
    for member in ["guestKey", "enrolment", "endorsement", "firmwareLog"] {
        let mut value = example();
        value[member] = Value::Null;
        parse(&value).unwrap();
        value.as_object_mut().unwrap().remove(member);
        let error = parse(&value).unwrap_err().to_string();
        assert!(error.contains(&format!("missing field `{member}`")), "{error}");
    }
}

#[test]
fn evidence_that_is_not_right_is_refused() {
    let long = "AAAA".repeat(3000);
    for (member, wrong, problem) in [
        ("/version", json!(2), "version 2"),
        ("/pod", json!("11111111-2222-4333-8444-55555555555G"), "not a UUID"),
        ("/pod", json!("11111111-2222-4333-8444-55555555555A"), "not a UUID"),
        ("/pod", json!(""), "not a UUID"),
        ("/nonce", json!("5a"), "16 to 64 bytes"),
        ("/nonce", json!("5A".repeat(16)), "16 to 64 bytes"),
        ("/nonce", json!("5a".repeat(65)), "16 to 64 bytes"),
        ("/guestKey", json!(""), "empty or too long"),
        ("/guestKey", json!("00".repeat(257)), "empty or too long"),
        ("/time", json!("2".repeat(41)), "time is too long"),
        ("/quote/attest", json!(long), "longer than any structure"),
        ("/quote/attest", json!("AAE"), "adding"),
        ("/quote/pcrs", json!({"md5": {}}), "unknown variant"),
        ("/quote/pcrs", json!({"sha256": {"24": "00".repeat(32)}}), "does not exist"),
        ("/quote/pcrs", json!({"sha256": {"15": "00".repeat(20)}}), "bank can't hold"),
        ("/quote/pcrs", json!({"sha256": {"-1": "00".repeat(32)}}), "invalid"),
        ("/attestationKey", json!(long), "longer than any structure"),
        ("/endorsement/certificates", json!(vec!["AA=="; 9]), "too many"),
        ("/endorsement/certificates/0", json!(long), "longer than any structure"),
        ("/enrolment/attestationKey", json!("000b11"), "TPM2B_NAME"),
        ("/enrolment/attestationKey", json!(format!("0012{}", "11".repeat(32))), "nameAlg"),
        ("/log/pcr", json!(24), "does not exist"),
        ("/log/records/0/recnum", json!(-1), "expected u64"),
        ("/log/records/0/digests/0/digest", json!("3"), "hexadecimal"),
        ("/log/records/0/digests/0/digest", json!("3A"), "hexadecimal"),
    ] {
        let mut value = example();
        *value.pointer_mut(member).unwrap() = wrong;
        let error = parse(&value).unwrap_err().to_string();
        assert!(error.contains(problem), "{member}: {problem}: {error}");
    }
}

#[test]
fn members_that_are_not_known_or_there_twice_are_refused() {
    for at in ["", "/quote", "/endorsement", "/enrolment", "/log", "/log/records/0"] {
        let mut value = example();
        value.pointer_mut(at).unwrap()["more"] = json!(1);
        let error = parse(&value).unwrap_err().to_string();
        assert!(error.contains("unknown field `more`"), "{at}: {error}");
    }
    let twice = example().to_string().replacen("\"time\":", "\"version\":1,\"time\":", 1);
    let error = Evidence::parse(twice.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("duplicate field"), "{error}");
}

#[test]
fn a_later_version_is_named_before_its_members() {
    let error = Evidence::parse(br#"{"version":7,"everything":"new"}"#).unwrap_err();
    assert!(matches!(error, EvidenceError::Version(7)));
}

#[test]
fn sizes_are_bounded() {
    assert!(matches!(Evidence::parse(&vec![b' '; MAX_EVIDENCE + 1]), Err(EvidenceError::TooLong)));
    let mut evidence = parse(&example()).unwrap();
    evidence.firmware_log = Some(vec![0; MAX_FIRMWARE_LOG + 1]);
    let error = evidence.to_json().unwrap_err().to_string();
    assert!(error.contains("firmwareLog is too long"), "{error}");
}

#[test]
fn qualifying_data_tells_all_parts_apart() {
    let nonce = |byte| Nonce::new([byte; 16]).unwrap();
    let (pod, other) = ("11111111-2222-4333-8444-555555555555", "1");
    let all = [
        qualifying_data(&nonce(1), pod, None),
        qualifying_data(&nonce(2), pod, None),
        qualifying_data(&Nonce::new([1; 17]).unwrap(), pod, None),
        qualifying_data(&nonce(1), other, None),
        qualifying_data(&nonce(1), other, Some(b"1")),
        qualifying_data(&nonce(1), "11", None),
        qualifying_data(&nonce(1), pod, Some(b"key")),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

/// Known answer, for other implementations: SHA-256 computed by hand of the parts one after the
/// other.
#[test]
fn qualifying_data_is_what_the_documentation_says() {
    let nonce = Nonce::new([0x5a; 16]).unwrap();
    let pod = "11111111-2222-4333-8444-555555555555";
    let mut bytes = b"sandbox-quote-v1\x00\x00\x00\x10".to_vec();
    bytes.extend([0x5a; 16]);
    bytes.extend(b"\x00\x00\x00\x24");
    bytes.extend(pod.as_bytes());
    bytes.extend(b"\x00\x00\x00\x03key");
    assert_eq!(qualifying_data(&nonce, pod, Some(b"key")).to_vec(), Bank::Sha256.digest(&bytes));
}

#[test]
fn enrolments_are_believed_of_their_enroller_only() {
    let key = |seed| SigningKey::from_bytes(&[seed; 32].into()).unwrap();
    let name = |byte| Name::parse(&[&[0, 0x0b][..], &[byte; 32]].concat()).unwrap();
    let (own, other) = (key(1), key(2));
    let enrolment = Enrolment::sign(&own, name(1), name(2), None, "now".to_owned());
    enrolment.verify([own.verifying_key()]).unwrap();
    enrolment.verify([other.verifying_key(), own.verifying_key()]).unwrap();
    assert_eq!(enrolment.verify([other.verifying_key()]), Err(EnrolmentError::Signature));
    assert_eq!(enrolment.verify([]), Err(EnrolmentError::Signature));
    let exchanged =
        Enrolment { attestation_key: name(2), endorsement_key: name(1), ..enrolment.clone() };
    assert_eq!(exchanged.verify([own.verifying_key()]), Err(EnrolmentError::Signature));
    let later = Enrolment { version: 2, ..enrolment };
    assert_eq!(later.verify([own.verifying_key()]), Err(EnrolmentError::Version(2)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Evidence::parse(&bytes);
    }

    #[test]
    fn a_changed_file_is_read_or_refused(place in any::<prop::sample::Index>(), byte: u8) {
        let mut file = example().to_string().into_bytes();
        let place = place.index(file.len());
        file[place] = byte;
        if let Ok(evidence) = Evidence::parse(&file) {
            prop_assert_eq!(Evidence::parse(&evidence.to_json().unwrap()).unwrap(), evidence);
        }
    }

    #[test]
    fn hexadecimal_digits_are_read_as_they_were_written(bytes: Vec<u8>) {
        prop_assert_eq!(text::parse_hex(&text::hex(&bytes)), Some(bytes));
    }

    #[test]
    fn there_is_one_way_to_write_bytes(digits in "[0-9a-fA-F]{0,8}") {
        if let Some(bytes) = text::parse_hex(&digits) {
            prop_assert_eq!(text::hex(&bytes), digits);
        }
    }
}
