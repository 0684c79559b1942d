use crate::cli::{Global, Outcome};
use crate::images::Images;
use crate::message::Messages;
use crate::output;
use clap::{ArgAction, Args};
use std::ffi::OsString;
use std::io::Write as _;

/// Print the manifest of an image.
///
/// An image of Docker or OCI is shown as the App Container Image that docker2aci, and so rkt, would
/// have made of it.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sandbox image cat-manifest --pretty-print=false example.com/app"
)]
pub struct CatManifest {
    /// The image.
    #[arg(value_name = "IMAGE")]
    image: OsString,
    /// Indent the output.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "true", default_missing_value = "true", hide_possible_values = true,
          action = ArgAction::Set, value_parser = crate::options::boolean)]
    pretty_print: bool,
}

impl CatManifest {
    /// Prints the manifest.
    pub fn execute(&self, global: &Global) -> Outcome {
        let messages = Messages::new("cat-manifest", global.debug);
        let images = Images::open(global.image_settings()?, messages)?;
        let image = images.stored(&self.image)?;
        let manifest = images.manifest(&image)?;
        write!(std::io::stdout(), "{}", output::json(&manifest, self.pretty_print)?)?;
        Ok(0)
    }
}
