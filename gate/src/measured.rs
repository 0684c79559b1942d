//! That a launch was measured.

use serde::Serialize;
use std::fmt;

/// Who has verified a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verifier {
    /// This host itself, which proves nothing to others.
    Local,
    /// A service on another machine, which has said so with its signature.
    Service,
}

/// What the TPM's log has of a launch. A plain value: it is as true as whoever makes it, which is the
/// part of this program that has the launch measured and verified, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    pod: String,
    record: u64,
    verified: bool,
    by: Verifier,
}

impl Measured {
    /// The launch of `pod`, by its UUID as the record has it, is in the log as record number
    /// `record`, and in the TPM. What the crate `attestation` answers goes in here:
    ///
    /// - `record`: the number that the log gave to the launch (`recnum`).
    /// - `verified`: whether a quote over it, with a nonce of this launch, was held against this
    ///   host's policy, by `by`, and *every* check passed. A measurement that nobody verified, or
    ///   that failed, is `false`, and worth nothing to a rule.
    /// - `by`: for [`Verifier::Service`], its verdict's signature was checked here.
    pub fn new(pod: &str, record: u64, verified: bool, by: Verifier) -> Self {
        Self { pod: pod.to_owned(), record, verified, by }
    }

    /// Whose launch it is.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Its number in the log.
    pub fn record(&self) -> u64 {
        self.record
    }

    /// Whether it was verified.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// Who has verified it.
    pub fn by(&self) -> Verifier {
        self.by
    }

    /// Why it is not the one that is asked for.
    pub(crate) fn lacks(&self, wanted: Verifier) -> Option<String> {
        if !self.verified {
            Some(format!("the launch is record {} of the log, and was not verified", self.record))
        } else if self.by < wanted {
            Some(format!("{} has verified it, and {wanted} is asked for", self.by))
        } else {
            None
        }
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Local => "this host",
            Self::Service => "a service",
        })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "record {} of the TPM's log, ", self.record)?;
        match self.verified {
            true => write!(out, "verified by {}", self.by),
            false => out.write_str("not verified"),
        }
    }
}
