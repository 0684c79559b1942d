//! The log: what a PCR was extended with since the host was started, in that order.
//!
//! A JSON text sequence (RFC 7464) of records in the JSON encoding of the TCG Canonical Event Log
//! Format 1.0, as systemd writes its own (`/run/log/systemd/tpm2-measure.log`). `␞` is the byte
//! 0x1e; each record is one line:
//!
//! ```json
//! ␞{"recnum":0,"pcr":15,"digests":[{"hashAlg":"sha256","digest":"…"}],"content_type":"sandbox","content":{…}}
//! ␞{"recnum":1,"pcr":15,"digests":[{"hashAlg":"sha256","digest":"…"}],"content_type":"sandbox-digest"}
//! ```
//!
//! - `recnum` counts from 0 without gaps. `digests` has every active bank of the TPM once, the same
//!   ones in every record, sorted by their number at the TCG.
//! - `content` is an [`Event`] in canonical JSON; a digest is of these very bytes. The second kind
//!   of record is what other tenants see of it.
//! - Beside it is a [`Checkpoint`], so that a launch need not read all of it.
//! - There is one way to write a record. Anything else is refused, so that what one program reads in
//!   a log no other program reads differently.

mod bank;
mod checkpoint;
mod entry;
pub mod export;
mod file;
mod parse;
mod recover;
mod replay;
#[cfg(test)]
mod tests;

pub use bank::{Bank, Pcrs};
pub use checkpoint::{Checkpoint, Stamp, Summary};
pub use entry::{Entry, redacted_for};
pub use file::{File, FileError};
pub use parse::{Limits, LogError, Parsed, parse};
pub use recover::{RecoverError, Recovery, recover, start, unfinished};
pub use replay::{ReplayError, replay};

#[cfg(doc)]
use crate::record::Event;

/// `content_type` of a record with its content.
pub const EXTENSION: &str = "sandbox";

/// `content_type` of a record without its content.
pub const REDACTED: &str = "sandbox-digest";
