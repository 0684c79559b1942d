//! Public keys.

use super::SigstoreError;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use p256::ecdsa::signature::{Verifier as _, hazmat::PrehashVerifier as _};
use sandbox_image::{Algorithm, Digest};
use sha2::{Digest as _, Sha256};

/// A key that signs for sigstore.
#[derive(Debug, Clone)]
pub struct PublicKey {
    kind: Kind,
    fingerprint: String,
}

#[derive(Debug, Clone)]
enum Kind {
    P256(Box<p256::ecdsa::VerifyingKey>),
    P384(Box<p384::ecdsa::VerifyingKey>),
    Ed25519(Box<ed25519_dalek::VerifyingKey>),
}

impl PublicKey {
    /// Reads the PEM form of a `SubjectPublicKeyInfo` (RFC 7468, 13): one key, and nothing else.
    ///
    /// # Errors
    /// [`SigstoreError::NotPem`] and [`SigstoreError::Kind`]
    pub fn parse(pem: &[u8]) -> Result<Self, SigstoreError> {
        let text = std::str::from_utf8(pem).map_err(|_| SigstoreError::NotPem)?;
        let inner = text
            .trim()
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
            .ok_or(SigstoreError::NotPem)?;
        let base64: String = inner.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(base64).map_err(|_| SigstoreError::NotPem)?;
        let kind = if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_der(&der) {
            Kind::P256(Box::new(key))
        } else if let Ok(key) = p384::ecdsa::VerifyingKey::from_public_key_der(&der) {
            Kind::P384(Box::new(key))
        } else if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_der(&der) {
            // With some keys of a small order one signature fits many messages.
            if key.is_weak() {
                return Err(SigstoreError::Kind);
            }
            Kind::Ed25519(Box::new(key))
        } else {
            return Err(SigstoreError::Kind);
        };
        Ok(Self { kind, fingerprint: Digest::of(Algorithm::Sha256, &der).to_string() })
    }

    /// The digest of the key's DER form: `sha256:HEX`.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Whether this key has signed that content.
    pub(super) fn verify(&self, content: &[u8], signature: &[u8]) -> bool {
        match &self.kind {
            Kind::P256(key) => p256::ecdsa::DerSignature::from_bytes(signature)
                .is_ok_and(|signature| key.verify(content, &signature).is_ok()),
            // Cosign 2 takes SHA-256 with every curve, cosign 3 the hash that goes with it.
            Kind::P384(key) => p384::ecdsa::Signature::from_der(signature).is_ok_and(|signature| {
                key.verify(content, &signature).is_ok()
                    || key.verify_prehash(&Sha256::digest(content), &signature).is_ok()
            }),
            Kind::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(content, &signature).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, pkcs8::EncodePublicKey as _};
    use p256::ecdsa::signature::hazmat::PrehashSigner as _;
    use rand::{SeedableRng as _, rngs::StdRng};

    fn pem(der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    #[test]
    fn each_kind_of_key_fits_its_own_signatures() {
        let mut random = StdRng::seed_from_u64(1);
        let p256 = p256::ecdsa::SigningKey::random(&mut random);
        let p384 = p384::ecdsa::SigningKey::random(&mut random);
        let ed25519 = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let content = b"content";
        let first: p256::ecdsa::Signature = p256.sign(content);
        let second: p384::ecdsa::Signature = p384.sign(content);
        let third: p384::ecdsa::Signature = p384.sign_prehash(&Sha256::digest(content)).unwrap();
        let signatures = [
            (0, first.to_der().as_bytes().to_vec()),
            (1, second.to_der().as_bytes().to_vec()),
            (1, third.to_der().as_bytes().to_vec()),
            (2, ed25519.sign(content).to_bytes().to_vec()),
        ];
        let keys = [
            p256.verifying_key().to_public_key_der().unwrap(),
            p384.verifying_key().to_public_key_der().unwrap(),
            ed25519.verifying_key().to_public_key_der().unwrap(),
        ]
        .map(|der| PublicKey::parse(pem(der.as_bytes()).as_bytes()).unwrap());
        for (number, key) in keys.iter().enumerate() {
            for (owner, signature) in &signatures {
                assert_eq!(key.verify(content, signature), number == *owner, "{key:?}");
                assert!(!key.verify(b"other content", signature), "{key:?}");
                assert!(!key.verify(content, &signature[1..]), "{key:?}");
                assert!(!key.verify(content, &[&signature[..], b"x"].concat()), "{key:?}");
            }
            assert!(key.fingerprint().starts_with("sha256:"));
            assert!(!key.verify(content, b""));
        }
    }

    #[test]
    fn what_is_not_one_public_key_is_refused() {
        let key = p256::ecdsa::SigningKey::random(&mut StdRng::seed_from_u64(1));
        let good = pem(key.verifying_key().to_public_key_der().unwrap().as_bytes());
        PublicKey::parse(good.as_bytes()).unwrap();
        for bad in [
            String::new(),
            "no key".to_owned(),
            good.replace("PUBLIC", "PRIVATE"),
            good.clone() + &good,
            format!("x{good}"),
            good.replace("\n-----END", "=\n-----END"),
            pem(b"no DER"),
        ] {
            assert!(PublicKey::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        // The neutral element of Edwards' curve.
        let mut weak = [0; 32];
        weak[0] = 1;
        let der = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &weak].concat();
        assert_eq!(PublicKey::parse(pem(&der).as_bytes()).unwrap_err(), SigstoreError::Kind);
    }
}
