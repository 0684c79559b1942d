//! The log in other encodings, for verifiers that know these.
//!
//! Both have the digests that the PCR was extended with, so that they replay to the same value, and
//! each event's canonical JSON, whose digest they are.

use super::{Bank, Entry};
use crate::{canonical::CanonicalError, record::Event};

/// `T` of the fields of a record (CEL 1.0, "TLV encoding").
mod cel {
    pub(super) const RECNUM: u8 = 0;
    pub(super) const PCR: u8 = 1;
    pub(super) const DIGESTS: u8 = 3;
    /// Of content that is of sandbox: canonical JSON. The specification leaves numbers that it has
    /// not given away to whoever makes up a type of content.
    pub(super) const CONTENT: u8 = 0xb0;
    /// The same, of an entry without its content: no bytes.
    pub(super) const REDACTED: u8 = 0xb1;
}

/// In the TLV encoding of CEL 1.0: a byte of type, four of length, most significant first, and the
/// value. As in go-eventlog a record's number has eight bytes and the PCR one.
///
/// # Errors
/// [`CanonicalError`] if a number in an event has no canonical form.
pub fn cel_tlv(entries: &[Entry]) -> Result<Vec<u8>, CanonicalError> {
    let mut out = Vec::new();
    for entry in entries {
        let mut digests = Vec::new();
        for (bank, digest) in &entry.digests {
            // Every TPM_ALG_ID of a hash function is below 256.
            tlv(bank.algorithm().to_be_bytes()[1], digest, &mut digests)?;
        }
        tlv(cel::RECNUM, &entry.recnum.to_be_bytes(), &mut out)?;
        tlv(cel::PCR, &entry.pcr.to_be_bytes()[3..], &mut out)?;
        tlv(cel::DIGESTS, &digests, &mut out)?;
        match &entry.content {
            Some(event) => tlv(cel::CONTENT, &event.to_canonical()?, &mut out)?,
            None => tlv(cel::REDACTED, &[], &mut out)?,
        }
    }
    Ok(out)
}

fn tlv(kind: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), CanonicalError> {
    out.push(kind);
    out.extend_from_slice(&length(value)?.to_be_bytes());
    out.extend_from_slice(value);
    Ok(())
}

fn length(value: &[u8]) -> Result<u32, CanonicalError> {
    u32::try_from(value.len()).map_err(|_| CanonicalError::Number(value.len().to_string()))
}

/// Numbers of the TCG PC Client Platform Firmware Profile, section "Event Logging".
mod tcg {
    pub(super) const EV_NO_ACTION: u32 = 3;
    pub(super) const EV_EVENT_TAG: u32 = 6;
    /// `TCG_EfiSpecIDEvent.signature`.
    pub(super) const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
    /// `platformClass` of a client, `specVersionMinor`, `specVersionMajor`, `specErrata`, and
    /// `uintnSize`: 2 stands for 64 bits.
    pub(super) const SPECIFICATION: [u8; 8] = [0, 0, 0, 0, 0, 2, 0, 2];
    /// `taggedEventID` of an event: `SBX1`.
    pub(super) const EVENT: u32 = 0x5342_5831;
    /// The same, of an entry without its content: `SBX0`.
    pub(super) const REDACTED: u32 = 0x5342_5830;
}

/// As a crypto-agile log of firmware: a `TCG_PCR_EVENT` that says which banks there are, and a
/// `TCG_PCR_EVENT2` of type `EV_EVENT_TAG` for each entry, whose tagged event is the canonical JSON.
/// All numbers have their least significant byte first.
///
/// # Errors
/// [`CanonicalError`] if a number in an event has no canonical form.
pub fn tcg2(entries: &[Entry]) -> Result<Vec<u8>, CanonicalError> {
    let banks = entries.first().map(|first| first.digests.keys().copied().collect::<Vec<Bank>>());
    let banks = banks.unwrap_or_else(|| vec![Bank::Sha256]);
    let mut event = tcg::SIGNATURE.to_vec();
    event.extend_from_slice(&tcg::SPECIFICATION);
    event.extend_from_slice(&count(banks.len()).to_le_bytes());
    for bank in banks {
        event.extend_from_slice(&bank.algorithm().to_le_bytes());
        event.extend_from_slice(&count(bank.size()).to_le_bytes()[..2]);
    }
    // No bytes of the vendor's.
    event.push(0);
    let mut out = Vec::new();
    out.extend_from_slice(&0_u32.to_le_bytes());
    out.extend_from_slice(&tcg::EV_NO_ACTION.to_le_bytes());
    out.extend_from_slice(&[0; 20]);
    out.extend_from_slice(&length(&event)?.to_le_bytes());
    out.extend_from_slice(&event);
    for entry in entries {
        let (tag, data) = match &entry.content {
            Some(event) => (tcg::EVENT, Event::to_canonical(event)?),
            None => (tcg::REDACTED, Vec::new()),
        };
        out.extend_from_slice(&entry.pcr.to_le_bytes());
        out.extend_from_slice(&tcg::EV_EVENT_TAG.to_le_bytes());
        out.extend_from_slice(&count(entry.digests.len()).to_le_bytes());
        for (bank, digest) in &entry.digests {
            out.extend_from_slice(&bank.algorithm().to_le_bytes());
            out.extend_from_slice(digest);
        }
        let size = length(&data)?;
        out.extend_from_slice(&(size + 8).to_le_bytes());
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&data);
    }
    Ok(out)
}

/// A count that is small by what is counted.
fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
