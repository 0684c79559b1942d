//! Files of keys, read to the last packet.
//!
//! rPGP makes keys of packets, and passes over what it does not look for at a place: a revocation
//! behind a user ID or subkey, or in a block of its own as `gpg --gen-revoke` writes it, or one
//! that is cut off. What is passed over is what somebody wanted to be known, so here a revocation
//! counts wherever it is in the file of the key, and what has no place in a key refuses the file.

use super::{Certificate, OpenPgpError, armor::blocks, certificate::fingerprint, packets};
use pgp::{
    armor::BlockType,
    composed::{SignedPublicKey, SignedPublicKeyParser},
    packet::{Packet, PacketTrait as _, Signature, SignatureType, Subpacket, SubpacketData},
    types::Tag,
};
use std::collections::HashMap;

/// The most comparisons of revocations with what they may revoke.
const MAX_TRIES: usize = 1_000_000;

/// Reads all keys of a file, armored (one block or several) or binary. There is at least one, and
/// each is there once: copies are put together.
/// Revocations of these keys may be anywhere in it.
///
/// # Errors
/// If there is no key, or anything else: also a revocation that is of none of the keys.
pub fn parse(bytes: &[u8]) -> Result<Vec<Certificate>, OpenPgpError> {
    let mut file = KeyFile::default();
    for block in blocks(bytes, BlockType::PublicKey, "the key")? {
        file.read(&block)?;
    }
    file.keys()?.into_iter().map(Certificate::new).collect()
}

/// What is in a file.
#[derive(Default)]
struct KeyFile {
    /// Of each key its packets.
    keys: Vec<Vec<Packet>>,
    /// All revocations, and whether they are where rPGP looks for them.
    revocations: Vec<(Signature, bool)>,
}

impl KeyFile {
    fn read(&mut self, block: &[u8]) -> Result<(), OpenPgpError> {
        // What signatures are about: the key, user ID or subkey before them.
        let mut about = None;
        let packets = packets(block, "the key", usize::MAX)?;
        if packets.is_empty() {
            return Err(OpenPgpError::new("the key has an empty block"));
        }
        for packet in packets {
            let packet = match packet {
                // A note of the keyring that it comes from, to be passed over.
                Packet::Trust(_) => continue,
                Packet::Signature(signature) => {
                    let signature = with_known_parts(signature)?;
                    if let Some(place) = place_of_revocation(&signature) {
                        let is_there = about.is_some_and(|tag| place.contains(&tag));
                        self.revocations.push((signature.clone(), is_there));
                        if !is_there {
                            continue;
                        }
                    }
                    Packet::Signature(signature)
                }
                packet => {
                    let tag = packet.tag();
                    match tag {
                        Tag::PublicKey => self.keys.push(Vec::new()),
                        Tag::UserId | Tag::UserAttribute | Tag::PublicSubkey => {}
                        tag => {
                            let problem = format!("the key has a part that is none: {tag:?}");
                            return Err(OpenPgpError::new(problem));
                        }
                    }
                    if about.is_some() || tag == Tag::PublicKey {
                        about = Some(tag);
                    }
                    packet
                }
            };
            match (about, self.keys.last_mut()) {
                (Some(_), Some(key)) => key.push(packet),
                _ => {
                    let problem = format!("there is no public key before a {:?}", packet.tag());
                    return Err(OpenPgpError::new(problem));
                }
            }
        }
        Ok(())
    }

    /// The keys, with what revokes them.
    fn keys(self) -> Result<Vec<SignedPublicKey>, OpenPgpError> {
        let mut keys: Vec<SignedPublicKey> = Vec::with_capacity(self.keys.len());
        let mut places = HashMap::new();
        for packets in self.keys {
            let packets = packets.into_iter().map(Ok).peekable();
            let mut parser = SignedPublicKeyParser::from_packets(packets);
            let key = parser.next().ok_or_else(no_key)?;
            let key = key.map_err(|error| OpenPgpError::malformed("the key", &error))?;
            if let Some(Ok(packet)) = parser.into_inner().next() {
                let problem = format!("the key has a {:?} where none belongs", packet.tag());
                return Err(OpenPgpError::new(problem));
            }
            let place = *places.entry(fingerprint(&key.primary_key)).or_insert(keys.len());
            match keys.get_mut(place) {
                Some(copy) => absorb(copy, key),
                None => keys.push(key),
            }
        }
        if keys.is_empty() {
            return Err(no_key());
        }
        // Whoever offers a key says how many revocations and keys there are.
        let parts: usize = keys.iter().map(|key| 1 + parts(key)).sum();
        if self.revocations.len().saturating_mul(parts) > MAX_TRIES {
            return Err(OpenPgpError::new(
                "the file has too many keys and revocations to tell which is of which; split it",
            ));
        }
        for (signature, is_there) in self.revocations {
            // One by another key, where it belongs, can't be checked, and does not count.
            if !revoke(&mut keys, &signature) && !is_there {
                return Err(OpenPgpError::new(
                    "it holds a revocation that is by none of its keys, or is damaged; keep it in \
                     the file of the key that it revokes, or remove it",
                ));
            }
        }
        Ok(keys)
    }
}

