//! Evidence: one file with everything that a verifier needs to know what runs in a pod.
//!
//! It is JSON. Structures of the TPM are in it as the TPM made them, in base64; nothing in it is
//! believed before [`crate::verify`] has held it against the TPM's signature:
//!
//! ```json
//! {
//!   "version": 1,
//!   "pod": "6f0e9b1c-…", "nonce": "…", "guestKey": null, "time": "2026-01-01T00:00:00Z",
//!   "quote": {"attest": "…", "signature": "…", "pcrs": {"sha256": {"15": "…"}}},
//!   "attestationKey": "…",
//!   "endorsement": {"public": "…", "certificates": ["…"]},
//!   "enrolment": null,
//!   "firmwareLog": null,
//!   "log": {"pcr": 15, "records": [{"recnum": 0, "pcr": 15, "digests": […], …}]}
//! }
//! ```

mod enrolment;
mod record;
pub(crate) mod text;

pub(crate) use enrolment::name;
pub use enrolment::{Counts, Enrolment, EnrolmentError};
pub use record::{LoggedRecord, RecordDigest};

use crate::{log::Bank, record::Uuid};
use sandbox_image::Text;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The longest evidence that is read: room for a log of [`MAX_RECORDS`], most of them redacted.
pub const MAX_EVIDENCE: usize = 64 << 20;
/// The most records in evidence: a host that launches a pod every minute has as many in three
/// months.
pub const MAX_RECORDS: usize = 1 << 18;
/// The longest firmware log. Firmware sets 64 KiB or so apart for it.
pub const MAX_FIRMWARE_LOG: usize = 1 << 20;
/// The most certificates: the EK's, and those between it and a root.
pub const MAX_CERTIFICATES: usize = 8;
/// The longest structure of a TPM or certificate.
const MAX_STRUCTURE: usize = 8 << 10;
/// The longest key of a guest.
const MAX_GUEST_KEY: usize = 256;

/// Evidence could not be read, or written.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// Somebody wants the verifier's memory.
    #[error("evidence: more than {MAX_EVIDENCE} bytes")]
    TooLong,
    /// It is not JSON, or has members that are not known here, or lacks some.
    #[error("evidence: {0}")]
    Json(Text),
    /// It was written by another version of this program.
    #[error("evidence: version {0}, and 1 is the only one that is known here")]
    Version(u32),
    /// A member is longer than it can be, or not what it has to be.
    #[error("evidence: {member} {problem}")]
    Member {
        /// Which one.
        member: &'static str,
        /// And what about it.
        problem: &'static str,
    },
}

/// What a verifier made up, so that nobody can show it an old quote.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

/// The text is not a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a nonce has {} to {} bytes, written as twice as many hexadecimal digits",
    Nonce::MIN,
    Nonce::MAX
)]
pub struct NonceError;

impl Nonce {
    /// Fewer bytes could be guessed, or come twice.
    pub const MIN: usize = 16;
    /// More bytes add nothing.
    pub const MAX: usize = 64;

