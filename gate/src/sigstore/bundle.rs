//! Bundles, version 0.3, as cosign 3 makes them of images: a DSSE envelope around an in-toto
//! statement that says nothing but that the image is signed.

use super::{PublicKey, SigstoreError, verify_cosign};
use crate::strict::{JsonError, Members, Value};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use sandbox_image::{Digest, Text};

/// The most bytes that a bundle may have, and the statement in it.
const MAX: usize = 1024 * 1024;
/// The most signatures of an envelope that are looked at.
const MAX_SIGNATURES: usize = 8;

const MEDIA_TYPES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
];
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENTS: [&str; 2] =
    ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// What a signature of an image is. The same key may sign other statements: that a program was
/// tested, or that it has holes.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

/// What a bundle says, once its signature has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The key's fingerprint.
    pub key: String,
    /// The digests of the one image that it is about.
    pub digests: Vec<Digest>,
    /// What it calls the image; cosign 3 names none.
    pub reference: Option<String>,
}

impl From<JsonError> for SigstoreError {
    fn from(error: JsonError) -> Self {
        Self::Bundle(error.to_string())
    }
}

fn problem(problem: impl Into<String>) -> SigstoreError {
    SigstoreError::Bundle(problem.into())
}

/// Holds a bundle against keys.
///
/// # Errors
/// See [`SigstoreError`]. What it says is read once its signature has been checked.
pub fn verify_bundle(bundle: &[u8], keys: &[PublicKey]) -> Result<Statement, SigstoreError> {
    let mut members = Members::of(Value::parse(bundle, MAX)?, "")?;
    let media_type = members.string("mediaType")?;
    if !MEDIA_TYPES.contains(&media_type.as_str()) {
        return Err(problem(format!("it is of the type '{}'", Text::new(media_type))));
    }
    if members.has("messageSignature") {
        return Err(problem("it signs a file and not an image"));
    }
    // What else is in it, certificates and entries of logs, has no part in the decision.
    let mut envelope = members.object("dsseEnvelope")?;
    let kind = envelope.string("payloadType")?;
    if kind != PAYLOAD_TYPE {
        return Err(problem(format!("it signs something of the type '{}'", Text::new(kind))));
    }
    let payload = decode(&envelope.string("payload")?)?;
    let signed = encode_for_signing(&kind, &payload);
    let signatures = envelope.required("signatures")?.array("dsseEnvelope.signatures")?;
    if signatures.len() > MAX_SIGNATURES {
        return Err(problem(format!("it has more than {MAX_SIGNATURES} signatures")));
    }
    for signature in signatures {
        let mut signature = Members::of(signature, "dsseEnvelope.signatures")?;
        let signature = decode(&signature.string("sig")?)?;
        if let Ok(key) = verify_cosign(&signed, &signature, keys) {
            return statement(&payload, key);
        }
    }
    Err(SigstoreError::Unknown)
}

/// DSSE's "pre-authentication encoding".
fn encode_for_signing(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    signed.extend_from_slice(payload);
    signed
}

/// Base64, of which DSSE allows both kinds.
fn decode(text: &str) -> Result<Vec<u8>, SigstoreError> {
    STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE.decode(text))
        .map_err(|_| problem("something in its envelope is not base64"))
}

