//! Everything that can be wrong with evidence, each a test of its own, and the one check that says
//! so.

mod keys;
mod log;
mod pod;
mod quote;

use super::{
    CheckName as C, Machine, Status,
    certificates::{NOW, at},
    judge,
    machine::{self, AK, OTHER, POD, app, exit, key, launch, nonce, start},
    now,
};
use crate::{
    evidence::{Counts, Evidence, Nonce, PcrValue, RecordDigest, qualifying_data},
    log::Bank,
    verify::{Document, FirmwareLog, Policy, Trust, verify},
    wire::{Attributes, Public},
};
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json, value::RawValue};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};
use x509_cert::ext::pkix::KeyUsages;

/// Who tampers.
enum By {
    /// The host, before its TPM signs.
    Host(fn(&mut Machine)),
    /// Somebody who has the file.
    File(fn(&mut Evidence)),
    /// Nobody: the verifier's policy is another one.
    Policy(fn(&mut Document)),
    /// The host, and the policy is another one.
    Both(fn(&mut Machine, &mut Document)),
}

use By::{Both, File, Host, Policy as Demand};

/// Tests, each by its name: who tampers and how, the check that has to fail, alone, and what its
/// reason has to say.
macro_rules! tampering {
    ($($name:ident { $by:expr, $check:ident, $reason:literal })+) => {
        $(#[test]
        fn $name() {
            tampered($by, C::$check, $reason);
        })+

        /// The checks that fail here.
        pub(super) const CHECKS: &[C] = &[$(C::$check),+];
    };
}
use tampering;

fn tampered(by: By, check: C, reason: &str) {
    let mut machine = Machine::new();
    let mut policy = Machine::policy();
    match by {
        Host(tamper) => tamper(&mut machine),
        Both(tamper) => tamper(&mut machine, &mut policy),
        Demand(change) => change(&mut policy),
        File(_) => {}
    }
    let mut evidence = machine.evidence();
    if let File(tamper) = by {
        tamper(&mut evidence);
    }
    let verdict = judge(&evidence, policy, now());
    let failed: Vec<_> = verdict.failed().collect();
    let right = matches!(failed[..], [(found, why)] if found == check && why.contains(reason));
    assert!(right, "{check} should say '{reason}', and this was said: {failed:?}");
    assert_eq!(verdict.status, Status::Contraindicated);
}

#[test]
fn every_check_can_fail() {
    let seen = [keys::CHECKS, quote::CHECKS, log::CHECKS, pod::CHECKS].concat();
    let missed: Vec<_> = C::ALL.into_iter().filter(|check| !seen.contains(check)).collect();
    assert!(missed.is_empty(), "no tampering fails {missed:?}");
}

/// Changes a member of the pod's launch record.
fn set(machine: &mut Machine, member: &str, value: Value) {
    *machine.events[2]["record"].pointer_mut(member).unwrap() = value;
}

fn other_digest() -> String {
    machine::digest("something else")
}

/// Changes the content of a record in the file.
fn set_content(evidence: &mut Evidence, record: usize, from: &str, to: &str) {
    let content = evidence.log.records[record].content.take().unwrap();
    let changed = content.get().replace(from, to);
    assert_ne!(changed, content.get());
    evidence.log.records[record].content = Some(RawValue::from_string(changed).unwrap());
}

/// The values of registers in the file.
fn registers(evidence: &mut Evidence) -> &mut BTreeMap<u32, PcrValue> {
    evidence.quote.pcrs.get_mut(&Bank::Sha256).unwrap()
}

fn value(evidence: &mut Evidence, register: u32) -> &mut Vec<u8> {
    &mut registers(evidence).get_mut(&register).unwrap().0
}

#[test]
fn white_space_in_contents_changes_nothing() {
    let mut evidence = Machine::new().evidence();
    for record in &mut evidence.log.records {
        if let Some(content) = &record.content {
            let value: serde_json::Value = serde_json::from_str(content.get()).unwrap();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            record.content = Some(RawValue::from_string(pretty).unwrap());
        }
    }
    assert!(judge(&evidence, Machine::policy(), now()).passed());
}

#[test]
fn a_pinned_key_needs_neither_enrolment_nor_maker() {
    let mut policy = Machine::policy();
    let name = Public::parse(&Machine::new().ak_public()).unwrap().name();
    policy.attestation_keys.pinned.insert(name.to_string());
    policy.endorsement_keys.roots.clear();
    let mut evidence = Machine::new().evidence();
    (evidence.enrolment, evidence.endorsement) = (None, None);
    let verdict = judge(&evidence, policy, now());
    assert_eq!((verdict.status, verdict.facts.trust), (Status::Affirming, Some(Trust::Pinned)));
}

