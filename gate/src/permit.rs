//! The decision about a pod: first [`Approval`], then [`LaunchPermit`].

use crate::{
    HostPolicy, Judgement, Launch, Measured, Outcome, Subject, Verifier, instant,
    judge::judge_for,
    reason::Reason,
    refusal::{Refusal, RefusedImage},
    rules::{Answer, Check},
};
use sandbox_image::{Digest, Text};
use serde::{Serialize, Serializer};
use std::{fmt, time::SystemTime};

/// That a pod may be launched as it was asked about, once it has been measured if that is demanded.
/// Only [`decide`] makes one: it can't be copied, read from a file, or made in another way. A pod is
/// prepared for it, and [`Approval::permit`] turns it into what a pod is started with.
#[derive(Debug)]
#[must_use = "an approval is there to be asked for by what prepares a pod"]
pub struct Approval {
    launch: Launch,
    decisions: Vec<Decision>,
    demands: Demands,
}

/// What is still to be done before an approved pod is permitted to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// The launch has to be measured, and the measurement to be verified at least by this one.
    pub measurement: Option<Verifier>,
    /// The same, as far as rules of the host demand it. What the user asks for can't stand in for
    /// that: a service of the user's own choice would say what the user likes.
    pub by_rules: Option<Verifier>,
    /// Who demands that: rules of the host, or the user.
    pub by: Vec<String>,
}

/// That this one pod may be launched now. Whatever starts a pod asks for one, and only
/// [`Approval::permit`] makes it: it can't be copied, read from a file, or made in another way.
#[derive(Debug)]
#[must_use = "a permit is there to be asked for by what launches"]
pub struct LaunchPermit {
    pod: String,
    decisions: Vec<Decision>,
    measured: Option<Measured>,
}

/// What was decided about one image, to be kept with the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The app that is made of it.
    pub app: String,
    /// The image's ID.
    #[serde(serialize_with = "as_text")]
    pub image: Digest,
    /// What policies call it.
    pub identity: String,
    /// What decided.
    pub rule: String,
    /// Always `allowed`: of what is refused there is no permit.
    pub answer: &'static str,
    /// The fingerprints of the keys whose signatures were accepted: of OpenPGP in lower-case
    /// hexadecimal digits, of sigstore `sha256:` and the digest of the public key.
    pub keys: Vec<String>,
    /// What the rules of gate.d asked for, of the image and of the pod that it is in, and what was
    /// found. Open are those that ask for the measurement, which `measured` answers.
    pub checks: Vec<Check>,
    /// How the pod was measured, if it was.
    pub measured: Option<Measured>,
    /// The digest of all that the decision was made by.
    #[serde(serialize_with = "as_text")]
    pub policy_digest: Digest,
    /// When it was decided, as RFC 3339 writes it.
    pub time: String,
}

fn as_text<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

impl fmt::Display for Decision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): {} by {}", self.identity, self.image, self.answer, self.rule)
    }
}

