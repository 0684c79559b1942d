use super::*;
use crate::{evidence::text::hex, log::Bank};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const RSA_AK: &[u8] = include_bytes!("fixtures/rsa-ak.public");
const ECC_AK: &[u8] = include_bytes!("fixtures/ecc-ak.public");
const RSA_EK: &[u8] = include_bytes!("fixtures/rsa-ek.public");
const ECC_EK: &[u8] = include_bytes!("fixtures/ecc-ek.public");
const RSA_ATTEST: &[u8] = include_bytes!("fixtures/rsa.attest");
const ECC_ATTEST: &[u8] = include_bytes!("fixtures/ecc.attest");
const RSA_SIGNATURE: &[u8] = include_bytes!("fixtures/rsa.signature");
const ECC_SIGNATURE: &[u8] = include_bytes!("fixtures/ecc.signature");

/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, restricted, sign.
const AK_ATTRIBUTES: u32 = 0x0005_0072;

#[test]
fn names_are_those_that_the_tpm_gave() {
    for (public, name) in [
        (RSA_AK, "000b9b824931c1ee732f83cc21f273c932cc2d222dd3400b67ee354df2a3979c8a21"),
        (ECC_AK, "000bda3f654d0c8525d76002644a2109242b432431a3869a26b60bdfea4f5cbb9a73"),
    ] {
        assert_eq!(Public::parse(public).unwrap().name().to_string(), name);
        assert_eq!(
            Name::parse(Public::parse(public).unwrap().name().as_bytes()).unwrap().to_string(),
            name
        );
    }
}

#[test]
fn attestation_keys_are_read() {
    let rsa = Public::parse(RSA_AK).unwrap();
    assert_eq!(rsa.attributes, Attributes(AK_ATTRIBUTES));
    assert_eq!(rsa.scheme, Some(SigningScheme::RsaSsa(Bank::Sha256)));
    assert_eq!(rsa.symmetric, None);
    assert!(matches!(&rsa.key, Key::Rsa { modulus, exponent: 65_537 } if modulus.len() == 256));
    let ecc = Public::parse(ECC_AK).unwrap();
    assert_eq!(ecc.scheme, Some(SigningScheme::Ecdsa(Bank::Sha256)));
    assert!(matches!(&ecc.key, Key::Ecc { curve: Curve::P256, x, .. } if x.len() == 32));
}

#[test]
fn endorsement_keys_are_read() {
    for public in [RSA_EK, ECC_EK] {
        let key = Public::parse(public).unwrap();
        assert!(key.attributes.has(Attributes::RESTRICTED | Attributes::DECRYPT));
        assert_eq!(key.symmetric, Some(Symmetric::Aes128));
        assert_eq!(key.scheme, None);
        assert_eq!(key.policy.len(), 32);
    }
}

#[test]
fn quotes_are_read() {
    for attest in [RSA_ATTEST, ECC_ATTEST] {
        let attest = Attest::parse(attest).unwrap();
        assert_eq!(hex(&attest.extra_data), "00112233445566778899aabbccddeeff");
        assert!(attest.clock_info.safe);
        assert_eq!((attest.clock_info.reset_count, attest.clock_info.restart_count), (1, 0));
        let registers = BTreeSet::from([0, 1, 7, 15]);
        let banks = BTreeMap::from([(Bank::Sha256, registers)]);
        assert_eq!(attest.selection.banks(), banks);
        assert_eq!(attest.selection, PcrSelection::new(&banks));
        let register = Bank::Sha256.extended(&[0; 32], &[1; 32]);
        let digest = Bank::Sha256.digest(&[&[0; 96][..], &register].concat());
        assert_eq!(attest.pcr_digest, digest);
    }
}

