//! The quote: who signed it, what it is of, and what it was asked for with.

use super::{CheckName, Run};
use crate::{
    evidence::{Counts, PcrValue, qualifying_data},
    log::Bank,
    wire::{Attest, Public, Signature, SigningScheme},
};
use std::collections::BTreeMap;

/// Values of registers that the TPM has signed.
pub(super) type Values = BTreeMap<Bank, BTreeMap<u32, Vec<u8>>>;

/// What stands on the quote.
const ON_FORM: [CheckName; 5] = [
    CheckName::Nonce,
    CheckName::PcrSelection,
    CheckName::PcrValues,
    CheckName::PcrReference,
    CheckName::Clock,
];

impl Run<'_> {
    /// Checks the quote, given the key that has to have signed it; values of the registers, if they
    /// are those that it is of and the ones that were asked for.
    pub(super) fn quote(&mut self, key: Option<&Public>) -> Option<Values> {
        let signed = key.and_then(|key| self.signed(key));
        if key.is_none() {
            let by = if self.findings.passed(CheckName::AttestationKey) {
                CheckName::KeyBinding
            } else {
                CheckName::AttestationKey
            };
            let blocked = [CheckName::QuoteAlgorithm, CheckName::QuoteSignature];
            self.findings.blocked(&blocked, by);
        }
        let Some(hash) = signed else {
            self.findings.blocked(&[CheckName::QuoteForm], CheckName::QuoteSignature);
            self.findings.blocked(&ON_FORM, CheckName::QuoteSignature);
            return None;
        };
        let attest = Attest::parse(&self.evidence.quote.attest).map_err(|error| error.to_string());
        let Some(attest) = self.findings.note(CheckName::QuoteForm, attest) else {
            self.findings.blocked(&ON_FORM, CheckName::QuoteForm);
            return None;
        };
        let clock = attest.clock_info;
        let (reset_count, restart_count) = (clock.reset_count, clock.restart_count);
        self.facts.counts = Some(Counts { reset_count, restart_count });
        self.facts.clock = Some(clock.clock);
        let nonce = self.asked(&attest);
        self.findings.note(CheckName::Nonce, nonce);
        let safe = if clock.safe {
            Ok(())
        } else {
            Err("the TPM's clock may have gone back since it was last written down".to_owned())
        };
        self.findings.note(CheckName::Clock, safe);
        self.registers(&attest, hash)
    }

    /// The hash function of a good signature.
    fn signed(&mut self, key: &Public) -> Option<Bank> {
        let signature = match Signature::parse(&self.evidence.quote.signature) {
            Ok(signature) => signature,
            Err(error) => {
                self.findings.note::<()>(CheckName::QuoteSignature, Err(error.to_string()));
                self.findings.blocked(&[CheckName::QuoteAlgorithm], CheckName::QuoteSignature);
                return None;
            }
        };
        let Some(hash) =
            self.findings.note(CheckName::QuoteAlgorithm, signature_algorithm(&signature, key))
        else {
            self.findings.blocked(&[CheckName::QuoteSignature], CheckName::QuoteAlgorithm);
            return None;
        };
        let good = signature.verify(key, &self.evidence.quote.attest);
        let good = good.map_err(|error| error.to_string());
        self.findings.note(CheckName::QuoteSignature, good).map(|()| hash)
    }

    /// Whether the quote was made for this nonce, pod and key.
    fn asked(&self, attest: &Attest) -> Result<(), String> {
        let evidence = self.evidence;
        let expected = qualifying_data(self.nonce, &evidence.pod, evidence.guest_key.as_deref());
        if attest.extra_data == expected {
            return Ok(());
        }
        if evidence.nonce != *self.nonce {
            return Err(format!(
                "the evidence was made for the nonce {}, and {} was asked with",
                evidence.nonce, self.nonce
            ));
        }
        Err("the quote was made for another nonce, another pod or another guest's key".to_owned())
    }

    /// The registers' values, if they are what the quote is of and the policy asks for.
    fn registers(&mut self, attest: &Attest, hash: Bank) -> Option<Values> {
        let demands = &self.policy.document.pcrs;
        let wanted: BTreeMap<_, _> = demands
            .select
            .iter()
            .filter(|(_, registers)| !registers.is_empty())
            .map(|(bank, registers)| (*bank, registers.clone()))
            .collect();
        let selected = attest.selection.banks();
        let same = if selected == wanted {
            Ok(())
        } else {
            let (is, wants) = (describe(&selected), describe(&wanted));
            Err(format!("the quote is of {is}, and the policy asks for {wants}"))
        };
        let asked = self.findings.note(CheckName::PcrSelection, same).is_some();
        let values = values(attest, &self.evidence.quote.pcrs, hash);
        let Some(values) = self.findings.note(CheckName::PcrValues, values) else {
            self.findings.blocked(&[CheckName::PcrReference], CheckName::PcrValues);
            return None;
        };
        if !asked {
            self.findings.blocked(&[CheckName::PcrReference], CheckName::PcrSelection);
            return None;
        }
        if demands.values.values().all(BTreeMap::is_empty) {
            let why = "the policy names no values of the host's registers";
            self.findings.skip(CheckName::PcrReference, why);
        } else {
            let known = reference(&values, &demands.values);
            self.findings.note(CheckName::PcrReference, known);
        }
        Some(values)
    }
}

