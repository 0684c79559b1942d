use super::read;
use crate::cli::{Global, Outcome};
use crate::message::Messages;
use crate::output::{self, Format};
use clap::Args;
use sandbox_attestation::evidence::{Evidence, MAX_EVIDENCE, Nonce};
use sandbox_attestation::record::Uuid;
use sandbox_attestation::verify::{self, Policy};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

/// Check evidence of what runs in a pod.
///
/// This runs on any machine, without a TPM. Every check is shown with what came out of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nonce=$(openssl rand -hex 32)
  ssh host sandbox attest quote $POD --nonce=$nonce >evidence.json
  sandbox attest verify evidence.json --nonce=$nonce --pod=$POD --policy=team.json

The nonce has to be made up by whoever verifies, once for each time: without it anybody could show
an old quote. --pod names the pod that was meant: evidence of another one is refused.

A policy is JSON. This one believes one key, as 'sandbox attest init' shows its name, and asks for a
quote of one register, that of the log:
  {\"version\": 1,
   \"attestationKeys\": {\"pinned\": [\"000b7d14…\"]},
   \"pcrs\": {\"select\": {\"sha256\": [15]}, \"log\": 15}}
More can be demanded: kernels, guestInits, monitors, filters, images, content, signature, hostPolicies, label,
volumes, maxPodAge; registers of the firmware by pcrs.values. A quote has to be of the registers that
are selected, exactly: 'sandbox attest quote --pcrs' asks for them.

Exit status: 0 if no check failed; 1 if one did; 254 if the files can't be read.")]
pub struct Verify {
    /// The file that 'sandbox attest quote' wrote; '-' is standard input.
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// What the quote was asked for with, in hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    nonce: Nonce,
    /// The pod that it has to be about.
    #[arg(long, value_name = "POD")]
    pod: Option<Uuid>,
    /// What is demanded of the evidence.
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
}

/// The exit status for evidence that proves nothing.
const REFUSED: u8 = 1;

impl Verify {
    /// Verifies, and prints the verdict.
    pub fn execute(&self, global: &Global) -> Outcome {
        let policy = Policy::parse(&read(&self.policy, verify::MAX_POLICY)?)
            .map_err(|error| format!("{}: {error}", self.policy.display()))?;
        let evidence = Evidence::parse(&read(&self.evidence, MAX_EVIDENCE)?)
            .map_err(|error| format!("{}: {error}", self.evidence.display()))?;
        if let Some(pod) = &self.pod
            && evidence.pod != pod.as_str()
        {
            let found = &evidence.pod;
            Messages::new("verify", global.debug)
                .say(format_args!("the evidence is about pod {found}, and not about {pod}"));
            return Ok(REFUSED);
        }
        let verdict = verify::verify(&evidence, &self.nonce, &policy, SystemTime::now());
        let text = match self.format {
            Format::Text => format!("{verdict}\n"),
            format => output::json(&verdict, format == Format::JsonPretty)?,
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(if verdict.passed() { 0 } else { REFUSED })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        _verify: Verify,
    }

    #[test]
    fn the_policy_in_the_help_is_one() {
        let help = Verify::augment_args(Command::command()).get_after_help().unwrap().to_string();
        let start = help.find("{\"version\"").unwrap();
        let end = help[start..].find("}}").unwrap() + start + 2;
        let name = format!("000b{}", "7d".repeat(32));
        let policy = help[start..end].replace("000b7d14…", &name);
        Policy::parse(policy.as_bytes()).unwrap();
    }
}
