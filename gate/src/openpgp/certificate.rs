//! Certificates: public keys, and what they say about themselves.

use super::{OpenPgpError, created, dearmored, expires};
use crate::instant;
use pgp::{
    armor::BlockType,
    composed::{ArmorOptions, Deserializable as _, SignedPublicKey, SignedPublicSubKey},
    packet::{Signature, SignatureType, SubpacketData},
    ser::Serialize as _,
    types::{KeyDetails, PublicParams, SignedUser, Tag},
};

/// The fewest bits of an RSA key.
const MIN_RSA_BITS: u16 = 2048;
/// What the armor of a key begins with.
const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// A public key with all that belongs to it: user IDs, subkeys, revocations.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub(super) key: SignedPublicKey,
    fingerprint: String,
    armored: String,
}

/// Reads all keys of a file, armored (one block or several) or binary. There is at least one.
///
/// # Errors
/// If there is none, or anything else.
pub fn parse(bytes: &[u8]) -> Result<Vec<Certificate>, OpenPgpError> {
    let mut blocks = Vec::new();
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains(BEGIN) => {
            for (start, _) in text.match_indices(BEGIN) {
                blocks.push(dearmored(&bytes[start..], BlockType::PublicKey, "the key")?);
            }
        }
        _ => blocks.push(dearmored(bytes, BlockType::PublicKey, "the key")?),
    }
    let mut certificates = Vec::new();
    for block in blocks {
        let malformed = |error| OpenPgpError::malformed("the key", &error);
        for key in SignedPublicKey::from_bytes_many(block.as_slice()).map_err(malformed)? {
            certificates.push(Certificate::new(key.map_err(malformed)?)?);
        }
    }
    if certificates.is_empty() {
        return Err(OpenPgpError::new("there is no public key in it"));
    }
    Ok(certificates)
}

/// A key's fingerprint as it is written everywhere here.
pub(super) fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:x}", key.fingerprint())
}

/// What a self-signature says of a key.
struct Terms<'a> {
    made: i64,
    signature: &'a Signature,
}

impl Certificate {
    fn new(key: SignedPublicKey) -> Result<Self, OpenPgpError> {
        let fingerprint = fingerprint(&key.primary_key);
        // That of version 4 has 40 digits, that of version 6 has 64.
        if !matches!(fingerprint.len(), 40 | 64) {
            return Err(OpenPgpError::new("the key is of a version that is not supported"));
        }
        let armored = key
            .to_armored_string(ArmorOptions::default())
            .map_err(|error| OpenPgpError::malformed("the key", &error))?;
        Ok(Self { key, fingerprint, armored })
    }

    /// The fingerprint of the primary key in lower-case hexadecimal digits.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The fingerprints of the subkeys.
    pub fn subkeys(&self) -> Vec<String> {
        self.key.public_subkeys.iter().map(|subkey| fingerprint(&subkey.key)).collect()
    }

    /// The user IDs that the key has signed itself, the primary one first. Not escaped.
    pub fn identities(&self) -> Vec<String> {
        let mut users: Vec<_> = self
            .key
            .details
            .users
            .iter()
            .filter_map(|user| {
                let newest = self.certifications(user, i64::MAX).max_by_key(|terms| terms.made)?;
                Some((!newest.signature.is_primary(), String::from_utf8_lossy(user.id.id())))
            })
            .collect();
        // Keeps the order of the others.
        users.sort_by_key(|(is_secondary, _)| *is_secondary);
        users.into_iter().map(|(_, text)| text.into_owned()).collect()
    }

    /// The armored key.
    pub fn armored(&self) -> &str {
        &self.armored
    }

    /// Why nothing that it signs counts at that time, in seconds since 1970.
    pub fn problem(&self, now: i64) -> Option<String> {
        if let Err(problem) = self.terms(now) {
            return Some(problem);
        }
        let mut signers = vec![self.fingerprint.clone()];
        signers.extend(self.subkeys());
        let can_sign = signers.iter().any(|signer| self.check(signer, now, now).is_ok());
        (!can_sign).then(|| "has no key that may sign now".to_owned())
    }

    /// Whether a signature that the primary key or a subkey made then counts now.
    pub(super) fn check(&self, signer: &str, made: i64, now: i64) -> Result<(), String> {
        let primary = &self.key.primary_key;
        let terms = self.terms(now)?;
        if made < i64::from(primary.created_at().as_secs()) {
            return Err("is younger than the signature".to_owned());
        }
        if signer == self.fingerprint {
            return if terms.signature.key_flags().sign() {
                Ok(())
            } else {
                Err("may not sign, by its own account".to_owned())
            };
        }
        let subkey = self.key.public_subkeys.iter().find(|sub| fingerprint(&sub.key) == signer);
        let subkey = subkey.ok_or_else(|| format!("has no subkey {signer}"))?;
        self.check_subkey(subkey, made, now)
            .map_err(|problem| format!("has a subkey that {problem}"))
    }

