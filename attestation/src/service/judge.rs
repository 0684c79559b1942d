//! What is decided, whoever asks over whatever network.

use super::{
    Accept, ChallengeAnswer, ChallengeRequest, Directory, DirectoryError, Document, DocumentError,
    EvidenceAnswer, EvidenceRequest, NonceProblem, Sealed, SecretName, Withheld,
    directory::{Host, Known, NamedPolicy},
    limit::{Limiter, customer},
    nonce::Nonces,
    verdicts::{Kept, Verdicts},
};
use crate::{
    evidence::Evidence,
    record::{Event, Launch, Record, VersionOne},
    secret,
    verify::{
        CheckName, CheckResult, Status, Verdict, attestation_key, instant,
        token::{self, Issuer},
        verify,
    },
};
use p256::ecdsa::SigningKey;
use sandbox_image::Text;
use serde_json::value::to_raw_value;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

/// Something for the service's log.
pub type Notice = String;

/// A request is refused: a status of HTTP, and one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// What is told.
    pub why: String,
}

impl Refusal {
    pub(super) fn new(status: u16, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }
}

impl From<DocumentError> for Refusal {
    fn from(error: DocumentError) -> Self {
        let status = if matches!(error, DocumentError::TooLong { .. }) { 413 } else { 400 };
        Self::new(status, error.to_string())
    }
}

impl From<NonceProblem> for Refusal {
    fn from(problem: NonceProblem) -> Self {
        let status = match problem {
            NonceProblem::Foreign | NonceProblem::Expired(_) => 403,
            NonceProblem::Used => 409,
            NonceProblem::Full => 503,
        };
        Self::new(status, problem.to_string())
    }
}

/// The service's side of the exchange.
pub struct Service {
    directory: Directory,
    key: SigningKey,
    known: RwLock<Arc<Known>>,
    nonces: Nonces,
    addresses: Limiter<IpAddr>,
    hosts: Limiter<String>,
    verdicts: Mutex<Verdicts>,
}

