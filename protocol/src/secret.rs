//! Secrets on their way to a guest.
//!
//! Each pod's guest-init makes a key pair of its own when it starts, whose private half never leaves
//! the guest's memory. The public half is signed along with the evidence about the pod, so that
//! whoever has a secret can seal it for this very guest: neither the host that passes it on nor
//! anybody who keeps what was passed on can open it.
//!
//! A sealed secret is HPKE in its base mode (RFC 9180): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and
//! ChaCha20-Poly1305. `info` is [`PURPOSE`], then the pod's UUID as text (36 bytes), then the
//! secret's name; there is no other associated data. On the wire the encapsulated key (32 bytes) is
//! followed by the ciphertext, which ends with its tag (16 bytes).

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::OsRng;
use std::fmt;
use zeroize::Zeroizing;

/// What the key is used for, first in HPKE's `info`.
pub const PURPOSE: &[u8] = b"sandbox-secret-v1";

/// Bytes of a guest's public key.
pub const KEY: usize = 32;

/// By how many bytes a sealed secret is longer than the secret.
pub const OVERHEAD: usize = KEY + 16;

/// Longest secret, in bytes.
pub const MAX: usize = 64 << 10;

/// Most secrets of a pod.
pub const MAX_COUNT: usize = 64;

/// Longest name of a secret, in bytes.
pub const MAX_NAME: usize = 64;

/// Length of a UUID as text.
const UUID: usize = 36;

/// Why a secret can't be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The name is none.
    #[error(
        "a secret's name consists of 1 to {MAX_NAME} lower-case letters, digits and '-', begins \
         with a letter or digit, and ends with one"
    )]
    Name,
    /// The pod's UUID is none.
    #[error("a secret is sealed for the UUID of a pod, in its form of {UUID} characters")]
    Pod,
    /// The public key is none.
    #[error("the guest's key is no X25519 key of {KEY} bytes that a secret can be sealed with")]
    Key,
    /// The secret is longer than [`MAX`].
    #[error("a secret has at most {MAX} bytes")]
    TooLong,
    /// The sealed form is not one that was made for this key, pod and name.
    #[error("the sealed secret is not for this pod and name, or it was changed on its way")]
    NotOurs,
}

/// Whether `name` can be that of a secret: an AC identifier as appc's `types.md` has them, without a
/// slash, since it becomes the name of a file.
pub fn is_name(name: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME
        && bytes.iter().all(|byte| inner(byte) || *byte == b'-')
        && bytes.first().is_some_and(inner)
        && bytes.last().is_some_and(inner)
}

/// Seals a secret for the guest of a pod, whose public key evidence has.
///
/// # Errors
/// [`SecretError`], but never [`SecretError::NotOurs`].
pub fn seal(
    public_key: &[u8],
    pod: &str,
    name: &str,
    plaintext: &[u8],
) -> Result<Vec<u8>, SecretError> {
    seal_for(public_key, &info(pod, name)?, plaintext)
}

/// The same for another purpose, which `info` says.
///
/// # Errors
/// [`SecretError::Key`], [`SecretError::TooLong`].
pub fn seal_for(public_key: &[u8], info: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SecretError> {
    if plaintext.len() > MAX {
        return Err(SecretError::TooLong);
    }
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public_key)
        .map_err(|_| SecretError::Key)?;
    let sealed = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256, _>(
        &OpModeS::Base,
        &public,
        info,
        plaintext,
        &[],
        &mut OsRng,
    );
    // The one thing that fails is a key in a small subgroup, with which there is no secret.
    let (encapsulated, ciphertext) = sealed.map_err(|_| SecretError::Key)?;
    Ok([encapsulated.to_bytes().as_slice(), &ciphertext].concat())
}

/// A private key, a guest's for one. It is wiped when it is dropped.
pub struct PrivateKey {
    private: Zeroizing<[u8; KEY]>,
    public: [u8; KEY],
}

impl PrivateKey {
    /// Makes a new one from the kernel's random numbers.
    pub fn generate() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair(&mut OsRng);
        let mut key = Self { private: Zeroizing::new([0; KEY]), public: public.to_bytes().into() };
        private.write_exact(key.private.as_mut_slice());
        key
    }

    /// Its public half.
    pub fn public(&self) -> [u8; KEY] {
        self.public
    }

    /// The private key of these bytes, as [`PrivateKey::bytes`] gives them.
    ///
    /// # Errors
    /// [`SecretError::Key`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SecretError> {
        let mut private = Zeroizing::new([0; KEY]);
        if bytes.len() != KEY {
            return Err(SecretError::Key);
        }
        private.copy_from_slice(bytes);
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(bytes)
            .map_err(|_| SecretError::Key)?;
        Ok(Self { private, public: X25519HkdfSha256::sk_to_pk(&key).to_bytes().into() })
    }

    /// The private half, for who keeps it safe elsewhere. A guest does not.
    pub fn bytes(&self) -> &[u8; KEY] {
        &self.private
    }

    /// Opens what was sealed for this key, pod and name. What is returned is wiped when it is
    /// dropped.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn open(
        &self,
        pod: &str,
        name: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        self.open_for(&info(pod, name)?, sealed)
    }

    /// The same for another purpose, which `info` says.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn open_for(&self, info: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        if sealed.len() > MAX + OVERHEAD {
            return Err(SecretError::TooLong);
        }
        let (encapsulated, ciphertext) =
            sealed.split_at_checked(KEY).ok_or(SecretError::NotOurs)?;
        let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(self.private.as_slice())
            .map_err(|_| SecretError::Key)?;
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)
            .map_err(|_| SecretError::NotOurs)?;
        hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &private,
            &encapsulated,
            info,
            ciphertext,
            &[],
        )
        .map(Zeroizing::new)
        .map_err(|_| SecretError::NotOurs)
    }
}

/// Shows no more than the public half.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

fn info(pod: &str, name: &str) -> Result<Vec<u8>, SecretError> {
    if pod.len() != UUID || !pod.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return Err(SecretError::Pod);
    }
    if !is_name(name) {
        return Err(SecretError::Name);
    }
    Ok([PURPOSE, pod.as_bytes(), name.as_bytes()].concat())
}

#[cfg(test)]
#[path = "secret_tests.rs"]
mod tests;
