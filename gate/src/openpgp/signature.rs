//! Signed messages and detached signatures.

use super::{
    Certificate, OpenPgpError, armor, certificate::fingerprint, created, expires, hash_name,
    is_strong, packets,
};
use crate::instant;
use pgp::{
    armor::BlockType,
    packet::{Packet, PublicKey, PublicSubkey, Signature, SignatureType},
    types::KeyDetails,
};
use sandbox_image::{Text, evidence::DetachedFacts};
use std::{
    io::{Read, Seek},
    time::SystemTime,
};

/// The most bytes that are signed in a message.
const MAX_CONTENT: u64 = 1024 * 1024;
/// The most packets of a message, and the most signatures in a file of them.
const MAX_PACKETS: usize = 16;

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The fingerprint of the primary key.
    pub primary: String,
    /// Whose key it is, by its own account. Not escaped.
    pub identity: Option<String>,
    /// When it was signed, by the signature's own account.
    pub created: i64,
}

/// A key or subkey.
enum Component<'a> {
    Primary(&'a PublicKey),
    Sub(&'a PublicSubkey),
}

impl Component<'_> {
    fn has_signed(&self, signature: &Signature, content: impl Read) -> bool {
        match self {
            Self::Primary(key) => signature.verify(*key, content).is_ok(),
            Self::Sub(key) => signature.verify(*key, content).is_ok(),
        }
    }

    fn fingerprint(&self) -> String {
        match self {
            Self::Primary(key) => fingerprint(*key),
            Self::Sub(key) => fingerprint(*key),
        }
    }

    /// Whether a signature says that it is by this key.
    fn is_named_by(&self, signature: &Signature) -> bool {
        fn is(key: &impl KeyDetails, signature: &Signature) -> bool {
            let fingerprints = signature.issuer_fingerprint();
            if fingerprints.is_empty() {
                return signature.issuer_key_id().contains(&&key.legacy_key_id());
            }
            fingerprints.contains(&&key.fingerprint())
        }
        match self {
            Self::Primary(key) => is(*key, signature),
            Self::Sub(key) => is(*key, signature),
        }
    }
}

impl Certificate {
    fn components(&self) -> impl Iterator<Item = Component<'_>> {
        let subkeys = self.key.public_subkeys.iter().map(|subkey| Component::Sub(&subkey.key));
        std::iter::once(Component::Primary(&self.key.primary_key)).chain(subkeys)
    }
}

/// What rkt says.
fn unknown() -> OpenPgpError {
    OpenPgpError::new("signature made by unknown entity: by none of the keys that are asked for")
}

