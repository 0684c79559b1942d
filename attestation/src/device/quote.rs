//! Quotes: the TPM signs what its registers hold, along with what the caller made up.

use super::{
    banks::{self, Selection, Values, odd},
    fault,
    keys::Key,
    tpm::Tpm,
};
use sandbox_attestation::{
    Bank,
    session::{Ask, Bytes, Clock, Failure, FailureKind},
};
use std::collections::BTreeSet;
use tss_esapi::{
    interface_types::session_handles::AuthSession,
    structures::{Attest, AttestInfo, Data, SignatureScheme},
    traits::Marshall as _,
};

/// How often is tried to have registers and quote of the same moment, while others extend.
const TRIES: usize = 8;

/// The host's own registers that are quoted if nothing else is asked for: firmware, boot loader,
/// kernel and its command line. The kernel extends 10 at any time, and its log is not with us.
const BY_DEFAULT: [u8; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];

/// A quote, and the registers that it is of.
#[derive(Debug)]
pub(super) struct Signed {
    /// `TPMS_ATTEST`.
    pub(super) attest: Bytes,
    /// `TPMT_SIGNATURE`.
    pub(super) signature: Bytes,
    /// The registers.
    pub(super) values: Values,
    /// Clock and counters at that moment.
    pub(super) clock: Clock,
}

/// Which registers to quote: those that are asked for, and our own in the bank that counts.
pub(super) fn selection(ask: &Ask, chief: Bank, pcr: u8) -> Result<Selection, Failure> {
    if ask.qualifying_data.0.len() > Ask::MAX_QUALIFYING {
        return Err(Failure::new(
            FailureKind::Request,
            format!(
                "{} bytes to be signed along, at most {} are possible: give a digest",
                ask.qualifying_data.0.len(),
                Ask::MAX_QUALIFYING
            ),
        ));
    }
    let mut selection = Selection::new();
    for (&bank, registers) in &ask.selection {
        for &register in registers {
            selection.entry(bank).or_default().insert(banks::known(register)?);
        }
    }
    if selection.is_empty() {
        selection.insert(chief, BY_DEFAULT.into());
    }
    // A verifier demands exactly what it asked for, so nothing is added that is not needed.
    let ours =
        |(&bank, registers): (&Bank, &BTreeSet<u8>)| bank != Bank::Sha1 && registers.contains(&pcr);
    if !selection.iter().any(ours) {
        selection.entry(chief).or_default().insert(pcr);
    }
    Ok(selection)
}

/// Quotes. Others, the kernel for one, extend registers whenever they want, so it is tried until the
/// quote is of the values that were read.
pub(super) fn quote(
    tpm: &mut Tpm,
    key: &Key,
    qualifying: &[u8],
    selection: &Selection,
) -> Result<Signed, Failure> {
    let data = Data::try_from(qualifying).map_err(|_| odd("what is signed along"))?;
    let list = banks::list(selection)?;
    for _ in 0..TRIES {
        let values = banks::read(tpm, selection)?;
        let (attest, signature) = tpm.call("quote", |context| {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.quote(key.handle, data.clone(), SignatureScheme::Null, list.clone())
            })
        })?;
        let AttestInfo::Quote { info } = attest.attested() else { return Err(odd("a quote")) };
        if info.pcr_digest().value() != digest(&attest, &values)? {
            continue;
        }
        let written = |error| fault::failure("write a quote down", &error);
        let clock = attest.clock_info();
        return Ok(Signed {
            clock: Clock {
                clock: clock.clock(),
                reset_count: clock.reset_count(),
                restart_count: clock.restart_count(),
                safe: clock.safe(),
            },
            attest: attest.marshall().map_err(written)?.into(),
            signature: signature.marshall().map_err(written)?.into(),
            values,
        });
    }
    Err(Failure::new(
        FailureKind::Busy,
        format!(
            "registers of the TPM changed during each of {TRIES} quotes; ask for fewer of them \
             (the kernel extends 10 whenever a file is opened)"
        ),
    ))
}

/// The digest of values in the order of a quote (part 1, "PCR Attestation": by the selection that
/// the quote names, in each bank by number). Our keys all sign with SHA-256.
fn digest(attest: &Attest, values: &Values) -> Result<Vec<u8>, Failure> {
    let AttestInfo::Quote { info } = attest.attested() else { return Err(odd("a quote")) };
    let mut all = Vec::new();
    let mut count = 0;
    for selection in info.pcr_selection().get_selections() {
        let bank = banks::bank(selection.hashing_algorithm()).ok_or_else(|| odd("a quote"))?;
        let mut numbers: Vec<u8> = selection.selected().into_iter().map(banks::number).collect();
        numbers.sort_unstable();
        for pcr in numbers {
            let value = values.get(&bank).and_then(|bank| bank.get(&pcr));
            all.extend_from_slice(value.ok_or_else(|| odd("a quote"))?);
            count += 1;
        }
    }
    if count != values.values().map(|bank| bank.len()).sum::<usize>() {
        return Err(odd("a quote"));
    }
    Ok(Bank::Sha256.digest(&all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn ask(qualifying: usize) -> Ask {
        Ask { pod: None, qualifying_data: vec![0; qualifying].into(), selection: BTreeMap::new() }
    }

    #[test]
    fn our_register_is_always_quoted() {
        let all = selection(&ask(32), Bank::Sha384, 15).unwrap();
        assert!(all[&Bank::Sha384].contains(&15) && !all[&Bank::Sha384].contains(&10));
        let mut one = ask(34);
        one.selection.insert(Bank::Sha256, [7].into());
        let one = selection(&one, Bank::Sha256, 14).unwrap();
        assert_eq!(one, Selection::from([(Bank::Sha256, [7, 14].into())]));
    }

    #[test]
    fn nothing_is_added_that_is_not_needed() {
        let mut asked = ask(0);
        asked.selection.insert(Bank::Sha512, [15].into());
        let got = selection(&asked, Bank::Sha256, 15).unwrap();
        assert_eq!(got, Selection::from([(Bank::Sha512, [15].into())]));
        asked.selection = [(Bank::Sha1, [15].into())].into();
        assert!(selection(&asked, Bank::Sha256, 15).unwrap().contains_key(&Bank::Sha256));
        asked.selection = [(Bank::Sha256, [24].into())].into();
        assert_eq!(selection(&asked, Bank::Sha256, 15).unwrap_err().kind, FailureKind::Request);
    }

    #[test]
    fn too_much_to_sign_along_is_refused() {
        let failure = selection(&ask(35), Bank::Sha256, 15).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Request);
    }
}
