//! A secret in a file, which one TPM can open while the host has booted what it had booted then.
//!
//! A TPM seals no more than 128 bytes, so what it seals is a private key ([`SealedKey`]), under a
//! policy over registers (TPM 2.0 part 3, `TPM2_PolicyPCR`), and the secret is sealed for that key
//! as others are for a guest's ([`crate::secret`]). `info` is [`PURPOSE`] and, if a verifier's policy
//! goes with the secret, the SHA-256 of its text: it can't be taken off or exchanged.
//!
//! What holds the evidence of a pod against that policy is this host's own `sandbox`: whoever is root
//! on a host that has booted as it should gets the secret without it. A service elsewhere does not
//! have to trust root; this form needs no service.

use crate::{
    secret::{MAX, OVERHEAD, PrivateKey, SecretError, seal, seal_for},
    session::{Bytes, SealedKey},
    verify::{MAX_POLICY, Policy, PolicyError},
};
use sandbox_image::Text;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What such a key is used for, first in HPKE's `info`.
pub const PURPOSE: &[u8] = b"sandbox-sealed-v1";

/// The longest file that is read.
pub const MAX_FILE: usize = 2 * MAX_POLICY + 2 * MAX;

/// The most bytes of one part of a sealed data object.
const MAX_BLOB: usize = 1024;

