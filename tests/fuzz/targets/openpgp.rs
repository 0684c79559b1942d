//! OpenPGP: certificates, signed messages and detached signatures.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandbox_gate::openpgp::{Certificate, parse, verify_detached, verify_message};
use std::{
    io::Cursor,
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

/// Keys that nobody can sign with any more, but for what they have signed.
static KEYS: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    let text = include_bytes!("../../../gate/src/openpgp/fixtures/subkey.asc");
    parse(text).expect("a key by gpg")
});
const CONTENT: &[u8] = include_bytes!("../../../gate/src/openpgp/fixtures/content.txt");
/// Some time after the signatures.
const NOW: i64 = 1_772_000_000;

fuzz_target!(|input: &[u8]| {
    if let Ok((content, verified)) = verify_message(input, &KEYS, NOW) {
        assert_eq!(content, CONTENT);
        assert_eq!(verified.primary, KEYS[0].fingerprint());
    }
    let now = UNIX_EPOCH + Duration::from_secs(NOW.unsigned_abs());
    assert!(verify_detached(input, &mut Cursor::new(b"another file"), &KEYS, now).is_err());
    for key in parse(input).unwrap_or_default() {
        let problem = key.problem(NOW);
        if key.fingerprint() == KEYS[0].fingerprint() && problem.is_none() {
            assert!(verify_detached(input, &mut Cursor::new(b""), &[key], now).is_err());
        }
    }
});
