//! Against what gpg makes: see fixtures/README.md.

mod keyring;
mod terms;

use super::*;
use crate::instant;
use pgp::armor::BlockType;
use pgp::ser::Serialize as _;
use proptest::prelude::*;
use std::{
    fs,
    io::Cursor,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/openpgp/fixtures").join(name)).unwrap()
}

fn key(name: &str) -> Vec<Certificate> {
    parse(&file(&format!("{name}.asc"))).unwrap()
}

fn at(time: &str) -> i64 {
    instant::parse(time).unwrap()
}

/// Some time after all signatures.
fn now() -> i64 {
    at("2026-02-02T00:00:00Z")
}

/// The same for those who want it so.
fn system_now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(now().unsigned_abs())
}

/// Holds a signature against that file.
fn hold(
    signature: &[u8],
    content: &[u8],
    keys: &[Certificate],
) -> Result<sandbox_image::evidence::DetachedFacts, OpenPgpError> {
    verify_detached(signature, &mut Cursor::new(content), keys, system_now())
}

/// Why a message does not count, or what it says.
fn message(name: &str, keys: &[Certificate], now: i64) -> Result<Vec<u8>, String> {
    verify_message(&file(name), keys, now)
        .map(|(content, _)| content)
        .map_err(|error| error.to_string())
}

/// The same of a detached signature, held against the file and counted then.
fn detached(name: &str, keys: &[Certificate], now: i64) -> Result<Verified, String> {
    let facts = hold(&file(name), &file("content.txt"), keys).map_err(|error| error.to_string())?;
    check_facts(&facts, keys, now).map_err(|error| error.to_string())
}

/// A key without its armor.
fn bytes_of(name: &str) -> Vec<u8> {
    armor::single(&file(name), BlockType::PublicKey, "the key").unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, String>, because: &str) {
    let reason = result.unwrap_err();
    assert!(reason.contains(because), "not because of '{because}': {reason}");
}

#[test]
fn messages_by_gpg_count() {
    for name in ["rsa-compressed.pgp", "rsa-plain.pgp", "rsa-armored.asc"] {
        assert_eq!(message(name, &key("rsa"), now()).unwrap(), file("content.txt"), "{name}");
    }
    let (_, verified) = verify_message(&file("subkey.pgp"), &key("subkey"), now()).unwrap();
    assert_eq!(verified.primary, key("subkey")[0].fingerprint());
    assert_eq!(verified.identity.as_deref(), Some("Subkey <subkey@example.com>"));
    assert_eq!(verified.created, at("2026-02-01T00:00:00Z"));
    let all = ["small", "subkey", "rsa"].map(key).concat();
    message("rsa-plain.pgp", &all, now()).unwrap();
}

#[test]
fn detached_signatures_by_gpg_count() {
    for name in ["rsa-detached.asc", "two.sig"] {
        let verified = detached(name, &key("rsa"), now()).unwrap();
        assert_eq!(verified.primary, key("rsa")[0].fingerprint(), "{name}");
    }
    let facts = hold(&file("subkey.sig"), &file("content.txt"), &key("subkey")).unwrap();
    assert_eq!(facts.primary, key("subkey")[0].fingerprint());
    assert!(key("subkey")[0].subkeys().contains(&facts.signer));
    assert_eq!((facts.created, facts.expires), (at("2026-02-01T00:00:00Z"), None));
    assert!(facts.hash.starts_with("SHA"), "{facts:?}");
    refused(
        hold(&file("subkey.sig"), b"other", &key("subkey")).map_err(|error| error.to_string()),
        "is not of this file",
    );
}

#[test]
fn of_several_detached_signatures_one_suffices() {
    let binary =
        |name: &str| armor::blocks(&file(name), BlockType::Signature, name).unwrap().concat();
    let both = ["small", "rsa"].map(key).concat();
    // The first one is by a key that is too short, and fits.
    let small_first = file("two.sig");
    let [one, two] = &packets(&small_first, "two", 2).unwrap()[..] else { panic!() };
    let [small, rsa] = [one, two].map(|packet| packet.to_bytes().unwrap());
    let good = key("rsa")[0].fingerprint().to_owned();
    for (name, signatures) in [
        ("a short key first", small_first.clone()),
        ("a short key last", [rsa.clone(), small.clone()].concat()),
        ("a weak one first", [binary("rsa-sha1.sig"), rsa.clone()].concat()),
        ("a critical part first", [binary("rsa-notation.sig"), rsa.clone()].concat()),
        ("of a key that nobody knows", [binary("subkey.sig"), rsa.clone()].concat()),
        ("armored twice", [file("rsa-detached.asc"), file("rsa-detached.asc")].concat()),
    ] {
        let facts = hold(&signatures, &file("content.txt"), &both).unwrap();
        assert_eq!(facts.primary, good, "{name}");
        check_facts(&facts, &both, now()).unwrap();
    }
    // If none counts, it is said why.
    let facts = hold(&small, &file("content.txt"), &both).unwrap();
    let error = check_facts(&facts, &both, now()).unwrap_err().to_string();
    assert!(error.contains("1024 bits"), "{error}");
    let other = hold(&small_first, b"other", &both).map_err(|error| error.to_string());
    refused(other, "not of this file");
    // Not everything in the file is one.
    let mixed = [binary("rsa-detached.asc"), bytes_of("rsa.asc")].concat();
    refused(
        hold(&mixed, &file("content.txt"), &both).map_err(|error| error.to_string()),
        "not a detached one",
    );
}

