//! A list of requirements, of which an image has to meet all.

use super::{count, is_of};
use crate::{
    HostPolicy, Identity, Subject, instant,
    keystore::Key,
    openpgp::{self, Verified},
    payload::{Payload, PayloadKind},
    policy::{DockerReference, KeySource, Requirement, SignedIdentity},
    sigstore::{self, PublicKey},
};
use sandbox_image::{Digest, Text, evidence::Signature};

/// What is needed to judge by requirements.
pub(super) struct Requirements<'a> {
    pub subject: &'a Subject<'a>,
    pub host: &'a HostPolicy,
    pub now: i64,
}

/// A requirement is met: by these signatures, if it asks for any.
#[derive(Debug, Default)]
pub(super) struct Met {
    pub accepted: Vec<Accepted>,
}

/// A signature that counts.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The key's fingerprint.
    pub key: String,
    /// Whose key it is, by the key's own account.
    identity: Option<String>,
    /// When it was signed, by the signature's own account.
    time: Option<i64>,
}

impl Accepted {
    fn of(verified: Verified) -> Self {
        let Verified { primary, identity, created, .. } = verified;
        Self { key: primary, identity, time: Some(created) }
    }

    /// In one line.
    pub(super) fn signer(&self) -> String {
        match &self.identity {
            Some(identity) => format!("{} {}", self.key, Text::new(identity)),
            None => self.key.clone(),
        }
    }
}

impl Met {
    /// The time of its newest signature that says one.
    pub(super) fn newest(&self) -> Option<i64> {
        self.accepted.iter().filter_map(|accepted| accepted.time).max()
    }
}

/// Reasons that are given, at most: whoever makes the image decides how many signatures it has.
const MAX_REASONS: usize = 8;

