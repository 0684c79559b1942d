//! One image, held against the host's rules.

mod requirement;

use crate::{
    HostPolicy, Identity, Launch, Subject, instant,
    policy::{Applicable, Place},
    reason::{self, Reason},
    rules::{Answer as Found, Check, ImageFacts},
};
use requirement::{Met, Requirements};
use sandbox_image::{Digest, Text};
use std::time::SystemTime;

/// What is decided about an image, and how it came about. All texts can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What decided: a scope of the policy, the trusted keys, a rule of gate.d, or the option. Of
    /// several that refuse it, the first.
    pub rule: String,
    /// The decision.
    pub outcome: Outcome,
    /// How it came about, line by line.
    pub steps: Vec<String>,
    /// Fingerprints of the keys whose signatures were accepted.
    pub keys: Vec<String>,
    /// What the rules of gate.d ask for, of the image and of a pod that has it, and whether that is
    /// so. What depends on the pod is open here; [`crate::decide`] knows it.
    pub checks: Vec<Check>,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The image may run.
    Allowed {
        /// Who signed it, if that is why: a fingerprint and a name each.
        signers: Vec<String>,
    },
    /// It may not.
    Refused {
        /// Everything that speaks against it; at least one.
        reasons: Vec<Reason>,
    },
}

impl Judgement {
    /// Whether the image may run.
    pub fn is_allowed(&self) -> bool {
        matches!(self.outcome, Outcome::Allowed { .. })
    }
}

/// What the policy or the trusted keys say, before the host's other rules.
struct Answer {
    rule: String,
    /// The requirements that are met.
    met: Vec<Met>,
    /// Why it is refused, if it is.
    reasons: Vec<String>,
}

/// Holds an image against the host's rules, as far as they are about images and not about the pod
/// that it will be in. `insecure_image` is `--insecure-options=image`: what the policy and the
/// trusted keys refuse is allowed, what a rule of gate.d refuses is not.
pub fn judge(
    subject: &Subject<'_>,
    host: &HostPolicy,
    insecure_image: bool,
    now: SystemTime,
) -> Judgement {
    judge_for(subject, None, host, insecure_image, now)
}

/// The same for an image of a pod, which says whose pod it is.
pub(crate) fn judge_for(
    subject: &Subject<'_>,
    launch: Option<&Launch>,
    host: &HostPolicy,
    insecure_image: bool,
    now: SystemTime,
) -> Judgement {
    let now = instant::seconds(now);
    let mut steps = vec![
        format!("the image is {}, ID {}", subject.identity, subject.id.file_name()),
        format!("it came with {}", count(subject.signatures.len(), "signature")),
    ];
    let Answer { mut rule, mut met, mut reasons } = answer(subject, host, now, &mut steps);
    if !reasons.is_empty() && insecure_image {
        let because = reasons.join("; ");
        steps.push(format!(
            "{rule} refuses it ({because}), which --insecure-options=image overrides"
        ));
        rule = "--insecure-options=image".to_owned();
        met.clear();
        reasons.clear();
    }
    // Each requirement has to be met by a signature that is new enough.
    let signed = met.iter().filter_map(Met::newest).min();
    let (signers, keys) = signers(met);
    let facts =
        ImageFacts { version: subject.version, signed, created: subject.created, keys: &keys };
    let checks = host.rules().of_image(&subject.identity, &facts, launch);
    steps.extend(checks.iter().map(Check::line));
    if checks.is_empty() {
        steps.push("no rule of gate.d is about it".to_owned());
    }
    let mut refused: Vec<Reason> =
        reasons.into_iter().map(|problem| Reason { rule: rule.clone(), problem }).collect();
    refused.extend(checks.iter().filter(|check| check.answer == Found::Unmet).map(Reason::of));
    let Some(first) = refused.first() else {
        steps.push(format!("allowed by {rule}"));
        return Judgement { rule, outcome: Outcome::Allowed { signers }, steps, keys, checks };
    };
    let rule = first.rule.clone();
    steps.push(format!("refused by {}", reason::rules(&refused)));
    let outcome = Outcome::Refused { reasons: refused };
    Judgement { rule, outcome, steps, keys: Vec::new(), checks }
}

/// Who signed, and the fingerprints of the keys, each once.
fn signers(met: Vec<Met>) -> (Vec<String>, Vec<String>) {
    let (mut signers, mut keys) = (Vec::new(), Vec::new());
    for accepted in met.into_iter().flat_map(|met| met.accepted) {
        if !keys.contains(&accepted.key) {
            signers.push(accepted.signer());
            keys.push(accepted.key);
        }
    }
    (signers, keys)
}

/// Asks the policy, or the trusted keys.
fn answer(subject: &Subject<'_>, host: &HostPolicy, now: i64, steps: &mut Vec<String>) -> Answer {
    let (path, policy) = host.policy();
    let file = Text::of_os(path);
    let refused =
        |rule: String, reason: String| Answer { rule, met: Vec::new(), reasons: vec![reason] };
    let place = match Place::of(&subject.identity) {
        Ok(place) => place,
        Err(problem) => return refused("the image's name".to_owned(), problem),
    };
    if let Err(problem) = is_asked_for(subject) {
        return refused("the image's digest".to_owned(), problem);
    }
    let found = match (&subject.identity, policy) {
        (Identity::Aci { name, .. }, policy) => {
            match policy.and_then(|policy| policy.scoped(&place)) {
                Some(found) => found,
                None => {
                    let requirements = Requirements { subject, host, now };
                    steps
                        .push("no scope of the transport aci holds it: trusted keys decide".into());
                    let (met, reasons) = requirements.trusted_keys(name, steps);
                    return Answer { rule: "the trusted keys".to_owned(), met, reasons };
                }
            }
        }
        (_, Some(policy)) => policy.applicable(&place),
        (_, None) => {
            let reason = format!(
                "there is no policy, and without one no image of a registry, layout or archive \
                 runs: {file} does not exist; write it (containers-policy.json(5)), or name \
                 another file with --policy=FILE"
            );
            return refused("the built-in policy".to_owned(), reason);
        }
    };
    let Applicable { place, requirements: list } = found;
    let rule = match place {
        Some((transport, "")) => format!("transport {transport} in {file}"),
        Some((transport, scope)) => {
            format!("scope '{}' of transport {transport} in {file}", Text::new(scope))
        }
        None => format!("the default in {file}"),
    };
    steps.push(format!("{rule} decides: {}", count(list.len(), "requirement")));
    let (met, reasons) = Requirements { subject, host, now }.all(list, steps);
    Answer { rule, met, reasons }
}

/// An image that was asked for by digest is the one with that digest.
fn is_asked_for(subject: &Subject<'_>) -> Result<(), String> {
    match subject.identity {
        Identity::Docker { digest: Some(digest), .. } if !subject.manifests.contains(digest) => {
            Err(format!("it was asked for by {digest}, which is not the digest of its manifest"))
        }
        _ => Ok(()),
    }
}

/// `1 signature`, `2 signatures`.
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Whether signatures of an image's manifest are about the image that would run.
fn is_of(id: &Digest, manifests: &[Digest]) -> bool {
    manifests.contains(id)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::keys as test_keys;
