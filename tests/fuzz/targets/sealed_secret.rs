//! A secret in a file, as 'sandbox run --secret NAME=sealed:FILE' reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_attestation::sealed::SealedSecret;
use sandbox_attestation::secret::SecretError;

const POD: &str = "6733c088-b287-4ac0-b6ed-6a8ea5b9ef4b";

fuzz_target!(|input: &[u8]| {
    let Ok(sealed) = SealedSecret::parse(input) else {
        return;
    };
    let written = serde_json::to_vec(&sealed).expect("what was read can be written");
    assert_eq!(SealedSecret::parse(&written).as_ref(), Ok(&sealed));
    // Nobody has made it with this key.
    let released = sealed.release(&[3; 32], POD, "db", &[9; 32]);
    assert_eq!(released, Err(SecretError::NotOurs));
});
