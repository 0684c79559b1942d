//! The TPM's keys: the endorsement key (EK) that the vendor vouches for, and under it the
//! attestation key (AK) that signs what the registers hold.
//!
//! Nothing is kept inside the TPM: the EK is made again from its template, which always gives the
//! same key (TCG EK Credential Profile 2.5, B.3); the AK is a blob that only this TPM can load, under
//! this EK. The AK is a restricted key: it signs only what the TPM itself says. It hangs under the
//! EK, thus in the endorsement hierarchy, so that quotes have the true counters (part 1, 36.7).
//! It has no password, and the TPM's lock against guessing does not touch it (`noDA`).

use super::{banks::odd, fault, store::Turn, tpm::Tpm};
use sandbox_attestation::{
    credential::Credential,
    session::{Algorithm, Bytes, Endorsement, Failure, FailureKind, Identity, InitOptions},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use tss_esapi::{
    Context,
    abstraction::{AsymmetricAlgorithmSelection, ek},
    attributes::ObjectAttributesBuilder,
    constants::{AlgorithmIdentifier, CapabilityType, SessionType},
    handles::{AuthHandle, KeyHandle, SessionHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        key_bits::RsaKeyBits,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        CapabilityData, EccPoint, EccScheme, EncryptedSecret, HashScheme, IdObject,
        KeyDerivationFunctionScheme, Private, Public, PublicBuilder, PublicEccParametersBuilder,
        PublicKeyRsa, PublicRsaParametersBuilder, RsaExponent, RsaScheme, SymmetricDefinition,
        SymmetricDefinitionObject,
    },
    traits::{Marshall as _, UnMarshall as _},
    utils::TpmsContext,
};

/// The keys' blobs.
const KEYS: &str = "ak.json";
/// The AK as the TPM has saved it while it was loaded, which is faster to load again.
const LOADED: &str = "ak.context";

/// Where sandbox keeps what an enroller has signed.
const ENROLMENT: &str = "enrolment.json";

/// What is kept of the keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    version: u32,
    identity: Identity,
    /// `TPM2B_PRIVATE` of the AK, without its size: encrypted by the EK.
    private: Bytes,
}

/// The AK as it was loaded in the running boot.
#[derive(Debug, Serialize, Deserialize)]
struct Loaded {
    ak_name: Bytes,
    context: TpmsContext,
}

/// A loaded AK.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) handle: KeyHandle,
    pub(super) identity: Identity,
}

impl Key {
    /// Removes the key from the TPM's memory.
    pub(super) fn unload(self, tpm: &mut Tpm) -> Result<(), Failure> {
        flush(tpm, self.handle)
    }
}

/// The public parts of the keys, once they have been made.
pub(super) fn identity(turn: &Turn) -> Result<Option<Identity>, Failure> {
    Ok(kept(turn)?.map(|kept| kept.identity))
}

fn kept(turn: &Turn) -> Result<Option<Kept>, Failure> {
    let kept: Option<Kept> = turn.load(KEYS)?;
    match kept {
        Some(kept) if kept.version != 1 => Err(Failure::new(
            FailureKind::Key,
            format!("ak.json has version {}, and this program knows version 1", kept.version),
        )),
        kept => Ok(kept),
    }
}

/// Makes the keys.
pub(super) fn init(tpm: &mut Tpm, turn: &Turn, options: &InitOptions) -> Result<Identity, Failure> {
    if !options.replace
        && let Some(Identity { algorithm, .. }) = identity(turn)?
    {
        return Err(Failure::new(
            FailureKind::KeyExists,
            format!(
                "this host has an attestation key already ({algorithm:?}); to replace it means \
                 that every verifier has to enrol this host again"
            ),
        ));
    }
    make(tpm, turn, options).map(|kept| kept.identity)
}

