//! Keys and signatures, made as the tests need them.

use crate::instant;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use p256::{
    ecdsa::{SigningKey, signature::Signer as _},
    pkcs8::EncodePublicKey as _,
};
use pgp::{
    composed::{
        ArmorOptions, DetachedSignature, KeyType, MessageBuilder, SecretKeyParamsBuilder,
        SignedKeyDetails, SignedSecretKey, SubpacketConfig,
    },
    crypto::hash::HashAlgorithm,
    packet::{
        KeyFlags, RevocationCode, SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
    },
    ser::Serialize as _,
    types::{Duration, KeyDetails as _, Password, SignedUser, Tag, Timestamp},
};
use rand::{SeedableRng as _, rngs::StdRng};
use sandbox_image::{Digest, evidence::Signature};

/// When all keys are made.
const MADE: &str = "2025-01-01T00:00:00Z";

fn at(time: &str) -> Timestamp {
    Timestamp::from_secs(u32::try_from(instant::parse(time).unwrap()).unwrap())
}

fn regular(data: SubpacketData) -> Subpacket {
    Subpacket::regular(data).unwrap()
}

/// An OpenPGP key that can sign.
pub(crate) struct Pgp(SignedSecretKey);

impl Pgp {
    /// `expires` and `revoked` are times.
    pub(crate) fn new(seed: u64, expires: Option<&str>, revoked: Option<&str>) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut params = SecretKeyParamsBuilder::default();
        params.key_type(KeyType::Ed25519Legacy).can_sign(true).can_certify(true);
        params.created_at(at(MADE)).primary_user_id("replaced".to_owned());
        let raw = params.build().unwrap().generate(&mut random).unwrap();
        let key = raw.primary_key;
        let public = key.public_key().clone();
        let issuer = || regular(SubpacketData::IssuerFingerprint(key.fingerprint()));
        let mut flags = KeyFlags::default();
        flags.set_sign(true);
        flags.set_certify(true);
        let config = |typ, random: &mut StdRng, subpackets| {
            let mut config = SignatureConfig::from_key(random, &key, typ).unwrap();
            config.hashed_subpackets = subpackets;
            config
        };
        let mut subpackets = vec![
            regular(SubpacketData::SignatureCreationTime(at(MADE))),
            regular(SubpacketData::KeyFlags(flags)),
            issuer(),
        ];
        if let Some(time) = expires {
            let after = Duration::from_secs(at(time).as_secs() - at(MADE).as_secs());
            subpackets.push(regular(SubpacketData::KeyExpirationTime(after)));
        }
        let id =
            UserId::from_str(Default::default(), format!("Signer {seed} <s@example.com>")).unwrap();
        let binding = config(SignatureType::CertPositive, &mut random, subpackets)
            .sign_certification(&key, &public, &Password::empty(), Tag::UserId, &id)
            .unwrap();
        let revocations = revoked.map(|time| {
            let subpackets = vec![
                regular(SubpacketData::SignatureCreationTime(at(time))),
                regular(SubpacketData::RevocationReason(
                    RevocationCode::KeyCompromised,
                    b"stolen"[..].into(),
                )),
                issuer(),
            ];
            config(SignatureType::KeyRevocation, &mut random, subpackets)
                .sign_key(&key, &Password::empty(), &public)
                .unwrap()
        });
        let users = vec![SignedUser::new(id, vec![binding])];
        let revocations = revocations.into_iter().collect();
        let details = SignedKeyDetails::new(revocations, Vec::new(), users, Vec::new());
        Self(SignedSecretKey::new(key, details, Vec::new(), Vec::new()))
    }

    pub(crate) fn fingerprint(&self) -> String {
        self.0.primary_key.fingerprint().to_string().to_lowercase()
    }

    pub(crate) fn armored(&self) -> String {
        self.0.to_public_key().to_armored_string(ArmorOptions::default()).unwrap()
    }

    fn subpackets(&self, time: &str) -> SubpacketConfig {
        SubpacketConfig::UserDefined {
            hashed: vec![
                regular(SubpacketData::SignatureCreationTime(at(time))),
                regular(SubpacketData::IssuerFingerprint(self.0.primary_key.fingerprint())),
            ],
            unhashed: Vec::new(),
        }
    }

    /// A signed message.
    pub(crate) fn message(&self, content: &str, time: &str, hash: HashAlgorithm) -> Signature {
        let mut builder = MessageBuilder::from_bytes("", content.as_bytes().to_vec());
        let subpackets = self.subpackets(time);
        let key = &self.0.primary_key;
        builder.sign_with_subpackets(key, Password::empty(), hash, subpackets);
        Signature::SimpleSigning { message: builder.to_vec(StdRng::seed_from_u64(1)).unwrap() }
    }

    /// A detached signature.
    pub(crate) fn detached(&self, content: &[u8], time: &str) -> Vec<u8> {
        DetachedSignature::sign_binary_data_with_subpackets(
            StdRng::seed_from_u64(1),
            &self.0.primary_key,
            &Password::empty(),
            HashAlgorithm::Sha256,
            content,
            self.subpackets(time),
        )
        .unwrap()
        .to_bytes()
        .unwrap()
    }
}

/// A key of cosign's.
pub(crate) struct Cosign(SigningKey);

impl Cosign {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SigningKey::random(&mut StdRng::seed_from_u64(seed)))
    }

    pub(crate) fn pem(&self) -> String {
        let der = self.0.verifying_key().to_public_key_der().unwrap();
        let text = STANDARD.encode(der.as_bytes());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn sign(&self, content: &[u8]) -> Vec<u8> {
        let signature: p256::ecdsa::Signature = self.0.sign(content);
        signature.to_der().as_bytes().to_vec()
    }

    /// As in an image tagged `….sig`.
    pub(crate) fn tagged(&self, payload: &str) -> Signature {
        Signature::Cosign {
            payload: payload.as_bytes().to_vec(),
            signature: self.sign(payload.as_bytes()),
        }
    }

    /// A bundle as cosign 3 makes it: of a digest, without a name.
    pub(crate) fn bundle(&self, digest: &Digest) -> Signature {
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"","digest":{{"sha256":"{}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{{}}}}"#,
            digest.hex()
        );
        let kind = "application/vnd.in-toto+json";
        let signed = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let bundle = format!(
            r#"{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{{"publicKey":{{"hint":""}}}},"dsseEnvelope":{{"payload":"{}","payloadType":"{kind}","signatures":[{{"sig":"{}"}}]}}}}"#,
            STANDARD.encode(&statement),
            STANDARD.encode(self.sign(signed.as_bytes()))
        );
        Signature::Bundle { bundle: bundle.into_bytes() }
    }
}

/// What a simple signature says.
pub(crate) fn payload(kind: &str, digest: &Digest, reference: &str) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{kind} container image signature"}},"optional":null}}"#
    )
    .replace("atomic container image", "atomic container")
}
