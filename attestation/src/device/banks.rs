//! The TPM's registers: which banks are active, reading, extending.

use super::tpm::Tpm;
use sandbox_attestation::{
    Bank, Pcrs,
    session::{Failure, FailureKind},
};
use std::collections::{BTreeMap, BTreeSet};
use tss_esapi::{
    constants::{CapabilityType, PcrPropertyTag},
    handles::PcrHandle,
    interface_types::{algorithm::HashingAlgorithm, session_handles::AuthSession},
    structures::{
        CapabilityData, Digest, DigestValues, PcrSelectSize, PcrSelectionList,
        PcrSelectionListBuilder, PcrSlot,
    },
};

/// Registers, by bank.
pub(super) type Selection = BTreeMap<Bank, BTreeSet<u8>>;
/// What they hold.
pub(super) type Values = BTreeMap<Bank, BTreeMap<u8, Vec<u8>>>;

/// Banks that have our register, in the TPM as it is set up now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Active {
    /// Those that are extended.
    pub(super) banks: Vec<Bank>,
    /// The names of those that this program can't make digests for.
    pub(super) unknown: Vec<String>,
}

impl Active {
    /// The bank that everything stands on: the first that nobody can make collisions for.
    pub(super) fn chief(&self) -> Result<Bank, Failure> {
        let chief = self.banks.iter().copied().find(|&bank| bank != Bank::Sha1);
        chief.ok_or_else(|| {
            let found = match self.banks.is_empty() {
                true => "none".to_owned(),
                false => names(&self.banks),
            };
            Failure::new(
                FailureKind::BankOff,
                format!(
                    "the TPM has no active bank of SHA-256, SHA-384 or SHA-512 with this register \
                     (active: {found}); switch one on in the firmware or with tpm2_pcrallocate, \
                     and reboot"
                ),
            )
        })
    }
}

/// Names of banks, in a message.
fn names(banks: &[Bank]) -> String {
    banks.iter().map(|bank| bank.name()).collect::<Vec<_>>().join(", ")
}

const fn algorithm(bank: Bank) -> HashingAlgorithm {
    match bank {
        Bank::Sha1 => HashingAlgorithm::Sha1,
        Bank::Sha256 => HashingAlgorithm::Sha256,
        Bank::Sha384 => HashingAlgorithm::Sha384,
        Bank::Sha512 => HashingAlgorithm::Sha512,
    }
}

pub(super) const fn bank(algorithm: HashingAlgorithm) -> Option<Bank> {
    match algorithm {
        HashingAlgorithm::Sha1 => Some(Bank::Sha1),
        HashingAlgorithm::Sha256 => Some(Bank::Sha256),
        HashingAlgorithm::Sha384 => Some(Bank::Sha384),
        HashingAlgorithm::Sha512 => Some(Bank::Sha512),
        _ => None,
    }
}

/// A register, if there is one with this number.
pub(super) fn known(register: u32) -> Result<u8, Failure> {
    u8::try_from(register).ok().filter(|&pcr| pcr < 24).ok_or_else(|| {
        let message = format!("there is no register {register}, only 0 to 23");
        Failure::new(FailureKind::Request, message)
    })
}

fn slot(pcr: u8) -> Result<PcrSlot, Failure> {
    let slot =
        1u32.checked_shl(known(pcr.into())?.into()).and_then(|bit| PcrSlot::try_from(bit).ok());
    slot.ok_or_else(|| odd("a register"))
}

/// The number of a register.
pub(super) fn number(slot: PcrSlot) -> u8 {
    // One bit of 32.
    u8::try_from(u32::from(slot).trailing_zeros()).unwrap_or(u8::MAX)
}

/// Asks which banks have `pcr`.
pub(super) fn active(tpm: &mut Tpm, pcr: u8) -> Result<Active, Failure> {
    let slot = slot(pcr)?;
    let (data, _) = tpm.call("ask the TPM for its active banks", |context| {
        context.get_capability(CapabilityType::AssignedPcr, 0, 1)
    })?;
    let CapabilityData::AssignedPcr(assigned) = data else { return Err(odd("its active banks")) };
    let mut active = Active { banks: Vec::new(), unknown: Vec::new() };
    for selection in assigned.get_selections() {
        if !selection.is_selected(slot) {
            continue;
        }
        match bank(selection.hashing_algorithm()) {
            Some(bank) => active.banks.push(bank),
            None => active.unknown.push(format!("{:?}", selection.hashing_algorithm())),
        }
    }
    active.banks.sort_unstable();
    active.banks.dedup();
    Ok(active)
}

