use super::{attestor, settings, write};
use crate::cli::{Global, Outcome};
use crate::measure;
use crate::message::Messages;
use clap::Args;
use sandbox_attestation::Bank;
use sandbox_attestation::evidence::Nonce;
use sandbox_attestation::record::Uuid;
use sandbox_attestation::session::{About, Ask};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::SystemTime;

/// Write evidence of what runs in a pod.
///
/// The TPM signs what was written into it, together with the nonce. The pod's own records are in
/// the evidence in full, those of others as digests.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox attest quote 6f0e9b1c-7d52-4bb4-9c0e-2f4bd3a6f1f0 --nonce=$NONCE --out=evidence.json
  sandbox attest quote $POD --nonce=$NONCE --pcrs=sha256:0,1,2,3,4,5,6,7,15 | ssh verifier …

'sandbox attest verify' checks it.")]
pub struct Quote {
    /// UUID of the pod.
    #[arg(value_name = "POD")]
    pod: Uuid,
    /// What the verifier made up, 16 to 64 bytes in hexadecimal digits.
    #[arg(long, value_name = "HEX")]
    nonce: Nonce,
    /// Registers to quote; if they are not given 0 to 9, 11 to 14 and that of the log.
    #[arg(long, value_name = "BANK:N,N…", value_parser = selection)]
    pcrs: Vec<(Bank, BTreeSet<u32>)>,
    /// A new file to write to; if it is not given, standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Quote {
    /// Has it made, and writes it.
    pub fn execute(&self, global: &Global) -> Outcome {
        let settings = settings()?;
        let enrolment = measure::enrolment(&settings.directory)?;
        let now = SystemTime::now();
        let about = About::now(self.pod.clone(), self.nonce.clone(), None, enrolment, now);
        let mut registers: BTreeMap<Bank, BTreeSet<u32>> = BTreeMap::new();
        for (bank, numbers) in &self.pcrs {
            registers.entry(*bank).or_default().extend(numbers);
        }
        let quoted = attestor(&settings)?.quote(Ask {
            pod: Some(self.pod.clone()),
            qualifying_data: about.qualifying_data(),
            selection: registers,
        })?;
        let messages = Messages::new("quote", global.debug);
        for warning in &quoted.warnings {
            messages.say(warning);
        }
        let evidence = quoted.into_evidence(about)?;
        write(self.out.as_ref(), &[evidence.to_json()?, b"\n".to_vec()].concat())?;
        Ok(0)
    }
}

pub(super) fn selection(text: &str) -> Result<(Bank, BTreeSet<u32>), String> {
    let form = || "must be of the form sha256:0,7,15".to_owned();
    let (bank, numbers) = text.split_once(':').ok_or_else(form)?;
    let numbers = numbers.split(',').map(|number| match number.parse::<u32>() {
        Ok(number @ 0..24) => Ok(number),
        _ => Err(form()),
    });
    let known = Bank::ALL.into_iter().find(|known| known.to_string() == bank);
    Ok((known.ok_or_else(form)?, numbers.collect::<Result<_, _>>()?))
}
