//! One entry of the log, and how it is written.

use super::{Bank, EXTENSION, REDACTED};
use crate::{
    canonical::CanonicalError,
    record::{Event, to_hex},
};
use std::{collections::BTreeMap, fmt::Write as _};

/// One extension of the PCR (CEL 1.0, "Canonical Event Log Record").
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number, from 0.
    pub recnum: u64,
    /// The PCR that was extended.
    pub pcr: u32,
    /// What it was extended with, in each active bank: the digest of the content's canonical form.
    pub digests: BTreeMap<Bank, Vec<u8>>,
    /// What happened; nothing in an entry that somebody else than its tenant sees.
    pub content: Option<Event>,
}

impl Entry {
    /// An entry for an event, with its digests.
    ///
    /// # Errors
    /// [`CanonicalError`] if a number in the event has no canonical form.
    pub fn new(
        recnum: u64,
        pcr: u32,
        event: Event,
        banks: impl IntoIterator<Item = Bank>,
    ) -> Result<Self, CanonicalError> {
        let content = event.to_canonical()?;
        let digests = banks.into_iter().map(|bank| (bank, bank.digest(&content))).collect();
        Ok(Self { recnum, pcr, digests, content: Some(event) })
    }

    /// The entry as it is in the log: one record of a JSON text sequence (RFC 7464) in the JSON
    /// encoding of CEL 1.0. There is one way to write it.
    ///
    /// # Errors
    /// [`CanonicalError`] if a number in the event has no canonical form.
    pub fn to_json_seq(&self) -> Result<Vec<u8>, CanonicalError> {
        let mut text = String::with_capacity(512);
        // Writing to a string does not fail.
        let _ = write!(text, "\x1e{{\"recnum\":{},\"pcr\":{},\"digests\":[", self.recnum, self.pcr);
        for (index, (bank, digest)) in self.digests.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let digest = to_hex(digest);
            let _ = write!(text, "{comma}{{\"hashAlg\":\"{bank}\",\"digest\":\"{digest}\"}}");
        }
        let Some(event) = &self.content else {
            let _ = writeln!(text, "],\"content_type\":\"{REDACTED}\"}}");
            return Ok(text.into_bytes());
        };
        let _ = write!(text, "],\"content_type\":\"{EXTENSION}\",\"content\":");
        let mut line = text.into_bytes();
        line.extend_from_slice(&event.to_canonical()?);
        line.extend_from_slice(b"}\n");
        Ok(line)
    }

    /// The entry without what happened. The beginning of a log stays as it is: it is about no pod,
    /// and without it nothing can be replayed.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let content = match &self.content {
            Some(Event::Start(start)) => Some(Event::Start(start.clone())),
            _ => None,
        };
        Self { content, digests: self.digests.clone(), ..*self }
    }
}

/// The log as one tenant may see it: the beginning, and of what happened in it that which is about
/// pods that `own` holds for, in full; of everything else the digests.
pub fn redacted_for(entries: &[Entry], own: impl Fn(&crate::record::Uuid) -> bool) -> Vec<Entry> {
    let redact = |entry: &Entry| match entry.content.as_ref().and_then(Event::pod) {
        Some(pod) if !own(pod) => entry.redacted(),
        _ => entry.clone(),
    };
    entries.iter().map(redact).collect()
}
