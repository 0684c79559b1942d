//! What a PCR holds after a log.

use super::{Bank, Entry, Pcrs};

/// A log can't be replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An entry has no digest for a bank that is asked for.
    #[error("entry {recnum} of the log has no digest of bank {bank}")]
    NoDigest {
        /// The entry.
        recnum: u64,
        /// The bank.
        bank: Bank,
    },
    /// A digest, or what the PCR held before, is not as long as those of its bank are.
    #[error("entry {recnum} of the log: a value of bank {bank} has {found} bytes")]
    Size {
        /// The entry.
        recnum: u64,
        /// The bank.
        bank: Bank,
        /// What it has.
        found: usize,
    },
}

/// What the PCR holds after `entries` in each bank that `start` has, if it held `start` before.
///
/// # Errors
/// [`ReplayError`] if an entry has no digest for one of these banks.
pub fn replay(start: &Pcrs, entries: &[Entry]) -> Result<Pcrs, ReplayError> {
    let mut pcrs = start.clone();
    entries.iter().try_for_each(|entry| extend(&mut pcrs, entry))?;
    Ok(pcrs)
}

/// Extends `pcrs` in place with one entry.
pub(super) fn extend(pcrs: &mut Pcrs, entry: &Entry) -> Result<(), ReplayError> {
    let recnum = entry.recnum;
    for (&bank, value) in pcrs {
        let digest = entry.digests.get(&bank).ok_or(ReplayError::NoDigest { recnum, bank })?;
        if let Some(odd) = [&*value, digest].into_iter().find(|it| it.len() != bank.size()) {
            return Err(ReplayError::Size { recnum, bank, found: odd.len() });
        }
        *value = bank.extended(value, digest);
    }
    Ok(())
}
