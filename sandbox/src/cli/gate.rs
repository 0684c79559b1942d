//! `sandbox gate`: what decides about launches, and what it has decided.

use super::pull::Pull;
use super::{Global, Outcome};
use crate::images::{self, Images, Verdict, Wanted};
use crate::message::Messages;
use crate::output::{self, Format};
use crate::pod::{DataDir, GATE};
use clap::{Args, Subcommand};
use sandbox_gate::{Answer, Check, Reason};
use sandbox_image::{PullPolicy, Reference, Text};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::path::PathBuf;
use uuid::Uuid;

/// Ask the gate, which decides what may be launched.
#[derive(Debug, Args)]
pub struct Gate {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Explain(Explain),
}

impl Gate {
    /// The name that messages begin with.
    pub fn name(&self) -> &'static str {
        match self.verb {
            Verb::Explain(_) => "explain",
        }
    }

    /// Does what the verb says.
    pub fn execute(&self, global: &Global) -> Outcome {
        match &self.verb {
            Verb::Explain(explain) => explain.execute(global),
        }
    }
}

/// The exit status for an image that may not run.
const REFUSED: u8 = 1;

/// Say what this host's rules demand of a pod with an image, or what was decided about a pod.
///
/// For an image: whether the policy lets it run, and everything that the rules in
/// /etc/sandbox/gate.d demand of it and of a pod that has it: what is met, what is not, and what stays
/// open until a pod is launched, such as its volumes. An image that is not in the local store is
/// fetched to be asked about, and not put there.
///
/// For a pod, by its whole UUID: what the gate decided when it was launched, from the file gate.json
/// in the pod's directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  What a pod with this image would have to be like:
    sandbox gate explain docker://registry.example.com/team/app:1.2
  Why this pod was allowed to run:
    sandbox gate explain 7ea2d2f2-0d3c-4c1c-9d0c-2b6ffcd7b6a0
  For a program:
    sandbox gate explain --format=json example.com/app

Exit status: 0 if nothing that is known refuses the image, or for a pod; 1 if something does; 254 if
that can't be found out.")]
pub struct Explain {
    /// The UUID of a pod; or an image, as for 'sandbox run'
    #[arg(value_name = "IMAGE|POD")]
    what: OsString,
    /// Hold the image, an ACI, against the detached signature in this file, in place of the one
    /// that lies beside it. It is fetched for that even if the store has it.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
    #[command(flatten)]
    pull: Pull,
}

/// What is printed as JSON about an image.
#[derive(Serialize)]
struct OfImage<'a> {
    allowed: bool,
    policy_digest: String,
    images: Vec<Entry<'a>>,
}

/// One of the images that make up what would run.
#[derive(Serialize)]
struct Entry<'a> {
    id: String,
    name: String,
    identity: &'a str,
    allowed: bool,
    rule: &'a str,
    signers: &'a [String],
    keys: &'a [String],
    reasons: &'a [Reason],
    checks: &'a [Check],
}

/// What is printed as JSON about a pod.
#[derive(Serialize)]
struct OfPod {
    pod: String,
    /// As they are on disk.
    decisions: serde_json::Value,
}

/// A decision as it is on disk.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    app: String,
    image: String,
    identity: String,
    rule: String,
    answer: String,
    keys: Vec<String>,
    #[serde(default)]
    checks: Vec<KeptCheck>,
    #[serde(default)]
    measured: Option<KeptMeasurement>,
    policy_digest: String,
    time: String,
}

#[derive(Deserialize)]
struct KeptCheck {
    rule: String,
    demand: String,
    answer: String,
    found: String,
}

#[derive(Deserialize)]
struct KeptMeasurement {
    record: u64,
    verified: bool,
    by: String,
}

impl Explain {
    /// Prints the explanation.
    pub fn execute(&self, global: &Global) -> Outcome {
        match pod(&self.what) {
            Some(uuid) => self.of_pod(uuid, global),
            None => self.of_image(global),
        }
    }