/// Without its key.
impl std::fmt::Debug for Service {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Service").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Service {
    /// Reads what there is in a directory, and makes the key if there is none. Besides, what is odd
    /// about it.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn open(directory: Directory) -> Result<(Self, Vec<Notice>), DirectoryError> {
        let key = directory.signing_key()?;
        let (known, odd) = directory.load()?;
        let verdicts = Verdicts::open(directory.path())?;
        let life = Duration::from_secs(known.settings.challenge_life);
        let service = Self {
            directory,
            key,
            known: RwLock::new(Arc::new(known)),
            nonces: Nonces::new(life),
            addresses: Limiter::new(),
            hosts: Limiter::new(),
            verdicts: Mutex::new(verdicts),
        };
        Ok((service, odd))
    }

    /// Reads hosts, policies and rules anew; the key, the life of a challenge and the number of
    /// connections stay. If something is wrong with them, what was read before holds on.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub fn reload(&self) -> Result<Vec<Notice>, DirectoryError> {
        let (known, odd) = self.directory.load()?;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        Ok(odd)
    }

    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a request, whatever it is.
    ///
    /// # Errors
    /// If there are too many from this address.
    pub fn admit(&self, from: IpAddr, now: Instant) -> Result<(), Refusal> {
        let rate = self.known().address_rate();
        match self.addresses.take(&customer(from), rate, now) {
            true => Ok(()),
            false => Err(Refusal::new(429, "too many requests from this address")),
        }
    }

    /// Answers a request for a challenge.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn challenge(&self, body: &[u8], now: Instant) -> Result<Vec<u8>, Refusal> {
        let ChallengeRequest { host, pod, .. } = ChallengeRequest::parse(body)?;
        let known = self.known();
        let Some(Host { select, .. }) = known.host(&host) else { return Err(unknown_host()) };
        let nonce = self.nonces.make(&host, &pod, now).ok_or_else(internal)?;
        let life = self.nonces.life().as_secs();
        let select = select.clone();
        let answer = ChallengeAnswer { version: VersionOne, nonce, life, select };
        answer.to_json().map_err(|_| internal())
    }

    /// Answers a request with evidence. What happened is for the log, also if it is refused.
    ///
    /// # Errors
    /// A [`Refusal`].
    pub fn evidence(
        &self,
        body: &[u8],
        from: IpAddr,
        now: (Instant, SystemTime),
    ) -> Result<(Vec<u8>, Notice), Refusal> {
        let EvidenceRequest { mut evidence, secrets, .. } = EvidenceRequest::parse(body)?;
        let key = attestation_key(&evidence.attestation_key)
            .map_err(|problem| Refusal::new(400, problem))?
            .name();
        let known = self.known();
        let Some(host) = known.host(&key) else { return Err(unknown_host()) };
        let pod = evidence.pod.parse().map_err(|_| internal())?;
        self.nonces.check(&evidence.nonce, &key, &pod, now.0)?;
        // What was enrolled here counts, and not what the host says of that.
        evidence.enrolment = Some(host.enrolment.clone());
        let (policy, named) = policy_for(&known, host, &evidence)?;
        let verdict = verify(&evidence, &evidence.nonce, &named.policy, now.1);
        is_the_hosts(&verdict)?;
        // From here on it is the host that asks, by its own TPM.
        if !self.hosts.take(&host.name, known.settings.limits.host, now.0) {
            return Err(Refusal::new(429, "too many verdicts for this host"));
        }
        self.nonces.spend(&evidence.nonce, now.0)?;
        if verdict.passed() {
            // The log has been replayed to what the TPM signed: what it says now is the record.
            let fits = verdict.facts.record.as_ref().is_some_and(|record| {
                known.settings.policy_for(&host.name, record) == Some(policy)
            });
            if !fits {
                return Err(Refusal::new(403, "the pod is not what its evidence seemed to say"));
            }
        }
        let request = Request { known: &known, host, policy, named, verdict: &verdict };
        let (sealed, withheld) = self.release(&request, &evidence, &secrets);
        self.answer(&request, from, now.1, sealed, withheld)
    }

    /// Signs and keeps a verdict, and puts the answer together.
    fn answer(
        &self,
        request: &Request<'_>,
        from: IpAddr,
        now: SystemTime,
        sealed: Vec<Sealed>,
        withheld: Vec<Withheld>,
    ) -> Result<(Vec<u8>, Notice), Refusal> {
        let Request { known, host, policy, named, verdict } = *request;
        let issuer = Issuer {
            key: &self.key,
            developer: &known.settings.name,
            build: env!("CARGO_PKG_VERSION"),
        };
        let life = known.settings.token_life();
        let token = token::issue(verdict, &named.digest, &issuer, now, life);
        let token = token.map_err(|_| internal())?;
        let raw = to_raw_value(verdict).map_err(|_| internal())?;
        let kept = Kept {
            version: 1,
            time: instant::format(instant::seconds(now)),
            host: &host.name,
            from: from.to_string(),
            policy,
            token: &token,
            verdict: &raw,
            secrets: sealed.iter().map(|sealed| &sealed.name).collect(),
        };
        let pod = &verdict.facts.pod;
        // What is not kept is not said, and no secret leaves without a trace.
        let most = known.settings.keep_verdicts;
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts
            .keep(&kept, pod, most, now)
            .map_err(|error| Refusal::new(503, format!("the verdict can't be kept: {error}")))?;
        drop(verdicts);
        let secrets = match (sealed.len(), withheld.len()) {
            (0, 0) => String::new(),
            (given, kept_back) => format!(", {given} secrets given, {kept_back} withheld"),
        };
        let failed: Vec<_> = verdict.failed().map(|(name, _)| name.to_string()).collect();
        let why =
            if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
        let notice = format!(
            "host {}, pod {pod}, policy {policy}: {}{why}{secrets}",
            host.name, verdict.status
        );
        let answer =
            EvidenceAnswer { version: VersionOne, token, verdict: raw, secrets: sealed, withheld };
        Ok((answer.to_json().map_err(|_| internal())?, notice))
    }

    /// Seals the secrets that the pod may have.
    fn release(
        &self,
        request: &Request<'_>,
        evidence: &Evidence,
        asked: &[SecretName],
    ) -> (Vec<Sealed>, Vec<Withheld>) {
        let (mut sealed, mut withheld) = (Vec::new(), Vec::new());
        for name in asked {
            match self.sealed(request, evidence, name) {
                Ok(bytes) => sealed.push(Sealed { name: name.clone(), sealed: bytes }),
                Err(why) => withheld.push(Withheld { name: name.clone(), why }),
            }
        }
        (sealed, withheld)
    }

    fn sealed(
        &self,
        request: &Request<'_>,
        evidence: &Evidence,
        name: &SecretName,
    ) -> Result<Vec<u8>, String> {
        let Request { known, host, policy, verdict, .. } = *request;
        if !verdict.passed() {
            return Err("the pod did not pass".to_owned());
        }
        let Some(record) = &verdict.facts.record else {
            return Err("it is not known what the pod is".to_owned());
        };
        // The quote covers it: the check of the nonce has passed.
        let Some(guest_key) = &evidence.guest_key else {
            return Err("the evidence has no key of the pod's guest".to_owned());
        };
        let rules = known.settings.secrets.iter().filter(|rule| rule.name == *name);
        let mut rules = rules.filter(|rule| rule.fits(&host.name, policy, record)).peekable();
        // Whether there is such a secret is nobody's business who may not have it.
        if rules.peek().is_none() {
            return Err("no rule gives it to this pod".to_owned());
        }
        let accepted = |accept: Accept| match accept {
            Accept::Affirming => verdict.status == Status::Affirming,
            Accept::Warning => verdict.passed(),
        };
        if !rules.any(|rule| accepted(rule.accept)) {
            return Err(format!(
                "the verdict is '{}', and has to be 'affirming': policy {policy} leaves open what \
                 runs",
                verdict.status
            ));
        }
        let secret =
            self.directory.secret(name).map_err(|_| "the service cannot read it".to_owned())?;
        secret::seal(guest_key, &evidence.pod, name.as_str(), &secret)
            .map_err(|error| error.to_string())
    }
}

