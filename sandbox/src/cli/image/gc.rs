use crate::cli::{Global, Outcome};
use crate::images::{self, Images};
use crate::message::Messages;
use crate::options::Duration;
use clap::Args;
use std::io::Write as _;

/// Remove images that have not been used for a while.
///
/// This is meant to be run periodically. An image that a pod uses stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  Everything that no pod uses now:
    sandbox image gc --grace-period=0s")]
pub struct Gc {
    /// For how long an image must not have been used.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    grace_period: Duration,
}

impl Gc {
    /// Removes images, and what broken-off downloads have left.
    pub fn execute(&self, global: &Global) -> Outcome {
        let messages = Messages::new("gc", global.debug);
        let images = Images::open(global.image_settings()?, messages)?;
        let removed = images.collect_garbage(self.grace_period.into())?;
        for id in &removed {
            let id = images::key(id);
            writeln!(std::io::stdout(), "successfully removed aci for image: {id:?}")?;
        }
        if !removed.is_empty() {
            messages.say(format_args!("{} image(s) successfully removed", removed.len()));
        }
        Ok(0)
    }
}
