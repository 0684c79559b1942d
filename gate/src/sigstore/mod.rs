//! Sigstore's signatures by keys that are known: of cosign's tag layout, and bundles.
//!
//! Certificates, transparency logs and time stamps are not looked at: whom a key belongs to is
//! what the policy says.

mod bundle;
mod key;

pub use bundle::{Statement, verify_bundle};
pub use key::PublicKey;

/// A signature that does not count, or a key that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigstoreError {
    /// The key's file is not a public key in PEM.
    #[error("is not a public key in PEM, as 'cosign generate-key-pair' writes it to cosign.pub")]
    NotPem,
    /// The key is of a kind that is not known here.
    #[error(
        "is a public key of a kind that is not supported: it can be of P-256, P-384 or Ed25519"
    )]
    Kind,
    /// No key fits.
    #[error("it is by none of the keys that are asked for")]
    Unknown,
    /// A bundle is not what it should be.
    #[error("its bundle can't be used: {0}")]
    Bundle(String),
}

/// Holds a signature of cosign's tag layout against keys: the fingerprint of the one that fits.
/// What the payload says is still to be read.
///
/// # Errors
/// [`SigstoreError::Unknown`]
pub fn verify_cosign(
    payload: &[u8],
    signature: &[u8],
    keys: &[PublicKey],
) -> Result<String, SigstoreError> {
    keys.iter()
        .find(|key| key.verify(payload, signature))
        .map(PublicKey::fingerprint)
        .ok_or(SigstoreError::Unknown)
}