/// Holds a signed message against keys, and gives out what was signed. `now` is in seconds since
/// 1970, as all times here.
///
/// # Errors
/// If it does not count, for whatever reason.
pub fn verify_message(
    message: &[u8],
    keys: &[Certificate],
    now: i64,
) -> Result<(Vec<u8>, Verified), OpenPgpError> {
    let binary = armor::single(message, BlockType::Message, "the message")?;
    let mut packets = packets(&binary, "the message", MAX_PACKETS)?;
    // As gpg makes it if nobody tells it not to.
    if let [Packet::CompressedData(compressed)] = packets.as_slice() {
        let malformed =
            |error: &dyn std::fmt::Display| OpenPgpError::malformed("the message", error);
        let mut inner = Vec::new();
        let reader = compressed.decompress().map_err(|error| malformed(&error))?;
        reader.take(MAX_CONTENT + 1).read_to_end(&mut inner).map_err(|error| malformed(&error))?;
        if inner.len() as u64 > MAX_CONTENT {
            return Err(OpenPgpError::new("the message is too large"));
        }
        packets = super::packets(&inner, "the message", MAX_PACKETS)?;
    }
    let [Packet::OnePassSignature(_), Packet::LiteralData(literal), Packet::Signature(signature)] =
        packets.as_slice()
    else {
        return Err(OpenPgpError::new("the message is not one signed text"));
    };
    let content = literal.data();
    let made = check_kind(signature)?;
    let mut problem = unknown();
    for key in keys {
        let signed = key.components().find(|one| one.has_signed(signature, content));
        let Some(component) = signed else { continue };
        let expires = expires(signature, made);
        let signer = component.fingerprint();
        match count(keys, key.fingerprint(), &signer, made, expires, now) {
            Ok(verified) => return Ok((content.to_vec(), verified)),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// Holds a detached signature against the file that it signs. This is done once, while the file is
/// there as it was shipped; whether the signature counts is decided from the result, at each
/// launch. `now` only chooses: of several signatures the newest that counts then, or if there is
/// none the newest, so that a launch can say what is wrong with it.
///
/// # Errors
/// If none is by one of the keys, and of this file, and of a kind that can ever count.
pub fn verify_detached<R: Read + Seek>(
    signature: &[u8],
    data: &mut R,
    keys: &[Certificate],
    now: SystemTime,
) -> Result<DetachedFacts, OpenPgpError> {
    let now = instant::seconds(now);
    let mut all = Vec::new();
    for block in armor::blocks(signature, BlockType::Signature, "the signature")? {
        all.extend(packets(&block, "the signature", MAX_PACKETS)?);
    }
    if all.len() > MAX_PACKETS {
        let problem = format!("there are more than {MAX_PACKETS} signatures");
        return Err(OpenPgpError::new(problem));
    }
    let (mut best, mut best_rank) = (None, None);
    let mut problem = unknown();
    let mut tries = 0;
    for packet in all {
        let Packet::Signature(signature) = packet else {
            return Err(OpenPgpError::new("the signature is not a detached one"));
        };
        let found = held(&signature, data, keys, &mut tries);
        for facts in found.unwrap_or_else(|error| {
            problem = error;
            Vec::new()
        }) {
            let rank = (check_facts(&facts, keys, now).is_ok(), facts.created);
            if best_rank.is_none_or(|other| rank > other) {
                (best, best_rank) = (Some(facts), Some(rank));
            }
        }
    }
    best.ok_or(problem)
}

/// What there is to say of one signature over a file: for each key that it is by. A subkey may be
/// in several of them, of which one is really its own.
fn held(
    signature: &Signature,
    data: &mut (impl Read + Seek),
    keys: &[Certificate],
    tries: &mut usize,
) -> Result<Vec<DetachedFacts>, OpenPgpError> {
    let named = keys.iter().flat_map(|key| {
        let components = key.components().filter(|one| one.is_named_by(signature));
        components.map(move |component| (key.fingerprint(), component))
    });
    let mut seen: Vec<(String, bool)> = Vec::new();
    let mut facts = Vec::new();
    for (primary, component) in named {
        let made = check_kind(signature)?;
        let signer = component.fingerprint();
        let is_by = match seen.iter().find(|(other, _)| *other == signer) {
            Some((_, is_by)) => *is_by,
            None => {
                // Whoever makes the file says how many keys it may be by, and how large it is.
                *tries += 1;
                if *tries > MAX_PACKETS {
                    let problem = format!("they name more than {MAX_PACKETS} keys in all");
                    return Err(OpenPgpError::new(problem));
                }
                data.rewind().map_err(|error| unreadable(&error))?;
                let is_by = component.has_signed(signature, &mut *data);
                seen.push((signer.clone(), is_by));
                is_by
            }
        };
        if is_by {
            facts.push(DetachedFacts {
                primary: primary.to_owned(),
                signer,
                created: made,
                expires: expires(signature, made),
                hash: signature.hash_alg().map(hash_name).unwrap_or_default(),
            });
        }
    }
    match seen.first() {
        Some((signer, _)) if facts.is_empty() => Err(OpenPgpError::new(format!(
            "the signature by key {signer} is not of this file, or the file can't be read"
        ))),
        _ => Ok(facts),
    }
}

fn unreadable(error: &std::io::Error) -> OpenPgpError {
    OpenPgpError::new(format!("the file that is signed can't be read: {error}"))
}

/// Whether a detached signature that was held against its file counts by these keys now.
///
/// # Errors
/// If it does not, for whatever reason.
pub fn check_facts(
    facts: &DetachedFacts,
    keys: &[Certificate],
    now: i64,
) -> Result<Verified, OpenPgpError> {
    if !is_strong(&facts.hash) {
        let problem = format!("it uses {}, which is too weak", Text::new(&facts.hash));
        return Err(OpenPgpError::new(problem));
    }
    count(keys, &facts.primary, &facts.signer, facts.created, facts.expires, now)
}

/// Whether a signature counts that a key has made.
fn count(
    keys: &[Certificate],
    primary: &str,
    signer: &str,
    made: i64,
    expires: Option<i64>,
    now: i64,
) -> Result<Verified, OpenPgpError> {
    let key = Certificate::of(keys, primary).ok_or_else(unknown)?;
    if made > now {
        let made = instant::format(made);
        return Err(OpenPgpError::new(format!("it is of the future: it was made at {made}")));
    }
    if let Some(end) = expires.filter(|&end| end <= now) {
        return Err(OpenPgpError::new(format!("it has expired at {}", instant::format(end))));
    }
    key.check(signer, made, now).map_err(|problem| {
        OpenPgpError::new(format!("it is by key {}, which {problem}", key.fingerprint()))
    })?;
    let primary = key.fingerprint().to_owned();
    Ok(Verified { primary, identity: key.identities().into_iter().next(), created: made })
}

/// The time of a signature over a file, byte by byte.
fn check_kind(signature: &Signature) -> Result<i64, OpenPgpError> {
    if signature.typ() != Some(SignatureType::Binary) {
        return Err(OpenPgpError::new("it is not a signature of a file's bytes"));
    }
    created(signature)
}
