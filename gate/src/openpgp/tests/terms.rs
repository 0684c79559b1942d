//! Signatures that gpg does not make: what is in them, and which of several counts.

use super::*;
use pgp::{
    composed::{
        KeyType, SecretKeyParamsBuilder, SignedKeyDetails, SignedPublicKey, SignedPublicSubKey,
        SubkeyParamsBuilder,
    },
    crypto::public_key::PublicKeyAlgorithm,
    packet::{KeyFlags, Notation, SecretKey, SecretSubkey, SignatureConfig, SignatureType, UserId},
    ser::Serialize as _,
    types::{
        Duration as Seconds, KeyDetails as _, KeyVersion, Password, RevocationKey,
        RevocationKeyClass, SignedUser, Tag, Timestamp,
    },
};
use rand::{SeedableRng as _, rngs::StdRng};

const MADE: &str = "2025-01-01T00:00:00Z";
const LATER: &str = "2025-06-01T00:00:00Z";
const CONTENT: &[u8] = b"content";

fn time(text: &str) -> Timestamp {
    Timestamp::from_secs(u32::try_from(at(text)).unwrap())
}

fn plain(data: SubpacketData) -> Subpacket {
    Subpacket::regular(data).unwrap()
}

fn critical(data: SubpacketData) -> Subpacket {
    Subpacket::critical(data).unwrap()
}

/// A part that rPGP does not know. It neither makes nor checks a critical one; this is the same in
/// bytes.
fn unknown_critical() -> Subpacket {
    plain(SubpacketData::Other(99 | CRITICAL, vec![1].into()))
}

fn flags(can_sign: bool) -> Subpacket {
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(can_sign);
    plain(SubpacketData::KeyFlags(flags))
}

/// When the key ends.
fn end(text: &str) -> Subpacket {
    let after = time(text).as_secs() - time(MADE).as_secs();
    plain(SubpacketData::KeyExpirationTime(Seconds::from_secs(after)))
}

/// When a signature that is made `LATER` ends.
fn signature_end(text: &str) -> Subpacket {
    let after = time(text).as_secs() - time(LATER).as_secs();
    plain(SubpacketData::SignatureExpirationTime(Seconds::from_secs(after)))
}

/// A key with a subkey; both may sign, if there are signatures that say so.
struct Owner {
    key: SecretKey,
    subkey: SecretSubkey,
    id: UserId,
}

/// What a key says about itself.
#[derive(Default)]
struct Says {
    revocations: Vec<Signature>,
    direct: Vec<Signature>,
    user: Vec<Signature>,
    bindings: Vec<Signature>,
}

impl Owner {
    fn new(version: KeyVersion) -> Self {
        let kind = match version {
            KeyVersion::V6 => KeyType::Ed25519,
            _ => KeyType::Ed25519Legacy,
        };
        let mut subkey = SubkeyParamsBuilder::default();
        subkey.version(version).key_type(kind.clone()).can_sign(true).created_at(time(MADE));
        let mut params = SecretKeyParamsBuilder::default();
        params.version(version).key_type(kind).can_sign(true).can_certify(true);
        params.created_at(time(MADE)).primary_user_id("replaced".to_owned());
        params.subkey(subkey.build().unwrap());
        let mut key = params.build().unwrap().generate(StdRng::seed_from_u64(1)).unwrap();
        let subkey = key.secret_subkeys.remove(0).key;
        let id = UserId::from_str(Default::default(), "Owner <owner@example.com>").unwrap();
        Self { key: key.primary_key, subkey, id }
    }

    fn config(&self, kind: SignatureType, made: &str, parts: Vec<Subpacket>) -> SignatureConfig {
        let random = StdRng::seed_from_u64(2);
        let mut config = SignatureConfig::from_key(random, &self.key, kind).unwrap();
        config.hashed_subpackets = vec![
            plain(SubpacketData::SignatureCreationTime(time(made))),
            plain(SubpacketData::IssuerFingerprint(self.key.fingerprint())),
        ];
        config.hashed_subpackets.extend(parts);
        config
    }

    /// A signature over the user ID.
    fn user(&self, made: &str, parts: Vec<Subpacket>) -> Signature {
        let config = self.config(SignatureType::CertPositive, made, parts);
        let public = self.key.public_key();
        let password = Password::empty();
        config.sign_certification(&self.key, &public, &password, Tag::UserId, &self.id).unwrap()
    }

    /// A signature over the key itself.
    fn direct(&self, kind: SignatureType, made: &str, parts: Vec<Subpacket>) -> Signature {
        let public = self.key.public_key();
        self.config(kind, made, parts).sign_key(&self.key, &Password::empty(), &public).unwrap()
    }

    /// A signature over the subkey, with one of the subkey back.
    fn binding(&self, kind: SignatureType, made: &str, mut parts: Vec<Subpacket>) -> Signature {
        let (primary, public) = (self.key.public_key(), self.subkey.public_key());
        let password = Password::empty();
        let mut back = self.config(SignatureType::KeyBinding, made, Vec::new());
        back.hashed_subpackets.truncate(1);
        let back = back.sign_primary_key_binding(&self.subkey, &public, &password, &primary);
        parts.push(plain(SubpacketData::EmbeddedSignature(Box::new(back.unwrap()))));
        let config = self.config(kind, made, parts);
        config.sign_subkey_binding(&self.key, &primary, &password, &public).unwrap()
    }