#[test]
fn signatures_are_the_keys_over_the_quotes() {
    for (key, attest, signature) in
        [(RSA_AK, RSA_ATTEST, RSA_SIGNATURE), (ECC_AK, ECC_ATTEST, ECC_SIGNATURE)]
    {
        let key = Public::parse(key).unwrap();
        let signature = Signature::parse(signature).unwrap();
        signature.verify(&key, attest).unwrap();
        let mut changed = attest.to_vec();
        changed[60] ^= 1;
        signature.verify(&key, &changed).unwrap_err();
    }
    let other = Public::parse(ECC_AK).unwrap();
    Signature::parse(RSA_SIGNATURE).unwrap().verify(&other, RSA_ATTEST).unwrap_err();
}

#[test]
fn numbers_of_a_signature_may_be_short() {
    use p256::ecdsa::{Signature as Ecdsa, SigningKey, signature::Signer};
    let key = SigningKey::from_bytes(&[7; 32].into()).unwrap();
    let point = key.verifying_key().to_encoded_point(false);
    let mut public = ECC_AK[..ECC_AK.len() - 68].to_vec();
    public.extend(sized(point.x().unwrap()));
    public.extend(sized(point.y().unwrap()));
    let public = Public::parse(&public).unwrap();
    // One of 256 signatures has an r that begins with a zero.
    let (message, short) = (0_u32..)
        .map(|count| count.to_be_bytes())
        .map(|message| (message, Signer::<Ecdsa>::sign(&key, &message)))
        .find(|(_, signature)| signature.r().to_bytes()[0] == 0)
        .unwrap();
    let (r, s) = (short.r().to_bytes(), short.s().to_bytes());
    let mut bytes = vec![0, 0x18, 0, 0x0b];
    bytes.extend(sized(&r[1..]));
    bytes.extend(sized(&s));
    Signature::parse(&bytes).unwrap().verify(&public, &message).unwrap();
}

/// A change of bytes at a place, and what is said of the result.
type Change = (usize, &'static [u8], &'static str);

