//! Keys that the TPM keeps for [`sealed`](sandbox_attestation::sealed) secrets: sealed data objects
//! under a storage key of the owner's hierarchy, which is made again each time from its template, as
//! the endorsement key is.
//!
//! Sealed data is asked for in a session whose key only this storage key's owner can find out, and
//! comes encrypted: whoever listens between processor and chip learns nothing (part 1, 21).

use super::{
    banks::{self, Selection, odd},
    fault,
    tpm::Tpm,
};
use sandbox_attestation::{
    log::Bank,
    secret::KEY,
    session::{Failure, FailureKind, Release, SealedKey},
};
use std::collections::{BTreeMap, BTreeSet};
use tss_esapi::{
    attributes::{ObjectAttributesBuilder, SessionAttributesBuilder},
    constants::SessionType,
    handles::{KeyHandle, SessionHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        Digest, EccPoint, EccScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Private, Public,
        PublicBuilder, PublicEccParametersBuilder, PublicKeyedHashParameters, SensitiveData,
        SymmetricDefinition, SymmetricDefinitionObject,
    },
    traits::{Marshall as _, UnMarshall as _},
};

/// `TPM_RC_POLICY_FAIL`.
const POLICY_FAILED: u32 = 0x09d;
/// `TPM_RC_INTEGRITY`.
const INTEGRITY: u32 = 0x09f;

/// Seals a key.
pub(super) fn seal(
    tpm: &mut Tpm,
    key: &[u8],
    selection: &BTreeMap<Bank, BTreeSet<u32>>,
    log: u8,
) -> Result<SealedKey, Failure> {
    if key.len() != KEY {
        return Err(Failure::new(FailureKind::Request, format!("a key has {KEY} bytes")));
    }
    let registers = registers(selection)?;
    if registers.values().any(|registers| registers.contains(&log)) {
        return Err(Failure::new(
            FailureKind::Request,
            format!("register {log} changes with each launch: what is sealed to it never opens"),
        ));
    }
    // Of a bank that is off all registers are missing, and the policy would be about nothing.
    banks::read(tpm, &registers)?;
    let parent = storage_key(tpm)?;
    let sealed = in_session(tpm, parent, SessionType::Trial, |tpm, session| {
        let policy = PolicySession::try_from(session).map_err(|_| odd("a session"))?;
        bind(tpm, policy, &registers)?;
        tpm.call("ask for a policy's digest", |context| context.policy_get_digest(policy))
    })
    .and_then(|digest| {
        let template =
            template(digest).map_err(|error| fault::failure("describe what is sealed", &error))?;
        let data = SensitiveData::try_from(key.to_vec())
            .map_err(|error| fault::failure("describe what is sealed", &error))?;
        in_session(tpm, parent, SessionType::Hmac, |tpm, session| {
            tpm.call("seal a key", |context| {
                let sessions = (Some(AuthSession::Password), Some(session), None);
                context.execute_with_sessions(sessions, |context| {
                    context.create(parent, template.clone(), None, Some(data.clone()), None, None)
                })
            })
        })
    });
    flush(tpm, parent)?;
    let sealed = sealed?;
    let public = sealed.out_public.marshall();
    let public = public.map_err(|error| fault::failure("write what is sealed down", &error))?;
    Ok(SealedKey {
        selection: selection.clone(),
        public: public.into(),
        private: sealed.out_private.value().to_vec().into(),
    })
}

/// Gets a key back, and seals what it was kept for for a guest.
pub(super) fn release(tpm: &mut Tpm, release: &Release) -> Result<Vec<u8>, Failure> {
    let Release { sealed, pod, name, guest_key } = release;
    let refused = |error: &dyn std::fmt::Display| Failure::new(FailureKind::Request, error);
    sealed.check().map_err(|error| refused(&error))?;
    let key = unseal(tpm, &sealed.key)?;
    sealed.release(&key, pod.as_str(), name, &guest_key.0).map_err(|error| refused(&error))
}

fn unseal(tpm: &mut Tpm, sealed: &SealedKey) -> Result<SensitiveData, Failure> {
    let damaged = |problem: &dyn std::fmt::Display| {
        Failure::new(
            FailureKind::Key,
            format!(
                "the sealed secret is of another TPM, of this one before it was cleared, or damaged \
                 ({problem}); seal it anew with 'sandbox attest seal'"
            ),
        )
    };
    let registers = registers(&sealed.selection)?;
    let public = Public::unmarshall(&sealed.public.0).map_err(|it| damaged(&it))?;
    let private = Private::try_from(sealed.private.0.as_slice()).map_err(|it| damaged(&it))?;
    let parent = storage_key(tpm)?;
    let loaded = tpm.try_call("load what is sealed", |context| {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.load(parent, private.clone(), public.clone())
        })
    });
    let object = match loaded {
        Ok(Ok(object)) => object,
        Ok(Err(error)) => {
            flush(tpm, parent)?;
            let tells_nothing =
                fault::Code::of(&error).and_then(fault::Code::tpm) == Some(INTEGRITY);
            return Err(match tells_nothing {
                true => damaged(&"the TPM does not take it for its own"),
                false => damaged(&error),
            });
        }
        Err(failure) => {
            flush(tpm, parent)?;
            return Err(failure);
        }
    };
    let opened = in_session(tpm, parent, SessionType::Policy, |tpm, session| {
        let policy = PolicySession::try_from(session).map_err(|_| odd("a session"))?;
        bind(tpm, policy, &registers)?;
        tpm.try_call("open what is sealed", |context| {
            context.execute_with_session(Some(session), |context| context.unseal(object.into()))
        })
    });
    flush(tpm, object)?;
    flush(tpm, parent)?;
    opened?.map_err(|error| match fault::Code::of(&error).and_then(fault::Code::tpm) {
        Some(POLICY_FAILED) => Failure::new(
            FailureKind::Denied,
            format!(
                "the TPM does not open the sealed secret: registers {} do not hold what they held \
                 when it was sealed; if what has booted is as it should be, seal it anew with \
                 'sandbox attest seal'",
                named(&sealed.selection)
            ),
        ),
        _ => fault::failure("open what is sealed", &error),
    })
}

