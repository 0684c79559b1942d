use crate::cli::{Global, Outcome};
use crate::images::{Images, OutputDirectory};
use crate::message::Messages;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// What is written where: the arguments of `image extract` and `image render`.
#[derive(Debug, Args)]
pub struct Unpack {
    /// The image.
    #[arg(value_name = "IMAGE")]
    image: OsString,
    /// The directory.
    #[arg(value_name = "OUTPUT_DIR")]
    directory: PathBuf,
    /// Write the root file system alone.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    rootfs_only: bool,
    /// Replace the directory if it is there.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          hide_possible_values = true, action = clap::ArgAction::Set,
          value_parser = crate::options::boolean)]
    overwrite: bool,
}

impl Unpack {
    /// Writes the directory, with or without the files of images that this one depends on.
    pub fn write(&self, global: &Global, messages: Messages, alone: bool) -> Outcome {
        let images = Images::open(global.image_settings()?, messages)?;
        let image = images.stored(&self.image)?;
        let output = OutputDirectory::prepare(&self.directory, self.overwrite)?;
        images.unpack(&image, output, alone, self.rootfs_only)?;
        Ok(0)
    }
}
