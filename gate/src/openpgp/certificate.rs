//! Certificates: public keys, and what they say about themselves.

use super::{OpenPgpError, created, expires, keyring::absorb};
use crate::instant;
use pgp::{
    composed::{ArmorOptions, SignedPublicKey, SignedPublicSubKey},
    packet::{Signature, SignatureType, SubpacketData},
    ser::Serialize as _,
    types::{KeyDetails, KeyVersion, PublicParams, SignedUser, Tag},
};
use std::borrow::Cow;

/// The fewest bits of an RSA key.
const MIN_RSA_BITS: u16 = 2048;

/// A public key with all that belongs to it: user IDs, subkeys, revocations.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub(super) key: SignedPublicKey,
    fingerprint: String,
    armored: String,
}

/// A key's fingerprint as it is written everywhere here.
pub(super) fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:x}", key.fingerprint())
}

impl Certificate {
    pub(super) fn new(key: SignedPublicKey) -> Result<Self, OpenPgpError> {
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

    /// A key as all of its copies together say it is, as in the keyring that gpg would have made of
    /// them: one that is revoked is revoked in all. Nothing, if it is not among the keys.
    pub(super) fn of<'a>(keys: &'a [Self], fingerprint: &str) -> Option<Cow<'a, Self>> {
        let mut copies = keys.iter().filter(|key| key.fingerprint == fingerprint);
        let mut whole = Cow::Borrowed(copies.next()?);
        for copy in copies {
            absorb(&mut whole.to_mut().key, copy.key.clone());
        }
        Some(whole)
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
                let valid = self.certifications(user);
                let newest = valid.max_by_key(|signature| created(signature).ok())?;
                created(newest).ok()?;
                Some((!newest.is_primary(), String::from_utf8_lossy(user.id.id())))
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
            return check_flags(&terms);
        }
        let subkey = self.key.public_subkeys.iter().find(|sub| fingerprint(&sub.key) == signer);
        let subkey = subkey.ok_or_else(|| format!("has no subkey {signer}"))?;
        self.check_subkey(subkey, made, now)
            .map_err(|problem| format!("has a subkey that {problem}"))
    }

    /// What the primary key says of itself now, if it is worth anything.
    fn terms(&self, now: i64) -> Result<Vec<&Signature>, String> {
        let primary = &self.key.primary_key;
        let details = &self.key.details;
        let is_revocation = |signature: &Signature| {
            signature.typ() == Some(SignatureType::KeyRevocation)
                && signature.verify_key(primary).is_ok()
        };
        if details.revocation_signatures.iter().any(is_revocation) {
            return Err("is revoked".to_owned());
        }
        check_algorithm(primary)?;
        let made = i64::from(primary.created_at().as_secs());
        if made > now {
            return Err(format!("is of the future: it was made at {}", instant::format(made)));
        }
        // Those that say nothing of this, as of who else may revoke the key, are about that alone.
        let direct = details.direct_signatures.iter().filter(|signature| {
            let is_direct = signature.typ() == Some(SignatureType::Key);
            is_direct && says_terms(signature) && signature.verify_key(primary).is_ok()
        });
        // Signatures over user IDs of version 6 say nothing of this (RFC 9580, 5.2.3.10).
        let users = details
            .users
            .iter()
            .filter(|user| primary.version() != KeyVersion::V6 && !self.is_revoked(user));
        let own = users.flat_map(|user| self.certifications(user)).chain(direct);
        let terms = newest(own, now)?;
        if terms.is_empty() {
            return Err("has no valid signature of its own that says what it is for".to_owned());
        }
        check_expiry(&terms, made, now)?;
        Ok(terms)
    }

    /// The valid signatures of the key that a user ID is its own.
    fn certifications<'a>(&'a self, user: &'a SignedUser) -> impl Iterator<Item = &'a Signature> {
        user.signatures.iter().filter(move |signature| {
            signature.typ() != Some(SignatureType::CertRevocation)
                && signature
                    .verify_certification(&self.key.primary_key, Tag::UserId, &user.id)
                    .is_ok()
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
        let of_type = |kind| {
            let signatures = subkey.signatures.iter();
            signatures.filter(move |signature| signature.typ() == Some(kind) && is_bound(signature))
        };
        if of_type(SignatureType::SubkeyRevocation).next().is_some() {
            return Err("is revoked".to_owned());
        }
        let bindings = newest(of_type(SignatureType::SubkeyBinding), now)?;
        if bindings.is_empty() {
            return Err("is not bound to it by a valid signature".to_owned());
        }
        check_algorithm(&subkey.key)?;
        let born = i64::from(subkey.key.created_at().as_secs());
        if born > now || made < born {
            return Err("is younger than the signature".to_owned());
        }
        check_expiry(&bindings, born, now)?;
        check_flags(&bindings)?;
        // Without it anybody could say that somebody else's key is a subkey of theirs.
        let is_back = |back: &Signature| {
            check_self_signed(back, now).is_ok()
                && back.verify_primary_key_binding(&subkey.key, primary).is_ok()
        };
        if bindings.iter().all(|binding| binding.embedded_signature().is_some_and(is_back)) {
            Ok(())
        } else {
            Err("has not signed that it belongs to it".to_owned())
        }
    }
}

/// The newest of a key's signatures over itself or its subkey: one, or several of the same second,
/// which then all count.
///
/// gpg takes the newest of each user ID that has not expired, and then flags and expiry each from
/// the newest of these that has any; of direct signatures likewise. So one without flags, or one
/// that has expired, brings an older one back. Here the newest of all decides alone. If it can't be
/// taken at its word, by its hash, its own expiry or a critical part that is not known, nothing
/// counts: the owner has said something newer than the others, and it is not known what.
fn newest<'a>(
    signatures: impl Iterator<Item = &'a Signature>,
    now: i64,
) -> Result<Vec<&'a Signature>, String> {
    let (mut newest, mut latest) = (Vec::new(), i64::MIN);
    for signature in signatures {
        // Without a time it is none, and that of one of the future has not come.
        let Some(made) = signature.created().map(|time| i64::from(time.as_secs())) else {
            continue;
        };
        if made > now || made < latest {
            continue;
        }
        if made > latest {
            newest.clear();
            latest = made;
        }
        newest.push(signature);
    }
    for signature in &newest {
        check_self_signed(signature, now).map_err(|problem| {
            format!("has a newest signature over itself that does not count: {problem}")
        })?;
    }
    Ok(newest)
}