#[test]
fn copies_of_a_key_are_one() {
    let revoked = ["rsa", "rsa-revoked"].map(|name| file(&format!("{name}.asc"))).concat();
    let keys = parse(&revoked).unwrap();
    assert_eq!(keys.len(), 1);
    assert!(keys[0].problem(now()).unwrap().contains("is revoked"));
    // Also where they come from several files.
    for names in [["rsa", "rsa-revoked"], ["rsa-revoked", "rsa"]] {
        let keys = names.map(key).concat();
        refused(message("rsa-plain.pgp", &keys, now()), "is revoked");
        refused(detached("rsa-detached.asc", &keys, now()), "is revoked");
    }
    for names in [["short", "extended"], ["extended", "short"]] {
        message("extended.pgp", &names.map(key).concat(), now()).unwrap();
    }
}

#[test]
fn other_keys_do_not_fit() {
    refused(message("rsa-plain.pgp", &key("subkey"), now()), "unknown entity");
    refused(message("rsa-plain.pgp", &[], now()), "unknown entity");
    refused(detached("rsa-detached.asc", &key("small"), now()), "unknown entity");
    // The facts are of a key that is trusted no more.
    let facts = hold(&file("subkey.sig"), &file("content.txt"), &key("subkey")).unwrap();
    assert!(check_facts(&facts, &key("rsa"), now()).is_err());
    // Of one key's facts nothing can be made that are another's.
    let mut swapped = facts;
    swapped.primary = key("rsa")[0].fingerprint().to_owned();
    let error = check_facts(&swapped, &key("rsa"), now()).unwrap_err();
    assert!(error.to_string().contains("has no subkey"), "{error}");
}

#[test]
fn weak_signatures_and_keys_do_not_count() {
    refused(message("rsa-sha1.pgp", &key("rsa"), now()), "SHA1");
    refused(detached("rsa-sha1.sig", &key("rsa"), now()), "SHA1");
    refused(message("small.pgp", &key("small"), now()), "1024 bits");
    assert!(key("small")[0].problem(now()).unwrap().contains("1024 bits"));
}

#[test]
fn only_signatures_of_bytes_count() {
    refused(message("rsa-text.pgp", &key("rsa"), now()), "not a signature of a file's bytes");
    refused(message("rsa-clear.asc", &key("rsa"), now()), "the message");
    refused(message("two.pgp", &[key("rsa"), key("subkey")].concat(), now()), "one signed text");
    refused(message("rsa-detached.asc", &key("rsa"), now()), "armored text of another kind");
    refused(message("subkey.sig", &key("subkey"), now()), "one signed text");
    refused(detached("rsa-plain.pgp", &key("rsa"), now()), "not a detached one");
    refused(
        detached("rsa-notation.sig", &key("rsa"), now()),
        "critical part that is not known here, of type 20",
    );
}

#[test]
fn times_count() {
    let before = at("2026-01-31T00:00:00Z");
    refused(message("rsa-plain.pgp", &key("rsa"), before), "of the future");
    refused(detached("rsa-detached.asc", &key("rsa"), before), "of the future");
    detached("rsa-expiring.sig", &key("rsa"), now()).unwrap();
    refused(detached("rsa-expiring.sig", &key("rsa"), at("2026-04-01T00:00:00Z")), "has expired");
    // Before the key was made.
    assert!(key("rsa")[0].problem(at("2024-01-01T00:00:00Z")).unwrap().contains("future"));
}

#[test]
fn a_key_that_has_expired_signs_nothing_unless_it_is_extended() {
    message("extended.pgp", &key("short"), at("2025-12-01T00:00:00Z")).unwrap();
    refused(message("extended.pgp", &key("short"), now()), "has expired at 2025-12-31");
    assert!(key("short")[0].problem(now()).unwrap().contains("has expired"));
    message("extended.pgp", &key("extended"), now()).unwrap();
    assert_eq!(key("extended")[0].problem(now()), None);
    assert!(key("extended")[0].problem(at("2030-01-02T00:00:00Z")).is_some());
}

