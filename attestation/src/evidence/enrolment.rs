use super::text;
use crate::wire::Name;
use p256::ecdsa::{
    Signature, SigningKey, VerifyingKey, signature::Signer as _, signature::Verifier as _,
};
use serde::{Deserialize, Serialize};

/// An enroller's word that an AK is in the same TPM as an EK. The enroller has made a credential
/// for both ([`crate::credential`]) and got its secret back, which only that TPM could tell
/// (`TPM2_ActivateCredential`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Enrolment {
    /// 1.
    pub version: u32,
    /// Name of the AK.
    #[serde(with = "name")]
    pub attestation_key: Name,
    /// Name of the EK.
    #[serde(with = "name")]
    pub endorsement_key: Name,
    /// The TPM's counters then, if a quote was asked for too.
    #[serde(deserialize_with = "text::required")]
    pub counts: Option<Counts>,
    /// When (RFC 3339), by the enroller's clock.
    pub time: String,
    /// The enroller's signature over all of it: ECDSA with P-256 and SHA-256, r and s.
    #[serde(with = "text::base64_bytes")]
    pub signature: Vec<u8>,
}

/// How often a TPM has been reset and resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Counts {
    /// Resets since the TPM was cleared.
    pub reset_count: u32,
    /// Resumes since the last reset.
    pub restart_count: u32,
}

/// An enrolment that can't be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// Written by another version of this program.
    #[error("the enrolment has version {0}, and 1 is the only one that is known here")]
    Version(u32),
    /// Signed by somebody else, or changed.
    #[error("no enroller that is trusted here has signed the enrolment")]
    Signature,
}

impl Enrolment {
    /// Signs an enrolment. To be called only by who has seen the credential activated.
    pub fn sign(
        enroller: &SigningKey,
        attestation_key: Name,
        endorsement_key: Name,
        counts: Option<Counts>,
        time: String,
    ) -> Self {
        let signature = Vec::new();
        let mut enrolment =
            Self { version: 1, attestation_key, endorsement_key, counts, time, signature };
        let signature: Signature = enroller.sign(&enrolment.signed());
        enrolment.signature = signature.to_bytes().to_vec();
        enrolment
    }

    /// Whether one of the enrollers has signed it.
    pub fn verify<'k>(
        &self,
        enrollers: impl IntoIterator<Item = &'k VerifyingKey>,
    ) -> Result<(), EnrolmentError> {
        if self.version != 1 {
            return Err(EnrolmentError::Version(self.version));
        }
        let signature = Signature::from_slice(&self.signature);
        let signature = signature.map_err(|_| EnrolmentError::Signature)?;
        let signed = self.signed();
        enrollers
            .into_iter()
            .any(|enroller| enroller.verify(&signed, &signature).is_ok())
            .then_some(())
            .ok_or(EnrolmentError::Signature)
    }

    /// What is signed: `sandbox-enrolment-v1`, and every member after its length.
    fn signed(&self) -> Vec<u8> {
        let counts = self.counts.map_or_else(Vec::new, |counts| {
            [counts.reset_count.to_be_bytes(), counts.restart_count.to_be_bytes()].concat()
        });
        let (ak, ek) = (self.attestation_key.as_bytes(), self.endorsement_key.as_bytes());
        let mut out = b"sandbox-enrolment-v1".to_vec();
        for part in [ak, ek, &counts, self.time.as_bytes()] {
            out.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }
}

/// A name as hexadecimal digits.
pub(crate) mod name {
    use super::*;
    use serde::{Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(name: &Name, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(name)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        let bytes = text::hex_bytes::deserialize(from)?;
        Name::parse(&bytes).map_err(D::Error::custom)
    }
}
