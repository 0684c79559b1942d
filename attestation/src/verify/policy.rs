//! What a verifier demands, in strict JSON. Members that are left out demand nothing, except where
//! it says so.
//!
//! ```json
//! {
//!   "version": 1,
//!   "attestationKeys": {"pinned": [], "enrollers": ["-----BEGIN PUBLIC KEY-----…"]},
//!   "endorsementKeys": {"roots": ["-----BEGIN CERTIFICATE-----…"]},
//!   "pcrs": {"select": {"sha256": [0, 1, 2, 3, 4, 5, 6, 7, 15]},
//!            "values": {"sha256": {"7": ["…"]}}, "log": 15},
//!   "firmwareLog": "if-present",
//!   "kernels": ["sha256:…"], "guestInits": ["sha256:…"], "monitors": ["sha256:…"],
//!   "fileServers": ["sha256:…"], "filters": ["sha256:…"],
//!   "images": [{"verityRoot": "…"}, {"identity": "example.com/team"}],
//!   "content": "verified", "signature": "required",
//!   "hostPolicies": ["sha256:…"], "label": "required", "maxEvidenceAge": 300
//! }
//! ```

use super::chain::{Root, parse_root};
use crate::{
    canonical::{self, CanonicalError},
    evidence::PcrValue,
    log::Bank,
    record::Hex,
};
use p256::{ecdsa::VerifyingKey, pkcs8::DecodePublicKey as _};
use sandbox_image::{Algorithm, Digest, Text};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The longest policy that is read: room for the roots of all makers of TPMs.
pub const MAX_POLICY: usize = 1 << 20;

/// A policy can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is too long.
    #[error("verifier's policy: more than {MAX_POLICY} bytes")]
    TooLong,
    /// It is not JSON, or has a member that is not known here.
    #[error("verifier's policy: {0}")]
    Json(Text),
    /// Another version.
    #[error("verifier's policy: version {0}, and 1 is the only one that is known here")]
    Version(u32),
    /// A member is not what it has to be.
    #[error("verifier's policy: {member}: {problem}")]
    Member {
        /// Which one.
        member: &'static str,
        /// And what about it.
        problem: String,
    },
}

/// What a verifier demands, ready for use.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(super) document: Document,
    pub(super) enrollers: Vec<VerifyingKey>,
    pub(super) roots: Vec<Root>,
}

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// 1.
    pub version: u32,
    /// Which AKs are believed. Needed: without any, no evidence passes.
    pub attestation_keys: AttestationKeys,
    /// Which EKs an enrolled AK may be bound to.
    #[serde(default)]
    pub endorsement_keys: EndorsementKeys,
    /// Registers.
    pub pcrs: PcrPolicy,
    /// What to do with the firmware's log.
    #[serde(default)]
    pub firmware_log: FirmwareLog,
    /// The enrolment has to be of this boot: the TPM's counters are still those that the enroller
    /// saw. Otherwise it must only not have been reset less often.
    #[serde(default)]
    pub enrolled_this_boot: bool,
    /// Records of other pods may be left out of the log, with their digests in their place. If not,
    /// every record is read, and no exit of the pod can be hidden behind a digest.
    #[serde(default = "yes")]
    pub redacted_records: bool,
    /// Digests of kernels.
    #[serde(default)]
    pub kernels: Option<BTreeSet<Digest>>,
    /// Digests of guest-init.
    #[serde(default)]
    pub guest_inits: Option<BTreeSet<Digest>>,
    /// Digests of the monitor.
    #[serde(default)]
    pub monitors: Option<BTreeSet<Digest>>,
    /// Digests of the file server, if the pod has one.
    #[serde(default)]
    pub file_servers: Option<BTreeSet<Digest>>,
    /// Digests of the system call filters of monitor and file server.
    #[serde(default)]
    pub filters: Option<BTreeSet<Digest>>,
    /// Digests of the supervisor.
    #[serde(default)]
    pub supervisors: Option<BTreeSet<Digest>>,
    /// Command lines of the guest's kernel.
    #[serde(default)]
    pub command_lines: Option<BTreeSet<String>>,
    /// Images: every app's image has to be one of them.
    #[serde(default)]
    pub images: Option<Vec<ImageRule>>,
    /// Whether what apps read of their images has to be verified.
    #[serde(default)]
    pub content: Option<ContentDemand>,
    /// What the pod may see of the host; nothing, if the list is empty.
    #[serde(default)]
    pub volumes: Option<Vec<VolumeRule>>,
    /// Digests of the pod's manifest with all defaults filled in.
    #[serde(default)]
    pub pod_manifests: Option<BTreeSet<Digest>>,
    /// Whether every app's image has to have been accepted for a signature of a key that was named.
    #[serde(default)]
    pub signature: Option<Demand>,
    /// Fingerprints of which one has to be among those that were accepted, for every app.
    #[serde(default)]
    pub signers: Option<BTreeSet<String>>,
    /// Digests of the host's policy.
    #[serde(default)]
    pub host_policies: Option<BTreeSet<Digest>>,
    /// Whether the pod has to have an SELinux label.
    #[serde(default)]
    pub label: Option<Demand>,
    /// Seconds after which evidence is too old. The host's word: against mistakes, the nonce is
    /// against lies.
    #[serde(default)]
    pub max_evidence_age: Option<u64>,
    /// Seconds after which a pod has to be launched anew.
    #[serde(default)]
    pub max_pod_age: Option<u64>,
}

fn yes() -> bool {
    true
}

