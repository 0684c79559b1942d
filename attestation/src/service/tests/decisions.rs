//! Which evidence is believed.

use super::{FROM, World, later, request, send, send_at};
use crate::{
    evidence::Nonce,
    service::Service,
    verify::{
        Status,
        tests::machine::{Machine, OTHER, POD, digest, key, now},
    },
};
use serde_json::{Value, json};
use std::{fs, time::Instant};

#[test]
fn a_good_pod_gets_a_signed_verdict_that_is_kept() {
    let mut world = World::new();
    let service = world.service();
    let answer = world.ask(&service, &[]).unwrap();
    let claims = world.claims(&answer);
    let appraisal = &claims.submods[POD];
    assert_eq!(appraisal.ear_status, Status::Affirming);
    assert_eq!(appraisal.ear_verifier_claims.attestation_key.as_deref(), Some(&*world.host()));
    assert_eq!(appraisal.ear_verifier_claims.tenant.as_deref(), Some("blue"));
    let kept = world.kept();
    assert_eq!(kept.len(), 1);
    let kept: Value =
        serde_json::from_slice(&fs::read(world.at("verdicts").join(&kept[0])).unwrap()).unwrap();
    assert_eq!((&kept["host"], &kept["policy"]), (&json!("web"), &json!("team")));
    assert_eq!(kept["token"], answer.token.as_str());
    assert_eq!(kept["verdict"]["status"], "affirming");
    assert_eq!(kept["from"], FROM.to_string());
}

#[test]
fn a_challenge_says_what_the_quote_has_to_be_of() {
    let world = World::new();
    let challenge = world.challenged(&world.service());
    assert_eq!(challenge.select, world.machine.selection);
    assert_eq!(challenge.life, 60);
}

#[test]
fn a_nonce_is_for_one_quote() {
    let mut world = World::new();
    let service = world.service();
    let evidence = world.evidence(&service);
    send(&service, &evidence, &[]).unwrap();
    let refusal = send(&service, &evidence, &[]).unwrap_err();
    assert_eq!(refusal.status, 409, "{refusal}");
    assert_eq!(world.kept().len(), 1);
}

#[test]
fn of_many_that_send_the_same_quote_at_once_one_is_answered() {
    let mut world = World::new();
    let service = world.service();
    let evidence = world.evidence(&service);
    let answered = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| send(&service, &evidence, &[]).is_ok())).collect();
        threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
    });
    assert_eq!((answered, world.kept().len()), (1, 1));
}

#[test]
fn a_nonce_expires() {
    let mut world = World::new();
    let service = world.service();
    let evidence = world.evidence(&service);
    let refusal = send_at(&service, &evidence, &[], (later(61), now())).unwrap_err();
    assert!(refusal.status == 403 && refusal.why.contains("expired"), "{refusal}");
    // What the clock on the wall shows has no say in that.
    send_at(&service, &evidence, &[], (later(50), now())).unwrap();
}

#[test]
fn a_nonce_is_for_one_pod_on_one_host_and_of_one_service() {
    let mut world = World::new();
    let service = world.service();
    let refused = |evidence: &crate::evidence::Evidence, service: &Service| {
        let refusal = send(service, evidence, &[]).unwrap_err();
        assert!(
            refusal.status == 403 && refusal.why.contains("this service has made"),
            "{refusal}"
        );
    };
    let good = world.evidence(&service);
    // Another pod.
    let mut evidence = good.clone();
    evidence.pod = OTHER.to_owned();
    refused(&evidence, &service);
    // Another host, which is enrolled as well.
    let mut twin = Machine::new();
    twin.ak = key(77);
    twin.nonce = good.nonce.clone();
    world.enrol("twin", &twin.evidence());
    service.reload().unwrap();
    refused(&twin.evidence(), &service);
    // A nonce that a host made up, one that was changed, and one of before the service's restart.
    let made_up = Nonce::new([7; 56]).unwrap();
    let mut changed = good.nonce.as_bytes().to_vec();
    for at in 0..changed.len() {
        changed[at] ^= 1;
        let mut evidence = good.clone();
        evidence.nonce = Nonce::new(changed.clone()).unwrap();
        refused(&evidence, &service);
        changed[at] ^= 1;
    }
    for nonce in [made_up, Nonce::new([7; 16]).unwrap()] {
        let mut evidence = good.clone();
        evidence.nonce = nonce;
        refused(&evidence, &service);
    }
    refused(&good, &world.service());
    send(&service, &good, &[]).unwrap();
}

#[test]
fn a_host_that_is_not_enrolled_is_not_answered() {
    let mut world = World::new();
    let service = world.service();
    world.machine.ak = key(78);
    let request_ = json!({"version": 1, "host": world.host(), "pod": POD}).to_string();
    let refusal = service.challenge(request_.as_bytes(), Instant::now()).unwrap_err();
    assert!(refusal.status == 403 && refusal.why.contains("enrolled"), "{refusal}");
    let refusal = send(&service, &world.machine.evidence(), &[]).unwrap_err();
    assert!(refusal.status == 403 && refusal.why.contains("enrolled"), "{refusal}");
    assert_eq!(world.kept().len(), 0);
}

#[test]
fn what_the_hosts_tpm_has_not_signed_uses_nothing_up_and_is_not_kept() {
    let mut world = World::new();
    let service = world.service();
    let good = world.evidence(&service);
    let mut forged = good.clone();
    let last = forged.quote.signature.len() - 1;
    forged.quote.signature[last] ^= 1;
    let mut of_another_key = good.clone();
    of_another_key.guest_key = Some(vec![9; 32]);
    for (evidence, check) in [(forged, "quote-signature"), (of_another_key, "nonce")] {
        let refusal = send(&service, &evidence, &[]).unwrap_err();
        assert!(refusal.status == 403 && refusal.why.starts_with(check), "{refusal}");
    }
    assert_eq!(world.kept().len(), 0);
    send(&service, &good, &[]).unwrap();
}

