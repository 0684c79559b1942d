//! JSON in its canonical form (RFC 8785): for each document one sequence of bytes, so that it has
//! one digest.
//!
//! - No white space; members sorted by the UTF-16 code units of their names (§3.2.3), each name
//!   once.
//! - Strings with the escapes of §3.2.2.2 and no others.
//! - Numbers are whole and within ±2⁵³ (§3.2.2.3 writes these as their decimal digits). Others are
//!   refused: nothing that is measured needs them, and their form is where implementations differ.

mod read;
mod scan;
#[cfg(test)]
mod tests;
mod write;

pub use read::{ReadError, check, from_slice};
pub(crate) use read::{from_slice_without, string_member};
pub use write::to_vec;

/// The largest number that every implementation of JSON holds exactly (RFC 8785, §3.2.2.3 and
/// appendix D).
pub const MAX_NUMBER: u64 = 1 << 53;

/// A document has no canonical form here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// It can't be made JSON of.
    #[error("cannot write it as JSON: {0}")]
    Json(String),
    /// A number is a fraction, or too large.
    #[error(
        "cannot write the number {0} in canonical JSON: whole numbers up to 2^53 are, the others \
         have to be written as strings"
    )]
    Number(String),
}

/// A text is not JSON in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct NotCanonical {
    /// Where in the text.
    pub at: usize,
    /// What is wrong.
    pub problem: &'static str,
}