fn make(tpm: &mut Tpm, turn: &Turn, options: &InitOptions) -> Result<Kept, Failure> {
    can(tpm, options.algorithm)?;
    let (endorsement, certificate) = match options.endorsement {
        Some(endorsement) => (endorsement, certificate(tpm, endorsement)?),
        None => choose(tpm)?,
    };
    let (parent, ek_public) = endorsement_key(tpm, endorsement)?;
    let template = template(options.algorithm)
        .map_err(|error| fault::failure("describe the attestation key", &error))?;
    let created = with_policy(tpm, |tpm, policy| {
        tpm.call("create the attestation key", |context| {
            context.execute_with_session(Some(policy), |context| {
                context.create(parent, template.clone(), None, None, None, None)
            })
        })
    })?;
    let (public, private) = (created.out_public, created.out_private);
    let handle = load(tpm, parent, &private, &public)?;
    let ak_name = name(tpm, handle)?;
    flush(tpm, handle)?;
    flush(tpm, parent)?;
    let identity = Identity {
        algorithm: options.algorithm,
        endorsement,
        ak_public: marshalled(&public)?,
        ak_name,
        ek_public: marshalled(&ek_public)?,
        ek_certificate: certificate.map(Bytes),
    };
    let kept = Kept { version: 1, identity, private: private.value().to_vec().into() };
    // What an enroller has signed is about the key that goes.
    turn.remove(ENROLMENT)?;
    turn.save(KEYS, &kept)?;
    turn.remove(LOADED)?;
    Ok(kept)
}

/// Loads the AK; makes it first, where there is none.
pub(super) fn attestation_key(tpm: &mut Tpm, turn: &Turn) -> Result<Key, Failure> {
    let kept = match kept(turn)? {
        Some(kept) => kept,
        None => make(tpm, turn, &InitOptions::default())?,
    };
    if let Some(handle) = loaded(tpm, turn, &kept.identity)? {
        return Ok(Key { handle, identity: kept.identity });
    }
    let parent = parent(tpm, &kept.identity)?;
    let handle = load_kept(tpm, parent, &kept)?;
    flush(tpm, parent)?;
    // Only saves time: without it, the next quote goes the long way again.
    let saved =
        tpm.try_call("save the attestation key", |context| context.context_save(handle.into()))?;
    if let Ok(context) = saved {
        turn.save(LOADED, &Loaded { ak_name: kept.identity.ak_name.clone(), context })?;
    }
    Ok(Key { handle, identity: kept.identity })
}

/// Loads the AK the short way, if that is possible: not after a reset of the TPM.
fn loaded(tpm: &mut Tpm, turn: &Turn, identity: &Identity) -> Result<Option<KeyHandle>, Failure> {
    let Ok(Some(loaded)) = turn.load::<Loaded>(LOADED) else { return Ok(None) };
    if loaded.ak_name != identity.ak_name {
        return Ok(None);
    }
    let answer = tpm.try_call("load the attestation key", |context| {
        context.context_load(loaded.context.clone())
    })?;
    Ok(answer.ok().map(KeyHandle::from))
}

fn load_kept(tpm: &mut Tpm, parent: KeyHandle, kept: &Kept) -> Result<KeyHandle, Failure> {
    let damaged = |problem: &dyn fmt::Display| {
        Failure::new(
            FailureKind::Key,
            format!(
                "the attestation key in ak.json is damaged ({problem}); make a new one: 'sandbox \
                 attest init --replace'"
            ),
        )
    };
    let public = Public::unmarshall(&kept.identity.ak_public.0).map_err(|it| damaged(&it))?;
    let private = Private::try_from(kept.private.0.as_slice()).map_err(|it| damaged(&it))?;
    load(tpm, parent, &private, &public).map_err(|failure| match failure.kind {
        // The TPM does not say more about a blob than that it does not fit.
        FailureKind::Tpm | FailureKind::Key => damaged(&failure),
        _ => failure,
    })
}

/// Makes the EK that the AK hangs under.
fn parent(tpm: &mut Tpm, identity: &Identity) -> Result<KeyHandle, Failure> {
    let (parent, ek_public) = endorsement_key(tpm, identity.endorsement)?;
    if marshalled(&ek_public)? != identity.ek_public {
        flush(tpm, parent)?;
        return Err(Failure::new(
            FailureKind::Key,
            "the attestation key in ak.json is of another TPM, or the TPM's endorsement seed was \
             changed; if that is meant, make a new one: 'sandbox attest init --replace'",
        ));
    }
    Ok(parent)
}

