use super::*;
use crate::wire::Attributes;
use cfb_mode::Decryptor;
use proptest::prelude::*;
use rsa::{RsaPrivateKey, traits::PublicKeyParts as _};

/// `TPMT_PUBLIC` of an endorsement key: attributes, AES in CFB mode, no scheme.
fn endorsement(kind: u16, bank: Bank, bits: u16, rest: &[u8]) -> Public {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend(bank.algorithm().to_be_bytes());
    out.extend(0x0003_00b2_u32.to_be_bytes());
    out.extend(sized(&vec![7; bank.size()]));
    out.extend([0, 6]);
    out.extend(bits.to_be_bytes());
    out.extend([0, 0x43, 0, 0x10]);
    out.extend(rest);
    Public::parse(&out).unwrap()
}

fn p256_endorsement(key: &p256::SecretKey) -> Public {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    let point = key.public_key().to_encoded_point(false);
    let (x, y) = (sized(point.x().unwrap()), sized(point.y().unwrap()));
    endorsement(0x23, Bank::Sha256, 128, &[&[0, 3, 0, 0x10][..], &x, &y].concat())
}

fn p384_endorsement(key: &p384::SecretKey) -> Public {
    use p384::elliptic_curve::sec1::ToEncodedPoint as _;
    let point = key.public_key().to_encoded_point(false);
    let (x, y) = (sized(point.x().unwrap()), sized(point.y().unwrap()));
    endorsement(0x23, Bank::Sha384, 256, &[&[0, 4, 0, 0x10][..], &x, &y].concat())
}

fn name(byte: u8) -> Name {
    Name::parse(&[&[0, 0x0b][..], &[byte; 32]].concat()).unwrap()
}

/// What a TPM does with a credential, given the seed that its key has got out of it (Part 3,
/// `TPM2_ActivateCredential`).
fn activate(
    credential: &Credential,
    endorsement: &Public,
    seed: &[u8],
    name: &Name,
) -> Option<Vec<u8>> {
    let bank = endorsement.name_algorithm;
    let mut outer = Reader::new("TPM2B_ID_OBJECT", &credential.id_object);
    let inner = outer.sized(256, "credential").unwrap();
    outer.finish().unwrap();
    let mut inner = Reader::new("TPMS_ID_OBJECT", inner);
    let integrity = inner.sized(64, "integrityHMAC").unwrap().to_vec();
    let mut identity = inner.take(2 + 32, "encIdentity").unwrap().to_vec();
    inner.finish().unwrap();
    let bits = u16::try_from(bank.size() * 8).unwrap();
    let key = derive(bank, seed, "INTEGRITY", &[], bits);
    if authenticate(bank, &key, &[&identity, name.as_bytes()]) != integrity {
        return None;
    }
    let symmetric = endorsement.symmetric.unwrap();
    let key = derive(bank, seed, "STORAGE", name.as_bytes(), symmetric.bits());
    match symmetric {
        Symmetric::Aes128 => {
            Decryptor::<Aes128>::new(key[..16].into(), &[0; 16].into()).decrypt(&mut identity);
        }
        Symmetric::Aes256 => {
            Decryptor::<Aes256>::new(key[..32].into(), &[0; 16].into()).decrypt(&mut identity);
        }
    }
    let mut identity = Reader::new("TPM2B_DIGEST", &identity);
    let secret = identity.sized(32, "secret").unwrap().to_vec();
    identity.finish().unwrap();
    Some(secret)
}

/// The point in a credential for an elliptic curve, uncompressed.
fn point(credential: &Credential) -> (Vec<u8>, Vec<u8>) {
    let mut outer = Reader::new("TPM2B_ENCRYPTED_SECRET", &credential.encrypted_secret);
    let mut point = Reader::new("TPMS_ECC_POINT", outer.sized(200, "secret").unwrap());
    let x = point.sized(66, "x").unwrap().to_vec();
    let y = point.sized(66, "y").unwrap().to_vec();
    point.finish().unwrap();
    ([&[4][..], &x, &y].concat(), x)
}