    /// Takes random bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, NonceError> {
        let bytes = bytes.into();
        if (Self::MIN..=Self::MAX).contains(&bytes.len()) {
            Ok(Self(bytes))
        } else {
            Err(NonceError)
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Nonce {
    type Err = NonceError;

    fn from_str(text: &str) -> Result<Self, NonceError> {
        Self::new(text::parse_hex(text).ok_or(NonceError)?)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&text::hex(&self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Serialize for Nonce {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a quote is asked for with: it binds the verifier's nonce, the pod, and, if the pod has one,
/// the key that its guest made, so that a secret encrypted to that key reaches this pod only.
///
/// SHA-256 of `sandbox-quote-v1` and then nonce, pod (as text, in lower case) and guest key, each
/// after its length in four bytes, big-endian; no key has the length 0.
pub fn qualifying_data(nonce: &Nonce, pod: &str, guest_key: Option<&[u8]>) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix("sandbox-quote-v1");
    for part in [nonce.as_bytes(), pod.as_bytes(), guest_key.unwrap_or_default()] {
        hasher.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Evidence, as it is in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// 1.
    pub version: u32,
    /// UUID of the pod that it is about, in lower case.
    pub pod: String,
    /// What the verifier gave.
    pub nonce: Nonce,
    /// The key that the pod's guest made, if it made one.
    #[serde(with = "text::optional_hex")]
    pub guest_key: Option<Vec<u8>>,
    /// When it was made, by the host's clock (RFC 3339). The host says so, the TPM doesn't.
    pub time: String,
    /// The quote.
    pub quote: Quote,
    /// `TPMT_PUBLIC` of the key that signed the quote (AK).
    #[serde(with = "text::base64_bytes")]
    pub attestation_key: Vec<u8>,
    /// The TPM's own key (EK).
    #[serde(deserialize_with = "text::required")]
    pub endorsement: Option<Endorsement>,
    /// Somebody's word that the AK is in the TPM of that EK.
    #[serde(deserialize_with = "text::required")]
    pub enrolment: Option<Enrolment>,
    /// The firmware's log, in the form of the TCG PC Client Platform Firmware Profile.
    #[serde(with = "text::optional_base64")]
    pub firmware_log: Option<Vec<u8>>,
    /// Our own.
    pub log: EvidenceLog,
}

/// A quote and the values that it is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quote {
    /// `TPMS_ATTEST`.
    #[serde(with = "text::base64_bytes")]
    pub attest: Vec<u8>,
    /// `TPMT_SIGNATURE` over it.
    #[serde(with = "text::base64_bytes")]
    pub signature: Vec<u8>,
    /// Values of the registers that were selected.
    pub pcrs: BTreeMap<Bank, BTreeMap<u32, PcrValue>>,
}

/// What a register holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PcrValue(#[serde(with = "text::hex_bytes")] pub Vec<u8>);

/// The TPM's endorsement key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endorsement {
    /// `TPMT_PUBLIC`.
    #[serde(with = "text::base64_bytes")]
    pub public: Vec<u8>,
    /// Its X.509 certificate in DER, and then those of its issuers, as far as the host has them.
    #[serde(with = "text::base64_list")]
    pub certificates: Vec<Vec<u8>>,
}

/// The log of the current boot, other tenants' records without their contents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceLog {
    /// The register that the log is extended into.
    pub pcr: u32,
    /// Every record, from the first one of this boot.
    pub records: Vec<LoggedRecord>,
}

impl Evidence {
    /// The version that is written here.
    pub const VERSION: u32 = 1;

    /// Reads a file's bytes. What is in them is well-formed then, and still anybody's word.
    pub fn parse(bytes: &[u8]) -> Result<Self, EvidenceError> {
        /// The version alone, so that another one is named and not some member of it.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        if bytes.len() > MAX_EVIDENCE {
            return Err(EvidenceError::TooLong);
        }
        let json = |error: serde_json::Error| EvidenceError::Json(Text::new(error.to_string()));
        let evidence: Self = match serde_json::from_slice(bytes) {
            Ok(evidence) => evidence,
            Err(error) => {
                return Err(match serde_json::from_slice::<Versioned>(bytes) {
                    Ok(Versioned { version }) if version != Self::VERSION => {
                        EvidenceError::Version(version)
                    }
                    _ => json(error),
                });
            }
        };
        evidence.check()?;
        Ok(evidence)
    }

    /// As it is written to a file.
    pub fn to_json(&self) -> Result<Vec<u8>, EvidenceError> {
        self.check()?;
        serde_json::to_vec(self).map_err(|error| EvidenceError::Json(Text::new(error.to_string())))
    }

    /// Bounds, which hold for evidence that is read and for evidence that is written.
    pub(crate) fn check(&self) -> Result<(), EvidenceError> {
        let member = |member, problem| Err(EvidenceError::Member { member, problem });
        if self.version != Self::VERSION {
            return Err(EvidenceError::Version(self.version));
        }
        if self.pod.parse::<Uuid>().is_err() {
            return member("pod", "is not a UUID in lower case");
        }
        if self.guest_key.as_ref().is_some_and(|key| !(1..=MAX_GUEST_KEY).contains(&key.len())) {
            return member("guestKey", "is empty or too long");
        }
        if self.time.len() > 40 {
            return member("time", "is too long");
        }
        let structures = [
            ("quote.attest", &self.quote.attest),
            ("quote.signature", &self.quote.signature),
            ("attestationKey", &self.attestation_key),
        ];
        let endorsement = self.endorsement.iter().map(|key| ("endorsement.public", &key.public));
        let certificates = self.endorsement.iter().flat_map(|key| &key.certificates);
        let certificates = certificates.map(|bytes| ("endorsement.certificates", bytes));
        for (name, bytes) in structures.into_iter().chain(endorsement).chain(certificates) {
            if bytes.len() > MAX_STRUCTURE {
                return member(name, "is longer than any structure of a TPM");
            }
        }
        if self.endorsement.iter().any(|key| key.certificates.len() > MAX_CERTIFICATES) {
            return member("endorsement.certificates", "are too many");
        }
        if self.firmware_log.as_ref().is_some_and(|log| log.len() > MAX_FIRMWARE_LOG) {
            return member("firmwareLog", "is too long");
        }
        for (bank, values) in &self.quote.pcrs {
            for (index, PcrValue(value)) in values {
                if *index > 23 {
                    return member("quote.pcrs", "has a register that does not exist");
                }
                if value.len() != bank.size() {
                    return member("quote.pcrs", "has a value that its bank can't hold");
                }
            }
        }
        if self.log.pcr > 23 {
            return member("log.pcr", "is a register that does not exist");
        }
        if self.log.records.len() > MAX_RECORDS {
            return member("log.records", "are too many");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
