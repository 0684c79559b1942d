//! MakeCredential without a TPM: a challenge that only one TPM can answer, and only if it holds
//! both an endorsement key and the key to be enrolled (TPM 2.0 Part 1, 24; B.10.4 for RSA, C.6.4
//! for elliptic curves).
//!
//! ```text
//! enroller                                        host
//!   │ ◀── EK (certificate), AK (public areas) ──── │
//!   │ check the certificate and what the AK may    │
//!   │ ─────── Credential (for EK and AK's name) ─▶ │ TPM2_ActivateCredential
//!   │ ◀─────────────── the secret ──────────────── │
//!   │ equal: Enrolment::sign                       │
//! ```

use crate::{
    evidence::text,
    log::Bank,
    wire::{Curve, Key, Name, Public, Reader, Symmetric, WireError, sized},
};
use aes::{Aes128, Aes256};
use cfb_mode::{
    Encryptor,
    cipher::{AsyncStreamCipher as _, KeyIvInit as _},
};
use hmac::{Hmac, Mac as _};
use rsa::{BigUint, Oaep, RsaPublicKey, rand_core::CryptoRngCore};
use serde::{Deserialize, Serialize};

/// A challenge for `TPM2_ActivateCredential`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credential {
    /// `TPM2B_ID_OBJECT`, with its length: the secret, encrypted and authenticated.
    #[serde(with = "text::base64_bytes")]
    pub id_object: Vec<u8>,
    /// `TPM2B_ENCRYPTED_SECRET`, with its length: what the EK decrypts.
    #[serde(with = "text::base64_bytes")]
    pub encrypted_secret: Vec<u8>,
}

/// No challenge can be made for this endorsement key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// It protects nothing that comes from outside: it is not a storage key.
    #[error("the endorsement key has no symmetric algorithm, so it can't take a credential")]
    NotStorage,
    /// Its number is no key.
    #[error("the endorsement key is not a valid {0} key")]
    Key(&'static str),
    /// The TPM would refuse it.
    #[error("a secret has 1 to {most} bytes for this endorsement key, and this one {length}")]
    Secret {
        /// Of the one given.
        length: usize,
        /// As long as a digest of the key's name.
        most: usize,
    },
    /// A challenge that is read is malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Credential {
    /// Makes a challenge whose `secret` only a TPM can tell that holds both `endorsement` and the
    /// key with this `name`. A secret is random and used once; 32 bytes are the usual length.
    pub fn make(
        random: &mut impl CryptoRngCore,
        endorsement: &Public,
        name: &Name,
        secret: &[u8],
    ) -> Result<Self, CredentialError> {
        let bank = endorsement.name_algorithm;
        let symmetric = endorsement.symmetric.ok_or(CredentialError::NotStorage)?;
        if secret.is_empty() || secret.len() > bank.size() {
            return Err(CredentialError::Secret { length: secret.len(), most: bank.size() });
        }
        let (seed, encrypted_secret) = match &endorsement.key {
            Key::Rsa { modulus, exponent } => rsa_seed(random, bank, modulus, *exponent)?,
            Key::Ecc { curve: Curve::P256, x, y } => {
                p256_seed(random, bank, x, y).ok_or(CredentialError::Key("P-256"))?
            }
            Key::Ecc { curve: Curve::P384, x, y } => {
                p384_seed(random, bank, x, y).ok_or(CredentialError::Key("P-384"))?
            }
        };
        let id_object = protect(bank, symmetric, &seed, name, secret);
        Ok(Self { id_object, encrypted_secret: sized(&encrypted_secret) })
    }

    /// The two structures one after the other, as `TPM2_MakeCredential` returns them.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.id_object[..], &self.encrypted_secret].concat()
    }

    /// Takes the two structures apart again.
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialError> {
        let mut from = Reader::new("credential", bytes);
        let id_object = sized(from.sized(256, "credentialBlob")?);
        let encrypted_secret = sized(from.sized(640, "secret")?);
        from.finish()?;
        Ok(Self { id_object, encrypted_secret })
    }
}

/// What the labels of the key derivations are (Part 1, 24.4 and B.10.4), with the zero at their
/// end that is part of them.
const IDENTITY: &str = "IDENTITY\0";

/// A random seed, and the same for an RSA key (B.10.4): OAEP with the key's name algorithm.
fn rsa_seed(
    random: &mut impl CryptoRngCore,
    bank: Bank,
    modulus: &[u8],
    exponent: u32,
) -> Result<(Vec<u8>, Vec<u8>), CredentialError> {
    let key = RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(exponent))
        .map_err(|_| CredentialError::Key("RSA"))?;
    let mut seed = vec![0; bank.size()];
    random.fill_bytes(&mut seed);
    let padding = match bank {
        Bank::Sha1 => Oaep::new_with_label::<sha1::Sha1, _>(IDENTITY),
        Bank::Sha256 => Oaep::new_with_label::<sha2::Sha256, _>(IDENTITY),
        Bank::Sha384 => Oaep::new_with_label::<sha2::Sha384, _>(IDENTITY),
        Bank::Sha512 => Oaep::new_with_label::<sha2::Sha512, _>(IDENTITY),
    };
    let encrypted = key.encrypt(random, padding, &seed).map_err(|_| CredentialError::Key("RSA"))?;
    Ok((seed, encrypted))
}

