//! Enrolment: somebody whom verifiers trust makes sure that an AK is in the TPM of an EK, and says
//! so with a signature. Documents of strict JSON go to and fro; they may travel as files.
//!
//! ```text
//! enroller                                             host
//!   │ ◀───────────── Candidate (keys) ──────────────── │
//!   │ challenge(): checks both keys, and the maker      │
//!   ├─ Expected stays                                   │
//!   │ ──────────────── Challenge ─────────────────────▶ │ TPM2_ActivateCredential
//!   │ ◀───────────────── Answer ─────────────────────── │ (and a quote)
//!   │ Expected::sign()                                  │
//!   │ ──────────────── Enrolment ─────────────────────▶ │ goes with all evidence from now on
//! ```
//!
//! `Expected` is for one answer: whoever gets it can answer without the TPM.

/// The system's random numbers, for [`challenge`].
pub use rsa::rand_core::OsRng;

use crate::{
    credential::{Credential, CredentialError},
    evidence::{Counts, Enrolment, text},
    session::Identity,
    verify::{attestation_key, chain, endorsement_key, instant},
    wire::{Attest, Name, Public, Signature},
};
use p256::{ecdsa::SigningKey, pkcs8::DecodePrivateKey as _};
use rsa::rand_core::CryptoRngCore;
use sandbox_image::Text;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::time::SystemTime;

/// The longest document of an enrolment.
pub const MAX_DOCUMENT: usize = 64 << 10;

/// Bytes of a challenge's secret.
const SECRET: usize = 32;

/// An enrolment stops here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// A document is not one, or not that one.
    #[error("{document}: {problem}")]
    Document {
        /// Which one it should be.
        document: &'static str,
        /// What is wrong.
        problem: Text,
    },
    /// The keys are not those of a TPM as they have to be.
    #[error("cannot enrol this host: {0}")]
    Keys(String),
    /// No challenge can be made.
    #[error("cannot enrol this host: {0}")]
    Credential(#[from] CredentialError),
    /// The host could not tell the secret.
    #[error(
        "the answer is wrong: the attestation key is not in the TPM of the endorsement key, or the \
         answer is to another challenge"
    )]
    Secret,
    /// The quote that came with an answer is not one.
    #[error("the quote in the answer can't be used: {0}")]
    Quote(String),
    /// The enroller's key can't be read.
    #[error("the enroller's key is not a private key of P-256 in PEM (PKCS #8)")]
    Key,
}

/// From the host to the enroller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// 1.
    pub version: u32,
    /// The host's keys.
    pub identity: Identity,
}

/// From the enroller to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Challenge {
    /// 1.
    pub version: u32,
    /// For `TPM2_ActivateCredential`.
    pub credential: Credential,
}

/// From the host to the enroller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// 1.
    pub version: u32,
    /// What `TPM2_ActivateCredential` gave.
    #[serde(with = "text::base64_bytes")]
    pub secret: Vec<u8>,
    /// A quote with [`qualifying_data`], if the TPM's counters are to be enrolled, too.
    #[serde(deserialize_with = "text::required")]
    pub quote: Option<AnswerQuote>,
}

