//! `sandbox policy`: what the policy of this host says about images.

use super::pull::Pull;
use super::{Global, Outcome};
use crate::images::{self, Gate, Images, Verdict, Wanted};
use crate::message::Messages;
use crate::output::{self, Format};
use clap::{Args, Subcommand};
use sandbox_image::{PullPolicy, Reference, Text};
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// Ask the policy that decides which images may run.
#[derive(Debug, Args)]
pub struct Policy {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Check(Check),
}

impl Policy {
    /// The name that messages begin with.
    pub fn name(&self) -> &'static str {
        match self.verb {
            Verb::Check(_) => "check",
        }
    }

    /// Does what the verb says.
    pub fn execute(&self, global: &Global) -> Outcome {
        match &self.verb {
            Verb::Check(check) => check.execute(global),
        }
    }
}

/// The exit status for an image that may not run.
const REFUSED: u8 = 1;

/// Say whether an image may run, which rule decides, and why.
///
/// The answer is the one that a launch would get now. An image that is not in the local store is
/// fetched to be asked about, and not put there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox policy check docker://registry.example.com/team/app:1.2
  sandbox policy check --policy=/tmp/new-policy.json sha256-b5b2b2c50720
  sandbox policy check --format=json example.com/app

What decides, in this order:
  /etc/sandbox/gate.d/*.json   the host's own rules; nothing overrides them. What they ask of a pod
                               besides its images, 'sandbox gate explain' shows
  /etc/sandbox/policy.json     images of Docker and OCI, and ACIs in its transport \"aci\" (--policy)
  trustedkeys/ in --system-config and --local-config
                               other ACIs: the keys of 'sandbox trust'
  --insecure-options=image     images that the last two refuse

Exit status: 0 if the image may run; 1 if not; 254 if that can't be found out.")]
pub struct Check {
    #[arg(value_name = "IMAGE", help = images::REFERENCE_HELP)]
    image: OsString,
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

/// What is printed as JSON.
#[derive(Serialize)]
struct Answer {
    allowed: bool,
    policy_digest: String,
    images: Vec<Entry>,
}

/// One of the images that make up what would run.
#[derive(Serialize)]
struct Entry {
    id: String,
    name: String,
    identity: String,
    allowed: bool,
    rule: String,
    signers: Vec<String>,
    reasons: Vec<String>,
    steps: Vec<String>,
}

impl Check {
    /// Asks, and prints the answer.
    pub fn execute(&self, global: &Global) -> Outcome {
        let messages = Messages::new("check", global.debug);
        let policy = self.pull.policy(PullPolicy::New, messages)?;
        let limits = self.pull.limits()?;
        let images = Images::open(global.image_settings()?, messages)?;
        let reference = Reference::parse(&self.image)?;
        let signature = self.signature.as_deref();
        let gate = images.gate()?;
        let wanted = Wanted { reference: &reference, policy, signature, limits: &limits };
        let verdicts = images.ask(&wanted, &gate)?;
        let allowed = verdicts.iter().all(|verdict| verdict.refusal().is_none());
        let text = match self.format {
            Format::Text => text(&gate, &verdicts),
            format => {
                output::json(&answer(&gate, allowed, &verdicts), format == Format::JsonPretty)?
            }
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(if allowed { 0 } else { REFUSED })
    }
}

fn answer(gate: &Gate, allowed: bool, verdicts: &[Verdict]) -> Answer {
    let entry = |verdict: &Verdict| Entry {
        id: images::key(&verdict.id),
        name: verdict.name.to_string(),
        identity: verdict.identity.clone(),
        allowed: verdict.refusal().is_none(),
        rule: verdict.judgement.rule.clone(),
        signers: verdict.signers().to_vec(),
        reasons: verdict.reasons(),
        steps: verdict.judgement.steps.clone(),
    };
    Answer {
        allowed,
        policy_digest: gate.digest().to_string(),
        images: verdicts.iter().map(entry).collect(),
    }
}

fn text(gate: &Gate, verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let value = Text::message(value.to_string());
        let _ = writeln!(text, "{name:<10}{value}");
    };
    for verdict in verdicts {
        line("image", &format_args!("{} ({})", verdict.identity, images::short(&verdict.id, 12)));
        for (number, step) in verdict.judgement.steps.iter().enumerate() {
            line(if number == 0 { "steps" } else { "" }, step);
        }
        line("rule", &verdict.judgement.rule);
        for signer in verdict.signers() {
            line("signed by", signer);
        }
        match verdict.refusal() {
            None => line("answer", &"allowed"),
            Some(_) => {
                line("answer", &"refused");
                for reason in verdict.reasons() {
                    line("because", &reason);
                }
            }
        }
    }
    line("policy", &gate.digest());
    text
}