/// A verified request.
#[derive(Clone, Copy)]
struct Request<'a> {
    known: &'a Known,
    host: &'a Host,
    policy: &'a str,
    named: &'a NamedPolicy,
    verdict: &'a Verdict,
}

fn unknown_host() -> Refusal {
    Refusal::new(
        403,
        "no host with this attestation key is enrolled here; put its enrolment into hosts/",
    )
}

fn internal() -> Refusal {
    Refusal::new(500, "the service has failed")
}

/// The policy for what the evidence says that it is about. Nobody has signed that yet: whoever lies
/// here is held against the wrong policy, and is refused when the record is known.
fn policy_for<'k>(
    known: &'k Known,
    host: &'k Host,
    evidence: &Evidence,
) -> Result<(&'k str, &'k NamedPolicy), Refusal> {
    let record = claimed(evidence)
        .ok_or_else(|| Refusal::new(400, "the log has no record of a launch of this pod"))?;
    let policy = known.settings.policy_for(&host.name, &record).ok_or_else(|| {
        let tenant = Text::new(&record.tenant);
        Refusal::new(403, format!("no rule is about pods of tenant '{tenant}' with these images"))
    })?;
    let named = known.policies.get(policy).ok_or_else(internal)?;
    Ok((policy, named))
}

/// What the log says of the pod's launch.
fn claimed(evidence: &Evidence) -> Option<Record> {
    let contents = evidence.log.records.iter().rev().filter_map(|record| record.content.as_ref());
    // Only the pod's own records name it: no other content is parsed.
    let mut own = contents.filter(|content| content.get().contains(&evidence.pod));
    own.find_map(|content| match Event::parse(content.get().as_bytes()) {
        Ok(Event::Launch(launch)) if launch.record.pod.as_str() == evidence.pod => {
            let Launch { record, .. } = *launch;
            Some(record)
        }
        _ => None,
    })
}

/// Whether the enrolled host's TPM has signed for this nonce. If not, anybody could have sent it:
/// then nothing is signed, kept or counted, and what the host asks for is not touched.
fn is_the_hosts(verdict: &Verdict) -> Result<(), Refusal> {
    let signed = [
        CheckName::AttestationKey,
        CheckName::KeyBinding,
        CheckName::QuoteAlgorithm,
        CheckName::QuoteSignature,
        CheckName::QuoteForm,
        CheckName::Nonce,
    ];
    for name in signed {
        match verdict.result(name) {
            Some(CheckResult::Passed) => {}
            Some(CheckResult::Failed(why) | CheckResult::NotDone(why)) => {
                return Err(Refusal::new(403, format!("{name}: {why}")));
            }
            None => return Err(internal()),
        }
    }
    Ok(())
}
