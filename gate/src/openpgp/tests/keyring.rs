//! What may be in a file of keys besides keys.

use super::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pgp::{
    packet::{PacketHeader, PacketTrait as _, SignatureType, Trust},
    ser::Serialize as _,
    types::{PacketHeaderVersion, PacketLength, Tag},
};

fn armored(packets: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(packets);
    let (begin, end) =
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----");
    format!("{begin}\nComment: This is a revocation certificate\n\n{text}\n{end}\n").into_bytes()
}

fn bytes(packet: &Packet) -> Vec<u8> {
    packet.to_bytes().unwrap()
}

fn split(name: &str) -> Vec<Packet> {
    packets(&bytes_of(name), name, usize::MAX).unwrap()
}

/// The signatures of that type of a key, as gpg has made them.
fn signatures(name: &str, kind: SignatureType) -> Vec<u8> {
    let all = split(name).into_iter();
    let is_meant = |packet: &Packet| matches!(packet, Packet::Signature(signature) if signature.typ() == Some(kind));
    let found: Vec<u8> = all.filter(is_meant).flat_map(|packet| bytes(&packet)).collect();
    assert!(!found.is_empty(), "{name} has no {kind:?}");
    found
}

/// As `gpg --gen-revoke` writes it.
fn revocation() -> Vec<u8> {
    signatures("rsa-revoked.asc", SignatureType::KeyRevocation)
}

#[track_caller]
fn refused_file(bytes: &[u8], because: &str) {
    refused(parse(bytes).map_err(|error| error.to_string()), because);
}

#[test]
fn a_revocation_counts_wherever_it_is_in_the_file() {
    let block = armored(&revocation());
    // Not all that is before a key is UTF-8.
    let latin = [b"F\xfcr die Akten:\n".to_vec(), block.clone()].concat();
    for (name, text) in [
        ("a block after the key", [file("rsa.asc"), block.clone()].concat()),
        ("a block with a note", [file("rsa.asc"), latin].concat()),
        ("a block before the key", [block.clone(), file("rsa.asc")].concat()),
        ("after another key", [file("rsa.asc"), file("subkey.asc"), block].concat()),
        ("behind a user ID", [bytes_of("rsa.asc"), revocation()].concat()),
        ("behind a subkey", [bytes_of("rsa.asc"), bytes_of("subkey.asc"), revocation()].concat()),
        ("before the key", [revocation(), bytes_of("rsa.asc")].concat()),
        ("twice", [bytes_of("rsa-revoked.asc"), revocation()].concat()),
    ] {
        let keys = parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let rsa = key("rsa")[0].fingerprint().to_owned();
        let is_revoked = |key: &Certificate| {
            key.problem(now()).is_some_and(|problem| problem.contains("is revoked"))
        };
        for key in &keys {
            assert_eq!(is_revoked(key), key.fingerprint() == rsa, "{name}");
        }
        let revoked = keys.into_iter().find(|key| key.fingerprint() == rsa).unwrap();
        // It is kept with the key from then on.
        let kept = parse(revoked.armored().as_bytes()).unwrap();
        assert!(is_revoked(&kept[0]), "{name}");
        assert_eq!(kept[0].key.details.revocation_signatures.len(), 1, "{name}");
    }
}

#[test]
fn a_revocation_that_follows_another_key_is_not_taken_for_its() {
    // Right behind the other key's primary key, where it is looked for.
    let [Packet::PublicKey(other), rest @ ..] = &split("small.asc")[..] else { panic!() };
    let mut text = [bytes_of("rsa.asc"), bytes(&Packet::PublicKey(other.clone()))].concat();
    text.extend(revocation());
    text.extend(rest.iter().flat_map(bytes));
    let keys = parse(&text).unwrap();
    assert!(keys[0].problem(now()).unwrap().contains("is revoked"));
    assert!(keys[1].problem(now()).unwrap().contains("1024 bits"));
}

#[test]
fn a_subkey_is_revoked_wherever_that_is() {
    let revocation = signatures("subkey-revoked.asc", SignatureType::SubkeyRevocation);
    for text in [
        // Behind the other subkey.
        [bytes_of("subkey.asc"), revocation.clone()].concat(),
        [file("subkey.asc"), armored(&revocation)].concat(),
    ] {
        let keys = parse(&text).unwrap();
        refused(message("subkey.pgp", &keys, now()), "subkey that is revoked");
    }
}

#[test]
fn what_has_no_place_in_a_key_refuses_the_file() {
    let block = armored(&revocation());
    refused_file(&[file("subkey.asc"), block.clone()].concat(), "by none of its keys");
    refused_file(&[bytes_of("subkey.asc"), revocation()].concat(), "by none of its keys");
    refused_file(&block, "no public key in it");
    let mut damaged = revocation();
    *damaged.last_mut().unwrap() ^= 1;
    refused_file(&[file("rsa.asc"), armored(&damaged)].concat(), "by none of its keys");
    let binding = signatures("subkey.asc", SignatureType::SubkeyBinding);
    refused_file(&[file("subkey.asc"), armored(&binding)].concat(), "no public key before");
    refused_file(&[file("rsa.asc"), file("rsa-detached.asc")].concat(), "of another kind");
    refused_file(&[file("rsa.asc"), armored(&[])].concat(), "");
    let user = split("rsa.asc").into_iter().find(|packet| packet.tag() == Tag::UserId).unwrap();
    refused_file(&[bytes_of("subkey.asc"), bytes(&user)].concat(), "where none belongs");
    refused_file(&[bytes_of("rsa.asc"), vec![0x99]].concat(), "is cut off");
    for length in 1..revocation().len() {
        let cut = [bytes_of("rsa.asc"), revocation()[..length].to_vec()].concat();
        assert!(parse(&cut).is_err(), "{length}");
    }
    let mut secret = bytes_of("rsa.asc");
    secret[0] = 0x95;
    assert!(parse(&secret).is_err());
}

#[test]
fn notes_of_a_keyring_hide_nothing() {
    let version = PacketHeaderVersion::Old;
    let header = PacketHeader::from_parts(version, Tag::Trust, PacketLength::Fixed(2)).unwrap();
    let trust = Packet::from(Trust::try_from_reader(header, &[0, 0][..]).unwrap());
    let noted =
        |name| split(name).iter().flat_map(|p| [bytes(p), bytes(&trust)].concat()).collect();
    let (good, revoked): (Vec<u8>, Vec<u8>) = (noted("rsa.asc"), noted("rsa-revoked.asc"));
    assert_eq!(parse(&good).unwrap()[0].problem(now()), None);
    assert!(parse(&revoked).unwrap()[0].problem(now()).unwrap().contains("is revoked"));
}

#[test]
fn text_around_armor_is_not_taken_for_a_part_of_it() {
    let note = b"Fingerprints: see the list\n".to_vec();
    let text = [file("rsa.asc"), note.clone(), file("small.asc"), note].concat();
    let keys: Vec<_> = ["rsa", "small"].iter().map(|name| key(name).remove(0)).collect();
    let found = parse(&text).unwrap();
    let fingerprints = |keys: &[Certificate]| -> Vec<String> {
        keys.iter().map(|key| key.fingerprint().to_owned()).collect()
    };
    assert_eq!(fingerprints(&found), fingerprints(&keys));
    let end = text.windows(9).rposition(|window| window == b"-----END ").unwrap();
    refused_file(&text[..end], "its armor has no end");
}
