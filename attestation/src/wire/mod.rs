//! What a TPM says, read without a TPM: public areas and their names, quotes, signatures.
//!
//! "Part 2" in this module is the TPM 2.0 Library Specification, Part 2: Structures. Numbers are
//! big-endian; a `TPM2B` is a length of two bytes and as many bytes.
//!
//! Parsers here are strict: every structure has to end where its bytes end, reserved bits have to
//! be zero, lengths have bounds, and an algorithm that isn't used here is refused by name.

mod algorithm;
mod attest;
mod public;
mod reader;
mod selection;
mod signature;
#[cfg(test)]
mod tests;

pub use algorithm::{Curve, Symmetric};
pub use attest::{Attest, ClockInfo, MAGIC, TYPE_QUOTE};
pub use public::{Attributes, Key, Name, Public, SigningScheme};
pub use reader::WireError;
pub use selection::PcrSelection;
pub use signature::Signature;

pub(crate) use reader::Reader;

/// Writes a `TPM2B`. What is written here is never longer than the longest one, 65,535 bytes; more
/// is cut off, so that no length can lie.
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(&bytes[..usize::from(length)]);
    out
}