    /// The key as a file has it, and as it is read.
    fn certificate(&self, says: Says) -> Certificate {
        let users = match says.user.is_empty() {
            true => Vec::new(),
            false => vec![SignedUser::new(self.id.clone(), says.user)],
        };
        let details = SignedKeyDetails::new(says.revocations, says.direct, users, Vec::new());
        let subkey = SignedPublicSubKey::new(self.subkey.public_key().clone(), says.bindings);
        let key = SignedPublicKey::new(self.key.public_key().clone(), details, vec![subkey]);
        parse(&key.to_bytes().unwrap()).unwrap().remove(0)
    }

    /// A good key with that over its user ID.
    fn with_user(&self, user: Vec<Signature>) -> Certificate {
        self.certificate(Says { user, ..Says::default() })
    }

    /// A detached signature, and what becomes of it.
    fn detached(&self, parts: Vec<Subpacket>) -> Result<Verified, String> {
        let config = self.config(SignatureType::Binary, "2026-02-01T00:00:00Z", parts);
        let signature = config.sign(&self.key, &Password::empty(), CONTENT).unwrap();
        let bytes = Packet::from(signature).to_bytes().unwrap();
        let keys = [self.with_user(vec![self.user(MADE, vec![flags(true)])])];
        let facts = hold(&bytes, CONTENT, &keys).map_err(|error| error.to_string())?;
        check_facts(&facts, &keys, now()).map_err(|error| error.to_string())
    }
}

/// Parts that nothing is done about here, by the number of their type.
fn unheeded(owner: &Owner) -> Vec<(u8, SubpacketData)> {
    let fingerprint = owner.key.fingerprint();
    let notation = Notation { readable: true, name: "x@example.com".into(), value: "y".into() };
    let target = SubpacketData::SignatureTarget(
        PublicKeyAlgorithm::RSA,
        HashAlgorithm::Sha256,
        vec![0; 32].into(),
    );
    vec![
        (4, SubpacketData::ExportableCertification(false)),
        (5, SubpacketData::TrustSignature(1, 60)),
        (6, SubpacketData::RegularExpression(b"x".to_vec().into())),
        (7, SubpacketData::Revocable(false)),
        (20, SubpacketData::Notation(notation)),
        (26, SubpacketData::PolicyURI("https://example.com".to_owned())),
        (28, SubpacketData::SignersUserID(b"else@example.com".to_vec().into())),
        (31, target),
        (35, SubpacketData::IntendedRecipientFingerprint(fingerprint)),
        (100, SubpacketData::Experimental(100, vec![1].into())),
        (110, SubpacketData::Experimental(110, vec![1].into())),
    ]
}

#[test]
fn a_signature_with_a_critical_part_that_is_not_heeded_does_not_count() {
    let owner = Owner::new(KeyVersion::V4);
    owner.detached(Vec::new()).unwrap();
    for (kind, part) in unheeded(&owner) {
        owner.detached(vec![plain(part.clone())]).unwrap();
        let because = format!("critical part that is not known here, of type {kind}");
        refused(owner.detached(vec![critical(part)]), &because);
    }
    refused(owner.detached(vec![unknown_critical()]), "not known here, of type 99");
}

#[test]
fn a_signature_says_what_decides_about_it_once() {
    let owner = Owner::new(KeyVersion::V4);
    for part in [
        plain(SubpacketData::SignatureCreationTime(time(LATER))),
        critical(SubpacketData::SignatureCreationTime(time(LATER))),
    ] {
        refused(owner.detached(vec![part]), "two parts of type 2");
    }
    let never = plain(SubpacketData::SignatureExpirationTime(Seconds::from_secs(0)));
    let soon = plain(SubpacketData::SignatureExpirationTime(Seconds::from_secs(1)));
    refused(owner.detached(vec![never, soon]), "two parts of type 3");
    let key = owner.with_user(vec![owner.user(MADE, vec![flags(true), flags(false)])]);
    assert!(key.problem(now()).unwrap().contains("two parts of type 27"));
}

#[test]
fn a_revocation_counts_with_any_part() {
    let owner = Owner::new(KeyVersion::V4);
    let mut parts: Vec<_> = unheeded(&owner).into_iter().map(|(_, data)| critical(data)).collect();
    parts.push(unknown_critical());
    let twice = plain(SubpacketData::SignatureCreationTime(time(LATER)));
    parts.extend([twice, signature_end("2025-07-01T00:00:00Z")]);
    for part in parts {
        let revocation = |kind| match kind {
            SignatureType::SubkeyRevocation => owner.binding(kind, LATER, vec![part.clone()]),
            _ => owner.direct(kind, LATER, vec![part.clone()]),
        };
        let user = vec![owner.user(MADE, vec![flags(true)])];
        let revocations = vec![revocation(SignatureType::KeyRevocation)];
        let key = owner.certificate(Says { revocations, user, ..Says::default() });
        assert_eq!(key.problem(now()).as_deref(), Some("is revoked"), "{part:?}");
        let user = vec![owner.user(MADE, vec![flags(false)])];
        let bindings = vec![
            owner.binding(SignatureType::SubkeyBinding, MADE, vec![flags(true)]),
            revocation(SignatureType::SubkeyRevocation),
        ];
        let key = owner.certificate(Says { bindings, user, ..Says::default() });
        assert!(key.problem(now()).is_some(), "{part:?}");
    }
}