#[test]
fn the_right_p256_key_with_the_right_name_gets_the_secret() {
    let mut random = rand::thread_rng();
    let key = p256::SecretKey::random(&mut random);
    let public = p256_endorsement(&key);
    let credential = Credential::make(&mut random, &public, &name(1), &[0x42; 32]).unwrap();
    let (sent, x) = point(&credential);
    let sent = p256::PublicKey::from_sec1_bytes(&sent).unwrap();
    let shared = p256::ecdh::diffie_hellman(key.to_nonzero_scalar(), sent.as_affine());
    let Key::Ecc { x: own, .. } = &public.key else { panic!("not on a curve") };
    let counter = 1_u32.to_be_bytes();
    let parts = [&counter[..], shared.raw_secret_bytes(), b"IDENTITY\0", &x, own];
    let seed = Bank::Sha256.digest(&parts.concat());
    assert_eq!(activate(&credential, &public, &seed, &name(1)), Some(vec![0x42; 32]));
    assert_eq!(activate(&credential, &public, &seed, &name(2)), None);
    assert_eq!(activate(&credential, &public, &[0; 32], &name(1)), None);
}

#[test]
fn the_right_p384_key_gets_the_secret() {
    let mut random = rand::thread_rng();
    let key = p384::SecretKey::random(&mut random);
    let public = p384_endorsement(&key);
    let credential = Credential::make(&mut random, &public, &name(1), &[0x42; 32]).unwrap();
    let (sent, x) = point(&credential);
    let sent = p384::PublicKey::from_sec1_bytes(&sent).unwrap();
    let shared = p384::ecdh::diffie_hellman(key.to_nonzero_scalar(), sent.as_affine());
    let Key::Ecc { x: own, .. } = &public.key else { panic!("not on a curve") };
    let counter = 1_u32.to_be_bytes();
    let parts = [&counter[..], shared.raw_secret_bytes(), b"IDENTITY\0", &x, own];
    let seed = Bank::Sha384.digest(&parts.concat());
    assert_eq!(activate(&credential, &public, &seed, &name(1)), Some(vec![0x42; 32]));
}

/// Of 1024 bits, since making a longer one takes long.
#[test]
fn the_right_rsa_key_gets_the_secret() {
    let mut random = rand::thread_rng();
    let key = RsaPrivateKey::new(&mut random, 1024).unwrap();
    let mut rest = 1024_u16.to_be_bytes().to_vec();
    rest.extend([0; 4]);
    rest.extend(sized(&key.n().to_bytes_be()));
    let public = endorsement(0x01, Bank::Sha256, 128, &rest);
    let credential = Credential::make(&mut random, &public, &name(1), &[0x42; 32]).unwrap();
    let padding = Oaep::new_with_label::<sha2::Sha256, _>("IDENTITY\0");
    let seed = key.decrypt(padding, &credential.encrypted_secret[2..]).unwrap();
    assert_eq!(activate(&credential, &public, &seed, &name(1)), Some(vec![0x42; 32]));
    assert_eq!(activate(&credential, &public, &seed, &name(2)), None);
}

#[test]
fn keys_that_take_no_credential_are_refused() {
    let mut random = rand::thread_rng();
    let signing = Public::parse(include_bytes!("../wire/fixtures/ecc-ak.public")).unwrap();
    assert!(!signing.attributes.has(Attributes::DECRYPT));
    let made = Credential::make(&mut random, &signing, &name(1), &[1; 32]);
    assert_eq!(made, Err(CredentialError::NotStorage));
    let key = p256_endorsement(&p256::SecretKey::random(&mut random));
    for length in [0, 33] {
        let made = Credential::make(&mut random, &key, &name(1), &vec![1; length]);
        assert_eq!(made, Err(CredentialError::Secret { length, most: 32 }));
    }
    let mut off = key.as_bytes().to_vec();
    *off.last_mut().unwrap() ^= 1;
    let off = Public::parse(&off).unwrap();
    let made = Credential::make(&mut random, &off, &name(1), &[1; 32]);
    assert_eq!(made, Err(CredentialError::Key("P-256")));
}

#[test]
fn credentials_are_taken_apart_as_they_were_put_together() {
    let mut random = rand::thread_rng();
    let key = p256_endorsement(&p256::SecretKey::random(&mut random));
    let credential = Credential::make(&mut random, &key, &name(1), &[1; 32]).unwrap();
    assert_eq!(Credential::parse(&credential.to_bytes()), Ok(credential.clone()));
    let json = serde_json::to_string(&credential).unwrap();
    assert_eq!(serde_json::from_str::<Credential>(&json).unwrap(), credential);
}

proptest! {
    #[test]
    fn any_bytes_are_taken_apart_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(credential) = Credential::parse(&bytes) {
            prop_assert_eq!(credential.to_bytes(), bytes);
        }
    }
}