/// Whether a signature of a key over itself can count now.
fn check_self_signed(signature: &Signature, now: i64) -> Result<(), String> {
    let made = created(signature).map_err(|problem| problem.to_string())?;
    if made > now {
        return Err("it is of the future".to_owned());
    }
    match expires(signature, made) {
        Some(end) if end <= now => Err(format!("it has expired at {}", instant::format(end))),
        _ => Ok(()),
    }
}

/// Whether a signature says what a key is for, or until when.
fn says_terms(signature: &Signature) -> bool {
    let says = |data: &SubpacketData| {
        matches!(data, SubpacketData::KeyFlags(_) | SubpacketData::KeyExpirationTime(_))
    };
    signature.config().is_some_and(|config| config.hashed_subpackets().any(|part| says(&part.data)))
}

/// Whether a key may sign by all that it says of itself. One that says nothing may not.
fn check_flags(terms: &[&Signature]) -> Result<(), String> {
    if terms.iter().all(|signature| signature.key_flags().sign()) {
        Ok(())
    } else {
        Err("may not sign, by its own account".to_owned())
    }
}

/// Whether a key that was made then has not expired, by all that it says of itself.
fn check_expiry(terms: &[&Signature], made: i64, now: i64) -> Result<(), String> {
    let ends = terms.iter().filter_map(|signature| {
        let after = i64::from(signature.key_expiration_time()?.as_secs());
        (after != 0).then_some(made + after)
    });
    match ends.min() {
        Some(end) if end <= now => Err(format!("has expired at {}", instant::format(end))),
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