/// Decides about a pod: about all images that it is made of, each with the name of its app, and about
/// how it would be launched. What refuses one of them refuses the pod.
///
/// # Errors
/// [`Refusal`], with everything that speaks against it.
pub fn decide(
    subjects: &[(&str, Subject<'_>)],
    launch: &Launch,
    policy: &HostPolicy,
    insecure_image: bool,
    now: SystemTime,
) -> Result<Approval, Refusal> {
    let mut refusal = Refusal::default();
    if subjects.is_empty() {
        // Rules are found by images: without any, none would hold.
        refusal.pod.push(Reason {
            rule: "the gate".to_owned(),
            problem: "the pod has no image".to_owned(),
        });
    }
    let mut decisions = Vec::with_capacity(subjects.len());
    for (app, subject) in subjects {
        let Judgement { rule, outcome, keys, checks, .. } =
            judge_for(subject, Some(launch), policy, insecure_image, now);
        if let Outcome::Refused { reasons } = outcome {
            refusal.images.push(RefusedImage {
                app: Text::new(app),
                image: format!("{} ({})", subject.identity, subject.id.file_name()),
                reasons,
            });
            continue;
        }
        decisions.push(Decision {
            app: (*app).to_owned(),
            image: subject.id.clone(),
            identity: subject.identity.to_string(),
            rule,
            answer: "allowed",
            keys,
            checks,
            measured: None,
            policy_digest: policy.digest().clone(),
            time: instant::format(instant::seconds(now)),
        });
    }
    let keys: Vec<String> = subjects.iter().map(|(_, subject)| subject.identity.key()).collect();
    let (checks, demands) = about_pod(&keys, launch, policy);
    refusal.pod.extend(checks.iter().filter(|check| check.answer == Answer::Unmet).map(Reason::of));
    if !refusal.is_empty() {
        return Err(refusal);
    }
    for decision in &mut decisions {
        decision.checks.extend(checks.iter().cloned());
    }
    Ok(Approval { launch: launch.clone(), decisions, demands })
}

/// What rules say about a pod as a whole, and what is to be done before it starts.
fn about_pod(keys: &[String], launch: &Launch, policy: &HostPolicy) -> (Vec<Check>, Demands) {
    let mut demands = Demands { measurement: launch.attest, ..Demands::default() };
    if launch.attest.is_some() {
        demands.by.push("--tpm-attest".to_owned());
    }
    let mut checks = Vec::new();
    for named in policy.rules().of_pod(keys, launch) {
        checks.extend(named.of_pod(launch));
        if let Some(verifier) = named.rule.measurement() {
            demands.by_rules = demands.by_rules.max(Some(verifier));
            demands.measurement = demands.measurement.max(Some(verifier));
            demands.by.push(named.name.clone());
        }
    }
    (checks, demands)
}

impl Approval {
    /// What was decided, image by image.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// What is still to be done before the pod is permitted to start.
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// Whether it is for an image of this ID.
    pub fn covers(&self, id: &Digest) -> bool {
        self.decisions.iter().any(|decision| decision.image == *id)
    }

    /// Whether it is for a pod that is launched exactly so.
    pub fn is_for(&self, launch: &Launch) -> bool {
        self.launch == *launch
    }

    /// Permits one pod to start, by its UUID, if it was measured as far as that is demanded.
    ///
    /// # Errors
    /// [`Refusal`] if a measurement is demanded and there is none, or not one that was verified as
    /// demanded. A measurement of another pod is refused even where none is demanded.
    pub fn permit(self, pod: &str, measured: Option<Measured>) -> Result<LaunchPermit, Refusal> {
        let problem = match &measured {
            Some(measured) if measured.pod() != pod => {
                return Err(Refusal::of_pod(vec![Reason {
                    rule: "the gate".to_owned(),
                    problem: format!(
                        "what was measured is the launch of pod {}, and not of {}",
                        Text::new(measured.pod()),
                        Text::new(pod)
                    ),
                }]));
            }
            Some(measured) => self.demands.measurement.and_then(|wanted| measured.lacks(wanted)),
            None => self.demands.measurement.map(|_| {
                "the launch has to be measured into the TPM first, and was not; this host needs a TPM \
                 that is set up for it"
                    .to_owned()
            }),
        };
        if let Some(problem) = problem {
            let reason = |rule| Reason { rule, problem: problem.clone() };
            return Err(Refusal::of_pod(self.demands.by.into_iter().map(reason).collect()));
        }
        let mut decisions = self.decisions;
        for decision in &mut decisions {
            decision.measured.clone_from(&measured);
        }
        Ok(LaunchPermit { pod: pod.to_owned(), decisions, measured })
    }
}

impl LaunchPermit {
    /// The UUID of the pod that it is for.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// What was decided, image by image.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// How the launch was measured, if it was.
    pub fn measured(&self) -> Option<&Measured> {
        self.measured.as_ref()
    }
}