/// Finds out the secret of a credential (part 3, `TPM2_ActivateCredential`): the TPM does that only
/// if the credential was made for this EK and for this AK's name.
pub(super) fn activate(
    tpm: &mut Tpm,
    turn: &Turn,
    credential: &Credential,
) -> Result<Vec<u8>, Failure> {
    let malformed =
        || Failure::new(FailureKind::Request, "the credential is not what MakeCredential makes");
    let id = content(&credential.id_object).and_then(|it| IdObject::try_from(it).ok());
    let secret =
        content(&credential.encrypted_secret).and_then(|it| EncryptedSecret::try_from(it).ok());
    let (id, secret) = id.zip(secret).ok_or_else(malformed)?;
    let Some(kept) = kept(turn)? else {
        return Err(Failure::new(
            FailureKind::Key,
            "this host has no attestation key that a credential could be for: 'sandbox attest init'",
        ));
    };
    let parent = parent(tpm, &kept.identity)?;
    let handle = load_kept(tpm, parent, &kept)?;
    let secret = with_policy(tpm, |tpm, policy| {
        tpm.try_call("activate the credential", |context| {
            // The AK's own authorization is an empty password, the EK's a policy.
            let sessions = (Some(AuthSession::Password), Some(policy), None);
            context.execute_with_sessions(sessions, |context| {
                context.activate_credential(handle, parent, id.clone(), secret.clone())
            })
        })
    });
    flush(tpm, handle)?;
    flush(tpm, parent)?;
    match secret? {
        Ok(secret) => Ok(secret.value().to_vec()),
        Err(error) => Err(Failure::new(
            FailureKind::Key,
            format!(
                "the credential is not for this TPM's endorsement key and this host's attestation \
                 key (the TPM answered: {error}); enrol the host again"
            ),
        )),
    }
}

/// What is inside a structure that begins with its size (part 2, `TPM2B_…`).
fn content(sized: &[u8]) -> Option<&[u8]> {
    let (size, content) = sized.split_first_chunk()?;
    (usize::from(u16::from_be_bytes(*size)) == content.len()).then_some(content)
}

/// Makes the EK from its template.
fn endorsement_key(
    tpm: &mut Tpm,
    endorsement: Endorsement,
) -> Result<(KeyHandle, Public), Failure> {
    let template = ek::create_ek_public_from_default_template_2(selection(endorsement), None)
        .map_err(|error| fault::failure("describe the endorsement key", &error))?;
    let created = tpm.call("make the endorsement key", |context| {
        context.execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Endorsement, template.clone(), None, None, None, None)
        })
    })?;
    Ok((created.key_handle, created.out_public))
}

/// The EK that has a certificate; ECC first, since it is made a hundred times faster.
fn choose(tpm: &mut Tpm) -> Result<(Endorsement, Option<Vec<u8>>), Failure> {
    for endorsement in [Endorsement::EccP256, Endorsement::Rsa2048] {
        if let Some(certificate) = certificate(tpm, endorsement)? {
            return Ok((endorsement, Some(certificate)));
        }
    }
    Ok((Endorsement::EccP256, None))
}

/// The vendor's certificate of an EK, which the TPM holds at an address that the profile names.
fn certificate(tpm: &mut Tpm, endorsement: Endorsement) -> Result<Option<Vec<u8>>, Failure> {
    let answer = tpm.try_call("read the endorsement key's certificate", |context| {
        match ek::retrieve_ek_pubcert(context, selection(endorsement)) {
            // The library's own words for what is not there, or not as it should be.
            Err(tss_esapi::Error::WrapperError(_)) => Ok(None),
            answer => answer.map(Some),
        }
    })?;
    Ok(answer.ok().flatten().and_then(trimmed))
}

/// A certificate without what follows it: some TPMs fill their memory up.
fn trimmed(mut certificate: Vec<u8>) -> Option<Vec<u8>> {
    // DER: a SEQUENCE whose length takes two bytes, as that of every certificate of a key does.
    let &[0x30, 0x82, high, low, ..] = certificate.as_slice() else { return None };
    let length = 4 + usize::from(u16::from_be_bytes([high, low]));
    (certificate.len() >= length).then(|| {
        certificate.truncate(length);
        certificate
    })
}

/// Runs `work` with a session that satisfies the EK's policy: whoever may use the endorsement
/// hierarchy may use the EK (profile, B.3, "PolicyA").
fn with_policy<T>(
    tpm: &mut Tpm,
    work: impl FnOnce(&mut Tpm, AuthSession) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let session = tpm.call("start a session", |context| {
        context.start_auth_session(
            None,
            None,
            None,
            SessionType::Policy,
            SymmetricDefinition::AES_128_CFB,
            HashingAlgorithm::Sha256,
        )
    })?;
    let session = session.ok_or_else(|| odd("a session"))?;
    let policy = PolicySession::try_from(session).map_err(|_| odd("a session"))?;
    let result = tpm
        .call("use the endorsement hierarchy", |context| {
            context.execute_with_session(Some(AuthSession::Password), |context| {
                context.policy_secret(
                    policy,
                    AuthHandle::Endorsement,
                    Default::default(),
                    Default::default(),
                    Default::default(),
                    None,
                )
            })
        })
        .and_then(|_| work(tpm, session));
    // A command that has succeeded has ended the session with it.
    let _ = tpm.try_call("end a session", |context| {
        context.flush_context(SessionHandle::from(session).into())
    });
    result
}

