//! The permit, and who gives it out.

use crate::{HostPolicy, Judgement, Outcome, Subject, instant, judge};
use sandbox_image::{Digest, Text};
use serde::{Serialize, Serializer};
use std::{fmt, time::SystemTime};

/// That a pod of certain images may be launched. Whatever starts a pod asks for one, and only
/// [`decide`] makes it: it can't be copied, read from a file, or made in another way.
#[derive(Debug)]
#[must_use = "a permit is there to be asked for by what launches"]
pub struct LaunchPermit {
    decisions: Vec<Decision>,
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
    /// The digest of all that the decision was made by.
    #[serde(serialize_with = "as_text")]
    pub policy_digest: Digest,
    /// When it was decided, as RFC 3339 writes it.
    pub time: String,
}

/// An image may not be launched.
#[derive(Debug, thiserror::Error)]
#[error(
    "image {image} of app '{app}' is refused by {rule}: {}; 'sandbox policy check' explains \
     it step by step",
    reasons.join("; ")
)]
pub struct Refusal {
    /// The app that would be made of it.
    pub app: Text,
    /// What policies call the image, and its ID.
    pub image: String,
    /// What decided.
    pub rule: String,
    /// Why.
    pub reasons: Vec<String>,
}

impl LaunchPermit {
    /// What was decided, image by image.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// Whether it is for an image of this ID.
    pub fn covers(&self, id: &Digest) -> bool {
        self.decisions.iter().any(|decision| decision.image == *id)
    }
}

fn as_text<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(digest)
}

impl fmt::Display for Decision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}): {} by {}", self.identity, self.image, self.answer, self.rule)
    }
}

/// Judges all images that a pod is made of, each with the name of its app. One that is refused
/// refuses the pod.
///
/// # Errors
/// The first [`Refusal`].
pub fn decide(
    subjects: &[(&str, Subject<'_>)],
    policy: &HostPolicy,
    insecure_image: bool,
    now: SystemTime,
) -> Result<LaunchPermit, Refusal> {
    let mut decisions = Vec::with_capacity(subjects.len());
    for (app, subject) in subjects {
        let Judgement { rule, outcome, keys, .. } = judge(subject, policy, insecure_image, now);
        if let Outcome::Refused { reasons } = outcome {
            return Err(Refusal {
                app: Text::new(app),
                image: format!("{} ({})", subject.identity, subject.id.file_name()),
                rule,
                reasons,
            });
        }
        decisions.push(Decision {
            app: (*app).to_owned(),
            image: subject.id.clone(),
            identity: subject.identity.to_string(),
            rule,
            answer: "allowed",
            keys,
            policy_digest: policy.digest().clone(),
            time: instant::format(instant::seconds(now)),
        });
    }
    Ok(LaunchPermit { decisions })
}
