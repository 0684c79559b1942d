//! The verdict as a token for those who rely on it: an EAT attestation result
//! (draft-ietf-rats-ear-04) as a JSON web token, signed with ES256 (RFC 7515; RFC 7518, 3.4).
//!
//! ```json
//! {"alg":"ES256","kid":"…","typ":"JWT"}
//! {"eat_profile":"tag:ietf.org,2026:rats/ear#04","iat":…,"nbf":…,"exp":…,"eat_nonce":"…",
//!  "ear_verifier_id":{"developer":"…","build":"…"},
//!  "submods":{"<pod>":{"ear_status":"affirming","ear_trustworthiness_vector":{…},
//!                      "ear_appraisal_policy_ids":["sha256:…"],"ear_verifier_claims":{…}}}}
//! ```

mod vector;

pub use vector::Vector;

use super::{Status, Trust, Verdict};
use crate::evidence::{Nonce, text::hex};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::{
    Signature, SigningKey, VerifyingKey,
    signature::{Signer as _, Verifier as _},
};
use sandbox_image::{Digest, Text};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What the claims mean.
pub const PROFILE: &str = "tag:ietf.org,2026:rats/ear#04";
/// The longest life of a token: what was true of a pod says little of what is.
pub const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The longest token that is read.
const MAX_TOKEN: usize = 64 << 10;
/// Seconds that clocks may differ by.
const SKEW: u64 = 60;

/// A token can't be made, or not be relied on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is longer than any token of a verifier.
    #[error("the token has more than {MAX_TOKEN} bytes")]
    TooLong,
    /// It is not a token, or not one of the kind that is made here.
    #[error("the token is malformed: {0}")]
    Malformed(Text),
    /// Signed by somebody else, or changed.
    #[error("the token is not signed by the verifier that is trusted here")]
    Signature,
    /// Not of this time.
    #[error("the token is not valid {0}: it is for {1} to {2}, in seconds since 1970")]
    Time(&'static str, u64, u64),
    /// Of another request.
    #[error("the token is for another nonce")]
    Nonce,
    /// There is no nonce in the verdict.
    #[error("a verdict without a nonce makes no token")]
    NoNonce,
}

/// Who signs a token.
#[derive(Debug)]
pub struct Issuer<'a> {
    /// With this key.
    pub key: &'a SigningKey,
    /// Whose verifier it is.
    pub developer: &'a str,
    /// And which version of it.
    pub build: &'a str,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// [`PROFILE`].
    pub eat_profile: String,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// Not to be believed before.
    pub nbf: u64,
    /// Nor from then on.
    pub exp: u64,
    /// The nonce of the quote, in base64url.
    pub eat_nonce: String,
    /// The verifier.
    pub ear_verifier_id: VerifierId,
    /// What it says of each pod; of one, here.
    pub submods: BTreeMap<String, Appraisal>,
}

/// A verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierId {
    /// Whose it is.
    pub developer: String,
    /// Which version.
    pub build: String,
}

/// What a token says of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Appraisal {
    /// The short of it.
    pub ear_status: Status,
    /// By what it is about.
    pub ear_trustworthiness_vector: Vector,
    /// Digest of the policy.
    pub ear_appraisal_policy_ids: Vec<String>,
    /// Our own.
    pub ear_verifier_claims: PodClaims,
}

/// What was learnt of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodClaims {
    /// Name of the AK.
    pub attestation_key: Option<String>,
    /// Why it is believed.
    pub trust: Option<Trust>,
    /// The boot of the host.
    pub boot_id: Option<String>,
    /// Number of the launch.
    pub launch: Option<u64>,
    /// The key that secrets for the pod are encrypted to, in hexadecimal digits.
    pub guest_key: Option<String>,
    /// Whose pod it is.
    pub tenant: Option<String>,
    /// Roots of the hash trees of its images, or nothing where there is none, by app.
    pub verity_roots: BTreeMap<String, Option<String>>,
    /// Checks that failed.
    pub failed: Vec<String>,
}

