use super::{Reader, WireError, algorithm::read_hash};
use crate::log::Bank;
use std::collections::{BTreeMap, BTreeSet};

/// PCRs of a PC's TPM, 24 of them.
const PCRS: u32 = 24;

/// `TPML_PCR_SELECTION` (Part 2, 10.9.7): registers of one or several banks, in the order in
/// which a quote hashes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrSelection(Vec<(Bank, BTreeSet<u32>)>);

impl PcrSelection {
    /// The registers of some banks, weakest bank first; a bank without registers is left out.
    pub fn new(banks: &BTreeMap<Bank, BTreeSet<u32>>) -> Self {
        let banks = banks.iter().filter(|(_, indices)| !indices.is_empty());
        Self(banks.map(|(&bank, indices)| (bank, indices.clone())).collect())
    }

    /// Parses the structure alone.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut from = Reader::new("TPML_PCR_SELECTION", bytes);
        let selection = Self::read(&mut from)?;
        from.finish()?;
        Ok(selection)
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = from.u32("pcrSelect.count")?;
        if count > 4 {
            return Err(from.error(format!("pcrSelect has {count} banks, more than there are")));
        }
        let mut banks: Vec<(Bank, BTreeSet<u32>)> = Vec::new();
        for _ in 0..count {
            let bank = read_hash(from, "pcrSelect.hash")?;
            if banks.iter().any(|(other, _)| *other == bank) {
                return Err(from.error(format!("pcrSelect has the bank {bank} twice")));
            }
            let length = from.u8("pcrSelect.sizeofSelect")?;
            if length > 4 {
                return Err(from.error(format!("pcrSelect.sizeofSelect is {length}, more than 4")));
            }
            let bitmap = from.take(usize::from(length), "pcrSelect.pcrSelect")?;
            let bit = |index: &u32| {
                let byte = usize::try_from(index / 8).ok().and_then(|byte| bitmap.get(byte));
                byte.is_some_and(|byte| byte >> (index % 8) & 1 == 1)
            };
            if let Some(index) = (PCRS..32).find(bit) {
                return Err(from.error(format!("pcrSelect has PCR {index}, which does not exist")));
            }
            banks.push((bank, (0..PCRS).filter(bit).collect()));
        }
        Ok(Self(banks))
    }

    /// The structure's bytes, as a TPM of a PC writes them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let mut out = count.to_be_bytes().to_vec();
        for (bank, indices) in &self.0 {
            out.extend(bank.algorithm().to_be_bytes());
            out.push(3);
            let mut bits = [0_u8; 3];
            for &index in indices.iter().filter(|&&index| index < PCRS) {
                bits[(index / 8) as usize] |= 1 << (index % 8);
            }
            out.extend(bits);
        }
        out
    }

    /// Every register, in the order in which a quote hashes them.
    pub fn registers(&self) -> impl Iterator<Item = (Bank, u32)> {
        self.0.iter().flat_map(|(bank, indices)| indices.iter().map(|&index| (*bank, index)))
    }

    /// By bank; banks without registers are left out, since they change nothing.
    pub fn banks(&self) -> BTreeMap<Bank, BTreeSet<u32>> {
        self.0.iter().filter(|(_, indices)| !indices.is_empty()).cloned().collect()
    }
}