/// A file can't be one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// It is too long.
    #[error("sealed secret: more than {MAX_FILE} bytes")]
    TooLong,
    /// It is not JSON, or has a member that is not known here.
    #[error("sealed secret: {0}; 'sandbox attest seal' makes one")]
    Json(Text),
    /// Another version.
    #[error("sealed secret: version {0}, and 1 is the only one that is known here")]
    Version(u32),
    /// A member is not what it has to be.
    #[error("sealed secret: {0} is not what it has to be; 'sandbox attest seal' makes one")]
    Member(&'static str),
    /// The policy in it is none.
    #[error("sealed secret: {0}")]
    Policy(#[from] PolicyError),
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SealedSecret {
    /// 1.
    pub version: u32,
    /// The key, as the TPM keeps it.
    pub key: SealedKey,
    /// The text of a verifier's policy that a pod's evidence has to pass, if there is one.
    pub policy: Option<String>,
    /// The secret.
    pub secret: Bytes,
}

impl SealedSecret {
    /// Makes one: `keep` has a TPM seal the key.
    ///
    /// # Errors
    /// Those of `keep`, and of a secret that is too long.
    pub fn make<E: From<SecretError>>(
        secret: &[u8],
        policy: Option<String>,
        keep: impl FnOnce(&[u8]) -> Result<SealedKey, E>,
    ) -> Result<Self, E> {
        let key = PrivateKey::generate();
        let secret = seal_for(&key.public(), &info(policy.as_deref()), secret)?;
        Ok(Self { version: 1, key: keep(key.bytes())?, policy, secret: secret.into() })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// See [`SealedError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SealedError> {
        if bytes.len() > MAX_FILE {
            return Err(SealedError::TooLong);
        }
        let parsed: Self = serde_json::from_slice(bytes)
            .map_err(|error| SealedError::Json(Text::new(error.to_string())))?;
        if parsed.version != 1 {
            return Err(SealedError::Version(parsed.version));
        }
        parsed.check()?;
        Ok(parsed)
    }

    /// Whether its members can be what they have to be.
    ///
    /// # Errors
    /// [`SealedError::Member`], [`SealedError::Policy`].
    pub fn check(&self) -> Result<(), SealedError> {
        let SealedKey { selection, public, private } = &self.key;
        let blob = |bytes: &Bytes| (1..=MAX_BLOB).contains(&bytes.0.len());
        let registers: usize = selection.values().map(|registers| registers.len()).sum();
        let bounded = selection.values().flatten().all(|register| *register < 24);
        for (member, fits) in [
            ("selection", registers > 0 && bounded),
            ("public", blob(public)),
            ("private", blob(private)),
            ("secret", (OVERHEAD..=MAX + OVERHEAD).contains(&self.secret.0.len())),
        ] {
            if !fits {
                return Err(SealedError::Member(member));
            }
        }
        self.policy().map(drop)
    }

    /// The policy, ready for use.
    ///
    /// # Errors
    /// [`SealedError::Policy`]
    pub fn policy(&self) -> Result<Option<Policy>, SealedError> {
        Ok(self.policy.as_ref().map(|text| Policy::parse(text.as_bytes())).transpose()?)
    }

    /// Opens it with the key that the TPM gave out, and seals it for a guest.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn release(
        &self,
        key: &[u8],
        pod: &str,
        name: &str,
        guest_key: &[u8],
    ) -> Result<Vec<u8>, SecretError> {
        let key = PrivateKey::from_bytes(key)?;
        let secret = key.open_for(&info(self.policy.as_deref()), &self.secret.0)?;
        seal(guest_key, pod, name, &secret)
    }
}

fn info(policy: Option<&str>) -> Vec<u8> {
    let digest = policy.map(|text| Sha256::digest(text.as_bytes()).to_vec());
    [PURPOSE, &digest.unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bank;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const POD: &str = "6733c088-b287-4ac0-b6ed-6a8ea5b9ef4b";
    const POLICY: &str = r#"{"version":1,"attestationKeys":{"pinned":[]},
        "pcrs":{"select":{"sha256":[15]},"log":15}}"#;

    /// The file, and the key that a TPM would keep.
    fn sealed(policy: Option<&str>) -> (SealedSecret, Vec<u8>) {
        let mut kept = Vec::new();
        let made = SealedSecret::make::<SecretError>(b"swordfish", policy.map(Into::into), |key| {
            kept = key.to_vec();
            Ok(SealedKey {
                selection: BTreeMap::from([(Bank::Sha256, [7].into())]),
                public: vec![1].into(),
                private: vec![2].into(),
            })
        });
        (made.unwrap(), kept)
    }

    #[test]
    fn what_was_sealed_goes_to_the_guest_that_it_is_released_for() {
        for policy in [None, Some(POLICY)] {
            let (made, kept) = sealed(policy);
            let read = SealedSecret::parse(&serde_json::to_vec(&made).unwrap()).unwrap();
            assert_eq!(read, made);
            assert_eq!(read.policy().unwrap().is_some(), policy.is_some());
            let guest = PrivateKey::generate();
            let released = read.release(&kept, POD, "db", &guest.public()).unwrap();
            assert_eq!(*guest.open(POD, "db", &released).unwrap(), b"swordfish");
        }
    }

    #[test]
    fn a_policy_can_not_be_taken_off_put_on_or_exchanged() {
        let guest = PrivateKey::generate();
        let (with, kept) = sealed(Some(POLICY));
        for policy in [None, Some(POLICY.replace("15", "14"))] {
            let other = SealedSecret { policy, ..with.clone() };
            let released = other.release(&kept, POD, "db", &guest.public());
            assert_eq!(released, Err(SecretError::NotOurs));
        }
        let (without, kept) = sealed(None);
        let other = SealedSecret { policy: Some(POLICY.into()), ..without };
        let released = other.release(&kept, POD, "db", &guest.public());
        assert_eq!(released, Err(SecretError::NotOurs));
    }

    #[test]
    fn what_can_not_be_a_sealed_secret_is_refused() {
        let (made, _) = sealed(Some(POLICY));
        let good = serde_json::to_value(&made).unwrap();
        let refused = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut document = good.clone();
            change(&mut document);
            SealedSecret::parse(&serde_json::to_vec(&document).unwrap()).unwrap_err()
        };
        assert_eq!(refused(&|it| it["version"] = 2.into()), SealedError::Version(2));
        let none = refused(&|it| it["key"]["selection"] = serde_json::json!({}));
        assert_eq!(none, SealedError::Member("selection"));
        let high = refused(&|it| it["key"]["selection"] = serde_json::json!({"sha256": [24]}));
        assert_eq!(high, SealedError::Member("selection"));
        assert_eq!(refused(&|it| it["secret"] = "".into()), SealedError::Member("secret"));
        assert_eq!(refused(&|it| it["key"]["public"] = "".into()), SealedError::Member("public"));
        assert!(matches!(refused(&|it| it["policy"] = "{}".into()), SealedError::Policy(_)));
        assert!(matches!(refused(&|it| it["more"] = 1.into()), SealedError::Json(_)));
        assert_eq!(SealedSecret::parse(&vec![b' '; MAX_FILE + 1]), Err(SealedError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", at in 0_usize..400, byte in any::<u8>()) {
            let _ = SealedSecret::parse(text.as_bytes());
            let mut document = serde_json::to_vec(&sealed(None).0).unwrap();
            let at = at % document.len();
            document[at] = byte;
            let _ = SealedSecret::parse(&document);
        }
    }
}
