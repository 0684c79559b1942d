use super::{Global, Outcome};
use crate::installation::Installation;
use crate::measure::Launch;
use crate::message::Messages;
use crate::pod::{DataDir, PodDir};
use clap::Args;
use sandbox_attestation::record::{End, Reason};
use sandbox_image::Store;
use std::error::Error;
use std::io::Write as _;

/// Remove what dead pods and broken-off downloads have left behind.
///
/// A pod removes its own files when it ends. What is left after a crash, or after a kill that
/// could not be caught, is recognized by its lock, which nobody holds any more. The
/// end of a pod that was measured is written into the TPM before it goes.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox gc --dir=/srv/rkt

Images that nobody uses any more are removed by 'sandbox image gc'.

Exit status: 0, or 254 if something could not be removed.")]
pub struct Gc {}

impl Gc {
    /// Removes dead pods, then staging folders of the image store.
    pub fn execute(&self, global: &Global) -> Outcome {
        super::require_root()?;
        let data = DataDir::open(&global.data_dir()?)?.of_host();
        let mut removed = Vec::new();
        let attestor = Installation::find()?.attestor;
        let bury = |pod: &PodDir| -> Result<(), Box<dyn Error>> {
            match Launch::of(&pod.path(), &attestor)? {
                Some(launch) => Ok(launch.end(End::Reason(Reason::Crash))?),
                None => Ok(()),
            }
        };
        let collected = data.collect_garbage(bury, |uuid| removed.push(uuid));
        for uuid in removed {
            writeln!(std::io::stdout(), "Garbage collecting pod \"{uuid}\"")?;
        }
        collected?;
        data.collect_slots()?;
        let staging = Store::open(data.path())?.gc(None)?.staging;
        Messages::new("gc", global.debug)
            .debug(format_args!("{staging} unfinished image(s) removed"));
        Ok(0)
    }
}
