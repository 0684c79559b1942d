//! The host's side: it asks a service, and believes what the service has signed.

use super::{
    CHALLENGE, ChallengeAnswer, ChallengeRequest, Document, DocumentError, EVIDENCE, ErrorAnswer,
    EvidenceAnswer, EvidenceRequest, Sealed, SecretName, Withheld,
};
use crate::{
    evidence::{Evidence, Nonce, text::hex},
    log::Bank,
    record::{Uuid, VersionOne},
    verify::{
        Status, attestation_key,
        token::{self, Claims, TokenError},
    },
    wire::Name,
};
use p256::{ecdsa::VerifyingKey, pkcs8::DecodePublicKey as _};
use sandbox_image::{
    Text,
    http::{self, Certificates, Options, Retry, Scheme, Timeouts, Url, UrlError},
};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant, SystemTime},
};

/// How long a launch waits for a service in all, for each of its two questions.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait before a service that is busy, or not there, is asked again; doubled each time.
const PAUSE: Duration = Duration::from_millis(200);

/// The longest URL of a service.
const MAX_URL: usize = 1 << 10;

/// A service does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL is not one of a service.
    #[error("the verifier's URL: {0}")]
    Url(#[from] UrlError),
    /// It is not one that can be trusted.
    #[error(
        "the verifier's URL '{0}' should be of the form https://HOST[:PORT][/PATH]: whoever can \
         read or change what is said could take the service's place"
    )]
    NotHttps(Text),
    /// The service's key can't be read.
    #[error("the verifier's key is not a public key of P-256 in PEM")]
    Key,
    /// What would be sent can't be.
    #[error(transparent)]
    Document(DocumentError),
    /// It can't be reached.
    #[error("the verifier cannot be asked: {0}")]
    Http(#[from] http::Error),
    /// It refuses.
    #[error("the verifier {url} refuses (status {status}): {why}")]
    Refused {
        /// The service.
        url: Text,
        /// The status code.
        status: u16,
        /// What it says.
        why: Text,
    },
    /// What it says makes no sense.
    #[error("the verifier {url} says what is no answer: {problem}")]
    Nonsense {
        /// The service.
        url: Text,
        /// What is wrong.
        problem: String,
    },
    /// What it has signed is not to be believed.
    #[error("the verdict of the verifier {url} is not believed: {error}")]
    Token {
        /// The service.
        url: Text,
        /// Why.
        error: TokenError,
    },
    /// It has signed something else than what was asked.
    #[error("the verdict of the verifier {url} is about another {what} than was asked about")]
    Another {
        /// The service.
        url: Text,
        /// What is another one.
        what: &'static str,
    },
    /// The pod doesn't pass.
    #[error("the verifier {url} does not accept the pod: {failed}")]
    Failed {
        /// The service.
        url: Text,
        /// The checks that failed, as the service has signed them, with its reasons.
        failed: Text,
    },
}

/// What a service wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the quote has to be made with.
    pub nonce: Nonce,
    /// For how long.
    pub life: Duration,
    /// Which registers it has to be of.
    pub select: BTreeMap<Bank, BTreeSet<u32>>,
}

/// What a service says of a pod that it accepts.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it has signed, to be shown to others.
    pub token: String,
    /// The same, checked.
    pub claims: Claims,
    /// The verdict in full, which nobody has signed.
    pub verdict: Box<RawValue>,
    /// Secrets for the guest's key.
    pub secrets: Vec<Sealed>,
    /// Secrets that the pod does not get.
    pub withheld: Vec<Withheld>,
}

/// A service, and the key that its word is known by.
#[derive(Clone, Debug)]
pub struct Client {
    http: http::Client,
    url: Text,
    challenge: Url,
    evidence: Url,
    key: VerifyingKey,
    patience: Duration,
}

