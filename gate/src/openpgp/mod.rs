//! OpenPGP (RFC 9580): certificates, signed messages and detached signatures.
//!
//! rPGP parses packets and does the mathematics. What a key is worth is decided here, since it
//! leaves that to its callers:
//!
//! - A key that is revoked or has expired now signs nothing that counts, whenever it was. A
//!   revocation counts whatever reason it gives, and wherever it is in the key's file; those by
//!   other keys ("designated revokers") can't be checked, and do not count. Copies of one key are
//!   one key: what revokes one revokes all.
//! - A key may sign only if its newest self-signature says so, by a flag; a subkey also has to have
//!   signed that it belongs to the primary key. The newest one decides even if it is one that does
//!   not count: an older one, which it was made to replace, never counts in its place.
//! - Signatures by MD5, SHA-1, RIPEMD-160 and SHA-224 don't count, those of keys over themselves
//!   included; nor do RSA keys below 2048 bits, DSA and `ElGamal`.
//! - A signature that is from the future, older than its key, or has expired does not count; nor
//!   does one with a critical part that is not known here. Revocations count with whatever is in
//!   them.

mod armor;
mod certificate;
mod keyring;
mod signature;

pub use certificate::Certificate;
pub use keyring::parse;
pub use signature::{Verified, check_facts, verify_detached, verify_message};

use pgp::{
    crypto::hash::HashAlgorithm,
    packet::{Packet, PacketParser, Signature, SignatureVersion, Subpacket, SubpacketData},
};
use sandbox_image::Text;

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

/// All packets, of which there may be `most`. Nothing is left out that may say something: one that
/// can't be read is an error, and so is one that is cut off.
fn packets(binary: &[u8], what: &str, most: usize) -> Result<Vec<Packet>, OpenPgpError> {
    let mut packets = Vec::new();
    let mut rest = binary;
    while !rest.is_empty() {
        let mut parser = PacketParser::new(rest);
        // It sees an end where a packet begins that is cut off.
        let packet =
            parser.next().ok_or_else(|| OpenPgpError::new(format!("{what} is cut off")))?;
        rest = parser.into_inner();
        match packet.map_err(|error| OpenPgpError::malformed(what, &error))? {
            // Says nothing, and is to be passed over.
            Packet::Marker(_) | Packet::Padding(_) => {}
            _ if packets.len() == most => {
                return Err(OpenPgpError::new(format!("{what} has more than {most} packets")));
            }
            packet => packets.push(packet),
        }
    }
    Ok(packets)
}

/// A hash function that is still good for signatures, as OpenPGP names it.
fn is_strong(hash: &str) -> bool {
    matches!(hash, "SHA256" | "SHA384" | "SHA512" | "SHA3-256" | "SHA3-512")
}

fn hash_name(hash: HashAlgorithm) -> String {
    hash.to_string()
}

/// The time of a signature that may count: strong, of a version that is in use, without critical
/// parts that are not known, and saying each thing once.
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
    let mut seen = Vec::new();
    for part in config.hashed_subpackets() {
        let kind = part.typ().as_u8(false);
        if must_be_known(part) && !is_known(&part.data) {
            return Err(OpenPgpError::new(format!(
                "it has a critical part that is not known here, of type {}",
                kind & !CRITICAL
            )));
        }
        // Tools differ in which of two they believe.
        if seen.contains(&kind) && is_said_once(&part.data) {
            return Err(OpenPgpError::new(format!("it has two parts of type {kind}")));
        }
        seen.push(kind);
    }
    let time =
        config.created().ok_or_else(|| OpenPgpError::new("it does not say when it was made"))?;
    Ok(i64::from(time.as_secs()))
}

/// The bit in the number of a part's type that makes the part critical.
const CRITICAL: u8 = 0x80;

/// Whether a signature counts only for those who know what this part means.
fn must_be_known(part: &Subpacket) -> bool {
    // See `keyring::with_known_parts`.
    part.is_critical || matches!(part.data, SubpacketData::Other(kind, _) if kind & CRITICAL != 0)
}

/// Whether what a part says is heeded here, or is nothing that a verifier could heed.
fn is_known(part: &SubpacketData) -> bool {
    match part {
        SubpacketData::SignatureCreationTime(_)
        | SubpacketData::SignatureExpirationTime(_)
        | SubpacketData::KeyExpirationTime(_)
        | SubpacketData::KeyFlags(_)
        | SubpacketData::IssuerKeyId(_)
        | SubpacketData::IssuerFingerprint(_)
        | SubpacketData::EmbeddedSignature(_)
        | SubpacketData::IsPrimary(_) => true,
        // For those who write to the key's owner, or keep the key.
        SubpacketData::PreferredSymmetricAlgorithms(_)
        | SubpacketData::PreferredHashAlgorithms(_)
        | SubpacketData::PreferredCompressionAlgorithms(_)
        | SubpacketData::PreferredEncryptionModes(_)
        | SubpacketData::PreferredAeadAlgorithms(_)
        | SubpacketData::PreferredKeyServer(_)
        | SubpacketData::KeyServerPreferences(_)
        | SubpacketData::Features(_) => true,
        // Notations, policies, expressions, recipients, designated revokers, experiments, and
        // whatever else there may be one day.
        _ => false,
    }
}

/// Whether a part decides what a signature is worth.
fn is_said_once(part: &SubpacketData) -> bool {
    matches!(
        part,
        SubpacketData::SignatureCreationTime(_)
            | SubpacketData::SignatureExpirationTime(_)
            | SubpacketData::KeyExpirationTime(_)
            | SubpacketData::KeyFlags(_)
    )
}

/// When a signature expires.
fn expires(signature: &Signature, created: i64) -> Option<i64> {
    let after = signature.signature_expiration_time()?.as_secs();
    (after != 0).then(|| created + i64::from(after))
}

#[cfg(test)]
mod tests;