    fn of_image(&self, global: &Global) -> Outcome {
        let messages = Messages::new("explain", global.debug);
        let policy = self.pull.policy(PullPolicy::New, messages)?;
        let limits = self.pull.limits()?;
        let images = Images::open(global.image_settings()?, messages)?;
        let reference = Reference::parse(&self.what)?;
        let signature = self.signature.as_deref();
        let gate = images.gate()?;
        let wanted = Wanted { reference: &reference, policy, signature, limits: &limits };
        let verdicts = images.ask(&wanted, &gate)?;
        let allowed = verdicts.iter().all(|verdict| verdict.refusal().is_none());
        let text = match self.format {
            Format::Text => {
                let mut lines = Lines::default();
                for verdict in &verdicts {
                    lines.verdict(verdict);
                }
                lines.add("policy", gate.digest());
                lines.0
            }
            format => {
                let images = verdicts.iter().map(entry).collect();
                let answer = OfImage { allowed, policy_digest: gate.digest().to_string(), images };
                output::json(&answer, format == Format::JsonPretty)?
            }
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(if allowed { 0 } else { REFUSED })
    }

    fn of_pod(&self, pod: Uuid, global: &Global) -> Outcome {
        let data = DataDir::open(&global.data_dir()?)?;
        let kept = data.read(pod, GATE)?.ok_or_else(|| {
            format!(
                "pod {pod}: there is none below {}; what was decided about a pod goes with its \
                 directory",
                data.path().display()
            )
        })?;
        let text = match self.format {
            Format::Text => of_pod(pod, &kept)?,
            format => {
                let decisions =
                    serde_json::from_slice(&kept).map_err(|error| broken(pod, error))?;
                let answer = OfPod { pod: pod.to_string(), decisions };
                output::json(&answer, format == Format::JsonPretty)?
            }
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }
}

/// The pod that is meant, if it is written as UUIDs of pods are.
fn pod(what: &OsString) -> Option<Uuid> {
    let text = what.to_str()?;
    text.parse().ok().filter(|uuid: &Uuid| uuid.to_string() == text)
}

fn broken(pod: Uuid, error: serde_json::Error) -> String {
    format!("pod {pod}: its file {GATE} is not what was written there: {error}")
}

fn entry(verdict: &Verdict) -> Entry<'_> {
    let judgement = &verdict.judgement;
    Entry {
        id: images::key(&verdict.id),
        name: verdict.name.to_string(),
        identity: &verdict.identity,
        allowed: judgement.is_allowed(),
        rule: &judgement.rule,
        signers: verdict.signers(),
        keys: &judgement.keys,
        reasons: verdict.refusal().unwrap_or_default(),
        checks: &judgement.checks,
    }
}

/// A pod's decisions for people.
fn of_pod(pod: Uuid, kept: &[u8]) -> Result<String, Box<dyn Error>> {
    let decisions: Vec<Kept> = serde_json::from_slice(kept).map_err(|error| broken(pod, error))?;
    let mut lines = Lines::default();
    lines.add("pod", pod);
    for kept in decisions {
        lines.add("app", kept.app);
        lines.add("image", format_args!("{} ({})", kept.identity, kept.image));
        lines.add("answer", format_args!("{} by {} at {}", kept.answer, kept.rule, kept.time));
        for key in kept.keys {
            lines.add("signed by", key);
        }
        for KeptCheck { rule, demand, answer, found } in kept.checks {
            lines.add("demand", format_args!("{demand}, by {rule}"));
            lines.add("", format_args!("{answer}: {found}"));
        }
        match kept.measured {
            None => lines.add("measured", "no"),
            Some(KeptMeasurement { record, verified, by }) => {
                let verified = if verified { "verified" } else { "not verified" };
                lines.add("measured", format_args!("record {record}, {verified} ({by})"));
            }
        }
        lines.add("policy", kept.policy_digest);
    }
    Ok(lines.0)
}

/// Names and values in two columns.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        let value = Text::message(value.to_string());
        // Writing to a string can't fail.
        let _ = writeln!(self.0, "{name:<10}{value}");
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let judgement = &verdict.judgement;
        let id = images::short(&verdict.id, 12);
        self.add("image", format_args!("{} ({id})", verdict.identity));
        for signer in verdict.signers() {
            self.add("signed by", signer);
        }
        if judgement.checks.is_empty() {
            self.add("demands", "no rule of gate.d is about it");
        }
        for Check { rule, demand, answer, found } in &judgement.checks {
            self.add("demand", format_args!("{demand}, by {rule}"));
            let answer = match answer {
                Answer::Met => "met",
                Answer::Unmet => "not met",
                Answer::Open => "open",
            };
            self.add("", format_args!("{answer}: {found}"));
        }
        let open = judgement.checks.iter().filter(|check| check.answer == Answer::Open).count();
        match (verdict.refusal(), open) {
            (Some(_), _) => {
                self.add("answer", "refused");
                for reason in verdict.refusal().unwrap_or_default() {
                    self.add("because", Reason::list(std::slice::from_ref(reason)));
                }
            }
            (None, 0) => self.add("answer", format_args!("allowed by {}", judgement.rule)),
            (None, open) => {
                let rule = &judgement.rule;
                let what = if open == 1 { "one demand is open" } else { "demands are open" };
                self.add("answer", format_args!("allowed by {rule} as an image; {what}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "7ea2d2f2-0d3c-4c1c-9d0c-2b6ffcd7b6a0";

    #[test]
    fn a_pod_is_what_is_written_as_its_uuid() {
        assert_eq!(pod(&POD.into()), Some(POD.parse().unwrap()));
        for image in [
            "example.com/app",
            "sha256-7ea2d2f20d3c4c1c9d0c2b6ffcd7b6a0",
            "7ea2d2f20d3c4c1c9d0c2b6ffcd7b6a0",
            "7EA2D2F2-0D3C-4C1C-9D0C-2B6FFCD7B6A0",
            "{7ea2d2f2-0d3c-4c1c-9d0c-2b6ffcd7b6a0}",
            "7ea2d2f2",
        ] {
            assert_eq!(pod(&image.into()), None, "{image}");
        }
    }

    #[test]
    fn a_pods_decisions_are_told_from_what_is_on_disk() {
        let pod = POD.parse().unwrap();
        // The first as it was written before there were rules about pods.
        let kept = r#"[
            {"app": "a", "image": "sha256:00", "identity": "docker:x.y/a:1", "rule": "the policy",
             "answer": "allowed", "keys": ["k1"], "policyDigest": "sha256:11", "time": "T"},
            {"app": "b", "image": "sha256:01", "identity": "docker:x.y/b:1", "rule": "the policy",
             "answer": "allowed", "keys": [], "policyDigest": "sha256:11", "time": "T",
             "checks": [{"rule": "rule 1 in f", "demand": "verity", "answer": "met", "found": "it\u001b"}],
             "measured": {"pod": "x", "record": 7, "verified": true, "by": "local"}}]"#;
        let text = of_pod(pod, kept.as_bytes()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for line in [
            "pod       7ea2d2f2-0d3c-4c1c-9d0c-2b6ffcd7b6a0",
            "image     docker:x.y/a:1 (sha256:00)",
            "answer    allowed by the policy at T",
            "signed by k1",
            "measured  no",
            "demand    verity, by rule 1 in f",
            "          met: it\\u{1b}",
            "measured  record 7, verified (local)",
        ] {
            assert!(lines.contains(&line), "{line}: {text}");
        }
        for broken in ["", "{}", "[{}]"] {
            let error = of_pod(pod, broken.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("gate.json"), "{error}");
        }
    }
}