/// A quote for its counters; of which registers does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnswerQuote {
    /// `TPMS_ATTEST`.
    #[serde(with = "text::base64_bytes")]
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE`.
    #[serde(with = "text::base64_bytes")]
    pub signature: Vec<u8>,
}

/// What the enroller keeps to itself until the answer is there.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expected {
    /// 1.
    pub version: u32,
    /// `TPMT_PUBLIC` of the AK.
    #[serde(with = "text::base64_bytes")]
    attestation_key: Vec<u8>,
    /// `TPMT_PUBLIC` of the EK.
    #[serde(with = "text::base64_bytes")]
    endorsement_key: Vec<u8>,
    /// What only the TPM can tell.
    #[serde(with = "text::base64_bytes")]
    secret: Vec<u8>,
}

/// Without the secret.
impl std::fmt::Debug for Expected {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Expected").field("version", &self.version).finish_non_exhaustive()
    }
}

/// How an EK is to be judged before it is challenged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Makers<'a> {
    /// Certificates of makers of TPMs, in PEM. Without any, the EK is taken as it is: then whoever
    /// enrols has to know otherwise that the host has a TPM at all.
    pub roots: &'a [String],
    /// Certificates between theirs and the TPM's, in DER.
    pub issuers: &'a [Vec<u8>],
}

/// What an answer's quote is asked for with: SHA-256 of `sandbox-enrol-v1` and the secret.
pub fn qualifying_data(secret: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix("sandbox-enrol-v1").chain_update(secret).finalize().into()
}

/// Checks a host's keys and challenges its TPM.
pub fn challenge(
    identity: &Identity,
    makers: Makers<'_>,
    now: SystemTime,
    random: &mut impl CryptoRngCore,
) -> Result<(Challenge, Expected), EnrolError> {
    let attestation = attestation_key(&identity.ak_public.0).map_err(EnrolError::Keys)?;
    let endorsement = endorsement_key(&identity.ek_public.0).map_err(EnrolError::Keys)?;
    if attestation.name().as_bytes() != identity.ak_name.0 {
        return Err(EnrolError::Keys("the attestation key has another name".to_owned()));
    }
    if !makers.roots.is_empty() {
        let roots = makers.roots.iter().map(|root| chain::parse_root(root));
        let roots = roots.collect::<Result<Vec<_>, _>>().map_err(EnrolError::Keys)?;
        let own = identity.ek_certificate.iter().map(|certificate| certificate.0.clone());
        let certificates: Vec<_> = own.chain(makers.issuers.iter().cloned()).collect();
        chain::check(&endorsement, &certificates, &roots, now).map_err(EnrolError::Keys)?;
    }
    let mut secret = vec![0; SECRET];
    random.fill_bytes(&mut secret);
    let credential = Credential::make(random, &endorsement, &attestation.name(), &secret)?;
    let expected = Expected {
        version: 1,
        attestation_key: identity.ak_public.0.clone(),
        endorsement_key: identity.ek_public.0.clone(),
        secret,
    };
    Ok((Challenge { version: 1, credential }, expected))
}

impl Expected {
    /// Names of the AK and the EK that were challenged.
    pub fn names(&self) -> Result<(Name, Name), EnrolError> {
        let name = |bytes| Public::parse(bytes).map(|key| key.name());
        let keys = |error: crate::wire::WireError| EnrolError::Keys(error.to_string());
        let attestation = name(&self.attestation_key).map_err(keys)?;
        Ok((attestation, name(&self.endorsement_key).map_err(keys)?))
    }

    /// Signs the enrolment, if the answer is right. `enroller` is a private key in PEM.
    pub fn sign(
        self,
        answer: &Answer,
        enroller: &str,
        now: SystemTime,
    ) -> Result<Enrolment, EnrolError> {
        let enroller = SigningKey::from_pkcs8_pem(enroller).map_err(|_| EnrolError::Key)?;
        // How long it takes to compare the digests says nothing of the secret.
        if self.secret.len() != SECRET
            || Sha256::digest(&answer.secret) != Sha256::digest(&self.secret)
        {
            return Err(EnrolError::Secret);
        }
        let counts = answer.quote.as_ref().map(|quote| self.counts(quote)).transpose()?;
        let (attestation, endorsement) = self.names()?;
        let time = instant::format(instant::seconds(now));
        Ok(Enrolment::sign(&enroller, attestation, endorsement, counts, time))
    }

    /// The counters in a quote that the AK has signed for this enrolment.
    fn counts(&self, quote: &AnswerQuote) -> Result<Counts, EnrolError> {
        let wire = |error: crate::wire::WireError| EnrolError::Quote(error.to_string());
        let key = attestation_key(&self.attestation_key).map_err(EnrolError::Keys)?;
        let signature = Signature::parse(&quote.signature).map_err(wire)?;
        crate::verify::signature_algorithm(&signature, &key).map_err(EnrolError::Quote)?;
        signature.verify(&key, &quote.attest).map_err(wire)?;
        let attest = Attest::parse(&quote.attest).map_err(wire)?;
        if attest.extra_data != qualifying_data(&self.secret) {
            return Err(EnrolError::Quote("it was made for something else".to_owned()));
        }
        let clock = attest.clock_info;
        Ok(Counts { reset_count: clock.reset_count, restart_count: clock.restart_count })
    }
}

/// A document of an enrolment, as a file has it.
pub trait Document: Serialize + DeserializeOwned {
    /// What it is called.
    const NAME: &'static str;

    /// The version that it says it has.
    fn version(&self) -> u32;

    /// Reads a file's bytes.
    fn parse(bytes: &[u8]) -> Result<Self, EnrolError> {
        let error = |problem: String| EnrolError::Document {
            document: Self::NAME,
            problem: Text::new(problem),
        };
        if bytes.len() > MAX_DOCUMENT {
            return Err(error(format!("more than {MAX_DOCUMENT} bytes")));
        }
        let document: Self =
            serde_json::from_slice(bytes).map_err(|problem| error(problem.to_string()))?;
        match document.version() {
            1 => Ok(document),
            other => Err(error(format!("version {other}, and 1 is the only one known here"))),
        }
    }

    /// What a file gets.
    fn to_json(&self) -> Result<Vec<u8>, EnrolError> {
        serde_json::to_vec_pretty(self).map_err(|problem| EnrolError::Document {
            document: Self::NAME,
            problem: Text::new(problem.to_string()),
        })
    }
}

macro_rules! documents {
    ($($type:ty: $name:literal,)+) => {$(
        impl Document for $type {
            const NAME: &'static str = $name;

            fn version(&self) -> u32 {
                self.version
            }
        }
    )+};
}

documents! {
    Candidate: "candidate",
    Challenge: "challenge",
    Expected: "expected answer",
    Answer: "answer",
    Enrolment: "enrolment",
}

#[cfg(test)]
mod tests;