#[test]
fn a_key_that_is_revoked_signs_nothing_that_counts() {
    // Whenever it was.
    refused(message("rsa-plain.pgp", &key("rsa-revoked"), now()), "is revoked");
    refused(detached("rsa-detached.asc", &key("rsa-revoked"), now()), "is revoked");
    refused(message("subkey.pgp", &key("subkey-revoked"), now()), "subkey that is revoked");
    assert!(key("rsa-revoked")[0].problem(now()).unwrap().contains("revoked"));
    assert!(key("subkey-revoked")[0].problem(now()).is_some());
    assert_eq!(key("subkey")[0].problem(now()), None);
}

#[test]
fn a_key_signs_only_what_it_says_it_may() {
    assert!(key("certifier")[0].problem(now()).unwrap().contains("no key that may sign"));
    let key = &key("subkey")[0];
    let check = |signer: &str| key.check(signer, now(), now());
    assert!(check(key.fingerprint()).unwrap_err().contains("may not sign"));
    // One subkey signs, the other one encrypts.
    let results: Vec<_> = key.subkeys().iter().map(|signer| check(signer).is_ok()).collect();
    assert_eq!(results, [true, false]);
}

#[test]
fn a_revocation_by_somebody_else_is_none() {
    let mut mixed = key("rsa").remove(0);
    let revoked = key("rsa-revoked").remove(0).key.details.revocation_signatures;
    let mut other = key("extended").remove(0);
    other.key.details.revocation_signatures.clone_from(&revoked);
    assert_eq!(other.problem(now()), None);
    mixed.key.details.revocation_signatures = revoked;
    assert!(mixed.problem(now()).is_some());
}

#[test]
fn parts_of_other_keys_are_not_taken_over() {
    // Mallory's key with Alice's subkey, whose binding is by Alice.
    let mut mallory = key("extended").remove(0);
    mallory.key.public_subkeys = key("subkey").remove(0).key.public_subkeys;
    let error = verify_message(&file("subkey.pgp"), &[mallory], now()).unwrap_err().to_string();
    assert!(error.contains("not bound to it"), "{error}");
    // And with somebody's user ID.
    let mut mallory = key("extended").remove(0);
    mallory.key.details.users = key("rsa").remove(0).key.details.users;
    assert!(mallory.identities().is_empty());
    assert!(mallory.problem(now()).unwrap().contains("no valid signature of its own"));
}

#[test]
fn keyrings_are_read_whole() {
    let text = [file("rsa.asc"), file("small.asc")].concat();
    assert_eq!(parse(&text).unwrap().len(), 2);
    let binary = |name: &str| {
        let armored = file(name);
        armor::single(&armored, BlockType::PublicKey, "the key").unwrap()
    };
    let both = [binary("rsa.asc"), binary("small.asc")].concat();
    let keys = parse(&both).unwrap();
    assert_eq!(keys.len(), 2);
    assert_eq!(
        parse(keys[0].armored().as_bytes()).unwrap()[0].fingerprint(),
        keys[0].fingerprint()
    );
    for bad in [
        Vec::new(),
        b"no key".to_vec(),
        file("rsa-detached.asc"),
        file("subkey.sig"),
        both[..both.len() - 40].to_vec(),
        String::from_utf8(file("rsa.asc")).unwrap().replace("PUBLIC", "PRIVATE").into_bytes(),
    ] {
        assert!(parse(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Wherever a byte is changed, the message says what it said, or nothing.
    #[test]
    fn a_changed_message_does_not_count(place: prop::sample::Index, bit in 0_u8..8) {
        let mut message = file("subkey.pgp");
        let place = place.index(message.len());
        message[place] ^= 1 << bit;
        if let Ok((content, _)) = verify_message(&message, &key("subkey"), now()) {
            prop_assert_eq!(content, file("content.txt"));
        }
    }

    /// Nor does a changed key gain anything: what it signs counts as before, or not at all.
    #[test]
    fn a_changed_key_is_no_other(place: prop::sample::Index, bit in 0_u8..8) {
        let armored = file("extended.asc");
        let mut binary = armor::single(&armored, BlockType::PublicKey, "the key").unwrap();
        let place = place.index(binary.len());
        binary[place] ^= 1 << bit;
        let original = key("extended").remove(0);
        for changed in parse(&binary).unwrap_or_default() {
            if changed.problem(now()).is_none() {
                prop_assert_eq!(changed.fingerprint(), original.fingerprint());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert!(verify_message(&bytes, &key("subkey"), now()).is_err());
        prop_assert!(hold(&bytes, b"", &key("subkey")).is_err());
        let _ = parse(&bytes);
    }
}
