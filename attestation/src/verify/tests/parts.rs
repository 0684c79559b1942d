//! Parts of the verifier, each alone.

use super::{
    certificates::{NOW, at},
    *,
};
use crate::{
    evidence::PcrValue,
    log::{Bank, Entry, export},
    record::Event,
    verify::{chain, firmware, instant},
};
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn an_rsa_key_is_led_to_its_maker() {
    let key = Public::parse(include_bytes!("../../wire/fixtures/rsa-ek.public")).unwrap();
    let root = chain::parse_root(include_str!("fixtures/rsa-root.pem")).unwrap();
    let certificate = include_bytes!("fixtures/rsa-ek.der").to_vec();
    // Made in November 2026.
    let later = at(NOW + 365 * 86_400);
    let (certificates, roots) = ([certificate], [root]);
    chain::check(&key, &certificates, &roots, later).unwrap();
    let early = chain::check(&key, &certificates, &roots, now()).unwrap_err();
    assert!(early.contains("not valid yet"), "{early}");
    let weak = include_bytes!("fixtures/rsa-ek-sha1.der").to_vec();
    let refused = chain::check(&key, &[weak], &roots, later).unwrap_err();
    assert!(refused.contains("is signed with 1.2.840.113549.1.1.5"), "{refused}");
}