fn named(selection: &BTreeMap<Bank, BTreeSet<u32>>) -> String {
    let banks = selection.iter().map(|(bank, registers)| {
        let registers: Vec<_> = registers.iter().map(ToString::to_string).collect();
        format!("{bank}:{}", registers.join(","))
    });
    banks.collect::<Vec<_>>().join(" ")
}

fn registers(selection: &BTreeMap<Bank, BTreeSet<u32>>) -> Result<Selection, Failure> {
    let mut registers = Selection::new();
    for (bank, numbers) in selection {
        let known = numbers.iter().map(|number| banks::known(*number));
        registers.insert(*bank, known.collect::<Result<_, _>>()?);
    }
    if registers.values().all(BTreeSet::is_empty) {
        return Err(Failure::new(FailureKind::Request, "no register is named to seal to"));
    }
    Ok(registers)
}

/// Adds to a policy that registers hold what they hold now.
fn bind(tpm: &mut Tpm, policy: PolicySession, registers: &Selection) -> Result<(), Failure> {
    let list = banks::list(registers)?;
    tpm.call("hold registers against a policy", |context| {
        context.policy_pcr(policy, Digest::default(), list.clone())
    })
}

/// Runs `work` with a session that is salted with the storage key, and in which what goes in and out
/// is encrypted.
fn in_session<T>(
    tpm: &mut Tpm,
    parent: KeyHandle,
    kind: SessionType,
    work: impl FnOnce(&mut Tpm, AuthSession) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let salt = Some(parent).filter(|_| kind != SessionType::Trial);
    let session = tpm.call("start a session", |context| {
        context.start_auth_session(
            salt,
            None,
            None,
            kind,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
    })?;
    let session = session.ok_or_else(|| odd("a session"))?;
    let (attributes, mask) = SessionAttributesBuilder::new()
        .with_decrypt(kind == SessionType::Hmac)
        .with_encrypt(kind != SessionType::Trial)
        .build();
    let result = tpm
        .call("encrypt a session", |context| {
            context.tr_sess_set_attributes(session, attributes, mask)
        })
        .and_then(|()| work(tpm, session));
    // A command that has succeeded has ended the session with it.
    let _ = tpm.try_call("end a session", |context| {
        context.flush_context(SessionHandle::from(session).into())
    });
    result
}

/// Makes the storage key: ECC with NIST P-256 and AES-128, as the TCG's guidance has it for that of
/// the owner's hierarchy (TPM v2.0 Provisioning Guidance, 7.5.1).
fn storage_key(tpm: &mut Tpm) -> Result<KeyHandle, Failure> {
    let template = || -> tss_esapi::Result<Public> {
        let attributes = ObjectAttributesBuilder::new()
            .with_fixed_tpm(true)
            .with_fixed_parent(true)
            .with_sensitive_data_origin(true)
            .with_user_with_auth(true)
            .with_no_da(true)
            .with_restricted(true)
            .with_decrypt(true)
            .build()?;
        PublicBuilder::new()
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(attributes)
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(
                PublicEccParametersBuilder::new()
                    .with_symmetric(SymmetricDefinitionObject::AES_128_CFB)
                    .with_ecc_scheme(EccScheme::Null)
                    .with_curve(EccCurve::NistP256)
                    .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                    .with_is_decryption_key(true)
                    .with_restricted(true)
                    .build()?,
            )
            .with_ecc_unique_identifier(EccPoint::default())
            .build()
    };
    let template = template().map_err(|error| fault::failure("describe a storage key", &error))?;
    let created = tpm.call("make a storage key", |context| {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Owner, template.clone(), None, None, None, None)
        })
    })?;
    Ok(created.key_handle)
}

/// What a sealed data object should be: nothing but the policy opens it.
fn template(policy: Digest) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_no_da(true)
        .build()?;
    PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy)
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
}

fn flush(tpm: &mut Tpm, handle: KeyHandle) -> Result<(), Failure> {
    tpm.call("unload a key", |context| context.flush_context(handle.into()))
}
