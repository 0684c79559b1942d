use super::{attestor, settings, write};
use crate::cli::{Global, Outcome};
use crate::message::Messages;
use clap::{Args, ValueEnum};
use sandbox_attestation::log::{self, Limits, export};
use sandbox_attestation::record::Uuid;
use sandbox_attestation::session::{Ask, Bytes};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Write the log of this boot in a form that other programs read.
///
/// It is the log that the TPM's register holds at this moment; where the two contradict each
/// other, nothing is written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox attest export --format=tcg2 --out=log && tpm2_eventlog log
  sandbox attest export --pod=$POD | curl --data-binary @- https://verifier.example

The formats:
  cel-json  TCG Canonical Event Log in JSON, one record a line, each behind a byte 0x1e (RFC 7464):
            as the log is in its own file, and as systemd writes its log
  cel-tlv   TCG Canonical Event Log in binary
  tcg2      as firmware writes its log ('crypto agile'), every record an EV_EVENT_TAG")]
pub struct Export {
    /// How to write it.
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "cel-json")]
    format: Encoding,
    /// Records of other pods are there as digests only.
    #[arg(long, value_name = "POD")]
    pod: Option<Uuid>,
    /// A new file to write to; if it is not given, standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encoding {
    CelJson,
    CelTlv,
    Tcg2,
}

impl Export {
    /// Has it read, and writes it.
    pub fn execute(&self, global: &Global) -> Outcome {
        let quoted = attestor(&settings()?)?.quote(Ask {
            pod: self.pod.clone(),
            qualifying_data: Bytes::default(),
            selection: BTreeMap::new(),
        })?;
        let messages = Messages::new("export", global.debug);
        for warning in &quoted.warnings {
            messages.say(warning);
        }
        let parsed = log::parse(quoted.log.as_bytes(), &Limits::default())?;
        let written = match self.format {
            Encoding::CelJson => quoted.log.into_bytes(),
            Encoding::CelTlv => export::cel_tlv(&parsed.entries)?,
            Encoding::Tcg2 => export::tcg2(&parsed.entries)?,
        };
        write(self.out.as_ref(), &written)?;
        Ok(0)
    }
}
