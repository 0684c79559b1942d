//! The keys: what the AK is, who says so, and whose TPM it is in.

use super::{CheckName, Run, Trust, chain};
use crate::{
    evidence::Enrolment,
    wire::{Attributes, Key, Public},
};

/// What an AK has to be: not to be taken out of its TPM, made in it, and signing only what the TPM
/// itself made (TPM 2.0 Part 1, 31: a restricted signing key).
const DEMANDED: [(u32, &str); 5] = [
    (Attributes::FIXED_TPM, "fixedTPM"),
    (Attributes::FIXED_PARENT, "fixedParent"),
    (Attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
    (Attributes::RESTRICTED, "restricted"),
    (Attributes::SIGN, "sign"),
];

/// A TPM's endorsement key: a restricted decryption key that can't be taken out (TCG EK Credential
/// Profile, B.3 and B.4).
const ENDORSEMENT: u32 = Attributes::FIXED_TPM
    | Attributes::FIXED_PARENT
    | Attributes::SENSITIVE_DATA_ORIGIN
    | Attributes::RESTRICTED
    | Attributes::DECRYPT;

impl Run<'_> {
    /// Checks the keys; the AK, if it is to be believed.
    pub(super) fn keys(&mut self) -> Option<Public> {
        let parsed = attestation_key(&self.evidence.attestation_key);
        let Some(key) = self.findings.note(CheckName::AttestationKey, parsed) else {
            let blocked = [CheckName::KeyBinding, CheckName::EndorsementKey];
            self.findings.blocked(&blocked, CheckName::AttestationKey);
            return None;
        };
        self.facts.attestation_key = Some(key.name().to_string());
        let bound = self.binding(&key);
        let Some(trust) = self.findings.note(CheckName::KeyBinding, bound) else {
            self.findings.blocked(&[CheckName::EndorsementKey], CheckName::KeyBinding);
            return None;
        };
        self.facts.trust = Some(trust);
        match trust {
            Trust::Enrolled => {
                let endorsed = self.endorsement();
                self.findings.note(CheckName::EndorsementKey, endorsed);
            }
            Trust::Pinned => {
                let why = "the policy names the attestation key itself";
                self.findings.skip(CheckName::EndorsementKey, why);
            }
            Trust::FirstUse => {
                let why = "nobody has enrolled the attestation key, it is trusted on first use";
                self.findings.skip(CheckName::EndorsementKey, why);
            }
        }
        Some(key)
    }

    /// Why the AK is to be believed.
    fn binding(&self, key: &Public) -> Result<Trust, String> {
        let demands = &self.policy.document.attestation_keys;
        let name = key.name();
        if demands.pinned.contains(&name.to_string()) {
            return Ok(Trust::Pinned);
        }
        let refusal = match &self.evidence.enrolment {
            Some(enrolment) => match self.enrolment(enrolment, key) {
                Ok(()) => return Ok(Trust::Enrolled),
                Err(why) => why,
            },
            None => "there is no enrolment".to_owned(),
        };
        if demands.trust_on_first_use {
            return Ok(Trust::FirstUse);
        }
        Err(format!("the policy does not name the attestation key {name}, and {refusal}"))
    }

    fn enrolment(&self, enrolment: &Enrolment, key: &Public) -> Result<(), String> {
        if enrolment.attestation_key != key.name() {
            return Err("the enrolment is of another attestation key".to_owned());
        }
        enrolment.verify(&self.policy.enrollers).map_err(|error| error.to_string())
    }

    /// Whether the policy takes the EK that the AK was enrolled with.
    fn endorsement(&mut self) -> Result<(), String> {
        let (Some(enrolment), policy) = (&self.evidence.enrolment, self.policy) else {
            return Err("there is no enrolment".to_owned());
        };
        let name = &enrolment.endorsement_key;
        self.facts.endorsement_key = Some(name.to_string());
        let demands = &policy.document.endorsement_keys;
        if demands.pinned.contains(&name.to_string())
            || demands.by_enroller
            || demands.trust_on_first_use
        {
            return Ok(());
        }
        if policy.roots.is_empty() {
            return Err(format!(
                "the policy names neither the endorsement key {name} nor any maker of TPMs"
            ));
        }
        let Some(endorsement) = &self.evidence.endorsement else {
            return Err("the evidence does not have the endorsement key".to_owned());
        };
        let public = endorsement_key(&endorsement.public)?;
        if public.name() != *name {
            return Err("it is not the endorsement key that was enrolled".to_owned());
        }
        chain::check(&public, &endorsement.certificates, &policy.roots, self.now)
    }
}

/// Parses an EK and checks what it may do.
pub(crate) fn endorsement_key(bytes: &[u8]) -> Result<Public, String> {
    let key = Public::parse(bytes).map_err(|error| error.to_string())?;
    if !key.attributes.has(ENDORSEMENT) || key.attributes.has(Attributes::SIGN) {
        return Err("by its attributes it is not an endorsement key".to_owned());
    }
    Ok(key)
}

/// Parses an AK and checks what it may do.
pub(crate) fn attestation_key(bytes: &[u8]) -> Result<Public, String> {
    let key = Public::parse(bytes).map_err(|error| error.to_string())?;
    let missing = DEMANDED.iter().filter(|(bit, _)| !key.attributes.has(*bit));
    let missing: Vec<_> = missing.map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(format!("the attestation key lacks {missing}, so it could sign anything"));
    }
    if key.attributes.has(Attributes::DECRYPT) {
        return Err("the attestation key also decrypts".to_owned());
    }
    if let Key::Rsa { modulus, .. } = &key.key
        && modulus.len() < 256
    {
        return Err("the attestation key is an RSA key of less than 2048 bits".to_owned());
    }
    if key.name_algorithm == crate::log::Bank::Sha1 {
        return Err("the attestation key's name is made with SHA-1".to_owned());
    }
    Ok(key)
}
