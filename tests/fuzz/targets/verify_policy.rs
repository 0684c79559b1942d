//! A verifier's policy, and the token that a verifier signs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use p256::ecdsa::SigningKey;
use sandbox_attestation::{
    evidence::{Evidence, Nonce},
    verify::{Policy, token, verify},
};
use std::{
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

static GOOD: LazyLock<Evidence> = LazyLock::new(|| {
    Evidence::parse(include_bytes!("../seeds/evidence/good.json")).expect("evidence")
});
static KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_bytes(&[9; 32].into()).expect("a key"));
static NONCE: LazyLock<Nonce> = LazyLock::new(|| Nonce::new([0x5a; 32]).expect("a nonce"));

fuzz_target!(|input: &[u8]| {
    let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    if let Ok(text) = std::str::from_utf8(input) {
        assert!(token::read(text, KEY.verifying_key(), &NONCE, now).is_err());
    }
    let Ok(policy) = Policy::parse(input) else {
        return;
    };
    let Ok(digest) = policy.digest() else {
        return;
    };
    let document = serde_json::to_vec(policy.document()).expect("what was read can be written");
    let again = Policy::parse(&document).expect("and read again");
    assert_eq!(again.digest(), Ok(digest.clone()));
    let verdict = verify(&GOOD, &NONCE, &policy, now);
    let issuer = token::Issuer { key: &KEY, developer: "fuzz", build: "1" };
    let life = Duration::from_secs(60);
    let token = token::issue(&verdict, &digest, &issuer, now, life).expect("a token");
    let claims = token::read(&token, KEY.verifying_key(), &NONCE, now).expect("its claims");
    assert_eq!(claims.submods[&GOOD.pod].ear_status, verdict.status);
});