#[test]
fn public_areas_that_are_not_right_are_refused() {
    let changes: [Change; 12] = [
        (0, &[0, 0x08], "neither RSA nor ECC"),
        (2, &[0, 0x12], "nameAlg is 0x0012"),
        (4, &[0, 0x05, 0, 0x73], "reserved bits"),
        (4, &[0x80, 0x05, 0, 0x72], "reserved bits"),
        (8, &[0, 1, 0], "not as long as a digest"),
        (8, &[0xff, 0xff], "more than 64"),
        (10, &[0, 0x13], "neither AES nor none"),
        (12, &[0, 0x99], "scheme is 0x0099"),
        (14, &[0, 0], "scheme.hash"),
        (16, &[0, 0x10], "neither P-256 nor P-384"),
        (18, &[0, 0x08], "kdf.hash"),
        (20, &[0, 0x21], "more than 32"),
    ];
    for (place, bytes, problem) in changes {
        let mut public = ECC_AK.to_vec();
        public[place..place + bytes.len()].copy_from_slice(bytes);
        let error = Public::parse(&public).unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
    let changes: [Change; 4] = [
        (16, &[0x03, 0xff], "keyBits is 1023"),
        (18, &[0, 0, 0, 3], "exponent is 3"),
        (18, &[0, 1, 0, 2], "exponent is 65538"),
        (24, &[0x00], "no modulus of 2048 bits"),
    ];
    for (place, bytes, problem) in changes {
        let mut public = RSA_AK.to_vec();
        public[place..place + bytes.len()].copy_from_slice(bytes);
        let error = Public::parse(&public).unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
}

#[test]
fn quotes_that_are_not_right_are_refused() {
    let changes: [Change; 9] = [
        (0, &[0xfe], "no TPM made it"),
        (4, &[0x80, 0x17], "not a quote"),
        (6, &[0, 67], "more than 66"),
        (42, &[0, 67], "more than 66"),
        (76, &[2], "clockInfo.safe is 2"),
        (85, &[0, 0, 0, 5], "5 banks"),
        (89, &[0, 0x12], "pcrSelect.hash"),
        (91, &[5], "sizeofSelect is 5"),
        (95, &[0, 65], "more than 64"),
    ];
    for (place, bytes, problem) in changes {
        let mut attest = ECC_ATTEST.to_vec();
        attest[place..place + bytes.len()].copy_from_slice(bytes);
        let error = Attest::parse(&attest).unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    }
}

#[test]
fn a_bank_is_selected_once_and_with_registers_that_exist() {
    let twice = [0, 0, 0, 2, 0, 0x0b, 1, 1, 0, 0x0b, 1, 2];
    let error = PcrSelection::parse(&twice).unwrap_err().to_string();
    assert!(error.contains("sha256 twice"), "{error}");
    let high = [0, 0, 0, 1, 0, 0x0b, 4, 0, 0, 0, 1];
    let error = PcrSelection::parse(&high).unwrap_err().to_string();
    assert!(error.contains("PCR 24"), "{error}");
}

#[test]
fn nothing_may_follow_or_be_missing() {
    type Parse = fn(&[u8]) -> bool;
    let cases: [(&[u8], Parse); 8] = [
        (RSA_AK, |bytes| Public::parse(bytes).is_ok()),
        (ECC_AK, |bytes| Public::parse(bytes).is_ok()),
        (RSA_EK, |bytes| Public::parse(bytes).is_ok()),
        (ECC_EK, |bytes| Public::parse(bytes).is_ok()),
        (RSA_ATTEST, |bytes| Attest::parse(bytes).is_ok()),
        (ECC_ATTEST, |bytes| Attest::parse(bytes).is_ok()),
        (RSA_SIGNATURE, |bytes| Signature::parse(bytes).is_ok()),
        (ECC_SIGNATURE, |bytes| Signature::parse(bytes).is_ok()),
    ];
    for (bytes, parse) in cases {
        assert!(parse(bytes));
        assert!(!parse(&[bytes, &[0]].concat()));
        for length in 0..bytes.len() {
            assert!(!parse(&bytes[..length]), "{length} of {}", bytes.len());
        }
    }
    assert!(Public::parse_sized(&sized(ECC_AK)).is_ok());
    assert!(Public::parse_sized(&[&sized(ECC_AK)[..], &[0]].concat()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Public::parse(&bytes);
        let _ = Public::parse_sized(&bytes);
        let _ = Name::parse(&bytes);
        let _ = Attest::parse(&bytes);
        let _ = PcrSelection::parse(&bytes);
        let _ = Signature::parse(&bytes);
    }

    #[test]
    fn a_changed_quote_is_refused_or_read_as_another(place in 0..129_usize, change in 1..=255_u8) {
        let mut bytes = ECC_ATTEST.to_vec();
        bytes[place] ^= change;
        if let Ok(attest) = Attest::parse(&bytes) {
            prop_assert_ne!(attest, Attest::parse(ECC_ATTEST).unwrap());
        }
    }

    #[test]
    fn a_changed_key_has_another_name(place in 0..88_usize, change in 1..=255_u8) {
        let mut bytes = ECC_AK.to_vec();
        bytes[place] ^= change;
        if let Ok(key) = Public::parse(&bytes) {
            prop_assert_ne!(key.name(), Public::parse(ECC_AK).unwrap().name());
        }
    }

    #[test]
    fn a_selection_is_read_as_it_was_written(
        sha1 in prop::collection::btree_set(0..24_u32, 0..24),
        sha256 in prop::collection::btree_set(0..24_u32, 0..24),
    ) {
        let banks = BTreeMap::from([(Bank::Sha1, sha1), (Bank::Sha256, sha256)]);
        let selection = PcrSelection::new(&banks);
        let read = PcrSelection::parse(&selection.to_bytes()).unwrap();
        prop_assert_eq!(&read, &selection);
        prop_assert_eq!(read.registers().count(), banks.values().map(BTreeSet::len).sum::<usize>());
    }
}