#[test]
fn a_pod_that_fails_gets_a_verdict_that_says_so() {
    let mut world = World::new();
    let service = world.service();
    world.machine.events[2]["record"]["kernel"]["digest"] = digest("another kernel").into();
    let answer = world.ask(&service, &[]).unwrap();
    let appraisal = &world.claims(&answer).submods[POD];
    assert_eq!(appraisal.ear_status, Status::Contraindicated);
    assert_eq!(appraisal.ear_verifier_claims.failed, ["kernel"]);
    assert_eq!(world.kept().len(), 1);
}

#[test]
fn the_enrolment_that_is_here_counts_and_not_the_hosts() {
    let mut world = World::new();
    let service = world.service();
    world.machine.enroller = key(79);
    world.ask(&service, &[]).unwrap();
    // And the other way round: one that nobody here has signed, whatever the host brings.
    let mut forged = Machine::new();
    forged.enroller = key(79);
    world.enrol("web", &forged.evidence());
    let (service, odd) = Service::open(world.open()).unwrap();
    assert!(odd[0].contains("host web") && odd[0].contains("enrolled"), "{odd:?}");
    world.machine.enroller = key(3);
    let refusal = world.ask(&service, &[]).unwrap_err();
    assert!(refusal.why.starts_with("key-binding"), "{refusal}");
}

#[test]
fn the_first_rule_that_fits_names_the_policy() {
    let mut world = World::new();
    let mut strict = Machine::policy();
    strict.kernels = Some([digest("another").parse().unwrap()].into());
    world.policy("strict", strict);
    let rule = |more: Value| {
        let mut rule = json!({"policy": "strict"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"rules": [rule, {"policy": "team"}]})
    };
    for (fits, more) in [
        (true, json!({})),
        (true, json!({"tenant": "blue"})),
        (false, json!({"tenant": "red"})),
        (true, json!({"imagePrefix": "example.com/team"})),
        (true, json!({"imagePrefix": "example.com/team/web"})),
        (false, json!({"imagePrefix": "example.com/te"})),
        (true, json!({"hosts": ["web"]})),
        (false, json!({"hosts": ["other"]})),
        (false, json!({"hosts": ["web"], "tenant": "red"})),
    ] {
        world.settings(rule(more.clone()));
        let answer = world.ask(&world.service(), &[]).unwrap();
        let status = world.claims(&answer).submods[POD].ear_status;
        assert_eq!(status == Status::Contraindicated, fits, "{more}");
    }
    world.settings(json!({"rules": [{"policy": "team", "tenant": "red"}]}));
    let refusal = world.ask(&world.service(), &[]).unwrap_err();
    assert!(refusal.status == 403 && refusal.why.contains("tenant 'blue'"), "{refusal}");
}

/// A host that says it is about another tenant's pod gets that tenant's policy, and does not pass:
/// the log no longer leads to what the TPM signed.
#[test]
fn nobody_chooses_the_policy_by_a_lie() {
    let mut world = World::new();
    let mut lax = Machine::policy();
    lax.kernels = None;
    world.policy("lax", lax);
    world.settings(json!({"rules": [{"policy": "lax", "tenant": "red"}, {"policy": "team"}]}));
    let service = world.service();
    world.machine.events[2]["record"]["kernel"]["digest"] = digest("another kernel").into();
    let evidence = world.evidence(&service);
    let text = String::from_utf8(request(&evidence, &[])).unwrap();
    let lie = text.replace(r#""tenant":"blue""#, r#""tenant":"red""#);
    assert_ne!(lie, text);
    let now = (Instant::now(), now());
    let (answer, notice) = service.evidence(lie.as_bytes(), FROM, now).unwrap();
    assert!(notice.contains("policy lax: contraindicated (log-digests"), "{notice}");
    assert!(!String::from_utf8(answer).unwrap().contains("affirming\""));
}

#[test]
fn a_host_gets_so_many_verdicts_and_others_still_get_theirs() {
    let mut world = World::new();
    world.settings(json!({"limits": {"host": {"burst": 3, "perSecond": 1}}}));
    let mut twin = World::new();
    twin.machine.ak = key(80);
    world.enrol("twin", &twin.machine.evidence());
    let service = world.service();
    for _ in 0..3 {
        world.ask(&service, &[]).unwrap();
    }
    assert_eq!(world.ask(&service, &[]).unwrap_err().status, 429);
    twin.ask(&service, &[]).unwrap();
}

#[test]
fn an_address_may_ask_so_often() {
    let world = World::new();
    world.settings(json!({"limits": {"address": {"burst": 3, "perSecond": 1}}}));
    let service = world.service();
    let start = Instant::now();
    let admitted = (0..10).filter(|_| service.admit(FROM, start).is_ok()).count();
    assert_eq!(admitted, 3);
    assert_eq!(service.admit(FROM, start).unwrap_err().status, 429);
    service.admit("192.0.2.8".parse().unwrap(), start).unwrap();
    service.admit(FROM, start + std::time::Duration::from_secs(1)).unwrap();
    // One customer's network is one.
    for host in 1..4 {
        service.admit(format!("2001:db8::{host}").parse().unwrap(), start).unwrap();
    }
    assert!(service.admit("2001:db8::5".parse().unwrap(), start).is_err());
    service.admit("2001:db8:0:1::1".parse().unwrap(), start).unwrap();
}
