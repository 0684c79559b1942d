//! Signed messages and detached signatures.

use super::{
    Certificate, OpenPgpError, certificate::fingerprint, created, dearmored, expires, hash_name,
    is_strong,
};
use crate::instant;
use pgp::{
    armor::BlockType,
    packet::{Packet, PacketParser, PublicKey, PublicSubkey, Signature, SignatureType},
    types::KeyDetails,
};
use sandbox_image::{Text, evidence::DetachedFacts};
use std::io::Read;

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
    let binary = dearmored(message, BlockType::Message, "the message")?;
    let mut packets = packets(&binary, "the message")?;
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
        packets = self::packets(&inner, "the message")?;
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
        match count(key, &component.fingerprint(), made, expires, now) {
            Ok(verified) => return Ok((content.to_vec(), verified)),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// Holds a detached signature against the file that it signs. This is done once, while the file is
/// there as it was shipped; whether the signature counts is decided from the result, at each
/// launch.
///
/// # Errors
/// If it is by none of the keys, or not of this file, or of a kind that can never count.
pub fn verify_detached(
    signature: &[u8],
    data: &mut dyn Read,
    keys: &[Certificate],
) -> Result<DetachedFacts, OpenPgpError> {
    let binary = dearmored(signature, BlockType::Signature, "the signature")?;
    let mut found = None;
    for packet in packets(&binary, "the signature")? {
        let Packet::Signature(signature) = packet else {
            return Err(OpenPgpError::new("the signature is not a detached one"));
        };
        let by = keys.iter().find_map(|key| {
            let component = key.components().find(|one| one.is_named_by(&signature))?;
            Some((key, component))
        });
        if let Some((key, component)) = by {
            found = Some((signature, key, component));
            break;
        }
    }
    // The file can be read once only.
    let (signature, key, component) = found.ok_or_else(unknown)?;
    let made = check_kind(&signature)?;
    if !component.has_signed(&signature, data) {
        let key = key.fingerprint();
        return Err(OpenPgpError::new(format!(
            "the signature by key {key} is not of this file, or the file can't be read"
        )));
    }
    let hash = signature.hash_alg().map(hash_name).unwrap_or_default();
    Ok(DetachedFacts {
        primary: key.fingerprint().to_owned(),
        signer: component.fingerprint(),
        created: made,
        expires: expires(&signature, made),
        hash,
    })
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
    let mut problem = unknown();
    for key in keys.iter().filter(|key| key.fingerprint() == facts.primary) {
        match count(key, &facts.signer, facts.created, facts.expires, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// Whether a signature counts that a key has made.
fn count(
    key: &Certificate,
    signer: &str,
    made: i64,
    expires: Option<i64>,
    now: i64,
) -> Result<Verified, OpenPgpError> {
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

fn packets(binary: &[u8], what: &str) -> Result<Vec<Packet>, OpenPgpError> {
    let mut packets = Vec::new();
    for packet in PacketParser::new(binary) {
        if packets.len() == MAX_PACKETS {
            return Err(OpenPgpError::new(format!("{what} has more than {MAX_PACKETS} packets")));
        }
        match packet.map_err(|error| OpenPgpError::malformed(what, &error))? {
            // Says nothing, and is to be passed over.
            Packet::Marker(_) | Packet::Padding(_) => {}
            packet => packets.push(packet),
        }
    }
    Ok(packets)
}
