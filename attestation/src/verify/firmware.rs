//! The firmware's log (TCG PC Client Platform Firmware Profile 1.06, 10): read, and replayed into
//! what the registers hold when the host's system starts. All numbers are little-endian.

use crate::log::Bank;
use std::collections::BTreeMap;

/// The most kinds of digests in a log.
const MAX_ALGORITHMS: u32 = 8;
/// The longest data of one event; boot variables of some tens of KiB are common.
const MAX_EVENT: u32 = 512 << 10;
/// `EV_NO_ACTION`: says something and extends nothing.
const EV_NO_ACTION: u32 = 3;
/// Registers that nobody extends after the firmware's log has ended: those of the firmware, and
/// shim's. The boot loader's and the system's own (8 to 13, 15) go on without the firmware.
const FINAL: [u32; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 14];

/// A log can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the firmware's log {0}")]
pub struct FirmwareLogError(String);

fn error(problem: impl Into<String>) -> FirmwareLogError {
    FirmwareLogError(problem.into())
}

type Result<T> = std::result::Result<T, FirmwareLogError>;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| error("ends in the middle of an event"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Result<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// An event's data after its length.
    fn data(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()?;
        if length > MAX_EVENT {
            return Err(error(format!("has an event with {length} bytes of data")));
        }
        self.take(length as usize)
    }
}

/// Replays a log in one bank: what the registers hold that it extends.
pub fn replay(log: &[u8], bank: Bank) -> Result<BTreeMap<u32, Vec<u8>>> {
    let mut from = Bytes(log);
    let sizes = header(&mut from)?;
    if sizes.get(&bank.algorithm()).is_none_or(|size| usize::from(*size) != bank.size()) {
        return Err(error(format!("has no digests of {bank}")));
    }
    let mut registers = BTreeMap::new();
    let mut locality = 0;
    while !from.0.is_empty() {
        let register = from.u32()?;
        let kind = from.u32()?;
        let digests = digests(&mut from, &sizes)?;
        let data = from.data()?;
        if kind == EV_NO_ACTION {
            locality = startup_locality(register, data).unwrap_or(locality);
            continue;
        }
        if register > 23 {
            return Err(error(format!("extends PCR {register}, which there isn't")));
        }
        let digest = digests
            .get(&bank.algorithm())
            .ok_or_else(|| error(format!("has an event without a digest of {bank}")))?;
        let before = registers.entry(register).or_insert_with(|| initial(register, bank, locality));
        *before = bank.extended(before, digest);
    }
    Ok(registers)
}

/// The first event, which says which digests the others have (10.4.5.1): `TCG_PCClientPCREvent`
/// with `TCG_EfiSpecIDEvent`.
fn header(from: &mut Bytes<'_>) -> Result<BTreeMap<u16, u16>> {
    let (register, kind) = (from.u32()?, from.u32()?);
    from.take(20)?;
    let data = from.data()?;
    let mut data = Bytes(data);
    if register != 0 || kind != EV_NO_ACTION || data.take(16)? != b"Spec ID Event03\0" {
        return Err(error("is not in the form of TPM 2.0 (crypto agile)"));
    }
    // Platform class, version, errata, and the size of a UINTN.
    data.take(8)?;
    let count = data.u32()?;
    if count == 0 || count > MAX_ALGORITHMS {
        return Err(error(format!("has {count} kinds of digests")));
    }
    let mut sizes = BTreeMap::new();
    for _ in 0..count {
        let (algorithm, size) = (data.u16()?, data.u16()?);
        if size == 0 || size > 64 || sizes.insert(algorithm, size).is_some() {
            return Err(error("names its digests wrongly"));
        }
    }
    let vendor = data.u8()?;
    data.take(usize::from(vendor))?;
    if !data.0.is_empty() {
        return Err(error("has something after its first event's end"));
    }
    Ok(sizes)
}

/// `TPML_DIGEST_VALUES`.
fn digests<'a>(
    from: &mut Bytes<'a>,
    sizes: &BTreeMap<u16, u16>,
) -> Result<BTreeMap<u16, &'a [u8]>> {
    let count = from.u32()?;
    if count > MAX_ALGORITHMS {
        return Err(error(format!("has an event with {count} digests")));
    }
    let mut digests = BTreeMap::new();
    for _ in 0..count {
        let algorithm = from.u16()?;
        let size = sizes.get(&algorithm).ok_or_else(|| {
            error(format!("has an event with a digest of the kind {algorithm:#06x}"))
        })?;
        if digests.insert(algorithm, from.take(usize::from(*size))?).is_some() {
            return Err(error("has an event with a digest twice"));
        }
    }
    Ok(digests)
}

/// `TCG_EfiStartupLocalityEvent` (10.4.5.3): where the TPM was started from, which is what PCR 0
/// begins with.
fn startup_locality(register: u32, data: &[u8]) -> Option<u8> {
    match data.strip_prefix(b"StartupLocality\0") {
        Some(&[locality]) if register == 0 => Some(locality),
        _ => None,
    }
}

/// What a register holds at first: zeros, those of a measured start (17 to 22) ones, and PCR 0 the
/// locality.
fn initial(register: u32, bank: Bank, locality: u8) -> Vec<u8> {
    let mut value = vec![if (17..=22).contains(&register) { 0xff } else { 0 }; bank.size()];
    if register == 0
        && let Some(last) = value.last_mut()
    {
        *last = locality;
    }
    value
}

/// Whether the log leads to what the TPM has in the registers that are only the firmware's, and not
/// `ours`, which launches are written into; how many that were.
pub(super) fn check(
    log: &[u8],
    values: &BTreeMap<Bank, BTreeMap<u32, Vec<u8>>>,
    ours: u32,
) -> Result<usize> {
    let mut compared = 0;
    for (&bank, registers) in values {
        let wanted: Vec<_> = registers
            .iter()
            .filter(|&(&register, _)| register != ours && FINAL.contains(&register))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let replayed = replay(log, bank)?;
        for (&register, value) in wanted {
            let replayed = replayed.get(&register);
            if replayed.map_or_else(|| *value != initial(register, bank, 0), |it| it != value) {
                let problem = format!("does not lead to what PCR {register} of {bank} holds");
                return Err(error(problem));
            }
            compared += 1;
        }
    }
    Ok(compared)
}