fn statement(payload: &[u8], key: String) -> Result<Statement, SigstoreError> {
    let mut members = Members::of(Value::parse(payload, MAX)?, "")?;
    let kind = members.string("_type")?;
    if !STATEMENTS.contains(&kind.as_str()) {
        return Err(problem(format!("it holds a '{}' and no statement", Text::new(kind))));
    }
    let predicate = members.string("predicateType")?;
    if predicate != PREDICATE {
        return Err(problem(format!(
            "it does not say that the image is signed, but '{}'",
            Text::new(predicate)
        )));
    }
    let mut subjects = members.required("subject")?.array("subject")?;
    let (Some(subject), true) = (subjects.pop(), subjects.is_empty()) else {
        return Err(problem("it is not about one image"));
    };
    let mut subject = Members::of(subject, "subject")?;
    let mut digests = Vec::new();
    for (algorithm, value) in subject.object("digest")?.into_entries() {
        let hex = value.string("subject.digest")?;
        // Others are for others.
        if matches!(algorithm.as_str(), "sha256" | "sha512") {
            let digest = format!("{algorithm}:{hex}").parse();
            digests.push(digest.map_err(|_| problem("the digest of its subject is none"))?);
        }
    }
    if digests.is_empty() {
        return Err(problem("its subject has no sha256 or sha512"));
    }
    let reference = subject.optional_string("name")?.filter(|name| !name.is_empty());
    Ok(Statement { key, digests, reference })
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::{
        ecdsa::{SigningKey, signature::Signer as _},
        pkcs8::EncodePublicKey as _,
    };
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};
    use sandbox_image::Algorithm;

    fn key() -> (SigningKey, PublicKey) {
        let key = SigningKey::random(&mut StdRng::seed_from_u64(1));
        let der = key.verifying_key().to_public_key_der().unwrap();
        let text = STANDARD.encode(der.as_bytes());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----");
        (key, PublicKey::parse(pem.as_bytes()).unwrap())
    }

    fn statement_text() -> String {
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"{PREDICATE}","subject":[{{"name":"localhost:5000/lib/x","digest":{{"sha256":"{}"}}}}],"predicate":{{}}}}"#,
            Digest::of(Algorithm::Sha256, b"x").hex()
        )
    }

    /// Changes the statement before, and the bundle after signing.
    fn bundle(before: (&str, &str), after: (&str, &str)) -> Result<Statement, SigstoreError> {
        let (secret, public) = key();
        let text = statement_text();
        assert!(text.contains(before.0), "{before:?}");
        let text = text.replacen(before.0, before.1, 1);
        let signed = encode_for_signing(PAYLOAD_TYPE, text.as_bytes());
        let signature: p256::ecdsa::Signature = secret.sign(&signed);
        let bundle = format!(
            r#"{{"mediaType":"{}","verificationMaterial":{{"publicKey":{{"hint":"x"}}}},"dsseEnvelope":{{"payload":"{}","payloadType":"{PAYLOAD_TYPE}","signatures":[{{"sig":"{}"}}]}}}}"#,
            MEDIA_TYPES[0],
            STANDARD.encode(&text),
            STANDARD.encode(signature.to_der().as_bytes()),
        );
        assert!(bundle.contains(after.0), "{after:?}");
        verify_bundle(bundle.replacen(after.0, after.1, 1).as_bytes(), &[public])
    }

    #[test]
    fn a_bundle_says_which_image_is_signed() {
        let statement = bundle(("", ""), ("", "")).unwrap();
        assert_eq!(statement.key, key().1.fingerprint());
        assert_eq!(statement.digests, [Digest::of(Algorithm::Sha256, b"x")]);
        assert_eq!(statement.reference.as_deref(), Some("localhost:5000/lib/x"));
        for nameless in [("\"name\":\"localhost:5000/lib/x\",", ""), ("localhost:5000/lib/x", "")] {
            assert_eq!(bundle(nameless, ("", "")).unwrap().reference, None);
        }
        bundle(("Statement/v0.1", "Statement/v1"), ("", "")).unwrap();
    }

    #[test]
    fn a_signed_statement_of_another_kind_is_no_signature() {
        for change in [
            ("cosign/sign/v1", "cosign/test/v1"),
            (PREDICATE, "https://slsa.dev/provenance/v1"),
            ("Statement/v0.1", "Statement/v9"),
            ("\"sha256\"", "\"md5\""),
            ("\"sha256\":\"", "\"sha256\":\"0"),
            ("\"subject\":[{", "\"subject\":[{\"digest\":{}},{"),
            ("\"subject\":[{", "\"subject\":[],\"x\":[{"),
            ("\"subject\"", "\"subject\":[],\"subject\""),
            ("{", "[{"),
        ] {
            let error = bundle(change, ("", "")).unwrap_err();
            assert!(matches!(error, SigstoreError::Bundle(_)), "{change:?} {error:?}");
        }
    }

    #[test]
    fn what_was_changed_after_signing_is_noticed() {
        for change in [
            ("bundle.v0.3", "bundle.v0.4"),
            ("application/vnd.in-toto+json", "application/json"),
            ("\"payload\":\"", "\"payload\":\"AAAA"),
            ("\"payload\":\"", "\"payload\":\"!"),
            ("\"payload\":\"", "\"payload\":\"\",\"payload\":\""),
            ("\"sig\":\"", "\"sig\":\"AAAA"),
            ("\"signatures\":[", "\"signatures\":[],\"x\":["),
            ("\"dsseEnvelope\"", "\"messageSignature\":{},\"dsseEnvelope\""),
        ] {
            bundle(("", ""), change).unwrap_err();
        }
        let many = format!("\"signatures\":[{}", r#"{"sig":"AAAA"},"#.repeat(MAX_SIGNATURES));
        bundle(("", ""), ("\"signatures\":[", &many)).unwrap_err();
        bundle(("", ""), ("\"signatures\":[", r#""signatures":[{"sig":"AAAA"},"#)).unwrap();
    }

    #[test]
    fn no_key_fits_nothing() {
        let bundle = |keys: &[PublicKey]| {
            let text = statement_text();
            let envelope = format!(
                r#"{{"mediaType":"{}","dsseEnvelope":{{"payload":"{}","payloadType":"{PAYLOAD_TYPE}","signatures":[]}}}}"#,
                MEDIA_TYPES[0],
                STANDARD.encode(text)
            );
            verify_bundle(envelope.as_bytes(), keys)
        };
        assert_eq!(bundle(&[key().1]), Err(SigstoreError::Unknown));
        assert_eq!(bundle(&[]), Err(SigstoreError::Unknown));
    }

    proptest! {
        #[test]
        fn any_bundle_is_read_or_refused(bundle in "\\PC{0,80}") {
            prop_assert!(verify_bundle(bundle.as_bytes(), &[key().1]).is_err());
        }
    }
}
