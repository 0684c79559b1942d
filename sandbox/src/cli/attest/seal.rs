use super::{attestor, read, settings, write};
use crate::cli::Outcome;
use clap::Args;
use sandbox_attestation::Bank;
use sandbox_attestation::sealed::SealedSecret;
use sandbox_attestation::secret::MAX;
use sandbox_attestation::verify::MAX_POLICY;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};

/// Seal a secret for this host, as it has booted now.
///
/// Reads the secret from standard input. This host's TPM alone can open what is written, and only
/// while the given registers hold what they hold now: 'sandbox run --secret NAME=sealed:FILE' has it
/// opened for a pod. With a policy, the pod's evidence has to pass that, too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox attest seal --out db.sealed <password.txt
  sandbox attest seal --pcrs sha256:0,2,4,7,11 --policy worker.json --out db.sealed <password.txt

A firmware's or boot loader's update changes registers: seal the secret anew after it. Who is root on
this host, booted as it should be, can have the secret; where that is too many, let a service give it
out ('sandbox attest serve').")]
pub struct Seal {
    /// Registers that have to hold what they hold now; sha256:0,2,4,7 if they are not given: firmware,
    /// its extensions, boot loader, Secure Boot.
    #[arg(long, value_name = "BANK:N,N…", value_parser = super::quote::selection)]
    pcrs: Vec<(Bank, BTreeSet<u32>)>,
    /// A verifier's policy, as 'sandbox attest verify' takes it. It becomes part of the file.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A new file to write to; if it is not given, standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Seal {
    /// Has it made, and writes it.
    pub fn execute(&self) -> Outcome {
        let policy = self.policy.as_deref().map(|path| read(path, MAX_POLICY)).transpose()?;
        let policy = policy.map(String::from_utf8).transpose()?;
        let mut registers: BTreeMap<Bank, BTreeSet<u32>> = BTreeMap::new();
        for (bank, numbers) in &self.pcrs {
            registers.entry(*bank).or_default().extend(numbers);
        }
        if registers.is_empty() {
            registers.insert(Bank::Sha256, [0, 2, 4, 7].into());
        }
        let attestor = attestor(&settings()?)?;
        let secret = zeroize::Zeroizing::new(read(Path::new("-"), MAX)?);
        let sealed = SealedSecret::make::<Box<dyn Error>>(&secret, policy, |key| {
            Ok(attestor.seal(key.to_vec().into(), registers)?)
        })?;
        sealed.check()?;
        write(self.out.as_ref(), &[serde_json::to_vec(&sealed)?, b"\n".to_vec()].concat())?;
        Ok(0)
    }
}
