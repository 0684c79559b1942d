use crate::cli::pull::Pull;
use crate::cli::{Global, Outcome};
use crate::images::{self, Images, Wanted};
use crate::message::Messages;
use crate::output::{self, Format};
use clap::Args;
use sandbox_image::{PullPolicy, Reference};
use serde_json::json;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

/// Print the hash that stands for all files of an image.
///
/// It is the root hash of the dm-verity tree over the root file system that is made of the image.
/// The same image has the same hash on every machine, and a pod reads nothing that does not fit it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sandbox image verity docker://debian:13
  sandbox image verity --format=json sha256-b5b2b2c50720

An image that is not in the local store is fetched, as 'sandbox fetch' does it. The tree is made of
SHA-256 hashes over blocks of 4096 bytes, without salt; veritysetup(8) computes the same one.")]
pub struct Verity {
    #[arg(value_name = "IMAGE", help = images::REFERENCE_HELP)]
    image: OsString,
    /// Hold the image, an ACI, against the detached signature in this file, in place of the one
    /// that lies beside it. It is fetched for that even if the store has it.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, default_value = "",
          hide_default_value = true, help = Format::HELP)]
    format: Format,
    #[command(flatten)]
    pull: Pull,
}

impl Verity {
    /// Finds or fetches the image and prints its root hash.
    pub fn execute(&self, global: &Global) -> Outcome {
        let messages = Messages::new("verity", global.debug);
        let policy = self.pull.policy(PullPolicy::New, messages)?;
        let limits = self.pull.limits()?;
        let images = Images::open(global.image_settings()?, messages)?;
        let reference = Reference::parse(&self.image)?;
        let signature = self.signature.as_deref();
        let image =
            images.obtain(&Wanted { reference: &reference, policy, signature, limits: &limits })?;
        let verity = images.rootfs(&image)?.verity;
        let text = match self.format {
            Format::Text => format!("{}\n", verity.root_hash_hex()),
            format => output::json(
                &json!({
                    "id": images::key(image.id()),
                    "root_hash": verity.root_hash_hex(),
                    "hash_algorithm": "sha256",
                    "block_size": sandbox_image::verity::BLOCK,
                    "data_blocks": verity.data_blocks,
                    "hash_start": verity.hash_start,
                }),
                format == Format::JsonPretty,
            )?,
        };
        write!(std::io::stdout(), "{text}")?;
        Ok(0)
    }
}
