use super::{
    certificates::{NOW, at},
    machine::{POD, key, nonce},
    *,
};
use crate::verify::token::{Claims, Issuer, MAX_LIFE, TokenError, issue, key_id, read};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{sync::LazyLock, time::Duration};

const LIFE: Duration = Duration::from_secs(300);

fn token(verdict: &Verdict, life: Duration) -> String {
    let key = key(42);
    let issuer = Issuer { key: &key, developer: "example.com", build: "0.1.0" };
    let policy = Policy::new(Machine::policy()).unwrap().digest().unwrap();
    issue(verdict, &policy, &issuer, now(), life).unwrap()
}

fn good() -> String {
    static GOOD: LazyLock<String> =
        LazyLock::new(|| token(&judge(&Machine::new().evidence(), Machine::policy(), now()), LIFE));
    GOOD.clone()
}

fn check(token: &str, seconds: u64) -> Result<Claims, TokenError> {
    read(token, key(42).verifying_key(), &nonce(), at(seconds))
}

#[test]
fn a_token_says_what_the_verdict_says() {
    let claims = check(&good(), NOW).unwrap();
    assert_eq!((claims.iat, claims.exp), (NOW, NOW + 300));
    assert_eq!(claims.ear_verifier_id.developer, "example.com");
    let pod = &claims.submods[POD];
    assert_eq!(pod.ear_status, Status::Affirming);
    let vector = serde_json::to_value(pod.ear_trustworthiness_vector).unwrap();
    let expected = json!({
        "instance-identity": 2, "configuration": 2, "executables": 3, "file-system": 2,
        "hardware": 2,
    });
    assert_eq!(vector, expected);
    let own = &pod.ear_verifier_claims;
    assert_eq!(own.guest_key, Some("e7".repeat(32)));
    assert_eq!(own.verity_roots["web"], Some("ab".repeat(32)));
    assert_eq!(
        (own.tenant.as_deref(), own.launch, own.trust),
        (Some("blue"), Some(2), Some(Trust::Enrolled))
    );
    assert!(own.failed.is_empty());
}

#[test]
fn a_token_of_a_bad_verdict_names_what_failed() {
    let machine = Machine { safe: 0, ..Machine::new() };
    let verdict = judge(&machine.evidence(), Machine::policy(), now());
    let claims = check(&token(&verdict, LIFE), NOW).unwrap();
    let pod = &claims.submods[POD];
    assert_eq!(pod.ear_status, Status::Contraindicated);
    assert_eq!(pod.ear_verifier_claims.failed, ["clock"]);
    assert_eq!(pod.ear_trustworthiness_vector.instance_identity, 99);
}

#[test]
fn a_vector_contraindicates_what_failed() {
    type Change = fn(&mut Document);
    type Part = fn(&token::Vector) -> i8;
    let cases: [(Change, Part, i8); 4] = [
        (|policy| policy.kernels = Some([].into()), |vector| vector.executables, 96),
        (|policy| policy.images = Some(Vec::new()), |vector| vector.file_system, 96),
        (|policy| policy.host_policies = Some([].into()), |vector| vector.configuration, 96),
        (|policy| policy.attestation_keys.enrollers.clear(), |vector| vector.instance_identity, 97),
    ];
    for (change, part, expected) in cases {
        let mut policy = Machine::policy();
        change(&mut policy);
        let verdict = judge(&Machine::new().evidence(), policy, now());
        assert_eq!(part(&verdict.vector), expected, "{verdict}");
    }
}

#[test]
fn tokens_are_good_for_their_time_key_and_nonce_only() {
    let good = good();
    assert!(check(&good, NOW + 299).is_ok());
    assert!(check(&good, NOW - 60).is_ok());
    assert_eq!(check(&good, NOW + 300), Err(TokenError::Time("any more", NOW, NOW + 300)));
    assert_eq!(check(&good, NOW - 61), Err(TokenError::Time("yet", NOW, NOW + 300)));
    let other = read(&good, key(43).verifying_key(), &nonce(), now());
    assert_eq!(other, Err(TokenError::Signature));
    let other = read(&good, key(42).verifying_key(), &Nonce::new([1; 32]).unwrap(), now());
    assert_eq!(other, Err(TokenError::Nonce));
}

#[test]
fn a_life_is_cut() {
    let verdict = judge(&Machine::new().evidence(), Machine::policy(), now());
    let claims = check(&token(&verdict, Duration::MAX), NOW).unwrap();
    assert_eq!(claims.exp, NOW + MAX_LIFE.as_secs());
}

/// Signs other claims, or with another header.
fn forged(header: &Value, change: impl FnOnce(&mut Value)) -> String {
    let good = good();
    let claims = good.split('.').nth(1).unwrap();
    let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    change(&mut claims);
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(&claims));
    let key: SigningKey = key(42);
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

#[test]
fn tokens_of_another_form_are_refused() {
    let kid = key_id(key(42).verifying_key());
    let header = json!({"alg": "ES256", "kid": kid, "typ": "JWT"});
    assert!(check(&forged(&header, |_| ()), NOW).is_ok());
    for header in [
        json!({"alg": "none", "kid": kid, "typ": "JWT"}),
        json!({"alg": "HS256", "kid": kid, "typ": "JWT"}),
        json!({"alg": "ES256", "kid": kid, "typ": "other"}),
        json!({"alg": "ES256", "kid": kid, "typ": "JWT", "crit": ["b64"]}),
        json!({"alg": "ES256"}),
    ] {
        let refused = check(&forged(&header, |_| ()), NOW);
        assert!(matches!(refused, Err(TokenError::Malformed(_))), "{header}: {refused:?}");
    }
    let refused = check(&forged(&header, |claims| claims["eat_profile"] = json!("other")), NOW);
    assert!(matches!(refused, Err(TokenError::Malformed(_))));
    let refused = check(&forged(&header, |claims| claims["exp"] = Value::Null), NOW);
    assert!(matches!(refused, Err(TokenError::Malformed(_))));
    let good = good();
    let (signed, _) = good.rsplit_once('.').unwrap();
    for token in [
        String::new(),
        signed.to_owned(),
        format!("{signed}."),
        format!("{good}."),
        format!("{good}="),
    ] {
        assert!(check(&token, NOW).is_err(), "{token}");
    }
    assert_eq!(check(&"a".repeat(70_000), NOW), Err(TokenError::TooLong));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_token_is_refused(place in any::<prop::sample::Index>(), byte in "[A-Za-z0-9_.-]") {
        let good = good();
        let place = place.index(good.len());
        let changed = format!("{}{byte}{}", &good[..place], &good[place + 1..]);
        prop_assume!(changed != good);
        prop_assert!(check(&changed, NOW).is_err());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}(\\.\\PC{0,40}){0,3}") {
        prop_assert!(check(&text, NOW).is_err());
    }
}