/// A seed agreed on with a P-256 key, and the point that the TPM agrees on it with (C.6.4).
fn p256_seed(
    random: &mut impl CryptoRngCore,
    bank: Bank,
    x: &[u8],
    y: &[u8],
) -> Option<(Vec<u8>, Vec<u8>)> {
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    let key = p256::PublicKey::from_sec1_bytes(&[&[4][..], x, y].concat()).ok()?;
    let ephemeral = p256::ecdh::EphemeralSecret::random(random);
    let point = ephemeral.public_key().to_encoded_point(false);
    let shared = ephemeral.diffie_hellman(&key);
    agreed(bank, shared.raw_secret_bytes(), point.x()?, point.y()?, x)
}

/// The same with a P-384 key.
fn p384_seed(
    random: &mut impl CryptoRngCore,
    bank: Bank,
    x: &[u8],
    y: &[u8],
) -> Option<(Vec<u8>, Vec<u8>)> {
    use p384::elliptic_curve::sec1::ToEncodedPoint as _;
    let key = p384::PublicKey::from_sec1_bytes(&[&[4][..], x, y].concat()).ok()?;
    let ephemeral = p384::ecdh::EphemeralSecret::random(random);
    let point = ephemeral.public_key().to_encoded_point(false);
    let shared = ephemeral.diffie_hellman(&key);
    agreed(bank, shared.raw_secret_bytes(), point.x()?, point.y()?, x)
}

/// KDFe (Part 1, 11.4.10.3) for as many bits as a digest has, which is one round of it; and the
/// ephemeral point as `TPMS_ECC_POINT`.
fn agreed(
    bank: Bank,
    shared: &[u8],
    own_x: &[u8],
    own_y: &[u8],
    key_x: &[u8],
) -> Option<(Vec<u8>, Vec<u8>)> {
    let counter = 1_u32.to_be_bytes();
    let parts = [&counter[..], shared, IDENTITY.as_bytes(), own_x, key_x];
    Some((bank.digest(&parts.concat()), [sized(own_x), sized(own_y)].concat()))
}

/// Encrypts and authenticates the secret with keys derived from the seed (Part 1, 24.4 and 24.5).
fn protect(bank: Bank, symmetric: Symmetric, seed: &[u8], name: &Name, secret: &[u8]) -> Vec<u8> {
    let mut identity = sized(secret);
    let key = derive(bank, seed, "STORAGE", name.as_bytes(), symmetric.bits());
    // Each seed is used once, so the initialisation vector is zero.
    let zeros = [0; 16];
    match symmetric {
        Symmetric::Aes128 => {
            Encryptor::<Aes128>::new(key[..16].into(), &zeros.into()).encrypt(&mut identity);
        }
        Symmetric::Aes256 => {
            Encryptor::<Aes256>::new(key[..32].into(), &zeros.into()).encrypt(&mut identity);
        }
    }
    let bits = u16::try_from(bank.size() * 8).unwrap_or(u16::MAX);
    let key = derive(bank, seed, "INTEGRITY", &[], bits);
    let integrity = authenticate(bank, &key, &[&identity, name.as_bytes()]);
    sized(&[sized(&integrity), identity].concat())
}

/// KDFa (Part 1, 11.4.10.2), at least `bits` of it.
fn derive(bank: Bank, key: &[u8], label: &str, context: &[u8], bits: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let mut counter = 0_u32;
    while out.len() * 8 < usize::from(bits) {
        counter += 1;
        let parts: [&[u8]; 5] = [
            &counter.to_be_bytes(),
            label.as_bytes(),
            &[0],
            context,
            &u32::from(bits).to_be_bytes(),
        ];
        out.extend(authenticate(bank, key, &parts));
    }
    out
}

/// HMAC.
fn authenticate(bank: Bank, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    macro_rules! hmac {
        ($hash:ty) => {
            // Keys of any length are taken, so there is always a MAC.
            Hmac::<$hash>::new_from_slice(key)
                .map(|mut mac| {
                    parts.iter().for_each(|part| mac.update(part));
                    mac.finalize().into_bytes().to_vec()
                })
                .unwrap_or_default()
        };
    }
    match bank {
        Bank::Sha1 => hmac!(sha1::Sha1),
        Bank::Sha256 => hmac!(sha2::Sha256),
        Bank::Sha384 => hmac!(sha2::Sha384),
        Bank::Sha512 => hmac!(sha2::Sha512),
    }
}

#[cfg(test)]
mod tests;
