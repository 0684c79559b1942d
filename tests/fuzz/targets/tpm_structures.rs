//! What a TPM or a firmware says: keys, names, quotes, signatures, credentials, logs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_attestation::{
    Bank,
    credential::Credential,
    verify::firmware,
    wire::{Attest, Name, PcrSelection, Public, Signature},
};

fuzz_target!(|input: &[u8]| {
    let public = Public::parse(input);
    if let Ok(public) = &public {
        assert_eq!(public.as_bytes(), input);
        let name = public.name();
        assert_eq!(Name::parse(name.as_bytes()), Ok(name));
    }
    let signature = Signature::parse(input);
    if let Ok(signature) = &signature {
        let key = include_bytes!("../seeds/tpm_structures/ecc-ak.public");
        let key = Public::parse(key).expect("a key");
        assert!(signature.verify(&key, input).is_err());
    }
    let attest = Attest::parse(input);
    if let Ok(attest) = &attest {
        let bytes = attest.selection.to_bytes();
        let again = PcrSelection::parse(&bytes).expect("what was written can be read");
        assert_eq!(again.banks(), attest.selection.banks());
    }
    // No structure is two things.
    let meanings = [public.is_ok(), signature.is_ok(), attest.is_ok()];
    assert!(meanings.into_iter().filter(|&meaning| meaning).count() <= 1);
    let _ = PcrSelection::parse(input);
    let _ = Public::parse_sized(input);
    if let Ok(credential) = Credential::parse(input) {
        assert_eq!(credential.to_bytes(), input);
    }
    for bank in Bank::ALL {
        let _ = firmware::replay(input, bank);
    }
});
