//! The verifier: it holds evidence against a policy, and needs neither a TPM nor the host's word.
//!
//! What is believed, and why, in this order; whatever stands on something that failed is not done:
//!
//! ```text
//! policy ─▶ AK ─signs─▶ quote ─names─▶ registers' values ─◀replay─ log ─holds─▶ launch record
//!  (or enroller,         (nonce, pod,     (firmware log)                          (policy: kernel,
//!   EK, its maker)        guest's key)                                             image, …)
//! ```
//!
//! Contents of the log's records are parsed only when their digests have been found to lead to the
//! value that the TPM signed.

mod appraise;
pub(crate) mod chain;
pub mod firmware;
mod history;
pub(crate) mod instant;
mod keys;
mod policy;
mod quote;
pub mod token;
mod verdict;

pub use policy::{
    AttestationKeys, ContentDemand, Demand, Document, EndorsementKeys, FirmwareLog, ImageRule,
    MAX_POLICY, PcrPolicy, Policy, PolicyError, VolumeRule,
};
pub use verdict::{Check, CheckName, CheckResult, Facts, Status, Trust, Verdict};

pub(crate) use appraise::below;
pub(crate) use keys::{attestation_key, endorsement_key};
pub(crate) use quote::signature_algorithm;

use crate::{
    evidence::{Evidence, Nonce},
    log::Pcrs,
    record::Start,
    wire::Public,
};
use quote::Values;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use verdict::Findings;

/// Holds evidence against a policy. `nonce` is the one that the verifier asked with, `now` is for
/// certificates and ages.
///
/// Which pod the evidence is about is among the [`Facts`]; that the quote was made for it has been
/// checked, that it is the pod whose evidence was asked for is the caller's to check.
pub fn verify(evidence: &Evidence, nonce: &Nonce, policy: &Policy, now: SystemTime) -> Verdict {
    verify_since(evidence, None, nonce, policy, now)
}

/// The same, of evidence that has only those records of the log that came after what the caller has
/// `seen` of it. That nothing of the pod was in what came before is for the caller to know.
pub fn verify_since(
    evidence: &Evidence,
    seen: Option<&Seen>,
    nonce: &Nonce,
    policy: &Policy,
    now: SystemTime,
) -> Verdict {
    let facts = Facts { pod: evidence.pod.clone(), nonce: Some(nonce.clone()), ..Facts::default() };
    let findings = Findings::default();
    let mut run = Run { evidence, seen, nonce, policy, now, findings, facts };
    let key: Option<Public> = run.keys();
    let values: Option<Values> = run.quote(key.as_ref());
    run.firmware(values.as_ref());
    let launch = run.history(values.as_ref());
    run.appraise(launch);
    let Run { findings, facts, .. } = run;
    let checks = findings.finish();
    let file_server = facts.record.as_ref().is_some_and(|record| record.file_server.is_some());
    let vector = token::Vector::of(&checks, facts.trust, file_server);
    Verdict { version: 1, status: vector.status(&checks), vector, checks, facts }
}

/// What somebody knows of a log who has held it against its register before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seen {
    /// How many records it had.
    pub records: u64,
    /// What its register held after them.
    #[serde(with = "crate::record::hex_by_bank")]
    pub values: Pcrs,
    /// How it begins.
    pub start: Start,
}

/// A verification that is under way.
#[derive(Debug)]
struct Run<'a> {
    evidence: &'a Evidence,
    seen: Option<&'a Seen>,
    nonce: &'a Nonce,
    policy: &'a Policy,
    now: SystemTime,
    findings: Findings,
    facts: Facts,
}

impl Run<'_> {
    /// Replays the firmware's log, if the policy wants it.
    fn firmware(&mut self, values: Option<&Values>) {
        let name = CheckName::FirmwareLog;
        let log = match (self.policy.document.firmware_log, &self.evidence.firmware_log) {
            (FirmwareLog::Ignore, _) => return self.findings.skip(name, "the policy ignores it"),
            (FirmwareLog::IfPresent, None) => return self.findings.skip(name, "there is none"),
            (FirmwareLog::Required, None) => {
                let why = "the policy demands the firmware's log, and there is none";
                self.findings.note::<()>(name, Err(why.to_owned()));
                return;
            }
            (_, Some(log)) => log,
        };
        let Some(values) = values else {
            let by = self.first_failure_of_quote();
            return self.findings.blocked(&[name], by);
        };
        match firmware::check(log, values, self.policy.document.pcrs.log) {
            Ok(0) => self.findings.skip(name, "the quote is of none of the firmware's registers"),
            result => {
                self.findings.note(name, result.map_err(|error| error.to_string()));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