#[test]
fn roots_are_authorities_in_pem() {
    for (root, problem) in [("", "not a certificate"), ("-----BEGIN CERTIFICATE-----", "not a")] {
        let error = chain::parse_root(root).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
    let leaf = certificates::Spec::leaf();
    let key = machine::key(1);
    let leaf = certificates::pem(&leaf.make(key.verifying_key(), &key));
    assert!(chain::parse_root(&leaf).unwrap_err().contains("no authority"));
}

/// `TCG_PCR_EVENT2`.
fn event(register: u32, kind: u32, digest: Option<[u8; 32]>, data: &[u8]) -> Vec<u8> {
    let mut out = register.to_le_bytes().to_vec();
    out.extend(kind.to_le_bytes());
    out.extend(u32::from(digest.is_some()).to_le_bytes());
    if let Some(digest) = digest {
        out.extend(0x000b_u16.to_le_bytes());
        out.extend(digest);
    }
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend(data);
    out
}

fn firmware_log(events: &[Vec<u8>]) -> Vec<u8> {
    let mut data = b"Spec ID Event03\0".to_vec();
    data.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
    let mut out = vec![0, 0, 0, 0, 3, 0, 0, 0];
    out.extend([0; 20]);
    out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    out.extend(data);
    out.extend(events.concat());
    out
}

/// A log of a firmware that was started from locality 3.
fn example() -> Vec<u8> {
    firmware_log(&[
        event(0, 3, Some([0; 32]), b"StartupLocality\0\x03"),
        event(0, 8, Some([1; 32]), b"version"),
        event(7, 0x8000_0001, Some([2; 32]), b"SecureBoot"),
        event(7, 4, Some([3; 32]), &[0; 4]),
        event(4, 4, Some([4; 32]), &[]),
    ])
}

#[test]
fn a_firmware_log_is_replayed() {
    let replayed = firmware::replay(&example(), Bank::Sha256).unwrap();
    let extend = |before: &[u8], byte| Bank::Sha256.extended(before, &[byte; 32]);
    let mut locality = [0; 32];
    locality[31] = 3;
    assert_eq!(replayed[&0], extend(&locality, 1));
    assert_eq!(replayed[&7], extend(&extend(&[0; 32], 2), 3));
    assert_eq!(replayed.keys().copied().collect::<Vec<_>>(), [0, 4, 7]);
}

#[test]
fn a_firmware_log_has_to_lead_to_the_registers() {
    let replayed = firmware::replay(&example(), Bank::Sha256).unwrap();
    let mut machine = Machine::new();
    machine.firmware_log = Some(example());
    let verdict = judge(&machine.evidence(), Machine::policy(), now());
    let failed: Vec<_> = verdict.failed().map(|(name, _)| name).collect();
    assert_eq!(failed, [CheckName::FirmwareLog]);
    machine.firmware_values = replayed;
    let mut policy = Machine::policy();
    let value = |register| vec![PcrValue(machine.firmware_values[&register].clone())];
    let values = BTreeMap::from([(0, value(0)), (7, value(7))]);
    policy.pcrs.values = BTreeMap::from([(Bank::Sha256, values)]);
    let verdict = judge(&machine.evidence(), policy.clone(), now());
    assert_eq!(verdict.result(CheckName::FirmwareLog), Some(&CheckResult::Passed), "{verdict}");
    policy.firmware_log = FirmwareLog::Ignore;
    let verdict = judge(&machine.evidence(), policy, now());
    assert!(matches!(verdict.result(CheckName::FirmwareLog), Some(CheckResult::NotDone(_))));
}

#[test]
fn firmware_logs_that_are_not_right_are_refused() {
    let good = example();
    for length in 0..good.len() {
        let cut = firmware::replay(&good[..length], Bank::Sha256);
        // Cut between two events it is another log.
        assert!(cut.is_err() || length > 64, "{length}");
    }
    for (log, problem) in [
        (firmware_log(&[event(24, 4, Some([1; 32]), &[])]), "PCR 24"),
        (firmware_log(&[event(4, 4, None, &[])]), "without a digest of sha256"),
        (good[..good.len() - 1].to_vec(), "ends in the middle"),
        ([&good[..], &[0]].concat(), "ends in the middle"),
    ] {
        let error = firmware::replay(&log, Bank::Sha256).unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
    let error = firmware::replay(&good, Bank::Sha384).unwrap_err().to_string();
    assert!(error.contains("no digests of sha384"), "{error}");
}

/// Our own log in the firmware's form leads to the same register.
#[test]
fn an_exported_log_is_replayed_too() {
    let events = [machine::start(), machine::launch(1, machine::POD)];
    let entries: Vec<_> = events
        .iter()
        .zip(0..)
        .map(|(event, number)| {
            let event = Event::parse(&crate::canonical::to_vec(event).unwrap()).unwrap();
            Entry::new(number, 15, event, [Bank::Sha1, Bank::Sha256]).unwrap()
        })
        .collect();
    let log = export::tcg2(&entries).unwrap();
    for bank in [Bank::Sha1, Bank::Sha256] {
        let expected = entries.iter().fold(vec![0; bank.size()], |value, entry| {
            bank.extended(&value, &entry.digests[&bank])
        });
        assert_eq!(firmware::replay(&log, bank).unwrap(), BTreeMap::from([(15, expected)]));
    }
}

#[test]
fn policies_that_are_not_right_are_refused() {
    let good = serde_json::to_value(Machine::policy()).unwrap();
    Policy::parse(good.to_string().as_bytes()).unwrap();
    for (member, wrong, problem) in [
        ("/version", json!(2), "version 2"),
        ("/pcrs/select", json!({"sha256": [0, 7]}), "PCR 15, the log's"),
        ("/pcrs/select", json!({"sha1": [15]}), "PCR 15, the log's"),
        ("/pcrs/select", json!({"sha256": [15, 24]}), "no PCR 24"),
        ("/pcrs/select", json!({"sha3": [15]}), "unknown variant"),
        ("/pcrs/values", json!({"sha256": {"9": ["00".repeat(32)]}}), "PCR 9 of sha256 is not"),
        ("/pcrs/values", json!({"sha384": {"0": ["00".repeat(48)]}}), "PCR 0 of sha384 is not"),
        ("/images", json!([{}]), "would fit all"),
        ("/images", json!([{"verityRoot": "ab"}]), "hexadecimal"),
        ("/images", json!([{"name": "x"}]), "unknown field"),
        ("/kernels", json!(["sha256:1"]), "not a digest"),
        ("/attestationKeys/enrollers", json!(["key"]), "not a public key"),
        ("/endorsementKeys/roots", json!(["root"]), "not a certificate"),
        ("/signature", json!("optional"), "unknown variant"),
        ("/firmwareLog", json!("maybe"), "unknown variant"),
    ] {
        let mut policy = good.clone();
        *policy.pointer_mut(member).unwrap() = wrong;
        let error = Policy::parse(policy.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(problem), "{member}: {problem}: {error}");
    }
    let mut unknown = good;
    unknown["kernel"] = json!([]);
    let error = Policy::parse(unknown.to_string().as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown field `kernel`"), "{error}");
    assert_eq!(Policy::parse(&vec![b' '; MAX_POLICY + 1]).unwrap_err(), PolicyError::TooLong);
}

#[test]
fn the_smallest_policy_believes_nobody() {
    let policy =
        br#"{"version":1,"attestationKeys":{},"pcrs":{"select":{"sha256":[15]},"log":15}}"#;
    let policy = Policy::parse(policy).unwrap();
    let machine = Machine {
        selection: BTreeMap::from([(Bank::Sha256, BTreeSet::from([15]))]),
        ..Machine::new()
    };
    let verdict = verify(&machine.evidence(), &machine::nonce(), &policy, now());
    let failed: Vec<_> = verdict.failed().map(|(name, _)| name).collect();
    assert_eq!(failed, [CheckName::KeyBinding]);
}

#[test]
fn a_policy_has_one_digest_however_it_is_written() {
    let policy = serde_json::to_value(Machine::policy()).unwrap();
    let digest = |text: &str| Policy::parse(text.as_bytes()).unwrap().digest().unwrap();
    let one = digest(&policy.to_string());
    assert_eq!(digest(&serde_json::to_string_pretty(&policy).unwrap()), one);
    let other = Document { label: None, ..Machine::policy() };
    assert_ne!(Policy::new(other).unwrap().digest().unwrap(), one);
}

#[test]
fn times_are_read() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29T12:00:00Z", Some(951_825_600)),
        ("2026-01-01T00:00:00.25Z", Some(1_767_225_600)),
        ("1969-12-31T23:59:59Z", Some(-1)),
        ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
        ("2026-01-01T00:00:00+00:00", None),
        ("2026-01-01T00:00:00", None),
        ("2026-01-01T00:00:00.Z", None),
        ("2026-01-01T00:00:00.2xZ", None),
        ("2026-02-29T00:00:00Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-00-01T00:00:00Z", None),
        ("2026-01-01 00:00:00Z", None),
        ("2026-01-01T24:00:00Z", None),
        ("+026-01-01T00:00:00Z", None),
        ("", None),
    ] {
        assert_eq!(instant::parse(text), expected, "{text}");
    }
}

#[test]
fn a_verdict_can_be_read_by_people_and_programs() {
    let machine = Machine { safe: 0, ..Machine::new() };
    let verdict = judge(&machine.evidence(), Machine::policy(), now());
    let text = verdict.to_string();
    assert!(text.contains("\nFAILED    clock             the TPM's clock"), "{text}");
    assert!(text.ends_with("must not be trusted"), "{text}");
    let json = serde_json::to_value(&verdict).unwrap();
    assert_eq!(json["status"], "contraindicated");
    let clock = json["checks"].as_array().unwrap().iter().find(|check| check["name"] == "clock");
    assert_eq!(clock.unwrap()["result"], "failed");
    assert_eq!(json["checks"][0], json!({"name": "attestation-key", "result": "passed"}));
    assert_eq!(json["facts"]["launch"], 2);
}

proptest! {
    #[test]
    fn any_bytes_are_a_firmware_log_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = firmware::replay(&bytes, Bank::Sha256);
    }

    #[test]
    fn a_changed_firmware_log_is_replayed_or_refused(place in any::<prop::sample::Index>(), byte: u8) {
        let mut log = example();
        let place = place.index(log.len());
        log[place] = byte;
        let _ = firmware::replay(&log, Bank::Sha256);
    }

    #[test]
    fn any_text_is_a_policy_or_refused(text in "\\PC{0,60}") {
        prop_assert!(Policy::parse(text.as_bytes()).is_err());
    }

    #[test]
    fn any_text_is_a_time_or_refused(text in "[0-9TZ:.+-]{0,30}") {
        let _ = instant::parse(&text);
    }

    #[test]
    fn any_bytes_are_a_certificate_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let key = Public::parse(include_bytes!("../../wire/fixtures/rsa-ek.public")).unwrap();
        prop_assert!(chain::check(&key, &[bytes], &[], now()).is_err());
    }
}
