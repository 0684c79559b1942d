//! Approval, permit and permitted pod.

use super::*;
use crate::{Measured, Permitted, Pod, Verifier};

const POD: &str = "7ea2d2f2-0d3c-4c1c-9d0c-2b6ffcd7b6a0";
const OTHER: &str = "7ea2d2f2-0d3c-4c1c-9d0c-2b6ffcd7b6a1";
const TPM: &str = r#"{"require": {"tpm": true}}"#;
const SERVICE: &str = r#"{"prefix": "example.com", "require": {"tpm": "service"}}"#;

fn accepted(name: &'static str) -> Case {
    case(name).docker("", ACCEPT)
}

fn measured(verified: bool, by: Verifier) -> Option<Measured> {
    Some(Measured::new(POD, 7, verified, by))
}

#[test]
fn an_approval_says_what_was_decided_and_covers_that_alone() {
    let case = case("signed")
        .docker("", &signed_by(&["alice"], ""))
        .signed(simple(&KEYS.alice, &manifest(), "example.com/team/app:1"))
        .rules(r#"{"require": {"signature": true, "verity": true}}"#);
    let approval = case.decide(&launch()).unwrap();
    assert!(approval.covers(&manifest()));
    assert!(!approval.covers(&elsewhere()));
    assert!(approval.is_for(&launch()));
    assert!(!approval.is_for(&Launch { memory_mib: 257, ..launch() }));
    assert_eq!(*approval.demands(), crate::Demands::default());

    let permit = approval.permit(POD, None).unwrap();
    assert_eq!((permit.pod(), permit.measured()), (POD, None));
    let json = serde_json::to_value(permit.decisions()).unwrap();
    assert_eq!(json[0]["app"], "app");
    assert_eq!(json[0]["image"], manifest().to_string());
    assert_eq!(json[0]["identity"], "docker:example.com/team/app:1");
    assert_eq!(json[0]["answer"], "allowed");
    assert_eq!(json[0]["keys"][0], KEYS.alice.fingerprint());
    assert_eq!(json[0]["time"], NOW);
    assert_eq!(json[0]["measured"], serde_json::Value::Null);
    assert!(json[0]["policyDigest"].as_str().unwrap().starts_with("sha256:"));
    assert!(json[0]["rule"].as_str().unwrap().contains("transport docker"));
    for (place, demand) in
        ["a signature that counts", "verified root file systems"].into_iter().enumerate()
    {
        let check = &json[0]["checks"][place];
        assert_eq!((&check["demand"], &check["answer"]), (&demand.into(), &"met".into()));
        assert!(check["rule"].as_str().unwrap().starts_with("rule 1 in "), "{check}");
    }
}

#[test]
fn a_pod_is_permitted_to_start_when_it_was_measured_as_demanded() {
    use Verifier::{Local, Service};
    for (rules, attest, measured, refused) in [
        ("", None, None, None),
        ("", None, measured(true, Local), None),
        ("", None, measured(false, Local), None),
        (TPM, None, None, Some("was not")),
        (TPM, None, measured(false, Local), Some("not verified")),
        (TPM, None, measured(false, Service), Some("not verified")),
        (TPM, None, measured(true, Local), None),
        (TPM, None, measured(true, Service), None),
        (SERVICE, None, None, Some("was not")),
        (SERVICE, None, measured(true, Local), Some("a service is asked for")),
        (SERVICE, None, measured(true, Service), None),
        (&format!("{SERVICE}, {TPM}"), None, measured(true, Local), Some("a service")),
        (&format!("{TPM}, {SERVICE}"), None, measured(true, Local), Some("a service")),
        ("", Some(Local), None, Some("was not")),
        ("", Some(Local), measured(true, Local), None),
        ("", Some(Service), measured(true, Local), Some("a service")),
        (TPM, Some(Service), measured(true, Local), Some("a service")),
        (SERVICE, Some(Local), measured(true, Local), Some("a service")),
    ] {
        let launch = Launch { attest, ..launch() };
        let approval = accepted("measured").rules(rules).decide(&launch).unwrap();
        let demanded = approval.demands().clone();
        assert_eq!(demanded.measurement.is_some(), !demanded.by.is_empty());
        match (approval.permit(POD, measured.clone()), refused) {
            (Ok(permit), None) => {
                assert_eq!(permit.measured(), measured.as_ref());
                assert_eq!(permit.decisions()[0].measured, measured);
            }
            (Err(refusal), Some(because)) => {
                let text = refusal.to_string();
                assert!(text.contains(because), "{rules} {measured:?}: {text}");
                assert_eq!(refusal.pod.len(), demanded.by.len(), "{text}");
            }
            (result, _) => panic!("{rules} {attest:?} {measured:?}: {result:?}"),
        }
    }
}

#[test]
fn the_measurement_of_another_pod_is_refused_even_where_none_is_demanded() {
    for rules in ["", TPM] {
        let approval = accepted("another").rules(rules).decide(&launch()).unwrap();
        let of_other = Measured::new(OTHER, 7, true, Verifier::Service);
        let refusal = approval.permit(POD, Some(of_other)).unwrap_err().to_string();
        assert!(refusal.contains(OTHER) && refusal.contains(POD), "{refusal}");
    }
}

#[derive(Debug)]
struct Prepared(&'static str);

impl Pod for Prepared {
    fn uuid(&self) -> String {
        self.0.to_owned()
    }
}

#[test]
fn a_permit_is_for_one_pod_alone() {
    let permit = || accepted("one").decide(&launch()).unwrap().permit(POD, None).unwrap();
    let permitted = Permitted::new(Prepared(POD), permit()).unwrap();
    assert_eq!((permitted.pod().0, permitted.permit().pod()), (POD, POD));
    for other in [OTHER, "", "7EA2D2F2-0D3C-4C1C-9D0C-2B6FFCD7B6A0"] {
        let error = Permitted::new(Prepared(other), permit()).unwrap_err().to_string();
        assert!(error.contains(POD), "{error}");
    }
}

#[test]
fn one_image_that_is_refused_refuses_the_pod() {
    let folder = tempfile::tempdir().unwrap();
    let good = case("good").docker("example.com", ACCEPT);
    let bad = case("bad").of(docker("evil.com", "app", Some("1")));
    let host = good.host(folder.path()).unwrap();
    let subjects = [("web", good.subject()), ("sidecar", bad.subject())];
    let refusal = crate::decide(&subjects, &launch(), &host, false, now()).unwrap_err().to_string();
    for part in ["docker:evil.com/app:1", "'sidecar'", "the default in", "rejects every image"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    assert!(!refusal.contains("'web'"), "{refusal}");
}

#[test]
fn a_pod_without_an_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let host = accepted("none").host(folder.path()).unwrap();
    let refusal = crate::decide(&[], &launch(), &host, true, now()).unwrap_err().to_string();
    assert!(refusal.contains("has no image"), "{refusal}");
}