impl Requirements<'_> {
    /// All of a policy's list: those that are met, and why others are not.
    pub(super) fn all(
        &self,
        list: &[Requirement],
        steps: &mut Vec<String>,
    ) -> (Vec<Met>, Vec<String>) {
        // The parser refuses an empty list, which would be met by everything.
        if list.is_empty() {
            return (Vec::new(), vec!["there is no requirement".to_owned()]);
        }
        let (mut met, mut reasons) = (Vec::new(), Vec::new());
        for requirement in list {
            match self.one(requirement, steps) {
                Ok(one) => met.push(one),
                Err(problems) => reasons.extend(problems),
            }
        }
        (met, reasons)
    }

    fn one(&self, requirement: &Requirement, steps: &mut Vec<String>) -> Result<Met, Vec<String>> {
        let (name, result) = match requirement {
            Requirement::InsecureAcceptAnything => ("insecureAcceptAnything", Ok(Met::default())),
            Requirement::Reject => ("reject", Err(vec!["it rejects every image".to_owned()])),
            Requirement::Unsupported(what) => {
                let reason = format!("{what} is asked for and not supported, so it can't be met");
                ("a requirement that is not supported", Err(vec![reason]))
            }
            Requirement::SignedBy { keys, identity } => {
                ("signedBy", self.signed_by(keys, identity))
            }
            Requirement::SigstoreSigned { keys, identity } => {
                ("sigstoreSigned", self.sigstore_signed(keys, identity))
            }
        };
        explain(name, &result, steps);
        result
    }

    /// rkt's trusted keys.
    pub(super) fn trusted_keys(
        &self,
        name: &str,
        steps: &mut Vec<String>,
    ) -> (Vec<Met>, Vec<String>) {
        let trusted = self.host.trusted_for(name);
        let keys: Vec<Key> = trusted.iter().map(|trusted| trusted.key.clone()).collect();
        for trusted in &trusted {
            let path = Text::of_os(&trusted.path);
            steps.push(format!(
                "a key that is trusted for it: {} ({path})",
                trusted.key.fingerprint()
            ));
        }
        let broken: Vec<_> = self.host.broken_for(name).take(MAX_REASONS).collect();
        let result = if !broken.is_empty() {
            let reason = |problem| {
                format!(
                    "a file of trusted keys that could decide about it can't be used: {problem}; \
                     repair the file, or remove it"
                )
            };
            Err(broken.into_iter().map(reason).collect())
        } else if keys.is_empty() {
            let name = Text::new(name);
            Err(vec![format!(
                "no key is trusted for '{name}'; 'sandbox trust --prefix={name}' adds one"
            )])
        } else {
            self.detached(&keys)
        };
        explain("a signature by a trusted key", &result, steps);
        match result {
            Ok(met) => (vec![met], Vec::new()),
            Err(reasons) => (Vec::new(), reasons),
        }
    }

    fn signed_by(&self, source: &KeySource, identity: &SignedIdentity) -> Result<Met, Vec<String>> {
        let keys = self.host.keyring(source).map_err(|problem| vec![problem])?;
        if matches!(self.subject.identity, Identity::Aci { .. }) {
            return self.detached(&keys);
        }
        self.any("simple signing signature", |signature| {
            let Signature::SimpleSigning { message } = signature else { return None };
            Some(self.simple(message, &keys, identity))
        })
    }

    fn simple(
        &self,
        message: &[u8],
        keys: &[Key],
        identity: &SignedIdentity,
    ) -> Result<Accepted, String> {
        let (payload, verified) =
            openpgp::verify_message(message, keys, self.now).map_err(|error| error.to_string())?;
        let payload = Payload::parse(&payload, PayloadKind::Atomic)
            .map_err(|error| format!("what it signs is no statement about an image: {error}"))?;
        self.is_about(&[payload.digest], Some(&payload.reference), identity)?;
        Ok(Accepted::of(verified))
    }

    fn sigstore_signed(
        &self,
        source: &KeySource,
        identity: &SignedIdentity,
    ) -> Result<Met, Vec<String>> {
        let mut keys = Vec::new();
        for (place, content) in self.host.contents(source).map_err(|problem| vec![problem])? {
            let key =
                PublicKey::parse(content).map_err(|error| vec![format!("{place}: {error}")])?;
            keys.push(key);
        }
        self.any("sigstore signature", |signature| match signature {
            Signature::Cosign { payload, signature } => {
                Some(self.cosign(payload, signature, &keys, identity))
            }
            Signature::Bundle { bundle } => Some(self.bundle(bundle, &keys, identity)),
            Signature::SimpleSigning { .. } | Signature::Detached { .. } => None,
        })
    }

    fn cosign(
        &self,
        payload: &[u8],
        signature: &[u8],
        keys: &[PublicKey],
        identity: &SignedIdentity,
    ) -> Result<Accepted, String> {
        let key = sigstore::verify_cosign(payload, signature, keys).map_err(|e| e.to_string())?;
        let payload = Payload::parse(payload, PayloadKind::Cosign)
            .map_err(|error| format!("what it signs is no statement about an image: {error}"))?;
        self.is_about(&[payload.digest], Some(&payload.reference), identity)?;
        Ok(Accepted { key, identity: None, time: payload.timestamp })
    }

    fn bundle(
        &self,
        bundle: &[u8],
        keys: &[PublicKey],
        identity: &SignedIdentity,
    ) -> Result<Accepted, String> {
        let statement = sigstore::verify_bundle(bundle, keys).map_err(|error| error.to_string())?;
        self.is_about(&statement.digests, statement.reference.as_deref(), identity)?;
        Ok(Accepted { key: statement.key, identity: None, time: None })
    }

    /// A detached signature. It was held against the file while that was there as it was shipped;
    /// what the key is worth is looked at now.
    fn detached(&self, keys: &[Key]) -> Result<Met, Vec<String>> {
        self.any("detached signature", |signature| {
            let Signature::Detached { facts, .. } = signature else { return None };
            Some(match facts {
                None => Err("it did not fit the file by any key that was trusted when the image \
                             was fetched; fetch it again if that has changed"
                    .to_owned()),
                Some(facts) => openpgp::check_facts(facts, keys, self.now)
                    .map(Accepted::of)
                    .map_err(|error| error.to_string()),
            })
        })
    }

    /// Whether any signature of a kind counts. `check` says nothing about those of other kinds.
    fn any<'a>(
        &'a self,
        kind: &str,
        check: impl Fn(&'a Signature) -> Option<Result<Accepted, String>>,
    ) -> Result<Met, Vec<String>> {
        let (mut accepted, mut reasons) = (Vec::new(), Vec::new());
        for (place, signature) in self.subject.signatures.iter().enumerate() {
            match check(signature) {
                None => {}
                Some(Ok(one)) => accepted.push(one),
                Some(Err(reason)) => reasons.push(format!("signature {}: {reason}", place + 1)),
            }
        }
        if !accepted.is_empty() {
            return Ok(Met { accepted });
        }
        if reasons.is_empty() {
            return Err(vec![format!("it has no {kind}, and one is asked for")]);
        }
        let more = reasons.len().saturating_sub(MAX_REASONS);
        reasons.truncate(MAX_REASONS);
        if more > 0 {
            reasons.push(format!("and {} more, none of which counts", count(more, "signature")));
        }
        Err(reasons)
    }

    /// Whether what was signed is this image, by digest and by name.
    fn is_about(
        &self,
        digests: &[Digest],
        reference: Option<&str>,
        identity: &SignedIdentity,
    ) -> Result<(), String> {
        let Subject { id, manifests, .. } = self.subject;
        if !is_of(id, manifests) {
            return Err(format!(
                "it is over a manifest, and the image is not known by the digest of one ({id})"
            ));
        }
        if !digests.iter().any(|digest| manifests.contains(digest)) {
            return Err(match digests.first() {
                Some(digest) => format!("it is for another image, {digest}"),
                None => "it is over nothing".to_owned(),
            });
        }
        identity.check(self.name().as_ref(), reference)
    }

    /// The image's name, if it is from a registry.
    fn name(&self) -> Option<DockerReference> {
        let Identity::Docker { registry, repository, tag, digest } = self.subject.identity else {
            return None;
        };
        Some(DockerReference {
            name: format!("{registry}/{repository}"),
            tag: tag.map(str::to_owned),
            digest: digest.cloned(),
        })
    }
}

fn explain(name: &str, result: &Result<Met, Vec<String>>, steps: &mut Vec<String>) {
    match result {
        Err(reasons) => {
            steps.extend(reasons.iter().map(|reason| format!("{name}: not met: {reason}")));
        }
        Ok(met) if met.accepted.is_empty() => steps.push(format!("{name}: met")),
        Ok(met) => steps.extend(met.accepted.iter().map(|accepted| {
            let time = accepted.time.map(|time| format!(" at {}", instant::format(time)));
            format!("{name}: met: signed by {}{}", accepted.signer(), time.unwrap_or_default())
        })),
    }
}
