use super::read;
use crate::cli::Outcome;
use crate::output::{self, Format};
use clap::Args;
use sandbox_attestation::evidence::{Evidence, MAX_EVIDENCE, Nonce};
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
  sandbox attest verify evidence.json --nonce=$nonce --policy=team.json

The nonce has to be made up by whoever verifies, once for each time: without it anybody could show
an old quote.

Exit status: 0 if no check failed; 1 if one did; 254 if the files can't be read.")]
pub struct Verify {
    /// The file that 'sandbox attest quote' wrote; '-' is standard input.
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    /// What the quote was asked for with, in hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    nonce: Nonce,
    /// What is demanded; sandbox-attest-policy(5) tells the form.
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
    pub fn execute(&self) -> Outcome {
        let policy = Policy::parse(&read(&self.policy, verify::MAX_POLICY)?)
            .map_err(|error| format!("{}: {error}", self.policy.display()))?;
        let evidence = Evidence::parse(&read(&self.evidence, MAX_EVIDENCE)?)
            .map_err(|error| format!("{}: {error}", self.evidence.display()))?;
        let verdict = verify::verify(&evidence, &self.nonce, &policy, SystemTime::now());
        let text = match self.format {
            Format::Text => format!("{verdict}\n"),
            format => output::json(&verdict, format == Format::JsonPretty)?,
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(if verdict.passed() { 0 } else { REFUSED })
    }
}
