use crate::cli::{FAILURE, Global, Outcome};
use crate::images::{self, Images};
use crate::message::Messages;
use clap::Args;
use std::ffi::OsString;
use std::io::Write as _;

/// Remove images from the local store.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sandbox image rm sha512-a03f6bad952b example.com/app:1.0

An image that a pod uses is not removed.

Exit status: 0 if all images were removed; 254 otherwise, after the others were.")]
pub struct Rm {
    /// The images.
    #[arg(value_name = "IMAGE")]
    images: Vec<OsString>,
}

impl Rm {
    /// Removes one image after the other.
    pub fn execute(&self, global: &Global) -> Outcome {
        if self.images.is_empty() {
            return Err("must provide at least one image ID".into());
        }
        let messages = Messages::new("rm", global.debug);
        let images = Images::open(global.image_settings()?, messages)?;
        let mut removed = 0;
        let mut failed = 0;
        for name in &self.images {
            match images.remove(name) {
                Ok(id) => {
                    let id = images::key(&id);
                    writeln!(std::io::stdout(), "successfully removed aci for image: {id:?}")?;
                    removed += 1;
                }
                Err(error) => {
                    messages.error(&error);
                    failed += 1;
                }
            }
        }
        if removed > 0 {
            messages.say(format_args!("{removed} image(s) successfully removed"));
        }
        if failed == 0 {
            return Ok(0);
        }
        // Of a single image everything was said.
        if self.images.len() > 1 {
            messages.say(format_args!("{failed} image(s) cannot be removed"));
        }
        Ok(FAILURE)
    }
}
