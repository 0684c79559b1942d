use super::unpack::Unpack;
use crate::cli::{Global, Outcome};
use crate::message::Messages;
use clap::Args;

/// Write the files of an image of the local store, as an app sees them, to a directory.
///
/// Images that it depends on are part of that; 'image extract' leaves them out.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox image render --rootfs-only docker://debian:13 /srv/debian

The directory gets the file manifest and the directory rootfs, or with --rootfs-only the content of
the latter alone. It appears whole or not at all.")]
pub struct Render {
    #[command(flatten)]
    unpack: Unpack,
}

impl Render {
    /// Writes the directory.
    pub fn execute(&self, global: &Global) -> Outcome {
        self.unpack.write(global, Messages::new("render", global.debug), false)
    }
}
