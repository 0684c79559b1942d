use super::algorithm::{ALG_ECDSA, ALG_RSASSA, read_hash};
use super::{Curve, Key, Public, Reader, WireError, public::padded};
use crate::log::Bank;
use rsa::{BigUint, Pkcs1v15Sign, RsaPublicKey};

/// `TPMT_SIGNATURE` (Part 2, 11.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// RSASSA, PKCS #1 1.5.
    RsaSsa {
        /// Of what is signed.
        hash: Bank,
        /// The signature.
        signature: Vec<u8>,
    },
    /// ECDSA.
    Ecdsa {
        /// Of what is signed.
        hash: Bank,
        /// As the TPM wrote it: zeros at its front may be missing.
        r: Vec<u8>,
        /// As `r`.
        s: Vec<u8>,
    },
}

impl Signature {
    /// Parses the structure.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new("TPMT_SIGNATURE", bytes);
        let signature = match from.u16("sigAlg")? {
            ALG_RSASSA => {
                let hash = read_hash(&mut from, "hash")?;
                Self::RsaSsa { hash, signature: from.sized(512, "sig")?.to_vec() }
            }
            ALG_ECDSA => {
                let hash = read_hash(&mut from, "hash")?;
                let r = from.sized(48, "signatureR")?.to_vec();
                Self::Ecdsa { hash, r, s: from.sized(48, "signatureS")?.to_vec() }
            }
            other => {
                return Err(from.error(format!("sigAlg is {other:#06x}, neither RSASSA nor ECDSA")));
            }
        };
        from.finish()?;
        Ok(signature)
    }

    /// The hash function of what is signed.
    pub fn hash(&self) -> Bank {
        match self {
            Self::RsaSsa { hash, .. } | Self::Ecdsa { hash, .. } => *hash,
        }
    }

    /// Whether it is `key`'s signature over `message`. It says nothing of what the key may sign.
    pub fn verify(&self, key: &Public, message: &[u8]) -> Result<(), WireError> {
        let digest = self.hash().digest(message);
        let error = |problem: &str| WireError::new("TPMT_SIGNATURE", problem);
        match (self, &key.key) {
            (Self::RsaSsa { hash, signature }, Key::Rsa { modulus, exponent }) => {
                let scheme = match hash {
                    Bank::Sha1 => Pkcs1v15Sign::new::<sha1::Sha1>(),
                    Bank::Sha256 => Pkcs1v15Sign::new::<sha2::Sha256>(),
                    Bank::Sha384 => Pkcs1v15Sign::new::<sha2::Sha384>(),
                    Bank::Sha512 => Pkcs1v15Sign::new::<sha2::Sha512>(),
                };
                let modulus = BigUint::from_bytes_be(modulus);
                RsaPublicKey::new(modulus, BigUint::from(*exponent))
                    .map_err(|_| error("the key is no RSA key"))?
                    .verify(scheme, &digest, signature)
                    .map_err(|_| error("it is not the key's signature over this"))
            }
            (Self::Ecdsa { r, s, .. }, Key::Ecc { curve, x, y }) => {
                let length = curve.length();
                if r.len() > length || s.len() > length {
                    return Err(error("it is longer than the key's curve allows"));
                }
                let scalars = [padded(r, length), padded(s, length)].concat();
                let point = [&[4][..], x, y].concat();
                verify_ecdsa(*curve, &point, &digest, &scalars)
                    .then_some(())
                    .ok_or_else(|| error("it is not the key's signature over this"))
            }
            _ => Err(error("it is not of the key's kind")),
        }
    }
}

/// Whether `scalars`, r and s padded, sign `digest` with the uncompressed `point`.
fn verify_ecdsa(curve: Curve, point: &[u8], digest: &[u8], scalars: &[u8]) -> bool {
    use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
    match curve {
        Curve::P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point)
            .and_then(|key| {
                key.verify_prehash(digest, &p256::ecdsa::Signature::from_slice(scalars)?)
            })
            .is_ok(),
        Curve::P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(point)
            .and_then(|key| {
                key.verify_prehash(digest, &p384::ecdsa::Signature::from_slice(scalars)?)
            })
            .is_ok(),
    }
}
