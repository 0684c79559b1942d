//! What comes with an image for whoever judges it: signatures, as they were found. Nothing here has
//! been believed yet.

use serde::{Deserialize, Serialize};

/// A signature that was found with an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Signature {
    /// Simple signing: an OpenPGP signed message that holds the payload (containers-signature(5)).
    SimpleSigning {
        /// The message, binary or armored.
        #[serde(with = "base64_text")]
        message: Vec<u8>,
    },
    /// A signature of cosign's tag layout: a layer of the image tagged `sha256-HEX.sig`.
    Cosign {
        /// The layer's blob, simple signing JSON.
        #[serde(with = "base64_text")]
        payload: Vec<u8>,
        /// The signature over it, decoded from the layer's annotation.
        #[serde(with = "base64_text")]
        signature: Vec<u8>,
    },
    /// A sigstore bundle (v0.3), found as a referrer.
    Bundle {
        /// The bundle's JSON.
        #[serde(with = "base64_text")]
        bundle: Vec<u8>,
    },
    /// A detached OpenPGP signature over an ACI as it was shipped (`.aci.asc`).
    Detached {
        /// The signature, armored or binary.
        #[serde(with = "base64_text")]
        signature: Vec<u8>,
        /// What was found when it was held against the shipped file, which happens once, while
        /// the file is fetched: hashing it at every launch would take longer than the boot.
        facts: Option<DetachedFacts>,
    },
}

/// A detached signature that was held against the file that it signs, and fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DetachedFacts {
    /// Fingerprint of the primary key, in lower-case hexadecimal digits.
    pub primary: String,
    /// Fingerprint of the key or subkey that signed.
    pub signer: String,
    /// When it was signed, as the signature says: seconds since 1970.
    pub created: i64,
    /// When the signature itself expires, in seconds since 1970.
    pub expires: Option<i64>,
    /// Its hash function, as OpenPGP names it: `SHA512`.
    pub hash: String,
}

/// Bytes in JSON, as base64.
mod base64_text {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}