    /// What the primary key says of itself now, if it is worth anything.
    fn terms(&self, now: i64) -> Result<Terms<'_>, String> {
        let primary = &self.key.primary_key;
        let details = &self.key.details;
        let is_revocation = |signature: &&Signature| {
            signature.typ() == Some(SignatureType::KeyRevocation)
                && signature.verify_key(primary).is_ok()
        };
        let signatures = details.revocation_signatures.iter().chain(&details.direct_signatures);
        if signatures.clone().any(|signature| is_revocation(&signature)) {
            return Err("is revoked".to_owned());
        }
        check_algorithm(primary)?;
        let made = i64::from(primary.created_at().as_secs());
        if made > now {
            return Err(format!("is of the future: it was made at {}", instant::format(made)));
        }
        let direct = details.direct_signatures.iter().filter_map(|signature| {
            let made = self_signed(signature, now)?;
            let is_direct = signature.typ() == Some(SignatureType::Key);
            (is_direct && signature.verify_key(primary).is_ok())
                .then_some(Terms { made, signature })
        });
        let users = details.users.iter().filter(|user| !self.is_revoked(user));
        let terms = users
            .flat_map(|user| self.certifications(user, now))
            .chain(direct)
            .filter(|terms| has_flags(terms.signature))
            .max_by_key(|terms| terms.made)
            .ok_or_else(|| {
                "has no valid signature of its own that says what it is for".to_owned()
            })?;
        check_expiry(terms.signature, made, now)?;
        Ok(terms)
    }

    /// The valid signatures of the key that a user ID is its own.
    fn certifications<'a>(
        &'a self,
        user: &'a SignedUser,
        now: i64,
    ) -> impl Iterator<Item = Terms<'a>> {
        user.signatures.iter().filter_map(move |signature| {
            let made = self_signed(signature, now)?;
            let is_one = signature.typ() != Some(SignatureType::CertRevocation)
                && signature
                    .verify_certification(&self.key.primary_key, Tag::UserId, &user.id)
                    .is_ok();
            is_one.then_some(Terms { made, signature })
        })
    }

    fn is_revoked(&self, user: &SignedUser) -> bool {
        user.signatures.iter().any(|signature| {
            signature.typ() == Some(SignatureType::CertRevocation)
                && signature
                    .verify_certification(&self.key.primary_key, Tag::UserId, &user.id)
                    .is_ok()
        })
    }

    fn check_subkey(&self, subkey: &SignedPublicSubKey, made: i64, now: i64) -> Result<(), String> {
        let primary = &self.key.primary_key;
        let is_bound =
            |signature: &Signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok();
        let mut newest: Option<Terms<'_>> = None;
        for signature in &subkey.signatures {
            if signature.typ() == Some(SignatureType::SubkeyRevocation) {
                if is_bound(signature) {
                    return Err("is revoked".to_owned());
                }
                continue;
            }
            let Some(made) = self_signed(signature, now) else { continue };
            if is_bound(signature) && newest.as_ref().is_none_or(|terms| made >= terms.made) {
                newest = Some(Terms { made, signature });
            }
        }
        let binding = newest.ok_or("is not bound to it by a valid signature")?.signature;
        check_algorithm(&subkey.key)?;
        let born = i64::from(subkey.key.created_at().as_secs());
        if born > now || made < born {
            return Err("is younger than the signature".to_owned());
        }
        check_expiry(binding, born, now)?;
        if !binding.key_flags().sign() {
            return Err("may not sign, by its own account".to_owned());
        }
        // Without it anybody could say that somebody else's key is a subkey of theirs.
        let back = binding.embedded_signature().filter(|back| {
            self_signed(back, now).is_some()
                && back.verify_primary_key_binding(&subkey.key, primary).is_ok()
        });
        back.map(drop).ok_or_else(|| "has not signed that it belongs to it".to_owned())
    }
}

/// The time of a signature of a key over itself, if it can count now.
fn self_signed(signature: &Signature, now: i64) -> Option<i64> {
    let made = created(signature).ok()?;
    let is_over = expires(signature, made).is_some_and(|end| end <= now);
    (made <= now && !is_over).then_some(made)
}

fn has_flags(signature: &Signature) -> bool {
    signature.config().is_some_and(|config| {
        config.hashed_subpackets().any(|part| matches!(part.data, SubpacketData::KeyFlags(_)))
    })
}

/// Whether a key that was made then has not expired, by what its newest signature says.
fn check_expiry(signature: &Signature, made: i64, now: i64) -> Result<(), String> {
    match signature.key_expiration_time().map(|after| i64::from(after.as_secs())) {
        Some(after) if after != 0 && made + after <= now => {
            Err(format!("has expired at {}", instant::format(made + after)))
        }
        _ => Ok(()),
    }
}

fn check_algorithm(key: &impl KeyDetails) -> Result<(), String> {
    let bits = match key.public_params() {
        // An MPI begins with its length in bits, and the modulus comes first.
        PublicParams::RSA(params) => match params.to_bytes().as_deref() {
            Ok([high, low, ..]) => u16::from_be_bytes([*high, *low]),
            _ => 0,
        },
        PublicParams::ECDSA(_)
        | PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_) => return Ok(()),
        _ => return Err(format!("is of a kind that is not accepted: {:?}", key.algorithm())),
    };
    if bits < MIN_RSA_BITS {
        return Err(format!("is an RSA key of {bits} bits, fewer than {MIN_RSA_BITS}"));
    }
    Ok(())
}
