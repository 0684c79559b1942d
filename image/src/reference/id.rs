use crate::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An image ID, or the beginning of one, as rkt writes it: `sha512-4f0c…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageIdPrefix(String);

impl ImageIdPrefix {
    /// Fewest digits, as in rkt: fewer would hardly be unique.
    pub const LEAST: usize = 2;

    /// Reads an ID: its hash function, a dash, and at least [`Self::LEAST`] digits.
    pub fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once('-')?;
        let most = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return None,
        };
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let fits = (Self::LEAST..=most).contains(&hex.len());
        (is_hex && fits).then(|| Self(text.to_owned()))
    }

    /// Whether the ID of an image begins so.
    pub fn is_of(&self, id: &Digest) -> bool {
        id.file_name().starts_with(&self.0)
    }

    /// `sha512-4f0c…`
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Digest> for ImageIdPrefix {
    fn from(id: &Digest) -> Self {
        Self(id.file_name())
    }
}

impl TryFrom<String> for ImageIdPrefix {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::parse(&text).ok_or("not an image ID")
    }
}

impl From<ImageIdPrefix> for String {
    fn from(prefix: ImageIdPrefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for ImageIdPrefix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