/// Checks that `pcr` can be extended from here, and set back by nobody.
pub(super) fn check(tpm: &mut Tpm, pcr: u8) -> Result<(), Failure> {
    let slot = slot(pcr)?;
    let (data, _) = tpm.call("ask the TPM for its registers' properties", |context| {
        context.get_capability(CapabilityType::PcrProperties, PcrPropertyTag::Save.into(), 32)
    })?;
    let CapabilityData::PcrProperties(properties) = data else {
        return Err(odd("its registers' properties"));
    };
    let has = |tag| properties.find(tag).is_some_and(|it| it.selected_pcrs().contains(&slot));
    let resettable = [
        PcrPropertyTag::ResetL0,
        PcrPropertyTag::ResetL1,
        PcrPropertyTag::ResetL2,
        PcrPropertyTag::ResetL3,
    ];
    if resettable.into_iter().any(has) {
        return Err(Failure::new(
            FailureKind::Unsupported,
            format!(
                "register {pcr} of this TPM can be set back to zero: choose another as \"pcr\""
            ),
        ));
    }
    if !has(PcrPropertyTag::ExtendL0) {
        return Err(Failure::new(
            FailureKind::Unsupported,
            format!("register {pcr} of this TPM can't be extended: choose another as \"pcr\""),
        ));
    }
    Ok(())
}

/// What `pcr` holds in each of `banks`.
pub(super) fn register(tpm: &mut Tpm, banks: &[Bank], pcr: u8) -> Result<Pcrs, Failure> {
    let selection = banks.iter().map(|&bank| (bank, BTreeSet::from([pcr]))).collect();
    let values = read(tpm, &selection)?;
    Ok(values
        .into_iter()
        .filter_map(|(bank, mut values)| Some((bank, values.remove(&pcr)?)))
        .collect())
}

/// Reads registers. The TPM gives some of those that it is asked for, eight at most, so it is asked
/// until it has given all.
pub(super) fn read(tpm: &mut Tpm, selection: &Selection) -> Result<Values, Failure> {
    let mut left = selection.clone();
    let mut values = Values::new();
    loop {
        left.retain(|_, registers| !registers.is_empty());
        let Some((&bank, _)) = left.first_key_value() else { return Ok(values) };
        let asked = list(&left)?;
        let (_, given, digests) =
            tpm.call("read the TPM's registers", |context| context.pcr_read(asked.clone()))?;
        let mut digests = digests.value().iter();
        let mut any = false;
        for selection in given.get_selections() {
            let Some(bank) = self::bank(selection.hashing_algorithm()) else { continue };
            let mut slots: Vec<u8> = selection.selected().into_iter().map(number).collect();
            slots.sort_unstable();
            for pcr in slots {
                let digest = digests.next().ok_or_else(|| odd("its registers"))?;
                if digest.value().len() != bank.size() {
                    return Err(odd("its registers"));
                }
                if left.get_mut(&bank).is_some_and(|left| left.remove(&pcr)) {
                    any = true;
                    values.entry(bank).or_default().insert(pcr, digest.value().to_vec());
                }
            }
        }
        if !any {
            return Err(Failure::new(
                FailureKind::BankOff,
                format!(
                    "the TPM does not give its registers {:?} in bank {bank}: that bank is not \
                     active",
                    left.get(&bank).into_iter().flatten().collect::<Vec<_>>()
                ),
            ));
        }
    }
}

/// Extends `pcr` in all banks that `digests` has, with one command.
pub(super) fn extend(
    tpm: &mut Tpm,
    pcr: u8,
    digests: &BTreeMap<Bank, Vec<u8>>,
) -> Result<(), Failure> {
    let register = PcrHandle::try_from(u32::from(pcr))
        .map_err(|_| Failure::new(FailureKind::Request, format!("there is no register {pcr}")))?;
    let mut values = DigestValues::new();
    for (&bank, digest) in digests {
        let digest = Digest::try_from(digest.as_slice()).map_err(|_| odd("a digest"))?;
        values.set(algorithm(bank), digest);
    }
    tpm.call("extend the TPM's register", |context| {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.pcr_extend(register, values.clone())
        })
    })
}

/// A selection as the TPM wants it.
pub(super) fn list(selection: &Selection) -> Result<PcrSelectionList, Failure> {
    let mut builder =
        PcrSelectionListBuilder::new().with_size_of_select(PcrSelectSize::ThreeOctets);
    for (&bank, registers) in selection {
        let slots = registers.iter().map(|&pcr| slot(pcr)).collect::<Result<Vec<_>, _>>()?;
        builder = builder.with_selection(algorithm(bank), &slots);
    }
    builder.build().map_err(|_| odd("a selection of registers"))
}

/// Something that is not as the specification has it.
pub(super) fn odd(what: &str) -> Failure {
    Failure::new(FailureKind::Tpm, format!("the TPM's answer about {what} is not understood"))
}
