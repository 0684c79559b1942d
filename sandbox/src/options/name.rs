use serde::{Deserialize, Serialize};
use std::fmt;

/// The name of an app or a volume: lower-case letters, digits and single hyphens between them
/// (appc `types.md`, "AC Name Type"). It is safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AcName(String);

impl AcName {
    /// The most bytes of a name: it has to fit a file name with a prefix.
    pub const MAX: usize = 200;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AcName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.len() <= Self::MAX
            && name.split('-').all(|part| !part.is_empty())
            && name.bytes().all(allowed)
        {
            Ok(Self(name))
        } else {
            Err(format!(
                "{name:?} is not a name (lower-case letters, digits and single hyphens between them)"
            ))
        }
    }
}

impl std::str::FromStr for AcName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::try_from(name.to_owned())
    }
}

impl From<AcName> for String {
    fn from(name: AcName) -> String {
        name.0
    }
}

impl fmt::Display for AcName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
