use crate::cli::{Global, Outcome};
use crate::images::Images;
use crate::message::Messages;
use clap::Args;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Write an image of the local store to a file, as an uncompressed App Container Image.
///
/// Any image can be exported; one of Docker or OCI gets the manifest that 'image cat-manifest'
/// shows, and all its layers in one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sandbox image export docker://debian:13 debian.aci")]
pub struct Export {
    /// The image.
    #[arg(value_name = "IMAGE")]
    image: OsString,
    /// The file.
    #[arg(value_name = "OUTPUT_ACI_FILE")]
    file: PathBuf,
    /// Replace the file if it is there.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    overwrite: bool,
}

impl Export {
    /// Writes the file. If that fails, it is removed again, unless it had been there.
    pub fn execute(&self, global: &Global) -> Outcome {
        let messages = Messages::new("export", global.debug);
        let images = Images::open(global.image_settings()?, messages)?;
        let image = images.stored(&self.image)?;
        let file = self.create()?;
        let written = images.export(&image, &file);
        if written.is_err() && !self.overwrite {
            fs::remove_file(&self.file)?;
        }
        written?;
        Ok(0)
    }

    fn create(&self) -> Result<File, Box<dyn Error>> {
        let mut options = OpenOptions::new();
        options.write(true).mode(0o644);
        if self.overwrite {
            options.create(true).truncate(true);
        } else {
            options.create_new(true);
        }
        options.open(&self.file).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => "output ACI file exists (try --overwrite)".into(),
            _ => format!("unable to open output ACI file {}: {error}", self.file.display()).into(),
        })
    }
}