/// Whether the TPM knows the algorithms of an AK.
fn can(tpm: &mut Tpm, algorithm: Algorithm) -> Result<(), Failure> {
    let needed = match algorithm {
        Algorithm::EcdsaP256 => AlgorithmIdentifier::EcDsa,
        Algorithm::Rsassa2048 => AlgorithmIdentifier::RsaSsa,
    };
    for identifier in [needed, AlgorithmIdentifier::Sha256] {
        let (data, _) = tpm.call("ask the TPM for its algorithms", |context| {
            context.get_capability(CapabilityType::Algorithms, u16::from(identifier).into(), 1)
        })?;
        let found =
            matches!(&data, CapabilityData::Algorithms(list) if list.find(identifier).is_some());
        if !found {
            return Err(Failure::new(
                FailureKind::Unsupported,
                format!("the TPM has no {identifier:?}; choose another algorithm"),
            ));
        }
    }
    Ok(())
}

/// What an AK should be.
fn template(algorithm: Algorithm) -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()?;
    let sha256 = HashScheme::new(HashingAlgorithm::Sha256);
    let builder = PublicBuilder::new()
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes);
    match algorithm {
        Algorithm::EcdsaP256 => builder
            .with_public_algorithm(PublicAlgorithm::Ecc)
            .with_ecc_parameters(
                PublicEccParametersBuilder::new()
                    .with_symmetric(SymmetricDefinitionObject::Null)
                    .with_ecc_scheme(EccScheme::EcDsa(sha256))
                    .with_curve(EccCurve::NistP256)
                    .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                    .with_is_signing_key(true)
                    .with_restricted(true)
                    .build()?,
            )
            .with_ecc_unique_identifier(EccPoint::default())
            .build(),
        Algorithm::Rsassa2048 => builder
            .with_public_algorithm(PublicAlgorithm::Rsa)
            .with_rsa_parameters(
                PublicRsaParametersBuilder::new()
                    .with_symmetric(SymmetricDefinitionObject::Null)
                    .with_scheme(RsaScheme::RsaSsa(sha256))
                    .with_key_bits(RsaKeyBits::Rsa2048)
                    .with_exponent(RsaExponent::default())
                    .with_is_signing_key(true)
                    .with_restricted(true)
                    .build()?,
            )
            .with_rsa_unique_identifier(PublicKeyRsa::default())
            .build(),
    }
}

const fn selection(endorsement: Endorsement) -> AsymmetricAlgorithmSelection {
    match endorsement {
        Endorsement::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
        Endorsement::EccP256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
    }
}

fn load(
    tpm: &mut Tpm,
    parent: KeyHandle,
    private: &Private,
    public: &Public,
) -> Result<KeyHandle, Failure> {
    with_policy(tpm, |tpm, policy| {
        tpm.call("load the attestation key", |context| {
            context.execute_with_session(Some(policy), |context| {
                context.load(parent, private.clone(), public.clone())
            })
        })
    })
}

fn name(tpm: &mut Tpm, handle: KeyHandle) -> Result<Bytes, Failure> {
    let (_, name, _) =
        tpm.call("read the attestation key", |context: &mut Context| context.read_public(handle))?;
    Ok(name.value().to_vec().into())
}

fn flush(tpm: &mut Tpm, handle: KeyHandle) -> Result<(), Failure> {
    tpm.call("unload a key", |context| context.flush_context(handle.into()))
}

fn marshalled(public: &Public) -> Result<Bytes, Failure> {
    let bytes = public.marshall().map_err(|error| fault::failure("write a key down", &error))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::trimmed;

    #[test]
    fn what_follows_a_certificate_is_cut_off() {
        let certificate = [&[0x30, 0x82, 0, 3, 1, 2, 3][..], &[0; 9]].concat();
        assert_eq!(trimmed(certificate.clone()).unwrap(), &certificate[..7]);
        assert_eq!(trimmed(certificate[..6].to_vec()), None);
        assert_eq!(trimmed(vec![0xff; 100]), None);
        assert_eq!(trimmed(vec![]), None);
    }
}