/// Adds what another copy of the same key says, which may be that it is revoked.
pub(super) fn absorb(key: &mut SignedPublicKey, copy: SignedPublicKey) {
    fn add(to: &mut Vec<Signature>, more: Vec<Signature>) {
        for signature in more {
            if !to.contains(&signature) {
                to.push(signature);
            }
        }
    }
    add(&mut key.details.revocation_signatures, copy.details.revocation_signatures);
    add(&mut key.details.direct_signatures, copy.details.direct_signatures);
    for user in copy.details.users {
        let mut users = key.details.users.iter_mut();
        match users.find(|known| known.id.id() == user.id.id()) {
            Some(known) => add(&mut known.signatures, user.signatures),
            None => key.details.users.push(user),
        }
    }
    for subkey in copy.public_subkeys {
        let of = fingerprint(&subkey.key);
        let mut subkeys = key.public_subkeys.iter_mut();
        match subkeys.find(|known| fingerprint(&known.key) == of) {
            Some(known) => add(&mut known.signatures, subkey.signatures),
            None => key.public_subkeys.push(subkey),
        }
    }
}

fn no_key() -> OpenPgpError {
    OpenPgpError::new("there is no public key in it")
}

fn parts(key: &SignedPublicKey) -> usize {
    key.details.users.len() + key.public_subkeys.len()
}

/// Behind what a revocation belongs; nothing for other signatures.
fn place_of_revocation(signature: &Signature) -> Option<&'static [Tag]> {
    match signature.typ()? {
        SignatureType::KeyRevocation => Some(&[Tag::PublicKey]),
        SignatureType::SubkeyRevocation => Some(&[Tag::PublicSubkey]),
        SignatureType::CertRevocation => Some(&[Tag::UserId, Tag::UserAttribute]),
        _ => None,
    }
}

/// Puts a revocation to what it revokes, and says whether there is any such thing.
fn revoke(keys: &mut [SignedPublicKey], signature: &Signature) -> bool {
    let place = keys.iter_mut().find_map(|key| {
        let primary = &key.primary_key;
        match signature.typ()? {
            SignatureType::KeyRevocation => {
                signature.verify_key(primary).ok()?;
                Some(&mut key.details.revocation_signatures)
            }
            SignatureType::SubkeyRevocation => {
                let mut subkeys = key.public_subkeys.iter_mut();
                let subkey = subkeys
                    .find(|subkey| signature.verify_subkey_binding(primary, &subkey.key).is_ok());
                Some(&mut subkey?.signatures)
            }
            _ => {
                let mut users = key.details.users.iter_mut();
                let user = users.find(|user| {
                    signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
                });
                Some(&mut user?.signatures)
            }
        }
    });
    let is_found = place.is_some();
    if let Some(signatures) = place.filter(|signatures| !signatures.contains(signature)) {
        signatures.push(signature.clone());
    }
    is_found
}

/// The same signature, for rPGP to look at whatever it says. It refuses one with a critical part of
/// an unknown kind unseen, and so a revocation with one would not count, nor be the newest that a
/// key says about itself. Such a part is written down as one whose kind has the critical bit in its
/// number, which is the same in bytes; [`super::created`] knows none of that number.
fn with_known_parts(signature: Signature) -> Result<Signature, OpenPgpError> {
    let is_odd =
        |part: &Subpacket| part.is_critical && matches!(part.data, SubpacketData::Other(..));
    let (Some(config), Some(hash), Some(bytes)) =
        (signature.config(), signature.signed_hash_value(), signature.signature())
    else {
        return Ok(signature);
    };
    if !config.hashed_subpackets.iter().any(is_odd) {
        return Ok(signature);
    }
    let mut config = config.clone();
    for part in config.hashed_subpackets.iter_mut().filter(|part| is_odd(part)) {
        part.is_critical = false;
        if let SubpacketData::Other(kind, _) = &mut part.data {
            *kind |= 0x80;
        }
    }
    Signature::from_config(config, hash, bytes.clone())
        .map_err(|error| OpenPgpError::malformed("the key", &error))
}
