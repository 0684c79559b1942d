//! What host and service say to each other.

use crate::{
    evidence::{Evidence, EvidenceError, Nonce, text},
    log::Bank,
    record::{Uuid, VersionOne},
    secret,
    wire::Name,
};
use sandbox_image::Text;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _,
};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

/// The longest request: evidence with the records of tens of thousands of launches.
pub const MAX_REQUEST: usize = 16 << 20;

/// The longest answer: a launch record and as many secrets as there can be.
pub const MAX_ANSWER: usize = 16 << 20;

/// The longest request that is not evidence.
const MAX_SMALL: usize = 4 << 10;

/// The most secrets that are asked for at once.
pub const MAX_SECRETS: usize = secret::MAX_COUNT;

/// The longest text for people.
const MAX_TEXT: usize = 1 << 10;

/// The longest token that is passed on.
const MAX_TOKEN: usize = 64 << 10;

/// A document is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Somebody wants the reader's memory.
    #[error("{document}: more than {most} bytes")]
    TooLong {
        /// Which one it should be.
        document: &'static str,
        /// How long it may be.
        most: usize,
    },
    /// It is not JSON, or has members that are not known here, or lacks some.
    #[error("{document}: {problem}")]
    Malformed {
        /// Which one it should be.
        document: &'static str,
        /// What is wrong.
        problem: Text,
    },
    /// The evidence in it is none.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// A document of the exchange.
pub trait Document: Serialize + DeserializeOwned {
    /// What it is called in messages.
    const NAME: &'static str;
    /// The longest one that is read.
    const MOST: usize = MAX_SMALL;

    /// Bounds that its form alone doesn't have.
    ///
    /// # Errors
    /// See [`DocumentError`].
    fn check(&self) -> Result<(), DocumentError> {
        Ok(())
    }

    /// Reads what somebody sent.
    ///
    /// # Errors
    /// See [`DocumentError`].
    fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > Self::MOST {
            return Err(DocumentError::TooLong { document: Self::NAME, most: Self::MOST });
        }
        let document: Self =
            serde_json::from_slice(bytes).map_err(|error| malformed::<Self>(error.to_string()))?;
        document.check()?;
        Ok(document)
    }

    /// What is sent.
    ///
    /// # Errors
    /// See [`DocumentError`].
    fn to_json(&self) -> Result<Vec<u8>, DocumentError> {
        self.check()?;
        let json =
            serde_json::to_vec(self).map_err(|error| malformed::<Self>(error.to_string()))?;
        if json.len() > Self::MOST {
            return Err(DocumentError::TooLong { document: Self::NAME, most: Self::MOST });
        }
        Ok(json)
    }
}

fn malformed<D: Document>(problem: impl AsRef<[u8]>) -> DocumentError {
    DocumentError::Malformed { document: D::NAME, problem: Text::message(problem) }
}

/// The text is not the name of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a secret has 1 to {} lower-case letters, digits and '-', and begins and ends with a \
     letter or digit",
    secret::MAX_NAME
)]
pub struct NameError;

/// What a secret is called in a service: also the name of its file there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if secret::is_name(text) { Ok(Self(text.to_owned())) } else { Err(NameError) }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Serialize for SecretName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// `POST /v1/challenge`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChallengeRequest {
    /// 1.
    pub version: VersionOne,
    /// Name of the host's AK.
    #[serde(with = "crate::evidence::name")]
    pub host: Name,
    /// What is to be proven.
    pub pod: Uuid,
}

impl Document for ChallengeRequest {
    const NAME: &'static str = "the request for a challenge";
}

/// What the service answers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChallengeAnswer {
    /// 1.
    pub version: VersionOne,
    /// What the quote has to be made with.
    pub nonce: Nonce,
    /// For how many seconds.
    pub life: u64,
    /// Which registers it has to be of.
    pub select: BTreeMap<Bank, BTreeSet<u32>>,
}

impl Document for ChallengeAnswer {
    const NAME: &'static str = "the service's challenge";

    fn check(&self) -> Result<(), DocumentError> {
        if self.select.values().flatten().any(|register| *register > 23) {
            return Err(malformed::<Self>("select has a register that does not exist"));
        }
        Ok(())
    }
}

/// `POST /v1/evidence`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceRequest {
    /// 1.
    pub version: VersionOne,
    /// What is to be verified.
    pub evidence: Evidence,
    /// Secrets that the pod wants, by their names in the service.
    pub secrets: Vec<SecretName>,
}

impl Document for EvidenceRequest {
    const NAME: &'static str = "the request with evidence";
    const MOST: usize = MAX_REQUEST;

    fn check(&self) -> Result<(), DocumentError> {
        self.evidence.check()?;
        if self.secrets.len() > MAX_SECRETS {
            return Err(malformed::<Self>("too many secrets"));
        }
        let once: BTreeSet<_> = self.secrets.iter().collect();
        if once.len() != self.secrets.len() {
            return Err(malformed::<Self>("a secret is asked for twice"));
        }
        Ok(())
    }
}

/// What the service answers to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EvidenceAnswer {
    /// 1.
    pub version: VersionOne,
    /// The verdict, signed: see [`crate::verify::token`].
    pub token: String,
    /// The verdict in full, for people; only the token is signed.
    pub verdict: Box<RawValue>,
    /// Secrets for the guest's key.
    pub secrets: Vec<Sealed>,
    /// Secrets that the pod does not get.
    pub withheld: Vec<Withheld>,
}

impl Document for EvidenceAnswer {
    const NAME: &'static str = "the service's verdict";
    const MOST: usize = MAX_ANSWER;

    fn check(&self) -> Result<(), DocumentError> {
        if self.token.len() > MAX_TOKEN {
            return Err(malformed::<Self>("the token is too long"));
        }
        if self.secrets.len() + self.withheld.len() > MAX_SECRETS {
            return Err(malformed::<Self>("too many secrets"));
        }
        Ok(())
    }
}

/// A secret that only the pod's guest can open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sealed {
    /// Which one.
    pub name: SecretName,
    /// See [`crate::secret`].
    #[serde(with = "text::base64_bytes")]
    pub sealed: Vec<u8>,
}

/// A secret that is not given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Withheld {
    /// Which one.
    pub name: SecretName,
    /// Why.
    pub why: String,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorAnswer {
    /// 1.
    pub version: VersionOne,
    /// One line.
    pub error: String,
}

impl Document for ErrorAnswer {
    const NAME: &'static str = "the service's refusal";

    fn check(&self) -> Result<(), DocumentError> {
        if self.error.len() > MAX_TEXT {
            return Err(malformed::<Self>("the message is too long"));
        }
        Ok(())
    }
}