#[test]
fn the_newest_that_a_key_says_about_itself_decides() {
    let owner = Owner::new(KeyVersion::V4);
    let old = || owner.user(MADE, vec![flags(true)]);
    let problem = |newer| owner.with_user(vec![newer, old()]).problem(now());
    assert_eq!(owner.with_user(vec![old()]).problem(now()), None);
    assert_eq!(problem(owner.user(LATER, vec![flags(true), end("2027-01-01T00:00:00Z")])), None);
    let over = "2025-12-31T00:00:00Z";
    for (newer, because) in [
        (vec![flags(true), end(over)], "has expired at 2025-12-31"),
        // Without flags, an older one does not lend its own.
        (vec![end(over)], "has expired at 2025-12-31"),
        (vec![end("2027-01-01T00:00:00Z")], "no key that may sign"),
        (Vec::new(), "no key that may sign"),
        // One that has expired itself does not bring the older one back.
        (vec![flags(true), signature_end(over)], "does not count: it has expired at 2025-12-31"),
        (vec![flags(true), unknown_critical()], "not known here, of type 99"),
        (vec![flags(true), critical(SubpacketData::PolicyURI("x".into()))], "of type 26"),
    ] {
        let found = problem(owner.user(LATER, newer)).unwrap();
        assert!(found.contains(because), "not '{because}': {found}");
    }
    // Of the same second, all count.
    for parts in [vec![flags(true), end(over)], Vec::new()] {
        assert!(problem(owner.user(MADE, parts)).is_some());
    }
    // One of the future does not yet.
    assert_eq!(problem(owner.user("2026-03-01T00:00:00Z", Vec::new())), None);
}

#[test]
fn direct_signatures_count_as_those_over_user_ids() {
    let owner = Owner::new(KeyVersion::V4);
    let problem = |parts| {
        let user = vec![owner.user(MADE, vec![flags(true)])];
        let direct = vec![owner.direct(SignatureType::Key, LATER, parts)];
        owner.certificate(Says { user, direct, ..Says::default() }).problem(now())
    };
    assert_eq!(problem(vec![flags(true)]), None);
    assert!(problem(vec![flags(true), end("2025-12-31T00:00:00Z")]).unwrap().contains("expired"));
    assert!(problem(vec![flags(false)]).unwrap().contains("no key that may sign"));
    // As gpg makes it to name a designated revoker: it is about that alone.
    let fingerprint = owner.key.fingerprint();
    let revoker = RevocationKey::new(
        RevocationKeyClass::Default,
        PublicKeyAlgorithm::EdDSALegacy,
        fingerprint.as_bytes(),
    );
    assert_eq!(problem(vec![plain(SubpacketData::RevocationKey(revoker))]), None);
}

#[test]
fn a_key_of_version_6_says_what_it_is_for_directly() {
    let owner = Owner::new(KeyVersion::V6);
    let user = || vec![owner.user(LATER, Vec::new())];
    let direct = |parts| vec![owner.direct(SignatureType::Key, MADE, parts)];
    let key = |direct| owner.certificate(Says { user: user(), direct, ..Says::default() });
    assert_eq!(key(direct(vec![flags(true)])).problem(now()), None);
    assert!(key(direct(vec![flags(false)])).problem(now()).is_some());
    assert!(key(Vec::new()).problem(now()).is_some());
}

#[test]
fn the_newest_that_a_key_says_about_its_subkey_decides() {
    let owner = Owner::new(KeyVersion::V4);
    let problem = |newer| {
        let kind = SignatureType::SubkeyBinding;
        let user = vec![owner.user(MADE, vec![flags(false)])];
        let old = owner.binding(kind, MADE, vec![flags(true)]);
        let bindings = vec![owner.binding(kind, LATER, newer), old];
        let key = owner.certificate(Says { user, bindings, ..Says::default() });
        key.check(&key.subkeys()[0], now(), now()).err()
    };
    assert_eq!(problem(vec![flags(true)]), None);
    let over = "2025-12-31T00:00:00Z";
    for (newer, because) in [
        (vec![flags(true), end(over)], "has expired"),
        (Vec::new(), "may not sign"),
        (vec![flags(true), signature_end(over)], "does not count: it has expired"),
        (vec![flags(true), unknown_critical()], "of type 99"),
    ] {
        let found = problem(newer).unwrap();
        assert!(found.contains(because), "not '{because}': {found}");
    }
}
