use super::text;
use crate::{
    canonical::CanonicalError,
    log::{Bank, EXTENSION, Entry, REDACTED},
    record::Event,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A record of the log as CEL-JSON, its content not yet parsed: that is done only when the log's
/// replay has led to the value that the TPM signed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggedRecord {
    /// Number of the record.
    pub recnum: u64,
    /// The register that it was extended into.
    pub pcr: u32,
    /// What was extended, for each bank.
    pub digests: Vec<RecordDigest>,
    /// What the content is.
    pub content_type: String,
    /// The content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Box<RawValue>>,
}

impl TryFrom<&Entry> for LoggedRecord {
    type Error = CanonicalError;

    fn try_from(entry: &Entry) -> Result<Self, CanonicalError> {
        let digests = entry.digests.iter();
        let digests = digests
            .map(|(&hash_alg, digest)| RecordDigest { hash_alg, digest: digest.clone() })
            .collect();
        let content = entry.content.as_ref().map(Event::to_canonical).transpose()?;
        let content = content
            .map(|bytes| serde_json::from_slice::<Box<RawValue>>(&bytes))
            .transpose()
            .map_err(|error| CanonicalError::Json(error.to_string()))?;
        let content_type = if content.is_some() { EXTENSION } else { REDACTED }.to_owned();
        Ok(Self { recnum: entry.recnum, pcr: entry.pcr, digests, content_type, content })
    }
}

/// A digest of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordDigest {
    /// The bank.
    pub hash_alg: Bank,
    /// Its digest.
    #[serde(with = "text::hex_bytes")]
    pub digest: Vec<u8>,
}

impl PartialEq for LoggedRecord {
    fn eq(&self, other: &Self) -> bool {
        let raw = |record: &Self| record.content.as_ref().map(|raw| raw.get().to_owned());
        (self.recnum, self.pcr, &self.digests, &self.content_type)
            == (other.recnum, other.pcr, &other.digests, &other.content_type)
            && raw(self) == raw(other)
    }
}
