//! What can be told of a pod's measurement from the files of its directory.

use super::{Entry, LAUNCH, VERDICT};
use serde::Deserialize;
use std::fmt;
use std::io;

/// How far a pod's launch was written down and checked. What counts is evidence; this is what the
/// host itself says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// It is not in the TPM.
    None,
    /// It is in the log and the TPM.
    Measured {
        /// Number of its record.
        number: u64,
    },
    /// And this host has verified what the TPM signed about that.
    Local {
        /// Number of its record.
        number: u64,
    },
    /// And a verifier's service has.
    Remote {
        /// Number of its record.
        number: u64,
    },
}

impl Attestation {
    /// The number of its record in the log of the boot.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Measured { number } | Self::Local { number } | Self::Remote { number } => {
                Some(number)
            }
        }
    }
}

impl fmt::Display for Attestation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::None => "none",
            Self::Measured { .. } => "measured",
            Self::Local { .. } => "local",
            Self::Remote { .. } => "remote",
        })
    }
}

/// Finds out by means of `read`, which reads a file of the pod's directory, if it is there.
///
/// # Errors
/// Those of `read`, and of a file that is not what it should be.
pub fn attestation(read: impl Fn(&str) -> io::Result<Option<Vec<u8>>>) -> io::Result<Attestation> {
    #[derive(Deserialize)]
    struct Verdict {
        #[serde(default)]
        remote: Option<serde::de::IgnoredAny>,
    }
    let there = |name| -> io::Result<_> { Ok(read(name)?.filter(|content| !content.is_empty())) };
    let Some(launch) = there(LAUNCH)? else { return Ok(Attestation::None) };
    let launch: Entry = serde_json::from_slice(&launch)?;
    let Some(number) = launch.number else { return Ok(Attestation::None) };
    let verdict = there(VERDICT)?.map(|content| serde_json::from_slice::<Verdict>(&content));
    Ok(match verdict.transpose()? {
        None => Attestation::Measured { number },
        Some(Verdict { remote: None }) => Attestation::Local { number },
        Some(Verdict { remote: Some(_) }) => Attestation::Remote { number },
    })
}
