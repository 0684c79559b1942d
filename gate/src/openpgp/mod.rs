//! OpenPGP (RFC 9580): certificates, signed messages and detached signatures.
//!
//! rPGP parses packets and does the mathematics. What a key is worth is decided here, since it
//! leaves that to its callers:
//!
//! - A key that is revoked or has expired now signs nothing that counts, whenever it was. A
//!   revocation counts whatever reason it gives; those by other keys ("designated revokers") can't
//!   be checked, and do not count.
//! - A key may sign only if its newest self-signature says so, by a flag; a subkey also has to have
//!   signed that it belongs to the primary key.
//! - Signatures by MD5, SHA-1, RIPEMD-160 and SHA-224 don't count, those of keys over themselves
//!   included; nor do RSA keys below 2048 bits, DSA and `ElGamal`.
//! - A signature that is from the future, older than its key, or has expired does not count; nor
//!   does one with a critical part that is not known here.

mod certificate;
mod signature;

pub use certificate::{Certificate, parse};
pub use signature::{Verified, check_facts, verify_detached, verify_message};

use pgp::{
    armor::{BlockType, Dearmor, DearmorOptions},
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureVersion, SubpacketData},
};
use sandbox_image::Text;
use std::io::Read as _;

/// A key or signature can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenPgpError(String);

impl OpenPgpError {
    fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }

    /// What rPGP says about a document.
    fn malformed(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self(format!("{what} can't be read: {}", Text::new(error.to_string())))
    }
}

/// The most bytes of a keyring, a message or a signature.
const MAX: usize = 4 * 1024 * 1024;

/// Takes the armor off, if there is any.
fn dearmored(bytes: &[u8], expected: BlockType, what: &str) -> Result<Vec<u8>, OpenPgpError> {
    if bytes.len() > MAX {
        return Err(OpenPgpError::new(format!("{what} has more than {MAX} bytes")));
    }
    // Each packet begins with this bit, and no text does.
    if bytes.first().is_some_and(|byte| byte & 0x80 != 0) {
        return Ok(bytes.to_vec());
    }
    let malformed = |error: &dyn std::fmt::Display| OpenPgpError::malformed(what, error);
    let options = DearmorOptions::new().set_limit(MAX);
    let mut dearmor = Dearmor::with_options(bytes, options);
    dearmor.read_header().map_err(|error| malformed(&error))?;
    if dearmor.typ != Some(expected) {
        return Err(OpenPgpError::new(format!("{what} is an armored text of another kind")));
    }
    let mut binary = Vec::new();
    dearmor.read_to_end(&mut binary).map_err(|error| malformed(&error))?;
    Ok(binary)
}

/// A hash function that is still good for signatures, as OpenPGP names it.
fn is_strong(hash: &str) -> bool {
    matches!(hash, "SHA256" | "SHA384" | "SHA512" | "SHA3-256" | "SHA3-512")
}

fn hash_name(hash: HashAlgorithm) -> String {
    hash.to_string()
}

/// The time of a signature that may count: strong, of a version that is in use, without critical
/// parts that are not known.
fn created(signature: &Signature) -> Result<i64, OpenPgpError> {
    let config = signature
        .config()
        .filter(|config| matches!(config.version(), SignatureVersion::V4 | SignatureVersion::V6))
        .ok_or_else(|| OpenPgpError::new("it is of a version that is not supported"))?;
    let hash = hash_name(config.hash_alg);
    if !is_strong(&hash) {
        let problem = format!("it uses {}, which is too weak", Text::new(hash));
        return Err(OpenPgpError::new(problem));
    }
    // rPGP refuses those whose type it does not know. Of notations nobody knows any here.
    let is_unknown = |data: &SubpacketData| matches!(data, SubpacketData::Notation(_));
    if config.hashed_subpackets().any(|part| part.is_critical && is_unknown(&part.data)) {
        return Err(OpenPgpError::new("it has a critical notation, and none is known here"));
    }
    let time =
        config.created().ok_or_else(|| OpenPgpError::new("it does not say when it was made"))?;
    Ok(i64::from(time.as_secs()))
}

/// When a signature expires.
fn expires(signature: &Signature, created: i64) -> Option<i64> {
    let after = signature.signature_expiration_time()?.as_secs();
    (after != 0).then(|| created + i64::from(after))
}

#[cfg(test)]
mod tests;