impl Client {
    /// For the service at `url`, `https://HOST[:PORT][/PATH]`, whose TLS is believed for
    /// `certificates`, and whose tokens for `key`, a public key in PEM.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn new(url: &str, certificates: Certificates, key: &str) -> Result<Self, ClientError> {
        Self::with_patience(url, certificates, key, PATIENCE)
    }

    /// The same for who waits no longer than `patience`.
    pub(super) fn with_patience(
        url: &str,
        certificates: Certificates,
        key: &str,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let parsed: Url = url.parse()?;
        let is_plain = parsed.scheme() == Scheme::Https && !url.contains(['?', '#']);
        if !is_plain || url.len() > MAX_URL {
            return Err(ClientError::NotHttps(Text::new(url)));
        }
        let base = url.trim_end_matches('/');
        let key = VerifyingKey::from_public_key_pem(key).map_err(|_| ClientError::Key)?;
        let timeouts = Timeouts {
            connect: patience / 6,
            answer: patience / 2,
            stall: patience / 3,
            document: patience,
        };
        // What is tried again is decided here.
        let retry = Retry { attempts: 1, ..Retry::default() };
        let options = Options { certificates, timeouts, retry, ..Options::default() };
        Ok(Self {
            http: http::Client::new(options)?,
            url: parsed.shown(),
            challenge: format!("{base}{CHALLENGE}").parse()?,
            evidence: format!("{base}{EVIDENCE}").parse()?,
            key,
            patience,
        })
    }

    /// The service's URL, for messages.
    pub fn url(&self) -> &Text {
        &self.url
    }

    /// Asks for a nonce for a quote about `pod`; `host` is the name of the key that will sign it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn challenge(&self, host: &Name, pod: &Uuid) -> Result<Challenge, ClientError> {
        let request =
            ChallengeRequest { version: VersionOne, host: host.clone(), pod: pod.clone() };
        let answer: ChallengeAnswer = self.ask(&self.challenge, &request)?;
        let ChallengeAnswer { nonce, life, select, .. } = answer;
        Ok(Challenge { nonce, life: Duration::from_secs(life), select })
    }

    /// Sends evidence, and asks for secrets. What comes back has been signed by the service, for the
    /// nonce in the evidence, about its pod and its keys, and the pod passed.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn evidence(
        &self,
        evidence: &Evidence,
        secrets: &[SecretName],
        now: SystemTime,
    ) -> Result<Answer, ClientError> {
        let request = EvidenceRequest {
            version: VersionOne,
            evidence: evidence.clone(),
            secrets: secrets.to_vec(),
        };
        let answer: EvidenceAnswer = self.ask(&self.evidence, &request)?;
        let claims = self.claims(&answer, evidence, now)?;
        let EvidenceAnswer { token, verdict, secrets: sealed, withheld, .. } = answer;
        if let Some(other) = sealed.iter().find(|sealed| !secrets.contains(&sealed.name)) {
            let problem = format!("a secret '{}' that was not asked for", other.name);
            return Err(ClientError::Nonsense { url: self.url.clone(), problem });
        }
        Ok(Answer { token, claims, verdict, secrets: sealed, withheld })
    }

    /// Reads the token, and holds it against what was sent.
    fn claims(
        &self,
        answer: &EvidenceAnswer,
        evidence: &Evidence,
        now: SystemTime,
    ) -> Result<Claims, ClientError> {
        let claims = token::read(&answer.token, &self.key, &evidence.nonce, now)
            .map_err(|error| ClientError::Token { url: self.url.clone(), error })?;
        let another = |what| ClientError::Another { url: self.url.clone(), what };
        let appraisal = match claims.submods.first_key_value() {
            Some((pod, appraisal)) if claims.submods.len() == 1 && *pod == evidence.pod => {
                appraisal
            }
            _ => return Err(another("pod")),
        };
        let about = &appraisal.ear_verifier_claims;
        if appraisal.ear_status == Status::Contraindicated || !about.failed.is_empty() {
            return Err(ClientError::Failed {
                url: self.url.clone(),
                failed: Text::message(reasons(&about.failed, &answer.verdict)),
            });
        }
        let own = attestation_key(&evidence.attestation_key).map(|key| key.name().to_string());
        if about.attestation_key != own.ok() {
            return Err(another("attestation key"));
        }
        if about.guest_key != evidence.guest_key.as_deref().map(hex) {
            return Err(another("guest's key"));
        }
        Ok(claims)
    }

    /// Asks, again if the service is busy or can't be reached, and reads what it says.
    fn ask<A: Document>(&self, url: &Url, request: &impl Document) -> Result<A, ClientError> {
        let request = request.to_json().map_err(ClientError::Document)?;
        let most = u64::try_from(A::MOST).unwrap_or(u64::MAX);
        // What does not come back soon keeps nobody waiting.
        let until = Instant::now() + self.patience / 3;
        let mut pause = PAUSE;
        let mut broken = None;
        let (status, answer) = loop {
            let result = self.http.post_json(url, &request, most);
            let may_pass = match &result {
                Ok((status, _)) => matches!(status, 429 | 502 | 503),
                Err(error) => matches!(error, http::Error::Connection { .. }),
            };
            if !may_pass || Instant::now() + pause >= until {
                break match (result, broken) {
                    // The nonce was used up by an answer that got lost: that is what went wrong.
                    (Ok((409, _)), Some(broken)) => return Err(ClientError::Http(broken)),
                    (result, _) => result?,
                };
            }
            broken = result.err().or(broken);
            thread::sleep(pause);
            pause *= 2;
        };
        if status == 200 {
            return A::parse(&answer).map_err(|error| ClientError::Nonsense {
                url: self.url.clone(),
                problem: error.to_string(),
            });
        }
        let why = match ErrorAnswer::parse(&answer) {
            Ok(answer) => Text::message(answer.error),
            Err(_) => Text::new("it does not say why"),
        };
        Err(ClientError::Refused { url: self.url.clone(), status, why })
    }
}

/// The checks that failed, which are signed, with the reasons, which are not.
fn reasons(failed: &[String], verdict: &RawValue) -> String {
    let verdict: serde_json::Value = serde_json::from_str(verdict.get()).unwrap_or_default();
    let why = |name: &str| {
        let mut checks = verdict["checks"].as_array().into_iter().flatten();
        let check = checks.find(|check| check["name"] == name)?;
        check["why"].as_str().map(|why| format!("{name}: {why}"))
    };
    let named = failed.iter().map(|name| why(name).unwrap_or_else(|| name.clone()));
    let named: Vec<_> = named.collect();
    if named.is_empty() { "it does not say why".to_owned() } else { named.join("; ") }
}
