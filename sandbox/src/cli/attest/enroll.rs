use super::{attestor, read, settings, write};
use crate::cli::Outcome;
use crate::measure::ENROLMENT;
use clap::{Args, Subcommand};
use sandbox_attestation::enrol::{
    self, Answer, Candidate, Challenge, Document, Expected, MAX_DOCUMENT, Makers, OsRng,
};
use sandbox_attestation::evidence::Enrolment;
use sandbox_attestation::session::InitOptions;
use sandbox_attestation::verify::MAX_POLICY;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Let somebody whom verifiers trust confirm that this host's key is in its TPM.
#[derive(Debug, Args)]
#[command(after_help = "\
On the host, then on the enroller's machine, and to and fro; each document is a file:

  host$     sandbox attest enroll candidate >candidate.json
  enroller$ sandbox attest enroll challenge candidate.json --expected=expected.json >challenge.json
  host$     sandbox attest enroll answer challenge.json >answer.json
  enroller$ sandbox attest enroll sign expected.json answer.json --key=enroller.pem >enrolment.json
  host$     sandbox attest enroll install enrolment.json

A verifier that has the enroller's public key in its policy then believes this host's evidence.")]
pub struct Enroll {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Candidate(CandidateOf),
    Challenge(ChallengeOf),
    Answer(AnswerTo),
    Sign(Sign),
    Install(Install),
}

/// On the host: write its public keys. They are made if there are none.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox attest enroll candidate >candidate.json")]
struct CandidateOf {}

/// On the enroller's machine: check a host's keys, and challenge its TPM.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox attest enroll challenge candidate.json --expected=expected.json >challenge.json")]
struct ChallengeOf {
    /// What the host wrote.
    #[arg(value_name = "CANDIDATE")]
    candidate: PathBuf,
    /// A new file for what stays here until the answer comes. Whoever has it can answer without the
    /// TPM.
    #[arg(long, value_name = "FILE")]
    expected: PathBuf,
    /// A file with certificates (PEM) of makers of TPMs, one of which has to have made this one.
    /// Without any, the enroller has to know otherwise that it is a TPM.
    #[arg(long, value_name = "FILE")]
    roots: Vec<PathBuf>,
}

/// On the host: answer the challenge, which only its TPM can.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox attest enroll answer challenge.json >answer.json")]
struct AnswerTo {
    /// What the enroller wrote.
    #[arg(value_name = "CHALLENGE")]
    challenge: PathBuf,
}

/// On the enroller's machine: sign the enrolment, if the answer is right.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox attest enroll sign expected.json answer.json --key=enroller.pem >enrolment.json")]
struct Sign {
    /// What stayed here.
    #[arg(value_name = "EXPECTED")]
    expected: PathBuf,
    /// What the host answered.
    #[arg(value_name = "ANSWER")]
    answer: PathBuf,
    /// The enroller's private key: P-256, PEM (PKCS #8), as 'openssl genpkey -algorithm EC -pkeyopt
    /// ec_paramgen_curve:P-256' makes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// On the host: keep the enrolment, which goes with all evidence from now on.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox attest enroll install enrolment.json")]
struct Install {
    /// What the enroller signed.
    #[arg(value_name = "ENROLMENT")]
    enrolment: PathBuf,
}

impl Enroll {
    /// The name that messages begin with.
    pub fn name(&self) -> &'static str {
        match self.verb {
            Verb::Candidate(_) => "candidate",
            Verb::Challenge(_) => "challenge",
            Verb::Answer(_) => "answer",
            Verb::Sign(_) => "sign",
            Verb::Install(_) => "install",
        }
    }

    /// Does what the verb says.
    pub fn execute(&self) -> Outcome {
        match &self.verb {
            Verb::Candidate(_) => candidate(),
            Verb::Challenge(challenge) => challenge.execute(),
            Verb::Answer(answer) => answer.execute(),
            Verb::Sign(sign) => sign.execute(),
            Verb::Install(install) => install.execute(),
        }?;
        Ok(0)
    }
}

type Step = Result<(), Box<dyn Error>>;

fn candidate() -> Step {
    let settings = settings()?;
    let identity = match attestor(&settings)?.status()?.identity {
        Some(identity) => identity,
        None => attestor(&settings)?.init(InitOptions::default())?,
    };
    write(None, &Candidate { version: 1, identity }.to_json()?)
}

impl ChallengeOf {
    fn execute(&self) -> Step {
        let candidate: Candidate = document(&self.candidate)?;
        let roots = self.roots.iter().map(|path| text(path, MAX_POLICY));
        let makers = Makers { roots: &roots.collect::<Result<Vec<_>, _>>()?, issuers: &[] };
        let now = SystemTime::now();
        let (challenge, expected) = enrol::challenge(&candidate.identity, makers, now, &mut OsRng)?;
        write(Some(&self.expected), &expected.to_json()?)?;
        write(None, &challenge.to_json()?)
    }
}

impl AnswerTo {
    fn execute(&self) -> Step {
        let Challenge { credential, .. } = document(&self.challenge)?;
        let secret = attestor(&settings()?)?.activate(credential)?;
        write(None, &Answer { version: 1, secret, quote: None }.to_json()?)
    }
}

impl Sign {
    fn execute(&self) -> Step {
        let expected: Expected = document(&self.expected)?;
        let answer: Answer = document(&self.answer)?;
        let key = text(&self.key, MAX_DOCUMENT)?;
        let enrolment = expected.sign(&answer, &key, SystemTime::now())?;
        write(None, &serde_json::to_vec_pretty(&enrolment)?)
    }
}

impl Install {
    fn execute(&self) -> Step {
        crate::cli::require_root()?;
        let settings = settings()?;
        let content = read(&self.enrolment, MAX_DOCUMENT)?;
        let enrolment: Enrolment = serde_json::from_slice(&content)
            .map_err(|error| format!("{}: {error}", self.enrolment.display()))?;
        let status = attestor(&settings)?.status()?;
        let own = status.identity.ok_or("this host has no key; 'sandbox attest init' makes one")?;
        if own.ak_name.0 != enrolment.attestation_key.as_bytes() {
            return Err("the enrolment is of another key than this host's".into());
        }
        let place = settings.directory.join(ENROLMENT);
        let unfinished = place.with_extension("json.new");
        let keep = || {
            fs::write(&unfinished, &content)?;
            File::open(&unfinished)?.sync_all()?;
            fs::rename(&unfinished, &place)?;
            File::open(&settings.directory)?.sync_all()
        };
        keep().map_err(|error| format!("cannot keep {}: {error}", place.display()))?;
        writeln!(std::io::stdout(), "{}", place.display())?;
        Ok(())
    }
}

fn document<T: Document>(path: &Path) -> Result<T, Box<dyn Error>> {
    let read = T::parse(&read(path, MAX_DOCUMENT)?);
    Ok(read.map_err(|error| format!("{}: {error}", path.display()))?)
}

fn text(path: &Path, most: usize) -> Result<String, Box<dyn Error>> {
    let text = String::from_utf8(read(path, most)?);
    Ok(text.map_err(|_| format!("{}: not a text", path.display()))?)
}