#[test]
fn trust_on_first_use_is_never_affirming() {
    let mut policy = Machine::policy();
    policy.attestation_keys.trust_on_first_use = true;
    let mut evidence = Machine { ak: key(123), ..Machine::new() }.evidence();
    evidence.enrolment = None;
    let verdict = judge(&evidence, policy, now());
    assert_eq!((verdict.status, verdict.facts.trust), (Status::Warning, Some(Trust::FirstUse)));
}

#[test]
fn an_endorsement_key_can_be_pinned_or_left_to_the_enroller() {
    let name = Public::parse(&Machine::new().ek_public()).unwrap().name().to_string();
    let mut evidence = Machine::new().evidence();
    evidence.endorsement = None;
    let mut pinned = Machine::policy();
    pinned.endorsement_keys.pinned.insert(name);
    assert_eq!(judge(&evidence, pinned, now()).status, Status::Affirming);
    let mut left = Machine::policy();
    left.endorsement_keys.by_enroller = true;
    assert_eq!(judge(&evidence, left, now()).status, Status::Affirming);
}

#[test]
fn a_policy_that_leaves_something_open_only_warns() {
    let open: [fn(&mut Document); 8] = [
        |policy| policy.kernels = None,
        |policy| policy.guest_inits = None,
        |policy| policy.monitors = None,
        |policy| policy.file_servers = None,
        |policy| policy.images = None,
        |policy| policy.content = None,
        |policy| policy.pcrs.values.clear(),
        |policy| (policy.host_policies, policy.pod_manifests) = (None, None),
    ];
    for change in open {
        let mut policy = Machine::policy();
        change(&mut policy);
        assert_eq!(judge(&Machine::new().evidence(), policy, now()).status, Status::Warning);
    }
}

#[test]
fn a_pod_without_a_file_server_needs_none_in_the_policy() {
    let mut machine = Machine::new();
    set(&mut machine, "/fileServer", json!(null));
    let policy = Document { file_servers: None, ..Machine::policy() };
    assert_eq!(judge(&machine.evidence(), policy, now()).status, Status::Affirming);
}

#[test]
fn several_quoted_banks_all_have_to_agree() {
    let mut machine = Machine::new();
    machine.selection.insert(Bank::Sha1, BTreeSet::from([15]));
    let mut policy = Machine::policy();
    policy.pcrs.select.insert(Bank::Sha1, BTreeSet::from([15]));
    let mut evidence = machine.evidence();
    assert!(judge(&evidence, policy.clone(), now()).passed());
    evidence.log.records[3].digests[0].digest[0] ^= 1;
    let verdict = judge(&evidence, policy, now());
    assert_eq!(verdict.failed().map(|(name, _)| name).collect::<Vec<_>>(), [C::LogReplay]);
}

#[test]
fn a_verdict_says_what_the_nonce_was_asked_for() {
    let evidence = Machine::new().evidence();
    let policy = Policy::new(Machine::policy()).unwrap();
    let other = Nonce::new([1; 32]).unwrap();
    let verdict = verify(&evidence, &other, &policy, at(NOW));
    assert_eq!(verdict.failed().map(|(name, _)| name).collect::<Vec<_>>(), [C::Nonce]);
    assert_ne!(qualifying_data(&nonce(), POD, None), qualifying_data(&other, POD, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever is changed in the file: what a TPM or an enroller has signed, and what that leads
    /// to, is as it was, or the evidence does not pass.
    #[test]
    fn a_changed_file_says_the_same_or_does_not_pass(place in any::<Index>(), byte: u8) {
        static GOOD: LazyLock<(Vec<u8>, Evidence)> = LazyLock::new(|| {
            let evidence = Machine::new().evidence();
            (evidence.to_json().unwrap(), evidence)
        });
        let (file, good) = &*GOOD;
        let mut file = file.clone();
        let place = place.index(file.len());
        file[place] = byte;
        if let Ok(evidence) = Evidence::parse(&file) {
            let policy = Policy::new(Machine::policy()).unwrap();
            let verdict = verify(&evidence, &nonce(), &policy, now());
            let facts = verify(good, &nonce(), &policy, now()).facts;
            prop_assert!(!verdict.passed() || verdict.facts == facts, "{verdict}");
        }
    }
}