/// What a token's signature is made with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// Makes a token of a verdict, good or bad. `policy` is [`super::Policy::digest`]; a life is cut to
/// [`MAX_LIFE`].
pub fn issue(
    verdict: &Verdict,
    policy: &Digest,
    issuer: &Issuer<'_>,
    now: SystemTime,
    life: Duration,
) -> Result<String, TokenError> {
    let facts = &verdict.facts;
    let nonce = facts.nonce.as_ref().ok_or(TokenError::NoNonce)?;
    let now = seconds(now);
    let apps = facts.record.iter().flat_map(|record| &record.apps);
    let claims = PodClaims {
        attestation_key: facts.attestation_key.clone(),
        trust: facts.trust,
        boot_id: facts.boot_id.clone(),
        launch: facts.launch,
        guest_key: facts.guest_key.clone(),
        tenant: facts.record.as_ref().map(|record| record.tenant.clone()),
        verity_roots: apps
            .map(|app| (app.name.clone(), app.image.verity_root.as_ref().map(ToString::to_string)))
            .collect(),
        failed: verdict.failed().map(|(name, _)| name.to_string()).collect(),
    };
    let appraisal = Appraisal {
        ear_status: verdict.status,
        ear_trustworthiness_vector: verdict.vector,
        ear_appraisal_policy_ids: vec![policy.to_string()],
        ear_verifier_claims: claims,
    };
    let claims = Claims {
        eat_profile: PROFILE.to_owned(),
        iat: now,
        nbf: now,
        exp: now.saturating_add(life.min(MAX_LIFE).as_secs()),
        eat_nonce: URL_SAFE_NO_PAD.encode(nonce.as_bytes()),
        ear_verifier_id: VerifierId {
            developer: issuer.developer.to_owned(),
            build: issuer.build.to_owned(),
        },
        submods: BTreeMap::from([(facts.pod.clone(), appraisal)]),
    };
    let kid = key_id(issuer.key.verifying_key());
    let header = Header { alg: "ES256".to_owned(), kid, typ: "JWT".to_owned() };
    let signed = format!("{}.{}", encode(&header)?, encode(&claims)?);
    let signature: Signature = issuer.key.sign(signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
}

/// Checks a token's signature, time and nonce. What it says is for the caller to judge.
pub fn read(
    token: &str,
    verifier: &VerifyingKey,
    nonce: &Nonce,
    now: SystemTime,
) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        return Err(malformed("it does not have three parts"));
    };
    let signed = &token[..header.len() + 1 + claims.len()];
    let header: Header = decode(header)?;
    // The key decides how a token is signed, never the token.
    if header.alg != "ES256" || header.typ != "JWT" {
        return Err(malformed("it is not signed with ES256"));
    }
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Signature)?;
    let signature = Signature::from_slice(&signature).map_err(|_| TokenError::Signature)?;
    verifier.verify(signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
    let claims: Claims = decode(claims)?;
    if claims.eat_profile != PROFILE {
        return Err(malformed("it has another profile"));
    }
    let now = seconds(now);
    if now.saturating_add(SKEW) < claims.nbf.max(claims.iat) {
        return Err(TokenError::Time("yet", claims.nbf, claims.exp));
    }
    if now >= claims.exp {
        return Err(TokenError::Time("any more", claims.nbf, claims.exp));
    }
    if claims.eat_nonce != URL_SAFE_NO_PAD.encode(nonce.as_bytes()) {
        return Err(TokenError::Nonce);
    }
    Ok(claims)
}

/// What a key is called in a token: SHA-256 of its point.
pub fn key_id(key: &VerifyingKey) -> String {
    hex(&Sha256::digest(key.to_encoded_point(false).as_bytes()))
}

fn malformed(problem: impl AsRef<[u8]>) -> TokenError {
    TokenError::Malformed(Text::new(problem))
}

fn encode(value: &impl Serialize) -> Result<String, TokenError> {
    serde_json::to_vec(value)
        .map(|json| URL_SAFE_NO_PAD.encode(json))
        .map_err(|error| malformed(error.to_string()))
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|error| malformed(error.to_string()))?;
    serde_json::from_slice(&json).map_err(|error| malformed(error.to_string()))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