/// The hash function of the signature, if it is made as the key says and can be believed.
pub(crate) fn signature_algorithm(signature: &Signature, key: &Public) -> Result<Bank, String> {
    let (made, hash) = match signature {
        Signature::RsaSsa { hash, .. } => (SigningScheme::RsaSsa(*hash), *hash),
        Signature::Ecdsa { hash, .. } => (SigningScheme::Ecdsa(*hash), *hash),
    };
    if hash == Bank::Sha1 {
        return Err("the quote is signed with SHA-1, of which collisions can be made".to_owned());
    }
    if key.scheme != Some(made) {
        let fixed = key.scheme;
        return Err(format!("the quote is signed with {made:?}, and the key is for {fixed:?}"));
    }
    Ok(hash)
}

/// The given values, if the quote is of them and of nothing else.
fn values(
    attest: &Attest,
    given: &BTreeMap<Bank, BTreeMap<u32, PcrValue>>,
    hash: Bank,
) -> Result<Values, String> {
    let mut values = Values::new();
    let mut joined = Vec::new();
    for (bank, register) in attest.selection.registers() {
        let value = given.get(&bank).and_then(|registers| registers.get(&register));
        let Some(PcrValue(value)) = value else {
            return Err(format!("the value of PCR {register} of {bank} is missing"));
        };
        if value.len() != bank.size() {
            return Err(format!("the value of PCR {register} of {bank} has the wrong length"));
        }
        joined.extend_from_slice(value);
        values.entry(bank).or_default().insert(register, value.clone());
    }
    let count = given.values().map(BTreeMap::len).sum::<usize>();
    if count != values.values().map(BTreeMap::len).sum::<usize>() {
        return Err("there are values of registers that the quote is not of".to_owned());
    }
    if hash.digest(&joined) != attest.pcr_digest {
        return Err("the values are not those that the quote is of".to_owned());
    }
    Ok(values)
}

/// Whether registers hold one of the values that the policy names.
fn reference(
    values: &Values,
    known: &BTreeMap<Bank, BTreeMap<u32, Vec<PcrValue>>>,
) -> Result<(), String> {
    let known = known.iter().flat_map(|(bank, registers)| {
        registers.iter().map(move |(register, known)| (*bank, *register, known))
    });
    let odd: Vec<_> = known
        .filter(|(bank, register, known)| {
            let value = values.get(bank).and_then(|registers| registers.get(register));
            !value.is_some_and(|value| known.iter().any(|PcrValue(known)| known == value))
        })
        .map(|(bank, register, _)| format!("{register} of {bank}"))
        .collect();
    if odd.is_empty() {
        return Ok(());
    }
    Err(format!("the policy does not know what the host has in PCR {}", odd.join(", ")))
}

/// `sha256:0,7,15`.
fn describe<'a>(
    banks: impl IntoIterator<Item = (&'a Bank, &'a std::collections::BTreeSet<u32>)>,
) -> String {
    let banks = banks.into_iter().map(|(bank, registers)| {
        let registers: Vec<_> = registers.iter().map(u32::to_string).collect();
        format!("{bank}:{}", registers.join(","))
    });
    let all: Vec<_> = banks.collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join("+") }
}