/// Which AKs are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AttestationKeys {
    /// Names, as hexadecimal digits.
    pub pinned: BTreeSet<String>,
    /// Public keys (PEM, P-256) of enrollers whose word is believed.
    pub enrollers: Vec<String>,
    /// Any key does that says of itself that it is in a TPM. Whoever has the evidence made could
    /// have made the key.
    pub trust_on_first_use: bool,
}

/// Which EKs are believed, of AKs that were enrolled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EndorsementKeys {
    /// Certificates (PEM) of makers of TPMs.
    pub roots: Vec<String>,
    /// Names of EKs, as hexadecimal digits.
    pub pinned: BTreeSet<String>,
    /// The enroller has checked the EK already.
    pub by_enroller: bool,
    /// Any EK does.
    pub trust_on_first_use: bool,
}

/// Registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PcrPolicy {
    /// What the quote has to be of, exactly.
    pub select: BTreeMap<Bank, BTreeSet<u32>>,
    /// Values that registers may have.
    #[serde(default)]
    pub values: BTreeMap<Bank, BTreeMap<u32, Vec<PcrValue>>>,
    /// The register that our log is extended into; it has to be among the selected ones, in a bank
    /// other than sha1.
    pub log: u32,
    /// What that register may have held before the log began. Zeros, if nothing is said: otherwise
    /// a host could hide the launches before.
    #[serde(default)]
    pub before_log: BTreeMap<Bank, Vec<PcrValue>>,
}

/// What to do with the firmware's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FirmwareLog {
    /// Nothing.
    Ignore,
    /// Replay it if it is there.
    #[default]
    IfPresent,
    /// It has to be there.
    Required,
}

/// An image that may run. Every member that is there has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageRule {
    /// The image's ID, or a digest of its manifest or index.
    pub digest: Option<Digest>,
    /// Root of the hash tree of its content, which says most: it is what the guest checks.
    pub verity_root: Option<Hex<32>>,
    /// What the host's policy calls it, or what comes before a `/`, `:` or `@` in that. Only the
    /// host's word for what the image is: use it together with `signature` and `hostPolicies`.
    pub identity: Option<String>,
}

/// A volume that a pod may have. Volumes that begin empty need no rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeRule {
    /// Its name in the pod.
    pub name: String,
    /// The directory of the host.
    pub path: String,
    /// The pod may write to it, too.
    #[serde(default)]
    pub writable: bool,
}

/// Whether something has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// It has to.
    Required,
}

/// What content an image may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentDemand {
    /// What was measured, by the root of its hash tree.
    Verified,
}

impl Policy {
    /// Reads a policy.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_POLICY {
            return Err(PolicyError::TooLong);
        }
        let document: Document = serde_json::from_slice(bytes)
            .map_err(|error| PolicyError::Json(Text::new(error.to_string())))?;
        Self::new(document)
    }

    /// Makes a document ready for use.
    pub fn new(document: Document) -> Result<Self, PolicyError> {
        let error = |member, problem: String| PolicyError::Member { member, problem };
        if document.version != 1 {
            return Err(PolicyError::Version(document.version));
        }
        let log = document.pcrs.log;
        let banks = document.pcrs.select.iter().filter(|(bank, _)| **bank != Bank::Sha1);
        if !banks.clone().any(|(_, registers)| registers.contains(&log)) {
            let problem = format!("PCR {log}, the log's, is not in any bank but sha1");
            return Err(error("pcrs.select", problem));
        }
        let selected = document.pcrs.select.values().flatten();
        let valued = document.pcrs.values.values().flat_map(BTreeMap::keys);
        if let Some(register) = selected.chain(valued).find(|register| **register > 23) {
            return Err(error("pcrs", format!("there is no PCR {register}")));
        }
        for (bank, registers) in &document.pcrs.values {
            let selected = document.pcrs.select.get(bank);
            for register in registers.keys() {
                if !selected.is_some_and(|selected| selected.contains(register)) {
                    let problem = format!("PCR {register} of {bank} is not selected");
                    return Err(error("pcrs.values", problem));
                }
            }
        }
        if document.images.iter().flatten().any(|rule| *rule == ImageRule::default()) {
            return Err(error("images", "a rule without any member would fit all".to_owned()));
        }
        let enrollers = document.attestation_keys.enrollers.iter();
        let enrollers = enrollers
            .map(|key| {
                VerifyingKey::from_public_key_pem(key).map_err(|_| {
                    let problem = "is not a public key of P-256 in PEM";
                    error("attestationKeys.enrollers", problem.to_owned())
                })
            })
            .collect::<Result<_, _>>()?;
        let roots = document.endorsement_keys.roots.iter();
        let roots = roots
            .map(|root| parse_root(root).map_err(|problem| error("endorsementKeys.roots", problem)))
            .collect::<Result<_, _>>()?;
        Ok(Self { document, enrollers, roots })
    }

    /// The document that it was made of.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Keys of enrollers whose word it believes.
    pub(crate) fn enrollers(&self) -> &[VerifyingKey] {
        &self.enrollers
    }

    /// SHA-256 of the document in canonical JSON: what a token names the policy by.
    pub fn digest(&self) -> Result<Digest, CanonicalError> {
        let document = serde_json::to_value(&self.document)
            .map_err(|error| CanonicalError::Json(error.to_string()))?;
        let canonical = canonical::to_vec(&document)?;
        Ok(Digest::of(Algorithm::Sha256, &canonical))
    }

    /// What a quote has to be asked for.
    pub fn selection(&self) -> &BTreeMap<Bank, BTreeSet<u32>> {
        &self.document.pcrs.select
    }
}
