use crate::cli::{Global, Outcome};
use crate::images::Images;
use crate::message::Messages;
use clap::Args;
use sandbox_image::registry::RegistryReference;
use std::ffi::OsString;
use std::io::Write as _;

/// Send an image of the local store to a registry.
///
/// What is sent is what was fetched: the same layers, the same manifest, and so the same digest.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox image push oci:/srv/layout:app registry.example.com/team/app:1.2

Only images of OCI and Docker can be sent. Passwords and tokens are looked for as by 'sandbox
fetch'. Prints the digest by which the registry has the image.")]
pub struct Push {
    /// The image.
    #[arg(value_name = "IMAGE")]
    image: OsString,
    /// Registry, repository and tag to send it to.
    #[arg(value_name = "REFERENCE")]
    to: String,
}

impl Push {
    /// Sends the image.
    pub fn execute(&self, global: &Global) -> Outcome {
        let messages = Messages::new("push", global.debug);
        let to = self.to.strip_prefix("docker://").unwrap_or(&self.to);
        let to = RegistryReference::parse(to)?;
        let images = Images::open(global.image_settings()?, messages)?;
        let image = images.stored(&self.image)?;
        let digest = images.push(&image, &to)?;
        writeln!(std::io::stdout(), "{digest}")?;
        Ok(0)
    }
}
