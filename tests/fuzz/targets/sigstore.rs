//! Sigstore's keys, signatures and bundles. The input is all three: nothing has signed it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_gate::sigstore::{PublicKey, verify_bundle, verify_cosign};

/// What `openssl ecparam -name prime256v1 -genkey` made.
const KEY: &[u8] = include_bytes!("../seeds/sigstore/key.pub");

fuzz_target!(|input: &[u8]| {
    let mut keys: Vec<_> = PublicKey::parse(KEY).into_iter().collect();
    assert_eq!(keys.len(), 1);
    assert!(verify_bundle(input, &keys).is_err());
    if let Some((content, signature)) = input.split_at_checked(input.len() / 2) {
        assert!(verify_cosign(content, signature, &keys).is_err());
    }
    if let Ok(key) = PublicKey::parse(input) {
        assert_eq!(key.fingerprint().len(), "sha256:".len() + 64);
        keys.push(key);
        let _ = verify_cosign(b"", input, &keys);
    }
});
