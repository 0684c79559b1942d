use super::unpack::Unpack;
use crate::cli::{Global, Outcome};
use crate::message::Messages;
use clap::Args;

/// Write the files of an image of the local store to a directory.
///
/// Images that it depends on are left out; 'image render' has them.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox image extract --rootfs-only example.com/app /srv/app

The directory gets the file manifest and the directory rootfs, or with --rootfs-only the content of
the latter alone. It appears whole or not at all.")]
pub struct Extract {
    #[command(flatten)]
    unpack: Unpack,
}

impl Extract {
    /// Writes the directory.
    pub fn execute(&self, global: &Global) -> Outcome {
        self.unpack.write(global, Messages::new("extract", global.debug), true)
    }
}
