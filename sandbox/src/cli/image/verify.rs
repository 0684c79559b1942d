use crate::cli::{FAILURE, Global, Outcome};
use crate::images::{self, Images};
use crate::message::Messages;
use clap::Args;
use sandbox_image::Text;
use std::ffi::OsString;
use std::io::Write as _;

/// Check that nothing of an image in the local store has changed.
///
/// Every file that was fetched is held against its digest, and every block of the root file system
/// against the hash tree whose root was computed when the image was put into the store. A pod does
/// the latter by itself for every block that it reads.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox image verify example.com/app:1.0

Exit status: 0 if all images are as they were; 254 otherwise.")]
pub struct Verify {
    /// The images.
    #[arg(value_name = "IMAGE")]
    images: Vec<OsString>,
}

impl Verify {
    /// Checks one image after the other.
    pub fn execute(&self, global: &Global) -> Outcome {
        if self.images.is_empty() {
            return Err("must provide at least one image ID".into());
        }
        let messages = Messages::new("verify", global.debug);
        let images = Images::open(global.image_settings()?, messages)?;
        let mut status = 0;
        for name in &self.images {
            let image = images.stored(name)?;
            match images.verify(&image) {
                Ok(()) => writeln!(
                    std::io::stdout(),
                    "successfully verified checksum for image: \"{}\" ({:?})",
                    Text::of_os(name),
                    images::key(image.id())
                )?,
                Err(error) => {
                    messages.error(&error);
                    status = FAILURE;
                }
            }
        }
        Ok(status)
    }
}
